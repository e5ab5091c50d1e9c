//! Verifies the local files of a shard after a request has failed in a way that a damaged file explains.
//!
//! A request that panics or finds corrupt data is reported here. Then the checksums of all files that searches use are
//! compared with those noted when the files were written or fetched. If a file is damaged, the shard is opened again, which
//! fetches it from the store. If none is, the request itself is to blame, or Tantivy: so that a client that repeats such a
//! request does not keep the disk busy, the next verification waits a minute, and longer after one that took long.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tantivy::TantivyError;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};
use uuid::Uuid;

use super::indexer::{Local, blocking};
use super::local_indexes::Committed;
use super::manifest::Content;
use super::status::{Meters, Status, Trouble};

/// The shortest pause after a verification.
const PAUSE: Duration = Duration::from_secs(60);
/// The pause after a verification is at least this many times as long as the verification.
const SHARE: u32 = 20;

/// What failed requests say about the local files.
#[derive(Debug, Default)]
pub(crate) struct Suspicion {
    reported: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The first report since the last verification.
    why: Option<String>,
    not_before: Option<Instant>,
}

/// Whether an error says that the content of a file is not what was written.
pub(crate) fn is_of_content(error: &TantivyError) -> bool {
    matches!(
        error,
        TantivyError::DataCorruption(_)
            | TantivyError::IoError(_)
            | TantivyError::OpenReadError(_)
            | TantivyError::IncompatibleIndex(_)
            | TantivyError::DeserializeError(_)
    )
}

impl Suspicion {
    /// Reports that a request has failed.
    pub(crate) fn report(&self, why: &str) {
        self.state().why.get_or_insert_with(|| why.to_owned());
        self.reported.notify_one();
    }

    /// Verifies the files after each report. Returns only if a file is damaged: which one. The shard must then be opened
    /// again with all files verified.
    pub(crate) async fn watch(&self, local: &Local, status: &Status, meters: &Meters) -> String {
        loop {
            self.reported.notified().await;
            let not_before = self.state().not_before;
            if let Some(at) = not_before {
                sleep_until(at).await;
            }
            let Some(why) = self.state().why.take() else { continue };
            warn!(why, "a request has failed: the shard's local files are verified");
            status.set(
                Trouble::Verifying,
                format!("local files are verified, because a request failed: {why}"),
            );
            let began = Instant::now();
            let committed = match blocking(local, |local| local.refreshed().committed).await {
                Ok(committed) => committed,
                Err(why) => return why,
            };
            let found = spawn_blocking(move || damaged(&committed)).await;
            meters.verifications.inc();
            self.state().not_before = Some(Instant::now() + PAUSE.max(SHARE * began.elapsed()));
            match found {
                Ok(None) => {
                    info!(took = ?began.elapsed(), "no local file is damaged");
                    status.clear(Trouble::Verifying);
                }
                Ok(Some((path, why))) => {
                    return format!("the local file `{}` is damaged: {why}", path.display());
                }
                Err(error) => return format!("the local files can't be verified: {error}"),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is not what was written, and how it differs. They are not removed while they are read, as the states of the
/// indexes are held.
fn damaged(indexes: &BTreeMap<Uuid, Arc<Committed>>) -> Option<(PathBuf, String)> {
    let files = indexes.values().flat_map(|index| index.files.values());
    files.into_iter().find_map(|file| Some((file.path.clone(), difference(&file.path, file.content)?)))
}

fn difference(path: &Path, content: Content) -> Option<String> {
    match content_of(path) {
        Ok(found) if found == content => None,
        Ok(found) if found.len != content.len => {
            Some(format!("it has {} bytes instead of {}", found.len, content.len))
        }
        Ok(_) => Some("its checksum is wrong".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// The length and checksum of a file.
pub(crate) fn content_of(path: &Path) -> io::Result<Content> {
    let (mut file, mut hasher, mut len) = (File::open(path)?, crc32fast::Hasher::new(), 0);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Content { len, crc: hasher.finalize() }),
            read => {
                hasher.update(&buffer[..read]);
                len += u64::try_from(read).unwrap_or(u64::MAX);
            }
        }
    }
}
