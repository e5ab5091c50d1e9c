//! A log file of bounded size: when it is full it becomes `NAME.1`, the previous one `NAME.2`, and so on.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// A file that would become larger is rotated.
const MAX_BYTES: u64 = 10 * 1024 * 1024;
/// How many files there are: the current one and four rotated ones.
const FILES: u32 = 5;
/// The pause between attempts to open the file.
const RETRY: Duration = Duration::from_secs(1);

/// The current file and the rotated ones.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    max_bytes: u64,
    file: Result<File, (Instant, io::ErrorKind)>,
    size: u64,
    /// Whether the last line was written only in part.
    is_torn: bool,
}

impl RotatingFile {
    /// Opens the file to append to it. Fails if the path can't be used; other errors, such as a full disk, may be
    /// temporary.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, MAX_BYTES)
    }

    fn with_limit(path: &Path, max_bytes: u64) -> io::Result<Self> {
        let mut opened = Self {
            path: path.to_owned(),
            max_bytes,
            file: Err((Instant::now(), io::ErrorKind::NotFound)),
            size: 0,
            is_torn: false,
        };
        match opened.reopen() {
            Err(error) if !may_be_temporary(error.kind()) => Err(error),
            _ => Ok(opened),
        }
    }

    /// Opens the path again.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        let opened = open(&self.path);
        self.is_torn = false;
        match opened {
            Ok((file, size)) => {
                self.size = size;
                self.file = Ok(file);
                Ok(())
            }
            Err(error) => {
                self.file = Err((Instant::now(), error.kind()));
                Err(error)
            }
        }
    }

    /// Writes a line that ends with a newline. After an error the line counts as not written, and the next one begins on
    /// a new line.
    pub(super) fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.size > 0 && self.size.saturating_add(length) > self.max_bytes {
            self.rotate()?;
        }
        if let Err((tried, kind)) = self.file {
            if tried.elapsed() < RETRY {
                return Err(kind.into());
            }
            self.reopen()?;
        }
        let Ok(file) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if self.is_torn {
            file.write_all(b"\n")?;
            self.size += 1;
            self.is_torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            let written = match file.write(rest) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                written => written,
            };
            match written {
                Ok(written) => {
                    self.size += u64::try_from(written).unwrap_or_default();
                    rest = &rest[written..];
                }
                Err(error) => {
                    self.is_torn = rest.len() < line.len();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Renames every file to the next number, which replaces the oldest one, and begins a new file.
    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..FILES).rev() {
            let from = if number == 1 { self.path.clone() } else { numbered(&self.path, number - 1) };
            match std::fs::rename(from, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.reopen()
    }
}

/// The rotated file with this number: `NAME.log.1`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    // A pipe without a reader must not block the agent; for a file this flag has no effect.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().create(true).append(true).custom_flags(nonblocking).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Whether an error may go away with the same path.
fn may_be_temporary(kind: io::ErrorKind) -> bool {
    !matches!(
        kind,
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidInput
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_full_file_is_rotated_and_the_oldest_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.log");
        let mut log = RotatingFile::with_limit(&path, 8).unwrap();
        for number in 0..14 {
            log.write_line(format!("{number:03}\n").as_bytes()).unwrap();
        }
        assert_eq!(read(&path), "012\n013\n");
        assert_eq!(read(&numbered(&path, 1)), "010\n011\n");
        assert_eq!(read(&numbered(&path, 4)), "004\n005\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 5);
        // A line that is longer than a file gets a file to itself.
        log.write_line(b"0123456789\n").unwrap();
        assert_eq!(read(&path), "0123456789\n");
    }

    #[test]
    fn a_file_that_was_moved_away_is_written_until_it_is_reopened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.log");
        let mut log = RotatingFile::open(&path).unwrap();
        log.write_line(b"one\n").unwrap();
        let moved = dir.path().join("moved");
        std::fs::rename(&path, &moved).unwrap();
        log.write_line(b"two\n").unwrap();
        log.reopen().unwrap();
        log.write_line(b"three\n").unwrap();
        assert_eq!((read(&moved), read(&path)), ("one\ntwo\n".to_owned(), "three\n".to_owned()));
        // The size includes what is already in the file.
        assert_eq!(RotatingFile::open(&path).unwrap().size, 6);
    }

    #[test]
    fn a_full_device_fails_the_line_and_a_missing_folder_fails_the_start() {
        let mut log = RotatingFile::with_limit(Path::new("/dev/full"), MAX_BYTES).unwrap();
        assert_eq!(log.write_line(b"x\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
        let missing = RotatingFile::open(Path::new("/no/such/folder/n.log")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
