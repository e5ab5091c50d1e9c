//! Where lines go: the standard output, or a file that is opened again when it was moved away.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// How often it is checked whether the file was moved away.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Where lines go.
#[derive(Debug)]
pub(super) struct Sink {
    /// None for the standard output.
    path: Option<PathBuf>,
    file: Option<Opened>,
    next_check: Instant,
}

/// A file that is written to.
#[derive(Debug)]
struct Opened {
    file: File,
    /// Whether its last line was written only in part.
    is_torn: bool,
}

/// Why lines were not written.
#[derive(Debug)]
pub(super) struct Unwritten {
    pub(super) error: io::Error,
    /// How many of them; those before were.
    pub(super) lines: u64,
}

impl Sink {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, file: None, next_check: Instant::now() }
    }

    /// The file; none for the standard output.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether there is something to write to, whether or not writes succeed.
    pub(super) fn is_open(&self) -> bool {
        self.path.is_none() || self.file.is_some()
    }

    /// Closes the file and opens the one that is at its path now, without waiting for a line. If that fails, it is tried
    /// again with the next line.
    pub(super) async fn reopen(&mut self) -> io::Result<()> {
        self.file = None;
        let Some(path) = self.path.clone() else { return Ok(()) };
        self.file = Some(spawn_blocking(move || open(&path)).await.map_err(io::Error::other)??);
        Ok(())
    }

    /// Writes whole lines, and returns their memory. The first one after a line that could be written only in part begins on a line
    /// of its own.
    pub(super) async fn write(&mut self, lines: Vec<u8>) -> (Vec<u8>, Result<(), Unwritten>) {
        let all = count(&lines);
        let (path, mut file) = (self.path.clone(), self.file.take());
        let is_due = Instant::now() >= self.next_check;
        if is_due {
            self.next_check = Instant::now() + CHECK_INTERVAL;
        }
        let writing = spawn_blocking(move || {
            let Some(path) = path else {
                let mut stdout = io::stdout().lock();
                let written = stdout.write_all(&lines).and_then(|()| stdout.flush());
                let written = written.map_err(|error| Unwritten { error, lines: all });
                return (None, lines, written);
            };
            if is_due && file.as_ref().is_some_and(|opened| !is_at(&opened.file, &path)) {
                file = None;
            }
            match file.map_or_else(|| open(&path), Ok) {
                Ok(mut opened) => {
                    let written = opened.append(&lines);
                    (Some(opened), lines, written)
                }
                Err(error) => {
                    let unwritten = Unwritten { error, lines: count(&lines) };
                    (None, lines, Err(unwritten))
                }
            }
        });
        match writing.await {
            Ok((file, lines, written)) => {
                self.file = file;
                (lines, written)
            }
            Err(error) => (Vec::new(), Err(Unwritten { error: io::Error::other(error), lines: all })),
        }
    }
}

impl Opened {
    fn append(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        let unwritten = |(error, written): (io::Error, usize)| {
            let rest = lines.get(written..).unwrap_or_default();
            Unwritten { error, lines: count(rest) }
        };
        if self.is_torn {
            self.file.write_all(b"\n").map_err(|error| unwritten((error, 0)))?;
            self.is_torn = false;
        }
        append(&mut self.file, lines).map_err(|(error, written)| {
            self.is_torn = written.checked_sub(1).is_some_and(|last| lines.get(last) != Some(&b'\n'));
            unwritten((error, written))
        })
    }
}

/// Writes lines for as long as that succeeds. Returns what prevented it, and the number of bytes that were written.
fn append(to: &mut impl Write, lines: &[u8]) -> Result<(), (io::Error, usize)> {
    let mut rest = lines;
    while !rest.is_empty() {
        let error = match to.write(rest) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(written) => {
                rest = &rest[written..];
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        return Err((error, lines.len() - rest.len()));
    }
    Ok(())
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Opens a file, which is created together with its folder if it is not there.
fn open(path: &Path) -> io::Result<Opened> {
    let open = || OpenOptions::new().append(true).create(true).open(path);
    let file = match (open(), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(folder)?;
            open()
        }
        (opened, _) => opened,
    }?;
    // An earlier process may have been killed while it wrote a line. A pipe has no end to look at.
    let is_torn = file.metadata().is_ok_and(|about| about.is_file()) && is_torn(path);
    Ok(Opened { is_torn, file })
}

/// Whether a file ends within a line. No if it is empty or can't be read.
fn is_torn(path: &Path) -> bool {
    let mut last = [b'\n'];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)
    });
    read.is_ok() && last != [b'\n']
}

/// Whether an open file is still the one at its path.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |about: std::fs::Metadata| (about.dev(), about.ino());
    match (file.metadata().map(identity), std::fs::metadata(path).map(identity)) {
        (Ok(open), Ok(there)) => open == there,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for some bytes.
    struct Disk(usize, Vec<u8>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = bytes.len().min(self.0 - self.1.len());
            self.1.extend_from_slice(&bytes[..written]);
            if written == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(written) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_has_the_bytes_for_which_it_had_room() {
        for room in [0, 3, 4, 11] {
            let (error, written) = append(&mut Disk(room, Vec::new()), b"one\ntwo\nsix\n").unwrap_err();
            assert_eq!((written, error.kind()), (room, io::ErrorKind::StorageFull));
        }
        append(&mut Disk(12, Vec::new()), b"one\ntwo\nsix\n").unwrap();
    }

    #[tokio::test]
    async fn a_line_after_a_torn_one_begins_on_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "whole\n{\"time").unwrap();
        let mut sink = Sink::new(Some(path.clone()));
        for line in ["one\n", "two\n"] {
            sink.write(line.into()).await.1.unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\n{\"time\none\ntwo\n");
    }
}
