//! Cuts the lines of a source into chunks that a member accepts, and never buffers more of a line than that.

use std::io::{self, BufRead, Read as _};

use tokio::sync::mpsc;

/// Most lines in a request, and most bytes unless one line has more.
const CHUNK: (usize, usize) = (10_000, 1024 * 1024);
/// The longest line, its end included: as much as a member accepts at once. A value of 8 MiB, the largest of storage,
/// takes less in base64.
const MAX_LINE: usize = 12 * 1024 * 1024;

/// Lines that are sent together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The number of its first line, from 1.
    pub(crate) first: usize,
    pub(crate) lines: usize,
    pub(crate) text: Vec<u8>,
}

impl Chunk {
    /// The number of its last line.
    pub(crate) fn last(&self) -> usize {
        self.first + self.lines - 1
    }
}

/// Why there are no more lines.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinesError {
    /// Make it shorter.
    #[error("line {line} has more than {MAX_LINE} bytes")]
    TooLong {
        /// Its number, from 1.
        line: usize,
    },
    /// See the cause.
    #[error("reading the lines")]
    Io(#[from] io::Error),
}

/// The lines of a source.
#[derive(Debug)]
pub(crate) struct Lines<R> {
    source: R,
    /// The number of the next line to be returned.
    next: usize,
    /// A line that was read already but did not fit into the previous chunk.
    carried: Vec<u8>,
    /// The error that came instead of a next line.
    failed: Option<LinesError>,
}

impl<R: BufRead> Lines<R> {
    /// The lines after the first ones.
    pub(crate) fn after(mut source: R, skipped: usize) -> Result<Self, LinesError> {
        for _ in 0..skipped {
            if source.skip_until(b'\n')? == 0 {
                break;
            }
        }
        Ok(Self { source, next: skipped.saturating_add(1), carried: Vec::new(), failed: None })
    }

    /// The next lines, `None` at the end. All lines before a mistake are returned first.
    pub(crate) fn chunk(&mut self) -> Result<Option<Chunk>, LinesError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let text = std::mem::take(&mut self.carried);
        let mut chunk = Chunk { first: self.next, lines: usize::from(!text.is_empty()), text };
        while chunk.lines < CHUNK.0 && chunk.text.len() < CHUNK.1 {
            let before = chunk.text.len();
            match append(&mut self.source, &mut chunk.text, self.next + chunk.lines) {
                Ok(0) => break,
                Ok(_) if chunk.lines > 0 && chunk.text.len() > CHUNK.1 => {
                    self.carried = chunk.text.split_off(before);
                    break;
                }
                Ok(_) => chunk.lines += 1,
                Err(error) if chunk.lines == 0 => return Err(error),
                Err(error) => {
                    chunk.text.truncate(before);
                    self.failed = Some(error);
                    break;
                }
            }
        }
        self.next += chunk.lines;
        Ok((chunk.lines > 0).then_some(chunk))
    }
}

/// Reads a line with its end; returns its bytes, 0 if there is none.
fn append(source: &mut impl BufRead, text: &mut Vec<u8>, line: usize) -> Result<usize, LinesError> {
    let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    let read = source.take(most + 1).read_until(b'\n', text)?;
    if read > MAX_LINE {
        return Err(LinesError::TooLong { line });
    }
    Ok(read)
}

/// Reads chunks in parallel with the requests that send them, so that a slow pipe does not stop those. The
/// first `skip` lines are left out, and at most `at_once` chunks are read ahead.
pub(crate) fn chunks(
    source: Box<dyn BufRead + Send>,
    skip: usize,
    at_once: usize,
) -> mpsc::Receiver<Result<Chunk, LinesError>> {
    let (chunks, queue) = mpsc::channel(at_once);
    // A separate thread, which does not delay the exit of the process while it waits for input.
    std::thread::spawn(move || {
        let mut lines = match Lines::after(source, skip) {
            Ok(lines) => lines,
            Err(error) => {
                // If nobody waits for it, the error is not needed.
                let _ = chunks.blocking_send(Err(error));
                return;
            }
        };
        while let Some(read) = lines.chunk().transpose() {
            let is_last = read.is_err();
            if chunks.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    queue
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each chunk, the number of its first line, its lines and its bytes; then the error at the end, if there is
    /// one.
    fn cut(source: impl BufRead) -> (Vec<(usize, usize, usize)>, Option<LinesError>) {
        let mut lines = Lines::after(source, 0).unwrap();
        let mut chunks = Vec::new();
        loop {
            match lines.chunk() {
                Ok(Some(chunk)) => chunks.push((chunk.first, chunk.lines, chunk.text.len())),
                Ok(None) => return (chunks, None),
                Err(error) => return (chunks, Some(error)),
            }
        }
    }

    fn line(bytes: usize) -> String {
        "x".repeat(bytes - 1) + "\n"
    }

    #[test]
    fn lines_are_sent_together_and_keep_their_numbers() {
        let text = "a\n".repeat(CHUNK.0 + 2) + "the end";
        let mut lines = Lines::after(text.as_bytes(), 0).unwrap();
        let one = lines.chunk().unwrap().unwrap();
        assert_eq!((one.first, one.lines, one.last(), one.text.len()), (1, CHUNK.0, CHUNK.0, CHUNK.0 * 2));
        let other = lines.chunk().unwrap().unwrap();
        assert_eq!((other.first, other.lines, other.last()), (CHUNK.0 + 1, 3, CHUNK.0 + 3));
        assert_eq!(other.text, b"a\na\nthe end");
        assert_eq!(lines.chunk().unwrap(), None);
    }

    #[test]
    fn lines_after_those_that_are_skipped_keep_their_numbers() {
        let mut lines = Lines::after(&b"a\nb\nc\nd"[..], 2).unwrap();
        let chunk = lines.chunk().unwrap().unwrap();
        assert_eq!((chunk.first, chunk.lines, chunk.text), (3, 2, b"c\nd".to_vec()));
        assert_eq!(Lines::after(&b"a\nb"[..], 3).unwrap().chunk().unwrap(), None);
    }

    #[test]
    fn a_line_that_would_make_a_chunk_too_large_begins_the_next_one() {
        let half = CHUNK.1 / 2;
        let text = line(half) + &line(half) + &line(2) + &line(CHUNK.1 - 1) + &line(2);
        let (chunks, error) = cut(text.as_bytes());
        assert_eq!(chunks, [(1, 2, CHUNK.1), (3, 1, 2), (4, 1, CHUNK.1 - 1), (5, 1, 2)]);
        assert!(error.is_none());
    }

    #[test]
    fn a_line_that_is_larger_than_a_chunk_goes_alone() {
        let text = line(2) + &line(MAX_LINE) + &line(CHUNK.1 + 1) + &line(2) + &line(2);
        let (chunks, error) = cut(text.as_bytes());
        assert_eq!(chunks, [(1, 1, 2), (2, 1, MAX_LINE), (3, 1, CHUNK.1 + 1), (4, 2, 4)]);
        assert!(error.is_none());
    }

    #[test]
    fn the_longest_line_may_be_the_last_one_and_have_no_end() {
        let (chunks, error) = cut("x".repeat(MAX_LINE).as_bytes());
        assert_eq!((chunks.as_slice(), error.is_none()), (&[(1, 1, MAX_LINE)][..], true));
        let (chunks, error) = cut(("x".repeat(MAX_LINE) + "\n").as_bytes());
        assert!(chunks.is_empty() && matches!(error, Some(LinesError::TooLong { line: 1 })));
    }

    #[test]
    fn a_line_that_is_too_long_is_reported_with_its_number_after_all_lines_before_it() {
        let text = line(2) + &line(2) + &line(MAX_LINE + 1);
        let (chunks, error) = cut(text.as_bytes());
        assert_eq!(chunks, [(1, 2, 4)]);
        let message = error.unwrap().to_string();
        assert_eq!(message, "line 3 has more than 12582912 bytes");
    }

    #[test]
    fn a_line_without_an_end_is_not_buffered() {
        let (chunks, error) = cut(io::BufReader::new(io::repeat(b'x')));
        assert!(chunks.is_empty());
        assert!(matches!(error, Some(LinesError::TooLong { line: 1 })));
    }
}
