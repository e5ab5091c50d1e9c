//! Splits pieces of a log into lines. Pure.

/// A longer line is passed on in parts.
const LONGEST: usize = 64 * 1024;

/// A line, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) text: String,
    /// Whether the line began before this part.
    pub(super) is_continued: bool,
    /// Whether the line ends with this part.
    pub(super) is_end: bool,
}

/// The part of a line that has not been passed on yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
    is_continued: bool,
}

impl Lines {
    /// The lines that a piece completes, and parts of those that are too long.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<Part> {
        let mut parts = Vec::new();
        for chunk in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_end) = match chunk.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (chunk, false),
            };
            self.rest.extend_from_slice(text);
            while self.rest.len() > LONGEST {
                let after = self.rest.split_off(boundary(&self.rest));
                parts.push(self.take(false));
                self.rest = after;
            }
            if is_end {
                parts.push(self.take(true));
            }
        }
        parts
    }

    /// The rest of a log that ends without a newline.
    pub(super) fn finish(&mut self) -> Option<Part> {
        let is_unfinished = self.is_continued || !self.rest.is_empty();
        is_unfinished.then(|| self.take(true))
    }

    fn take(&mut self, is_end: bool) -> Part {
        let bytes = std::mem::take(&mut self.rest);
        let is_continued = std::mem::replace(&mut self.is_continued, !is_end);
        Part { text: String::from_utf8_lossy(&bytes).into_owned(), is_continued, is_end }
    }
}

/// The position at which to cut a line that is too long, not within a character.
fn boundary(bytes: &[u8]) -> usize {
    let is_start = |place: &usize| bytes.get(*place).is_none_or(|byte| byte & 0b1100_0000 != 0b1000_0000);
    (LONGEST - 3..=LONGEST).rev().find(is_start).unwrap_or(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(parts: &[Part]) -> Vec<(&str, bool, bool)> {
        parts.iter().map(|part| (part.text.as_str(), part.is_continued, part.is_end)).collect()
    }

    #[test]
    fn lines_are_passed_on_when_they_end() {
        let mut lines = Lines::default();
        assert_eq!(texts(&lines.push(b"one\n\ntw")), [("one", false, true), ("", false, true)]);
        assert_eq!(texts(&lines.push(b"o\nthree")), [("two", false, true)]);
        assert_eq!(lines.finish().unwrap().text, "three");
        assert_eq!(lines.finish(), None);
    }

    #[test]
    fn a_long_line_comes_in_parts_that_cut_no_character() {
        let mut lines = Lines::default();
        let long = "\u{e4}".repeat(LONGEST);
        let mut parts = lines.push(format!("x{long}\nend\n").as_bytes());
        assert_eq!(parts.pop().unwrap().text, "end");
        assert!(parts.iter().all(|part| part.text.len() <= LONGEST));
        assert_eq!(parts.iter().filter(|part| part.is_end).count(), 1);
        assert!(!parts[0].is_continued && parts[1..].iter().all(|part| part.is_continued));
        let whole: String = parts.into_iter().map(|part| part.text).collect();
        assert_eq!(whole, format!("x{long}"));
    }
}
