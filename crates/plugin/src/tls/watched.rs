//! Files that are read again when they change.
//!
//! They are polled, through symbolic links, by device, inode, time of change and length. Watching them would miss the
//! replacement of a folder's link, which is how Kubernetes updates secrets, and every change on a network file system.
//! Contents that can't be used change nothing: what was parsed before stays.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Files that are of use together.
pub(super) trait Files: Clone + Debug {
    /// What they are parsed to.
    type Parsed: Clone + Debug;

    fn paths(&self) -> Vec<&Path>;

    /// Parses the contents of the files, in the order of [`paths`](Self::paths). Fails in words.
    fn parse(&self, contents: &[Vec<u8>]) -> Result<Self::Parsed, String>;
}

/// What identifies the state of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: Option<SystemTime>,
    len: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let about = std::fs::metadata(path).ok()?;
        let (device, inode) = (about.dev(), about.ino());
        Some(Self { device, inode, modified: about.modified().ok(), len: about.len() })
    }
}

pub(super) enum Change {
    None,
    Loaded,
    Failed,
}

/// Files, and what they were when they could be used last.
#[derive(Debug, Clone)]
pub(super) struct Watched<F: Files> {
    pub(super) files: F,
    stamps: Option<Vec<Stamp>>,
    /// A hash of what the files contained when they were last judged.
    judged: Option<u64>,
    /// The same if it was unusable once. It is judged on the next poll: between the replacements of two files, they do not fit
    /// together, and a file may be half written.
    suspect: Option<u64>,
    pub(super) parsed: Option<F::Parsed>,
    /// Why the files can't be used.
    pub(super) trouble: Option<String>,
}

impl<F: Files> Watched<F> {
    /// Files that were not read yet.
    pub(super) fn new(files: F) -> Self {
        Self { files, stamps: None, judged: None, suspect: None, parsed: None, trouble: None }
    }

    /// Reads them if they have changed. Blocking.
    pub(super) fn poll(&mut self) -> Change {
        let stamps: Option<Vec<_>> = self.files.paths().into_iter().map(Stamp::of).collect();
        let is_settled = self.trouble.is_none() && self.suspect.is_none() && self.judged.is_some();
        if is_settled && stamps.is_some() && stamps == self.stamps {
            return Change::None;
        }
        self.stamps = stamps;
        let contents: Result<Vec<_>, String> = self.files.paths().into_iter().map(read).collect();
        let mut hasher = DefaultHasher::new();
        contents.hash(&mut hasher);
        let hash = hasher.finish();
        if self.judged == Some(hash) {
            self.suspect = None;
            return Change::None;
        }
        match contents.and_then(|contents| self.files.parse(&contents)) {
            Ok(parsed) => {
                let (parsed, judged) = (Some(parsed), Some(hash));
                (self.parsed, self.judged, self.suspect, self.trouble) = (parsed, judged, None, None);
                Change::Loaded
            }
            Err(_) if self.parsed.is_some() && self.suspect != Some(hash) => {
                self.suspect = Some(hash);
                Change::None
            }
            Err(error) => {
                (self.judged, self.suspect, self.trouble) = (Some(hash), None, Some(error));
                Change::Failed
            }
        }
    }
}

/// The contents of a regular file of moderate size.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{} can't be read: {error}", path.display());
    let about = std::fs::metadata(path).map_err(failed)?;
    if !about.is_file() {
        return Err(format!("{} is not a file", path.display()));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("{} has more than {MAX_FILE} bytes", path.display()));
    }
    Ok(bytes)
}
