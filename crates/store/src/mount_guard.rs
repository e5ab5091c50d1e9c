//! Detects that a store's folder is gone: unmounted, moved away, emptied, or replaced.
//!
//! The client of the file system creates missing folders, and takes a missing file for an answer. If the folder is gone,
//! that would begin a second history: writes that are acknowledged and lost when the folder is back, and a claim without
//! a holder. So `store.json` is the mark: while it is the same file as when the store was opened, so is the folder.
//! Anything else is an error, which ends when the folder is back.
//!
//! The mark is checked after each change, and before it unless it was checked in the last few milliseconds.

use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetResult, ListResult, MultipartUpload, OBJECT_STORE_COALESCE_DEFAULT, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutPayload, PutResult, Result, UploadPart, coalesce_ranges,
};

use crate::page_cache::read_if_cached;
use crate::{Access, Layer, Layered};

/// The file that identifies the folder.
#[derive(Debug)]
struct Mark {
    path: PathBuf,
    /// The device and the inode.
    file: (u64, u64),
    /// When the last successful check began.
    right_at: Mutex<Option<Instant>>,
}

/// How old the last check before a change may be: about as long as the change itself takes.
const RECENT: Duration = Duration::from_millis(5);

/// An object store in a folder; its calls fail if the folder is not the one that was opened. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct MountGuard {
    inner: Arc<dyn ObjectStore>,
    mark: Arc<Mark>,
}

impl Mark {
    fn was_right_just_now(&self) -> bool {
        let right_at = *self.right_at.lock().unwrap_or_else(PoisonError::into_inner);
        right_at.is_some_and(|at| at.elapsed() <= RECENT)
    }

    fn check(&self) -> Result<()> {
        let looked = Instant::now();
        let checked = self.look();
        *self.right_at.lock().unwrap_or_else(PoisonError::into_inner) = checked.is_ok().then_some(looked);
        checked
    }

    fn look(&self) -> Result<()> {
        match std::fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.file => Ok(()),
            Ok(_) => Err(gone(&self.path, "is another file than when the store was opened")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(gone(&self.path, "is gone")),
            Err(error) => {
                let named = io::Error::new(error.kind(), format!("{}: {error}", self.path.display()));
                Err(Error::Generic { store: "folder", source: named.into() })
            }
        }
    }
}

fn gone(path: &std::path::Path, what: &str) -> Error {
    let error = io::Error::new(io::ErrorKind::NotFound, format!("{} {what}", path.display()));
    Error::Generic { store: "folder", source: error.into() }
}

impl MountGuard {
    /// The store in a folder whose `store.json` is at `path`.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, path: PathBuf) -> io::Result<Layered<Self>> {
        let found = std::fs::metadata(&path)?;
        let mark = Arc::new(Mark { path, file: (found.dev(), found.ino()), right_at: Mutex::default() });
        Ok(Layered::new(Self { inner, mark }))
    }

    /// Not on the threads that answer requests: a mount that hangs would block them.
    async fn check(&self) -> Result<()> {
        let mark = Arc::clone(&self.mark);
        tokio::task::spawn_blocking(move || mark.check()).await?
    }

    /// Makes a change, and checks before and after it that the folder is the same.
    async fn change<T>(&self, change: impl Future<Output = Result<T>>) -> Result<T> {
        if !self.mark.was_right_just_now() {
            self.check().await?;
        }
        let changed = change.await;
        self.mark.check()?;
        changed
    }
}

impl Layer for MountGuard {
    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn call<T: Send>(
        &self,
        access: Access,
        _bytes: usize,
        operation: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match access {
            Access::Read => operation.await,
            Access::Write => self.change(operation).await,
        }
    }

    /// Ends a list with an error if the folder is gone, since objects may be missing from it.
    fn stream<T: Send + 'static>(
        &self,
        _access: Access,
        stream: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let mark = Arc::clone(&self.mark);
        let end = stream::once(async move { mark.check() }).filter_map(async |end| end.err().map(Err));
        stream.chain(end).boxed()
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.change(self.inner.put_multipart_opts(location, opts)).await?;
        Ok(Box::new(Upload { inner, store: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let found = self.inner.get_opts(location, options).await;
        if let Err(Error::NotFound { .. }) = &found {
            self.mark.check()?;
        }
        found.map(read_if_cached)
    }

    /// Each range by [`get_opts`](Layer::get_opts), which reads small ones at once.
    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let read = async |range: Range<u64>| {
            let options = GetOptions::default().with_range(Some(range));
            Layer::get_opts(self, location, options).await?.bytes().await
        };
        coalesce_ranges(ranges, read, OBJECT_STORE_COALESCE_DEFAULT).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |location: Path| {
            let this = this.clone();
            async move {
                this.change(this.inner.delete(&location)).await?;
                Ok(location)
            }
        };
        locations.and_then(delete).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listed = self.inner.list_with_delimiter(prefix).await;
        self.mark.check()?;
        listed
    }
}

/// An object that is written in parts.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    store: MountGuard,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.change(self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::{ClaimState, Fault, OpenError, Store, StoreUrl};

    #[tokio::test]
    async fn no_second_history_begins_in_a_folder_that_is_gone() {
        let around = tempfile::tempdir().unwrap();
        let (root, away) = (around.path().join("store"), around.path().join("away"));
        let url = StoreUrl::folder(&root).unwrap();
        let cluster = "demo".parse().unwrap();
        let store = Store::open(&url, &cluster).await.unwrap();
        let (claims, shard) = (store.claims(), "storage/0".parse().unwrap());
        let (node, unowned) = ("a".parse().unwrap(), ClaimState::default());
        let holder = claims.take(&shard, &unowned, &node, types::Generation(1)).await.unwrap();

        for has_another in [false, true] {
            fs::rename(&root, &away).unwrap();
            if has_another {
                fs::create_dir_all(root.join("demo")).unwrap();
                fs::write(root.join("demo/store.json"), "{}").unwrap();
            }
            let error = claims.read(&shard).await.unwrap_err();
            assert_eq!(error.fault(), Fault::Missing, "{error}");
            assert!(error.hint().unwrap().contains("is it mounted"), "{error}");
            assert!(claims.is_latest(&shard, holder.epoch.0).await.is_err());
            assert!(claims.take(&shard, &unowned, &node, types::Generation(2)).await.is_err());
            assert!(claims.all().await.is_err());
            assert!(!root.join("demo/claims").exists(), "nothing is written beside the store");
            if has_another {
                fs::remove_dir_all(&root).unwrap();
            }
            fs::rename(&away, &root).unwrap();
            assert!(claims.is_latest(&shard, holder.epoch.0).await.unwrap(), "it recovers automatically");
        }

        fs::remove_file(root.join("demo/store.json")).unwrap();
        assert!(claims.read(&shard).await.is_err());
        let error = Store::open(&url, &cluster).await.unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("is gone, though"), "{error}");
    }
}
