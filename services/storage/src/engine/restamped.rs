//! An object store whose timestamps are converted to another clock.
//!
//! SlateDB's garbage collector has one clock. It ages tables by their names, which are in data time, and files of the
//! log, manifests and lists of compactions by the store's timestamps, which are from another clock. Through this store,
//! both are in data time.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::TimeDelta;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use slatedb::object_store::path::Path;
use slatedb::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// An object store whose timestamps are shifted.
#[derive(Debug)]
pub(crate) struct Restamped {
    inner: Arc<dyn ObjectStore>,
    shift: TimeDelta,
}

impl Restamped {
    /// Adds `shift` to each timestamp.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, shift: TimeDelta) -> Self {
        Self { inner, shift }
    }
}

fn shifted(mut object: ObjectMeta, shift: TimeDelta) -> ObjectMeta {
    let at = object.last_modified.checked_add_signed(shift);
    object.last_modified = at.unwrap_or(object.last_modified);
    object
}

impl fmt::Display for Restamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Restamped {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(location, options).await?;
        found.meta = shifted(found.meta, self.shift);
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let shift = self.shift;
        self.inner.list(prefix).map(move |object| object.map(|object| shifted(object, shift))).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (shift, listed) = (self.shift, self.inner.list_with_offset(prefix, offset));
        listed.map(move |object| object.map(|object| shifted(object, shift))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut found = self.inner.list_with_delimiter(prefix).await?;
        found.objects = found.objects.into_iter().map(|object| shifted(object, self.shift)).collect();
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
