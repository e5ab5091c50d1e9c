//! Reads the last lines of a log and those that follow, across its rotated files.
//!
//! Text is passed on in pieces, so that neither a long line nor a long log fills the memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::state::of_path;

/// Bytes that are read at once.
const BLOCK: usize = 64 * 1024;
/// The highest number of a rotated file: `NAME.log.9`.
const MAX_ROTATED: u32 = 9;

/// A part of a log as it is in the file, newlines included.
pub(crate) type Piece = Vec<u8>;

/// An open file of a log: a rename does not affect its reader.
#[derive(Debug)]
struct Opened {
    file: File,
    inode: (u64, u64),
}

fn open(path: &Path) -> io::Result<Option<Opened>> {
    match File::open(path) {
        Ok(file) => {
            let metadata = file.metadata()?;
            Ok(Some(Opened { file, inode: (metadata.dev(), metadata.ino()) }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(of_path(path, &error)),
    }
}

/// The files of a log, the newest first. They are opened in that order since a rotation raises a file's number: a file
/// may be found twice, but none is missed.
fn open_all(path: &Path) -> io::Result<Vec<Opened>> {
    let mut files: Vec<Opened> = Vec::new();
    for number in 0..=MAX_ROTATED {
        let mut name = path.as_os_str().to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        if let Some(opened) = open(Path::new(&name))?
            && files.iter().all(|known| known.inode != opened.inode)
        {
            files.push(opened);
        }
    }
    Ok(files)
}

/// Whether a file is a log, or was one before it was rotated.
pub(crate) fn is_log(path: &Path) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let rotated = name.rsplit_once('.').filter(|(_, number)| is_number(number)).map(|(log, _)| log);
    rotated.unwrap_or(name).ends_with(".log")
}

/// Reads a log from a position on, across rotations, as it grows.
#[derive(Debug)]
pub(crate) struct Reader {
    path: PathBuf,
    /// The files still to be read, the oldest first. The last one grows.
    files: Vec<Opened>,
    /// The offset up to which the first of them has been read.
    at: u64,
    /// Whether the last piece ended in the middle of a line.
    is_in_line: bool,
}

/// Finds where the last lines begin, going back one block with each [`Search::step`].
#[derive(Debug)]
pub(crate) struct Search {
    path: PathBuf,
    /// The newest first.
    files: Vec<Opened>,
    /// The index of the file being searched.
    file: usize,
    /// The offset at which the searched part of it begins.
    start: u64,
    /// Ends of lines still to be found, and one more for the line before the first.
    wanted: usize,
    /// Whether nothing has been searched yet.
    is_at_end: bool,
}

impl Search {
    /// For the last `count` lines of a log, which may have no file yet.
    pub(crate) fn new(path: &Path, count: usize) -> io::Result<Self> {
        let files = open_all(path)?;
        let start = files.first().map_or(Ok(0), |newest| newest.file.metadata().map(|file| file.len()))?;
        Ok(Self { path: path.to_owned(), files, file: 0, start, wanted: count, is_at_end: true })
    }

    /// Searches one more block. Returns whether the position is found.
    pub(crate) fn step(&mut self) -> io::Result<bool> {
        if self.wanted == 0 && self.is_at_end {
            return Ok(true);
        }
        if self.start == 0 {
            let Some(older) = self.files.get(self.file + 1) else { return Ok(true) };
            self.start = older.file.metadata()?.len();
            self.file += 1;
            return Ok(false);
        }
        let length = self.start.min(BLOCK as u64);
        let from = self.start - length;
        let mut block = vec![0; usize::try_from(length).unwrap_or_default()];
        let Some(opened) = self.files.get_mut(self.file) else { return Ok(true) };
        opened.file.seek(SeekFrom::Start(from))?;
        opened.file.read_exact(&mut block)?;
        for (place, byte) in block.iter().enumerate().rev() {
            let is_last = std::mem::take(&mut self.is_at_end);
            if *byte != b'\n' {
                continue;
            }
            // The newline at the very end ends the last line; every other one ends the line before.
            if is_last {
                continue;
            }
            self.wanted -= 1;
            if self.wanted == 0 {
                self.start = from + u64::try_from(place).unwrap_or_default() + 1;
                return Ok(true);
            }
        }
        self.start = from;
        Ok(false)
    }

    /// A reader that starts at the position found.
    pub(crate) fn reader(mut self) -> Reader {
        self.files.truncate(self.file + 1);
        self.files.reverse();
        Reader { path: self.path, files: self.files, at: self.start, is_in_line: false }
    }
}

impl Reader {
    /// A log from its start on. The file need not exist yet.
    pub(crate) fn from_start(path: PathBuf) -> Self {
        Self { path, files: Vec::new(), at: 0, is_in_line: false }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next piece; `None` while there is no more text.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece>> {
        loop {
            if let Some(opened) = self.files.first_mut() {
                if opened.file.metadata()?.len() < self.at {
                    // It was truncated.
                    self.at = 0;
                }
                opened.file.seek(SeekFrom::Start(self.at))?;
                let mut piece = Vec::new();
                (&mut opened.file).take(BLOCK as u64).read_to_end(&mut piece)?;
                if let Some(last) = piece.last() {
                    self.at += u64::try_from(piece.len()).unwrap_or_default();
                    self.is_in_line = *last != b'\n';
                    return Ok(Some(piece));
                }
            }
            if self.files.len() <= 1 {
                if !self.find_newer()? {
                    return Ok(None);
                }
                // First read what was written to this file before it was rotated.
                continue;
            }
            self.files.remove(0);
            self.at = 0;
            if std::mem::take(&mut self.is_in_line) {
                return Ok(Some(b"\n".to_vec()));
            }
        }
    }

    /// Looks for files that are newer than the last one.
    fn find_newer(&mut self) -> io::Result<bool> {
        let all = open_all(&self.path)?;
        let known = self.files.last().map(|last| last.inode);
        let newer: Vec<_> = all.into_iter().take_while(|file| Some(file.inode) != known).collect();
        let is_found = !newer.is_empty();
        self.files.extend(newer.into_iter().rev());
        Ok(is_found)
    }
}

/// The last lines of a log, at most the last 64 KiB.
pub(crate) fn last_lines(path: &Path, count: usize) -> io::Result<Vec<String>> {
    let mut search = Search::new(path, count)?;
    while !search.step()? {}
    let mut reader = search.reader();
    let mut text = Vec::new();
    while let Some(mut piece) = reader.next()? {
        text.append(&mut piece);
        let surplus = text.len().saturating_sub(BLOCK);
        text.drain(..surplus);
    }
    Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The last lines, and a reader that continues after them.
    fn last(path: &Path, count: usize) -> (Vec<String>, Reader) {
        let mut search = Search::new(path, count).unwrap();
        while !search.step().unwrap() {}
        let mut reader = search.reader();
        (lines(&mut reader), reader)
    }

    fn lines(reader: &mut Reader) -> Vec<String> {
        let mut text = Vec::new();
        while let Some(mut piece) = reader.next().unwrap() {
            text.append(&mut piece);
        }
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }

    fn rotate(path: &Path) {
        let numbered = |number: u32| {
            let mut name = path.as_os_str().to_owned();
            if number > 0 {
                name.push(format!(".{number}"));
            }
            PathBuf::from(name)
        };
        for number in (1..5).rev() {
            let _ = std::fs::rename(numbered(number - 1), numbered(number));
        }
    }

    fn append(path: &Path, text: &str) {
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        write!(file, "{text}").unwrap();
    }

    #[test]
    fn the_last_lines_are_found_in_a_file_of_any_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert_eq!(last(&path, 3).0, Vec::<String>::new());
        let text: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, &text).unwrap();
        assert_eq!(last(&path, 2).0, ["line 49998", "line 49999"]);
        assert_eq!(last(&path, 1_000_000).0.len(), 50_000);
        assert_eq!(last(&path, usize::MAX).0.len(), 50_000);
        assert_eq!(last(&path, 0).0, Vec::<String>::new());
        append(&path, "no end");
        assert_eq!(last(&path, 2).0, ["line 49999", "no end"]);
        assert_eq!(last_lines(&path, 1).unwrap(), ["no end"]);
        // A line longer than any buffer is found in one pass over it.
        append(&path, &"x".repeat(5 * BLOCK));
        let (found, _) = last(&path, 2);
        assert_eq!((found[0].as_str(), found[1].len()), ("line 49999", 5 * BLOCK + 6));
        assert_eq!(last_lines(&path, 1).unwrap()[0].len(), BLOCK);
    }

    #[test]
    fn the_last_lines_reach_back_into_rotated_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for number in 0..8 {
            append(&path, &format!("{number}\n"));
            if number % 3 == 2 {
                rotate(&path);
            }
        }
        assert_eq!(last(&path, 2).0, ["6", "7"]);
        assert_eq!(last(&path, 3).0, ["5", "6", "7"]);
        assert_eq!(last(&path, 7).0, ["1", "2", "3", "4", "5", "6", "7"]);
        assert_eq!(last(&path, 100).0.len(), 8);
        rotate(&path);
        assert_eq!(last(&path, 2).0, ["6", "7"], "the newest file is not there yet");
        append(&path, "");
        assert_eq!(last(&path, 2).0, ["6", "7"], "or is empty");
    }

    #[test]
    fn a_reader_loses_no_line_at_rotations() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "0\n");
        let (_, mut reader) = last(&path, 0);
        let mut expected = Vec::new();
        let mut found = Vec::new();
        for number in 1..200 {
            append(&path, &format!("{number}\n"));
            expected.push(number.to_string());
            if number % 7 == 0 {
                rotate(&path);
            }
            // Up to three rotations happen between two reads.
            if number % 20 == 0 {
                found.append(&mut lines(&mut reader));
            }
        }
        found.append(&mut lines(&mut reader));
        assert_eq!(found, expected);
    }

    #[test]
    fn rotated_files_are_logs_and_settings_are_not() {
        for (name, expected) in [
            ("n.log", true),
            ("n.log.4", true),
            ("n.1.log", true),
            ("n.1", false),
            ("n.yaml", false),
            ("cluster.json", false),
        ] {
            assert_eq!(is_log(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn a_growing_file_is_followed_and_a_truncated_one_is_read_from_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut reader = Reader::from_start(path.clone());
        assert!(reader.next().unwrap().is_none());
        append(&path, "one\ntw");
        assert_eq!(reader.next().unwrap().unwrap(), b"one\ntw");
        append(&path, "o\n");
        assert_eq!(reader.next().unwrap().unwrap(), b"o\n");
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(lines(&mut reader), ["new"]);
        // An unfinished last line of a rotated file is not completed from the next file.
        append(&path, "torn");
        rotate(&path);
        append(&path, "whole\n");
        assert_eq!(lines(&mut reader), ["torn", "whole"]);
    }
}
