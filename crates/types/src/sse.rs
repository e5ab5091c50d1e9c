//! Server-sent events, parsed from chunks of bytes that may end anywhere.
//!
//! Pure: bytes go in, frames come out. The rules are those of the WHATWG HTML standard, section 9.2.6.

/// One event of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// The `id:` field, where there was one.
    pub id: Option<String>,
    /// The `event:` field; empty where there was none.
    pub event: String,
    /// The `data:` lines, joined by newlines.
    pub data: String,
}

/// An event or a line of the stream is longer than the parser allows; the rest of the stream cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {limit} bytes")]
pub struct FrameTooLong {
    /// The limit.
    pub limit: usize,
}

/// Assembles frames from bytes.
#[derive(Debug)]
pub struct SseParser {
    /// The line that has not ended yet.
    line: Vec<u8>,
    frame: Frame,
    has_data: bool,
    last_id: Option<String>,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_cr: bool,
    at_start: bool,
    limit: usize,
}

impl SseParser {
    /// The default limit for one event, in bytes.
    pub const DEFAULT_LIMIT: usize = 1024 * 1024;

    /// A parser at the beginning of a stream.
    pub fn new(limit: usize) -> Self {
        Self {
            line: Vec::new(),
            frame: Frame::default(),
            has_data: false,
            last_id: None,
            after_cr: false,
            at_start: true,
            limit,
        }
    }

    /// Adds bytes, and returns the frames that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Frame>, FrameTooLong> {
        let mut frames = Vec::new();
        for &byte in bytes {
            let follows_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if follows_cr => {}
                b'\n' | b'\r' => frames.extend(self.end_line()),
                _ => {
                    if self.line.len() + self.frame.data.len() >= self.limit {
                        return Err(FrameTooLong { limit: self.limit });
                    }
                    self.line.push(byte);
                }
            }
        }
        Ok(frames)
    }

    /// The last id in the stream, even of a block without data; it resumes the stream.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    fn end_line(&mut self) -> Option<Frame> {
        let bytes = std::mem::take(&mut self.line);
        let mut line = String::from_utf8_lossy(&bytes).into_owned();
        if std::mem::take(&mut self.at_start)
            && let Some(rest) = line.strip_prefix('\u{feff}')
        {
            line = rest.to_owned();
        }
        if line.is_empty() {
            let frame = std::mem::take(&mut self.frame);
            if frame.id.is_some() {
                self.last_id.clone_from(&frame.id);
            }
            return std::mem::take(&mut self.has_data).then_some(frame);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.frame.event),
            "id" if !value.contains('\0') => self.frame.id = Some(value.to_owned()),
            // Comments have an empty field; `retry` and unknown fields are ignored.
            _ => {}
        }
        None
    }
}

impl Default for SseParser {
    fn default() -> Self {
        Self::new(Self::DEFAULT_LIMIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: Option<&str>, event: &str, data: &str) -> Frame {
        Frame { id: id.map(str::to_owned), event: event.to_owned(), data: data.to_owned() }
    }

    const STREAM: &str = "\u{feff}: hello\r\nid: 1.2\r\nevent: joined\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\n\
        : keep-alive\n\ndata:no space\n\nretry: 10\nid: 3\n\nevent: x\rdata\r\rid: bad\0\ndata: grüße\n\ndata: cut off";

    fn expected() -> Vec<Frame> {
        vec![
            frame(Some("1.2"), "joined", "{\"a\":\n1}"),
            frame(None, "", "no space"),
            frame(None, "x", ""),
            frame(None, "", "grüße"),
        ]
    }

    #[test]
    fn every_kind_of_line_is_parsed_and_an_unfinished_event_is_dropped() {
        assert_eq!(SseParser::default().push(STREAM.as_bytes()).unwrap(), expected());
    }

    #[test]
    fn the_frames_do_not_depend_on_the_chunks() {
        for size in 1..STREAM.len() {
            let mut parser = SseParser::default();
            let mut frames = Vec::new();
            for chunk in STREAM.as_bytes().chunks(size) {
                frames.extend(parser.push(chunk).unwrap());
            }
            assert_eq!(frames, expected(), "chunks of {size}");
        }
    }

    #[test]
    fn an_id_without_data_is_not_an_event_but_becomes_the_last_id() {
        let mut parser = SseParser::default();
        assert_eq!(parser.push(b"id: 1\ndata: x\n\n").unwrap().len(), 1);
        assert_eq!(parser.push(b"data: y\n\n: heartbeat\nid: 2\n").unwrap().len(), 1);
        assert_eq!(parser.last_event_id(), Some("1"), "the block has not ended");
        assert_eq!(parser.push(b"\n").unwrap(), []);
        assert_eq!(parser.last_event_id(), Some("2"));
    }

    #[test]
    fn an_endless_line_and_an_endless_event_are_refused() {
        let too_long = Err(FrameTooLong { limit: 16 });
        assert_eq!(SseParser::new(16).push(&[b'a'; 17]), too_long);
        let lines = "data: 12345678\n".repeat(3);
        assert_eq!(SseParser::new(16).push(lines.as_bytes()), too_long);
        let short = "data: 1\n\n".repeat(100);
        assert_eq!(SseParser::new(16).push(short.as_bytes()).unwrap().len(), 100);
    }
}
