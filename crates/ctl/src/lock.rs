//! One `ctl up` or `ctl down` at a time on one cluster.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::out::say;

const POLL: Duration = Duration::from_millis(10);
/// How long to wait for a lock before its holder counts as active. An agent that ctl is starting inherits the lock and
/// holds it until it runs its own program, even if that ctl has been killed.
const GRACE: Duration = Duration::from_secs(1);

/// Held until dropped; the kernel releases it however ctl ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    path: PathBuf,
    /// Whether the locked file serves only as a lock and is removed with it.
    is_own: bool,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Wait until the other command is done.
    #[error("another command works on this cluster: {holder}")]
    Held {
        /// The holder as it wrote itself down: `ctl up (pid 12)`.
        holder: String,
    },
    #[error("no lock at {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock of a run folder, which is created if need be; `holder` names this command in the errors of
    /// others.
    pub(crate) async fn take(run_dir: &Path, holder: &str) -> Result<Self, LockError> {
        let path = run_dir.join("lock");
        let deadline = Instant::now() + GRACE;
        loop {
            match Self::attempt(run_dir, &path, holder) {
                Ok(Some(file)) => return Ok(Self { _file: file, path, is_own: true }),
                Ok(None) => {}
                Err(Attempt::Held(_)) if Instant::now() < deadline => sleep(POLL).await,
                Err(Attempt::Held(holder)) => return Err(LockError::Held { holder }),
                Err(Attempt::Io(source)) => return Err(LockError::Io { path, source }),
            }
        }
    }

    /// The same for a command that only ends processes. If no file can be written, it locks the run folder itself, so
    /// that a full or read-only disk does not prevent a stop. No command that starts processes can be active there.
    pub(crate) async fn take_to_end(run_dir: &Path, holder: &str) -> Result<Self, LockError> {
        match Self::take(run_dir, holder).await {
            Err(LockError::Io { path, source }) if is_unwritable(&source) => {
                say(&format!("warning: {} cannot be written: {source}; going on", path.display()));
                Self::take_folder(run_dir).await
            }
            taken => taken,
        }
    }

    async fn take_folder(run_dir: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { path: run_dir.to_owned(), source };
        // Agents may have lost their run folder. They are found by their command lines, and the folder above it still
        // exists.
        let folder = run_dir.ancestors().find(|folder| folder.exists()).unwrap_or(run_dir);
        let file = File::open(folder).map_err(io)?;
        let deadline = Instant::now() + GRACE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file, path: run_dir.to_owned(), is_own: false }),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(POLL).await,
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::Held { holder: "another `ctl down`".to_owned() });
                }
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
        }
    }

    /// `None` if its last holder removed the file after we opened it and before we locked it.
    fn attempt(run_dir: &Path, path: &Path, holder: &str) -> Result<Option<File>, Attempt> {
        // Settings may hold secrets.
        DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                let holder =
                    if text.trim().is_empty() { "one that did not give its name" } else { text.trim() };
                return Err(Attempt::Held(holder.to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let ours = file.metadata()?;
        let there = std::fs::metadata(path);
        if !there.is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev()) {
            return Ok(None);
        }
        // The lock holds even if a full disk has no room for its holder's name.
        let _ = note(&mut file, holder);
        Ok(Some(file))
    }
}

fn note(file: &mut File, holder: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{holder} (pid {})", std::process::id())
}

/// Whether the disk is full, or we may not write to it.
fn is_unwritable(error: &io::Error) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | QuotaExceeded | ReadOnlyFilesystem | StorageFull)
}

enum Attempt {
    Held(String),
    Io(io::Error),
}

impl From<io::Error> for Attempt {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The file is removed before the lock is released: a process that opened it in between finds it gone and tries again.
impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_own {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_names_the_holder_of_the_lock_and_nothing_is_left_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("demo");
        let lock = Lock::take(&run, "ctl up").await.unwrap();
        let refused = Lock::take(&run, "ctl down").await.unwrap_err().to_string();
        let expected = format!("another command works on this cluster: ctl up (pid {})", std::process::id());
        assert_eq!(refused, expected);
        drop(lock);
        assert_eq!(std::fs::read_dir(&run).unwrap().count(), 0);
        Lock::take(&run, "ctl down").await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_cannot_be_written_is_locked_itself() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take_folder(dir.path()).await.unwrap();
        let refused = Lock::take_folder(dir.path()).await.unwrap_err();
        assert!(matches!(refused, LockError::Held { .. }));
        drop(lock);
        assert!(dir.path().exists());
        Lock::take_folder(dir.path()).await.unwrap();
    }

    #[test]
    fn a_full_disk_is_distinguished_from_other_errors() {
        for (kind, expected) in [
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::ReadOnlyFilesystem, true),
            (io::ErrorKind::PermissionDenied, true),
            (io::ErrorKind::NotADirectory, false),
        ] {
            assert_eq!(is_unwritable(&io::Error::from(kind)), expected, "{kind}");
        }
    }

    #[tokio::test]
    async fn a_lock_that_briefly_outlives_its_holder_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        // Like an agent that a killed ctl has forked and that does not run its own program yet.
        let inherited = File::create(dir.path().join("lock")).unwrap();
        inherited.lock().unwrap();
        let end = async {
            sleep(GRACE / 10).await;
            drop(inherited);
        };
        let (taken, ()) = tokio::join!(Lock::take(dir.path(), "ctl down"), end);
        taken.unwrap();
    }
}
