//! Where lines go: the standard output, or a file that is opened again when it was moved away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
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
    file: Option<File>,
    next_check: Instant,
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

    /// Writes whole lines, and returns their memory.
    pub(super) async fn write(&mut self, lines: Vec<u8>) -> (Vec<u8>, io::Result<()>) {
        let (path, mut file) = (self.path.clone(), self.file.take());
        let is_due = Instant::now() >= self.next_check;
        if is_due {
            self.next_check = Instant::now() + CHECK_INTERVAL;
        }
        let writing = spawn_blocking(move || {
            let Some(path) = path else {
                let mut stdout = io::stdout().lock();
                let written = stdout.write_all(&lines).and_then(|()| stdout.flush());
                return (None, lines, written);
            };
            if is_due && file.as_ref().is_some_and(|file| !is_at(file, &path)) {
                file = None;
            }
            match file.map_or_else(|| open(&path), Ok) {
                Ok(mut file) => {
                    let written = file.write_all(&lines);
                    (Some(file), lines, written)
                }
                Err(error) => (None, lines, Err(error)),
            }
        });
        match writing.await {
            Ok((file, lines, written)) => {
                self.file = file;
                (lines, written)
            }
            Err(error) => (Vec::new(), Err(io::Error::other(error))),
        }
    }
}

/// Opens a file, which is created together with its folder if it is not there.
fn open(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().append(true).create(true).open(path);
    match (open(), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(folder)?;
            open()
        }
        (opened, _) => opened,
    }
}

/// Whether an open file is still the one at its path.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |about: std::fs::Metadata| (about.dev(), about.ino());
    match (file.metadata().map(identity), std::fs::metadata(path).map(identity)) {
        (Ok(open), Ok(there)) => open == there,
        _ => false,
    }
}
