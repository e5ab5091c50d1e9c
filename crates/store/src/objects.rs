//! Small objects, read and written within a time limit. All access to control records goes through here.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::error::{Fault, StoreError, is_missing_bucket};
use crate::url::StoreUrl;

/// How long one operation may take, the clients' own retries included.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// How many objects are removed at once.
const AT_ONCE: usize = 32;

/// The objects of one cluster, with names relative to its folder.
#[derive(Clone)]
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    /// For messages: where the store is.
    place: Arc<str>,
    is_local: bool,
    limit: Duration,
}

/// The result of a create-if-absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    /// The object is ours.
    Yes,
    /// The store reports that it exists already, or that another client is writing it.
    AlreadyThere,
}

impl fmt::Debug for Objects {
    /// Without the client, which may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Objects").field(&self.place).finish()
    }
}

impl Objects {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, url: &StoreUrl) -> Self {
        Self { store, place: url.to_string().into(), is_local: url.is_local(), limit: LIMIT }
    }

    /// The objects of one role, whose URL is not known.
    pub(crate) fn of_role(store: Arc<dyn ObjectStore>) -> Self {
        Self { place: store.to_string().into(), is_local: false, store, limit: LIMIT }
    }

    /// The same with another time limit.
    pub(crate) fn within(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }

    /// The store itself, for data other than control records.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The content of an object; `None` if there is none.
    pub(crate) async fn read(&self, path: &Path) -> Result<Option<Bytes>, StoreError> {
        Ok(self.read_stamped(path).await?.map(|(content, _)| content))
    }

    /// The content of an object and its metadata; `None` if there is none.
    pub(crate) async fn read_stamped(&self, path: &Path) -> Result<Option<(Bytes, ObjectMeta)>, StoreError> {
        let read = async {
            match self.store.get(path).await {
                Ok(found) => {
                    let meta = found.meta.clone();
                    Ok(Some((found.bytes().await?, meta)))
                }
                Err(error @ object_store::Error::NotFound { .. }) if !is_missing_bucket(&error) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.limited("read", path, read).await
    }

    /// The metadata of an object; `None` if there is none.
    pub(crate) async fn head(&self, path: &Path) -> Result<Option<ObjectMeta>, StoreError> {
        let look = async {
            match self.store.head(path).await {
                Ok(meta) => Ok(Some(meta)),
                Err(error @ object_store::Error::NotFound { .. }) if !is_missing_bucket(&error) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.limited("read", path, look).await
    }

    /// Writes an object unless there is one of that name.
    pub(crate) async fn create(&self, path: &Path, content: Bytes) -> Result<Created, StoreError> {
        let create = async {
            let options = PutOptions::from(PutMode::Create);
            match self.store.put_opts(path, PutPayload::from_bytes(content), options).await {
                Ok(_) => Ok(Created::Yes),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::AlreadyThere),
                Err(error) => Err(error),
            }
        };
        self.limited("write", path, create).await
    }

    /// Writes an object, replacing any of that name.
    pub(crate) async fn overwrite(&self, path: &Path, content: Bytes) -> Result<(), StoreError> {
        let put = async { self.store.put(path, PutPayload::from_bytes(content)).await.map(|_| ()) };
        self.limited("write", path, put).await
    }

    /// Removes an object; it is no error if there is none.
    pub(crate) async fn delete(&self, path: &Path) -> Result<(), StoreError> {
        let delete = async {
            match self.store.delete(path).await {
                Err(error @ object_store::Error::NotFound { .. }) if !is_missing_bucket(&error) => Ok(()),
                other => other,
            }
        };
        self.limited("delete", path, delete).await
    }

    /// Removes all objects below `prefix`, and returns their number. The time limit applies to each request, not to the
    /// whole.
    pub(crate) async fn delete_below(&self, prefix: &Path) -> Result<usize, StoreError> {
        let mut listed = self.store.list(Some(prefix)).ready_chunks(AT_ONCE);
        let mut deleted = 0;
        loop {
            let next = async { Ok(listed.next().await) };
            let Some(chunk) = self.limited("list", prefix, next).await? else { return Ok(deleted) };
            let listed = chunk.into_iter().collect::<object_store::Result<Vec<_>>>();
            let listed = self.limited("list", prefix, async { listed }).await?;
            let paths: Vec<_> = listed.into_iter().map(|meta| meta.location).collect();
            try_join_all(paths.iter().map(|path| self.delete(path))).await?;
            deleted += paths.len();
        }
    }

    /// All objects below `prefix`, in no particular order.
    pub(crate) async fn list(&self, prefix: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        self.limited("list", prefix, self.store.list(Some(prefix)).try_collect()).await
    }

    /// All objects below `prefix` whose names sort after `after`, in no particular order.
    pub(crate) async fn list_after(
        &self,
        prefix: &Path,
        after: &Path,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        self.limited("list", prefix, self.store.list_with_offset(Some(prefix), after).try_collect()).await
    }

    /// An error about an object with an unexpected content.
    pub(crate) fn error(&self, fault: Fault, doing: &'static str, path: &Path, cause: String) -> StoreError {
        StoreError::of(fault, doing, path.as_ref(), &self.place, cause)
    }

    async fn limited<T>(
        &self,
        doing: &'static str,
        path: &Path,
        operation: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.limit, operation).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(StoreError::new(doing, path.as_ref(), &self.place, error)),
            Err(_) => {
                let cause = format!("no answer within {:?}", self.limit);
                Err(self.error(Fault::Timeout, doing, path, cause))
            }
        }
    }
}
