//! The state that the transport and the service of one connection share.

use std::io::BufRead;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::body::Body;
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::slots::Activity;
use super::switch::Switch;

/// How many bytes of a head are kept, to find out what is wrong with it.
const KEPT: usize = 64 * 1024;
/// How much room for the next head a connection keeps.
const ROOM: usize = 1024;

/// How far the requests of a connection have proceeded. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    activity: Activity,
    /// Once the connection has switched to another protocol.
    switch: OnceLock<Arc<Switch>>,
}

/// What the connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The first bytes of its first head.
    New,
    /// The rest of a head.
    Head,
    /// Its service, or the end of an answer.
    Busy,
    /// The next request.
    Idle,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that the service has received and whose answers have not ended.
    open: usize,
    /// Whether the parser has accepted a request.
    has_begun: bool,
    /// Whether the bytes still to be written come from the service, and not from a refusal of the parser.
    has_answered: bool,
    /// Whether the client may still be sending a body that is not read any more.
    is_unread: bool,
    /// Whether the body of a request broke off: the connection can't be used any more.
    is_broken: bool,
    /// Whether the bytes being read belong to a body instead of a head.
    reads_body: bool,
    /// The bytes of the head that is being read.
    head: Vec<u8>,
    /// When the first of them came.
    head_since: Option<Instant>,
    /// What hyper hands over instead of closing the connection, because a request offered to switch protocols.
    offered: Option<OnUpgrade>,
}

/// What the parser does not tell of a request that it has accepted.
#[derive(Debug)]
pub(super) struct Began {
    /// The fragment of its target, which the parser removes.
    pub(super) fragment: Option<String>,
    /// When the first byte of its head came.
    pub(super) since: Option<Instant>,
}

impl Progress {
    /// Of a new connection, which is noted as idle between its requests.
    pub(super) fn new(activity: Activity) -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), activity, switch: OnceLock::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes received bytes.
    pub(super) fn received(&self, bytes: &[u8]) {
        let mut state = self.state();
        if !state.reads_body {
            if state.head.is_empty() {
                state.head_since = Some(Instant::now());
            }
            let room = KEPT.saturating_sub(state.head.len());
            state.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
            self.0.activity.busy();
        }
    }

    /// Notes that the parser has accepted a request.
    pub(super) fn began(&self, head: &Parts, has_body: bool) -> Began {
        let mut state = self.state();
        self.0.activity.busy();
        let began = Began { fragment: fragment(&state.head, head), since: state.head_since };
        state.open += 1;
        state.has_begun = true;
        state.offered = head.extensions.get().cloned().or_else(|| state.offered.take());
        state.is_unread = has_body;
        state.reads_body = has_body;
        let end = if has_body { None } else { end_of_head(&state.head) };
        match end {
            // The bytes after it may be the next head.
            Some(end) => drop(state.head.drain(..end)),
            None => state.head.clear(),
        }
        state.head.shrink_to(ROOM);
        began
    }

    /// Notes that the service has an answer.
    pub(super) fn answered(&self) {
        self.state().has_answered = true;
    }

    /// Notes that the connection switches to another protocol. What holds the request is kept with its body.
    pub(super) fn switched(&self, body: Body) {
        self.state().offered = None;
        let _ = self.0.switch.set(Arc::new(Switch::new(body)));
    }

    /// Who has the connection once it has switched.
    pub(super) fn switch(&self) -> Option<&Arc<Switch>> {
        self.0.switch.get()
    }

    /// The transport of a connection that has ended without a switch, if a request offered one.
    pub(super) fn take_offered(&self) -> Option<OnUpgrade> {
        self.state().offered.take()
    }

    /// Notes that an answer has ended.
    pub(super) fn ended(&self) {
        let mut state = self.state();
        state.open = state.open.saturating_sub(1);
    }

    /// Notes that the body of the request was read to its end.
    pub(super) fn read_body(&self) {
        self.state().is_unread = false;
    }

    /// Notes that the body of the request broke off.
    pub(super) fn broke_body(&self) {
        self.state().is_broken = true;
    }

    /// Whether the body of a request broke off.
    pub(super) fn is_broken(&self) -> bool {
        self.state().is_broken
    }

    /// Notes that everything has been written.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        if state.open == 0 {
            let was_answered = std::mem::take(&mut state.has_answered);
            state.reads_body = false;
            if was_answered && state.head.is_empty() {
                self.0.activity.idle();
            }
        }
    }

    /// Whether the head of a request has arrived since the connection began.
    pub(super) fn has_begun(&self) -> bool {
        self.state().has_begun
    }

    /// What the connection waits for.
    pub(super) fn phase(&self) -> Phase {
        let state = self.state();
        match (state.open, state.head.is_empty(), state.has_begun) {
            (0, false, _) => Phase::Head,
            (0, true, false) => Phase::New,
            (0, true, true) if !state.has_answered => Phase::Idle,
            _ => Phase::Busy,
        }
    }

    /// Since when the connection has been idle, and what it was ordered to do.
    pub(super) fn activity(&self) -> &Activity {
        &self.0.activity
    }

    /// Whether the service has a request whose answer has not ended.
    pub(super) fn is_busy(&self) -> bool {
        self.state().open > 0
    }

    /// Whether bytes written now are a refusal of the parser: nothing else is written while the service has no request.
    pub(super) fn is_refusing(&self) -> bool {
        let state = self.state();
        state.open == 0 && !state.has_answered
    }

    /// Whether the client may still be sending a body that is not read any more.
    pub(super) fn is_unread(&self) -> bool {
        self.state().is_unread
    }

    /// The head that is being read, as far as it was received and kept.
    pub(super) fn head(&self) -> Vec<u8> {
        self.state().head.clone()
    }

    /// When the first byte of that head came.
    pub(super) fn head_since(&self) -> Option<Instant> {
        self.state().head_since
    }
}

/// Where the head ends.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    // It searches faster than a loop over the bytes, and every request needs this.
    while rest.skip_until(b'\n').is_ok_and(|skipped| skipped > 0) {
        let at = bytes.len() - rest.len();
        match rest {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// The fragment in the target of a request, if the bytes are its head.
fn fragment(bytes: &[u8], head: &Parts) -> Option<String> {
    // Fast path: nearly no head has one.
    if !bytes.contains(&b'#') {
        return None;
    }
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
    fn bytes_written_while_the_service_has_no_request_are_a_refusal() {
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

    #[tokio::test(start_paused = true)]
    async fn a_head_begins_with_its_first_byte() {
        let (progress, start) = (Progress::default(), Instant::now());
        let second = std::time::Duration::from_secs(1);
        progress.received(b"GET /a HTTP/1.1\r\n");
        tokio::time::advance(second).await;
        progress.received(b"host: x\r\n\r\n");
        assert_eq!(progress.began(&head("/a"), false).since, Some(start));
        progress.received(b"GET");
        assert_eq!(progress.head_since(), Some(start + second));
    }

    #[test]
    fn nothing_is_kept_of_a_long_head_once_it_is_parsed() {
        let progress = Progress::default();
        progress.received(b"GET /a HTTP/1.1\r\nx: ");
        progress.received(&[b'x'; KEPT / 2]);
        progress.received(b"\r\n\r\nGET /b");
        progress.began(&head("/a"), false);
        assert_eq!(progress.head(), b"GET /b");
        assert!(progress.state().head.capacity() <= 2 * ROOM);
    }

    #[test]
    fn a_body_is_not_taken_for_a_head() {
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
    fn the_fragment_that_the_parser_removes_is_found() {
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
