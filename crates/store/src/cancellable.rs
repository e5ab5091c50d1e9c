//! An object store that can be cut off: whoever waits for it then waits no more.
//!
//! A reader of the database ends only between two looks, and a store that hangs would hold it up for as long.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use slatedb::object_store::path::Path;
use slatedb::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio_util::sync::CancellationToken;

/// A store that can be cut off, and is only read.
#[derive(Debug)]
pub(crate) struct Cut {
    inner: Arc<dyn ObjectStore>,
    off: CancellationToken,
}

impl Cut {
    /// Until the token is cancelled it is the store itself.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, off: CancellationToken) -> Self {
        Self { inner, off }
    }

    async fn unless_off<T>(&self, operation: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.off.cancelled() => Err(is_off()),
            outcome = operation => outcome,
        }
    }

    fn stream_unless_off<T: Send + 'static>(
        &self,
        stream: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let off = self.off.clone();
        let end = stream::once(async move { off.is_cancelled().then(|| Err(is_off())) });
        let end = end.filter_map(std::future::ready);
        stream.take_until(self.off.clone().cancelled_owned()).chain(end).boxed()
    }
}

fn is_off() -> Error {
    // Of the errors that are not tried again.
    Error::NotSupported { source: "the store is not used any more".into() }
}

fn only_read<T>() -> Result<T> {
    Err(Error::NotSupported { source: "a copy of a shard writes nothing".into() })
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Cut {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        only_read()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        only_read()
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.unless_off(self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.unless_off(self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(std::future::ready(only_read())).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stream_unless_off(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stream_unless_off(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.unless_off(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        only_read()
    }
}
