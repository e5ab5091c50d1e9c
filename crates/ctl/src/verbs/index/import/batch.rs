//! Lines that are sent together, and what becomes of each. Pure.

use std::ops::Range;

use client::RefusedLine;

use crate::lines::Chunk;

/// Lines with their numbers in the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) text: Vec<u8>,
    lines: Vec<(usize, Range<usize>)>,
}

/// A line that is refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// Its number in the source.
    pub(super) line: usize,
    /// `line 12 (nginx): there is no field ...`.
    pub(super) message: String,
    /// The line itself, without its end.
    pub(super) text: Vec<u8>,
}

impl Batch {
    pub(super) fn of(chunk: Chunk) -> Self {
        let mut start = 0;
        let ends = chunk.text.split_inclusive(|byte| *byte == b'\n').map(|line| {
            let range = start..start + line.len();
            start = range.end;
            range
        });
        let lines = (chunk.first..).zip(ends).collect();
        Self { text: chunk.text, lines }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The first half of the lines and the rest; the batch itself if there is only one line.
    pub(super) fn halves(self) -> Result<(Self, Self), Self> {
        let half = self.lines.len() / 2;
        if half == 0 {
            return Err(self);
        }
        let (mut first, mut rest) = (Self::default(), Self::default());
        for (at, (number, range)) in self.lines.iter().enumerate() {
            let into = if at < half { &mut first } else { &mut rest };
            into.push(*number, &self.text[range.clone()]);
        }
        Ok((first, rest))
    }

    /// All lines as refused for one reason.
    pub(super) fn refused(&self, why: &str) -> Vec<Refused> {
        let refused = |(number, range): &(usize, Range<usize>)| Refused {
            line: *number,
            message: format!("line {number}: {why}"),
            text: self.text[range.clone()].trim_ascii_end().to_vec(),
        };
        self.lines.iter().map(refused).collect()
    }

    /// Divides what a member refused: lines to send again, and lines that would be refused again.
    pub(super) fn divided(&self, refused: &[RefusedLine]) -> (Self, Vec<Refused>) {
        let (mut again, mut lost) = (Self::default(), Vec::new());
        for line in refused {
            let Some((number, range)) = line.line.checked_sub(1).and_then(|at| self.lines.get(at)) else {
                // It answers about a line that was not sent.
                let message = format!("line {} of a request: {}", line.line, line.detail);
                lost.push(Refused { line: line.line, message, text: Vec::new() });
                continue;
            };
            let text = &self.text[range.clone()];
            if matches!(line.status, 429 | 503) {
                again.push(*number, text);
            } else {
                let id = line.id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
                let message = format!("line {number}{id}: {}", line.detail);
                lost.push(Refused { line: *number, message, text: text.trim_ascii_end().to_vec() });
            }
        }
        (again, lost)
    }

    fn push(&mut self, number: usize, text: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(text);
        if !text.ends_with(b"\n") {
            self.text.push(b'\n');
        }
        self.lines.push((number, start..self.text.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(line: usize, status: u16, id: Option<&str>) -> RefusedLine {
        let id = id.map(str::to_owned);
        RefusedLine { line, id, status, code: "x".to_owned(), detail: "no".to_owned() }
    }

    #[test]
    fn lines_are_sent_again_if_that_may_help_and_keep_their_numbers() {
        let batch = Batch::of(Chunk { first: 101, lines: 4, text: b"a\n\nc\r\nd".to_vec() });
        let answers = [refused(1, 400, Some("x")), refused(3, 413, None), refused(4, 503, None)];
        let (again, lost) = batch.divided(&answers);
        let lost_one = |line, message: &str, text: &[u8]| Refused {
            line,
            message: message.to_owned(),
            text: text.to_vec(),
        };
        assert_eq!(lost, [lost_one(101, "line 101 (x): no", b"a"), lost_one(103, "line 103: no", b"c")]);
        assert_eq!(again.text, b"d\n");
        let (again, lost) = again.divided(&[refused(1, 429, None)]);
        assert!(lost.is_empty() && again.text == b"d\n");
        let (again, lost) = again.divided(&[refused(1, 400, None)]);
        assert_eq!((again.is_empty(), lost[0].line), (true, 104));
        let (_, lost) = batch.divided(&[refused(9, 400, None)]);
        assert_eq!(lost, [lost_one(9, "line 9 of a request: no", b"")]);
    }
}
