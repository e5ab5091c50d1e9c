//! Packs: each has the new files of one refresh, one after the other.
//!
//! Names of packs are unique, and a pack is never changed. A pack counts once a manifest names it; one that was uploaded
//! in vain is garbage.

use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use store::ObjectStore;
use store::object_store::path::Path;
use store::object_store::{self, MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;

use super::directory::part_of;
use super::manifest::{Content, StoredFile};

/// The folder of packs, below the shard's own folder on the store.
pub(crate) const FOLDER: &str = "packs";
/// A larger pack is uploaded in parts of this size, and a larger file is fetched in such parts.
const PART: usize = 8 * 1024 * 1024;
/// How long one request may take for [`PART`] bytes.
const LIMIT: Duration = Duration::from_secs(30);
/// How long it may take at least. A request that the store never answers delays an opening by this much.
const LEAST: Duration = Duration::from_secs(5);
/// How many requests fetch at the same time.
const CONCURRENT: usize = 8;
/// How often something is fetched before it counts as damaged or unavailable.
const TRIES: usize = 3;

/// A local file to upload.
#[derive(Debug, Clone)]
pub(crate) struct NewFile {
    pub(crate) path: PathBuf,
    pub(crate) content: Content,
}

/// A file to fetch.
#[derive(Debug, Clone)]
pub(crate) struct WantedFile {
    pub(crate) stored: StoredFile,
    pub(crate) path: PathBuf,
}

/// Why a pack was not written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    /// Try again later.
    #[error("{0}")]
    Store(String),
    /// Read the latest manifest: if it names the pack too, the stored data is damaged.
    #[error("pack `{0}` is gone")]
    Gone(Path),
    /// Restore the pack.
    #[error("{file} in pack `{pack}` has the wrong checksum")]
    Damaged { file: String, pack: Path },
    /// Restore the pack.
    #[error("pack `{pack}` has less than {end} bytes")]
    Short { pack: Path, end: u64 },
    /// A local file can't be read or written.
    #[error("{path}: {error}", path = .path.display())]
    Local { path: PathBuf, error: io::Error },
}

impl PackError {
    /// Whether a pack is not what was uploaded.
    pub(crate) fn is_of_content(&self) -> bool {
        match self {
            Self::Gone(_) | Self::Damaged { .. } | Self::Short { .. } => true,
            Self::Store(_) | Self::Local { .. } => false,
        }
    }
}

pub(crate) fn location(pack: Uuid) -> Path {
    Path::from(FOLDER).join(format!("{pack}.pack"))
}

/// The id of the pack at a location.
pub(crate) fn id_of(location: &Path) -> Option<Uuid> {
    location.filename()?.strip_suffix(".pack")?.parse().ok()
}

fn limit(bytes: usize) -> Duration {
    let millis = (LIMIT - LEAST).as_millis() * bytes as u128 / PART as u128;
    LIMIT.min(LEAST + Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}

/// Does a request that sends or receives this many bytes.
async fn limited<T>(
    bytes: usize,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<T, object_store::Error> {
    let limit = limit(bytes);
    timeout(limit, request).await.unwrap_or_else(|_| {
        let source = format!("no answer within {limit:?}").into();
        Err(object_store::Error::Generic { store: "packs", source })
    })
}

fn store_error(pack: Uuid) -> impl Fn(object_store::Error) -> PackError {
    move |error| match error {
        object_store::Error::NotFound { .. } => PackError::Gone(location(pack)),
        error => PackError::Store(format!("pack `{}`: {error}", location(pack))),
    }
}

fn local_error(path: &FilePath) -> impl Fn(io::Error) -> PackError {
    let path = path.to_owned();
    move |error| PackError::Local { path: path.clone(), error }
}

/// Uploads files as one new pack. Returns where each of them is. Their checksums are verified on the way.
pub(crate) async fn upload(
    objects: &Arc<dyn ObjectStore>,
    files: &[NewFile],
) -> Result<Vec<StoredFile>, PackError> {
    let pack = Uuid::now_v7();
    let mut upload = Upload { objects, pack, parts: None, buffer: Vec::new() };
    let packed = upload.all(files).await;
    if packed.is_err()
        && let Some(parts) = &mut upload.parts
        && let Err(error) = limited(0, parts.abort()).await
    {
        warn!(%error, %pack, "could not abort the upload of a pack");
    }
    packed
}

struct Upload<'a> {
    objects: &'a Arc<dyn ObjectStore>,
    pack: Uuid,
    parts: Option<Box<dyn MultipartUpload>>,
    buffer: Vec<u8>,
}

impl Upload<'_> {
    async fn all(&mut self, files: &[NewFile]) -> Result<Vec<StoredFile>, PackError> {
        let (mut stored, mut offset) = (Vec::new(), 0);
        for NewFile { path, content } in files {
            self.file(path, *content).await?;
            let Content { len, crc } = *content;
            stored.push(StoredFile { len, crc, pack: self.pack, offset });
            offset += content.len;
        }
        let rest = PutPayload::from(std::mem::take(&mut self.buffer));
        match &mut self.parts {
            None => {
                let path = location(self.pack);
                limited(rest.content_length(), self.objects.put(&path, rest))
                    .await
                    .map_err(store_error(self.pack))?;
            }
            Some(parts) => {
                if rest.content_length() > 0 {
                    limited(rest.content_length(), parts.put_part(rest))
                        .await
                        .map_err(store_error(self.pack))?;
                }
                limited(PART, parts.complete()).await.map_err(store_error(self.pack))?;
            }
        }
        Ok(stored)
    }

    async fn file(&mut self, path: &FilePath, content: Content) -> Result<(), PackError> {
        let local = local_error(path);
        let mut file = File::open(path).await.map_err(&local)?;
        let (mut checksum, mut len) = (crc32fast::Hasher::new(), 0);
        loop {
            let before = self.buffer.len();
            self.buffer.reserve(PART - before);
            let room = u64::try_from(PART - before).unwrap_or(u64::MAX);
            let read = (&mut file).take(room).read_buf(&mut self.buffer).await.map_err(&local)?;
            if read == 0 {
                break;
            }
            checksum.update(&self.buffer[before..]);
            len += u64::try_from(read).unwrap_or(u64::MAX);
            if self.buffer.len() >= PART {
                self.part().await?;
            }
        }
        if (Content { len, crc: checksum.finalize() }) != content {
            let error = io::Error::new(io::ErrorKind::InvalidData, "it is not what was written");
            return Err(local(error));
        }
        Ok(())
    }

    async fn part(&mut self) -> Result<(), PackError> {
        let error = store_error(self.pack);
        if self.parts.is_none() {
            let path = location(self.pack);
            self.parts = Some(limited(0, self.objects.put_multipart(&path)).await.map_err(&error)?);
        }
        let part = PutPayload::from(std::mem::take(&mut self.buffer));
        match &mut self.parts {
            Some(parts) => limited(part.content_length(), parts.put_part(part)).await.map_err(error),
            None => Ok(()),
        }
    }
}

/// Fetches files from their packs and verifies them. A file is there whole or not at all.
pub(crate) async fn fetch(objects: &Arc<dyn ObjectStore>, wanted: Vec<WantedFile>) -> Result<(), PackError> {
    let fetches = stream::iter(batches(wanted)).map(|batch| fetch_batch(objects, batch));
    fetches.buffer_unordered(CONCURRENT).try_collect().await
}

/// Files that follow one another in a pack, to be fetched with one request, or one large file.
fn batches(mut wanted: Vec<WantedFile>) -> Vec<Vec<WantedFile>> {
    wanted.sort_by_key(|file| (file.stored.pack, file.stored.offset));
    let most = u64::try_from(PART).unwrap_or(u64::MAX);
    let mut batches: Vec<Vec<WantedFile>> = Vec::new();
    for file in wanted {
        let follows = |batch: &Vec<WantedFile>| {
            batch.first().zip(batch.last()).is_some_and(|(first, last)| {
                let end = last.stored.offset + last.stored.len;
                last.stored.pack == file.stored.pack
                    && end == file.stored.offset
                    && file.stored.offset + file.stored.len - first.stored.offset <= most
            })
        };
        match batches.last_mut().filter(|batch| follows(batch)) {
            Some(batch) => batch.push(file),
            None => batches.push(vec![file]),
        }
    }
    batches
}

async fn fetch_batch(objects: &Arc<dyn ObjectStore>, batch: Vec<WantedFile>) -> Result<(), PackError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let fetched = match &batch[..] {
            [file] => fetch_file(objects, file).await,
            files => fetch_files(objects, files).await,
        };
        match fetched {
            Err(PackError::Store(_) | PackError::Damaged { .. } | PackError::Short { .. })
                if tries < TRIES => {}
            fetched => return fetched,
        }
    }
}

/// Fetches one file, in parts.
async fn fetch_file(objects: &Arc<dyn ObjectStore>, wanted: &WantedFile) -> Result<(), PackError> {
    let WantedFile { stored, path } = wanted;
    let (part, local) = (part_of(path), local_error(path));
    let mut file = File::create(&part).await.map_err(&local)?;
    let (mut checksum, mut done) = (crc32fast::Hasher::new(), 0);
    while done < stored.len {
        let len = (stored.len - done).min(u64::try_from(PART).unwrap_or(u64::MAX));
        let bytes = fetch_range(objects, stored.pack, stored.offset + done, len).await?;
        checksum.update(&bytes);
        file.write_all(&bytes).await.map_err(&local)?;
        done += len;
    }
    file.flush().await.map_err(&local)?;
    if checksum.finalize() != stored.crc {
        return Err(damaged(wanted));
    }
    tokio::fs::rename(&part, path).await.map_err(local)
}

/// Fetches several files that follow one another.
async fn fetch_files(objects: &Arc<dyn ObjectStore>, files: &[WantedFile]) -> Result<(), PackError> {
    let Some(first) = files.first() else { return Ok(()) };
    let (pack, from) = (first.stored.pack, first.stored.offset);
    let len = files.iter().map(|file| file.stored.len).sum();
    let mut bytes = fetch_range(objects, pack, from, len).await?;
    for wanted in files {
        let len = usize::try_from(wanted.stored.len).unwrap_or(usize::MAX).min(bytes.len());
        let content = bytes.split_to(len);
        if crc32fast::hash(&content) != wanted.stored.crc {
            return Err(damaged(wanted));
        }
        let (part, local) = (part_of(&wanted.path), local_error(&wanted.path));
        tokio::fs::write(&part, &content).await.map_err(&local)?;
        tokio::fs::rename(&part, &wanted.path).await.map_err(local)?;
    }
    Ok(())
}

async fn fetch_range(
    objects: &Arc<dyn ObjectStore>,
    pack: Uuid,
    from: u64,
    len: u64,
) -> Result<Bytes, PackError> {
    if len == 0 {
        return Ok(Bytes::new());
    }
    let (path, end) = (location(pack), from + len);
    let bytes = match limited(usize::try_from(len).unwrap_or(PART), objects.get_range(&path, from..end)).await
    {
        Ok(bytes) => bytes,
        // Stores report a range beyond the end in different ways.
        Err(error) => match limited(0, objects.head(&path)).await {
            Ok(found) if found.size < end => Bytes::new(),
            Ok(_) | Err(_) => return Err(store_error(pack)(error)),
        },
    };
    if u64::try_from(bytes.len()).ok() != Some(len) {
        return Err(PackError::Short { pack: path, end });
    }
    Ok(bytes)
}

fn damaged(wanted: &WantedFile) -> PackError {
    let file = wanted.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    PackError::Damaged { file: format!("file `{file}`"), pack: location(wanted.stored.pack) }
}

#[cfg(test)]
mod tests;
