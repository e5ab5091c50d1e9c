//! The last lines of a log, and those that follow.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const BLOCK: u64 = 64 * 1024;
/// A log that is never ended by a newline must not fill our memory.
const LONGEST: usize = 1024 * 1024;

/// The last lines of a file and the place behind them; a file that does not exist has none.
pub(crate) fn last_lines(path: &Path, count: usize) -> io::Result<(Vec<String>, u64)> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let end = file.seek(SeekFrom::End(0))?;
    let mut start = end;
    let mut bytes = Vec::new();
    // One newline more than lines: the one that ends the line before the first.
    while start > 0 && newlines(&bytes) <= count {
        let from = start.saturating_sub(BLOCK);
        let mut block = vec![0; usize::try_from(start - from).unwrap_or_default()];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut block)?;
        block.append(&mut bytes);
        bytes = block;
        start = from;
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let skipped = lines.len().saturating_sub(count);
    Ok((lines[skipped..].iter().map(|line| (*line).to_owned()).collect(), end))
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// A log that is read on as it grows.
#[derive(Debug)]
pub(crate) struct Follow {
    path: PathBuf,
    at: u64,
    partial: Vec<u8>,
}

impl Follow {
    pub(crate) fn new(path: PathBuf, at: u64) -> Self {
        Self { path, at, partial: Vec::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The lines that were completed since the last call. A file that has become shorter is read from its start.
    pub(crate) fn new_lines(&mut self) -> io::Result<Vec<String>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < self.at {
            self.at = 0;
            self.partial.clear();
        }
        file.seek(SeekFrom::Start(self.at))?;
        let mut bytes = Vec::new();
        let read = file.read_to_end(&mut bytes)?;
        self.at += u64::try_from(read).unwrap_or_default();
        let mut lines = Vec::new();
        for byte in bytes {
            if byte != b'\n' && self.partial.len() < LONGEST {
                self.partial.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.partial);
            lines.push(String::from_utf8_lossy(&line).into_owned());
            if byte != b'\n' {
                self.partial.push(byte);
            }
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_last_lines_are_found_however_long_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(last_lines(&path, 3).unwrap(), (Vec::new(), 0));
        let text: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, &text).unwrap();
        let (lines, end) = last_lines(&path, 2).unwrap();
        assert_eq!(lines, ["line 49998", "line 49999"]);
        assert_eq!(end, text.len() as u64);
        let (all, _) = last_lines(&path, 1_000_000).unwrap();
        assert_eq!(all.len(), 50_000);
        assert_eq!(last_lines(&path, 0).unwrap().0, Vec::<String>::new());
    }

    #[test]
    fn a_growing_file_gives_whole_lines_and_a_truncated_one_starts_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = File::create(&path).unwrap();
        let mut follow = Follow::new(path.clone(), 0);
        write!(file, "one\ntw").unwrap();
        assert_eq!(follow.new_lines().unwrap(), ["one"]);
        assert_eq!(follow.new_lines().unwrap(), Vec::<String>::new());
        writeln!(file, "o").unwrap();
        assert_eq!(follow.new_lines().unwrap(), ["two"]);
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(follow.new_lines().unwrap(), ["new"]);
    }
}
