//! What the transport and the service of one connection know of each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::request::Parts;

/// As much of a head is kept for saying what is wrong with it, in bytes.
const KEPT: usize = 64 * 1024;

/// How far a connection has come. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Requests that the service has, and whose answers have not ended.
    open: usize,
    /// Whether what is still to be written is the service's, and not a refusal of the parser.
    has_answered: bool,
    /// Whether the client may still be sending a body that nobody reads.
    is_unread: bool,
    /// Whether what is read now is no head but a body.
    reads_body: bool,
    /// The head that is being read, as it came.
    head: Vec<u8>,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes have come.
    pub(super) fn received(&self, bytes: &[u8]) {
        let mut state = self.state();
        if !state.reads_body {
            let room = KEPT.saturating_sub(state.head.len());
            state.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// A request was understood. The fragment of its target, which the parser cuts off.
    pub(super) fn began(&self, head: &Parts, has_body: bool) -> Option<String> {
        let mut state = self.state();
        let fragment = fragment(&state.head, head);
        state.open += 1;
        state.is_unread = has_body;
        state.reads_body = has_body;
        let end = if has_body { None } else { end_of_head(&state.head) };
        match end {
            // What comes after it may be the next head.
            Some(end) => drop(state.head.drain(..end)),
            None => state.head.clear(),
        }
        fragment
    }

    /// The service has an answer.
    pub(super) fn answered(&self) {
        self.state().has_answered = true;
    }

    /// An answer has ended.
    pub(super) fn ended(&self) {
        let mut state = self.state();
        state.open = state.open.saturating_sub(1);
    }

    /// The body of the request was read to its end.
    pub(super) fn read_body(&self) {
        self.state().is_unread = false;
    }

    /// All that was to be written is written.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        if state.open == 0 {
            state.has_answered = false;
            state.reads_body = false;
        }
    }

    /// Whether the service has a request whose answer has not ended.
    pub(super) fn is_busy(&self) -> bool {
        self.state().open > 0
    }

    /// Whether what is written now is a refusal of the parser: nothing else is, while the service has nothing.
    pub(super) fn is_refusing(&self) -> bool {
        let state = self.state();
        state.open == 0 && !state.has_answered
    }

    /// Whether the client may still be sending a body that nobody reads.
    pub(super) fn is_unread(&self) -> bool {
        self.state().is_unread
    }

    /// The head that is being read, as far as it came and is kept.
    pub(super) fn head(&self) -> Vec<u8> {
        self.state().head.clone()
    }
}

/// Where the head ends.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(newline) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        at += newline + 1;
        match bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// The fragment in the target of a request, if the bytes are those of its head.
fn fragment(bytes: &[u8], head: &Parts) -> Option<String> {
    let line = bytes.trim_ascii_start().split(|byte| *byte == b'\n').next()?;
    let rest = line.strip_prefix(head.method.as_str().as_bytes())?.strip_prefix(b" ")?;
    let target = rest.split(|byte| *byte == b' ').next()?;
    let at = target.iter().position(|byte| *byte == b'#')?;
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    target[..at].ends_with(path.as_bytes()).then(|| String::from_utf8_lossy(&target[at..]).into_owned())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(target: &str) -> Parts {
        Request::get(target).body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_refusal_is_what_is_written_while_the_service_has_nothing() {
        let progress = Progress::default();
        assert!(progress.is_refusing());
        progress.received(b"GET /a HTTP/1.1\r\nhost: x\r\n\r\nGET /b");
        progress.began(&head("/a"), false);
        assert!(progress.is_busy() && !progress.is_refusing());
        progress.answered();
        progress.ended();
        assert!(!progress.is_refusing(), "the answer is not written yet");
        progress.flushed();
        assert!(progress.is_refusing());
        assert_eq!(progress.head(), b"GET /b", "the next head has begun");
    }

    #[test]
    fn a_body_is_no_head() {
        let progress = Progress::default();
        progress.received(b"GET /a HTTP/1.1\r\ncontent-length: 5\r\n\r\n12");
        progress.began(&head("/a"), true);
        progress.received(b"345");
        assert!(progress.is_unread());
        progress.read_body();
        progress.answered();
        progress.ended();
        progress.flushed();
        assert!(progress.head().is_empty() && !progress.is_unread());
        progress.received(b"GET /b");
        assert_eq!(progress.head(), b"GET /b");
    }

    #[test]
    fn the_fragment_that_the_parser_cuts_off_is_found() {
        for (line, target, found) in [
            ("GET /a#/b HTTP/1.1", "/a", Some("#/b")),
            ("\r\nGET /a?q#b HTTP/1.1", "/a?q", Some("#b")),
            ("GET http://x/a#b HTTP/1.1", "http://x/a", Some("#b")),
            ("GET /a HTTP/1.1", "/a", None),
            ("GET /other#b HTTP/1.1", "/a", None),
        ] {
            let bytes = format!("{line}\r\nhost: x\r\n\r\n");
            assert_eq!(fragment(bytes.as_bytes(), &head(target)).as_deref(), found, "{line}");
        }
    }
}
