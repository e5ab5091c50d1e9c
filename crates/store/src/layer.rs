//! Layers around an object store: each changes some of its operations and passes on the rest.
//!
//! [`ObjectStore`] has nine operations, and a wrapper would have to write all of them. A [`Layer`] writes those that it
//! changes; what it does to every operation alike goes into [`Layer::call`] and [`Layer::stream`].

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What an operation does to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads or lists objects.
    Read,
    /// Writes, copies or deletes objects.
    Write,
}

/// A layer around an object store. Every operation goes to [`inner`](Self::inner) unless it is overridden.
pub trait Layer: fmt::Debug + Send + Sync + 'static {
    /// The store below.
    fn inner(&self) -> &Arc<dyn ObjectStore>;

    /// Around every operation that is a single call. `bytes` is how much it moves, as far as that is known before.
    fn call<T: Send>(
        &self,
        access: Access,
        bytes: usize,
        operation: impl Future<Output = Result<T>> + Send,
    ) -> impl Future<Output = Result<T>> + Send {
        let _ = (access, bytes);
        operation
    }

    /// Around every operation that is a stream: listings and deletes.
    fn stream<T: Send + 'static>(
        &self,
        access: Access,
        stream: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let _ = access;
        stream
    }

    /// See [`ObjectStore::put_opts`].
    fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> impl Future<Output = Result<PutResult>> + Send {
        async move {
            let bytes = payload.content_length();
            self.call(Access::Write, bytes, self.inner().put_opts(location, payload, options)).await
        }
    }

    /// See [`ObjectStore::put_multipart_opts`].
    fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> impl Future<Output = Result<Box<dyn MultipartUpload>>> + Send {
        async move { self.call(Access::Write, 0, self.inner().put_multipart_opts(location, options)).await }
    }

    /// See [`ObjectStore::get_opts`].
    fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> impl Future<Output = Result<GetResult>> + Send {
        async move { self.call(Access::Read, 0, self.inner().get_opts(location, options)).await }
    }

    /// See [`ObjectStore::get_ranges`].
    fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> impl Future<Output = Result<Vec<Bytes>>> + Send {
        async move {
            let lengths = ranges.iter().map(|range| range.end.saturating_sub(range.start));
            let bytes = lengths.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
            let bytes = bytes.fold(0, usize::saturating_add);
            self.call(Access::Read, bytes, self.inner().get_ranges(location, ranges)).await
        }
    }

    /// See [`ObjectStore::delete_stream`].
    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.stream(Access::Write, self.inner().delete_stream(locations))
    }

    /// See [`ObjectStore::list`].
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stream(Access::Read, self.inner().list(prefix))
    }

    /// See [`ObjectStore::list_with_offset`].
    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stream(Access::Read, self.inner().list_with_offset(prefix, offset))
    }

    /// See [`ObjectStore::list_with_delimiter`].
    fn list_with_delimiter(&self, prefix: Option<&Path>) -> impl Future<Output = Result<ListResult>> + Send {
        async move { self.call(Access::Read, 0, self.inner().list_with_delimiter(prefix)).await }
    }

    /// See [`ObjectStore::copy_opts`].
    fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> impl Future<Output = Result<()>> + Send {
        async move { self.call(Access::Write, 0, self.inner().copy_opts(from, to, options)).await }
    }
}

/// The object store that a layer makes of the one below. It is displayed as that one is.
#[derive(Debug, Clone)]
pub struct Layered<L>(L);

impl<L: Layer> Layered<L> {
    /// The store with this layer.
    pub fn new(layer: L) -> Self {
        Self(layer)
    }
}

impl<L> Deref for Layered<L> {
    type Target = L;

    fn deref(&self) -> &L {
        &self.0
    }
}

impl<L: Layer> fmt::Display for Layered<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.inner().fmt(f)
    }
}

#[async_trait]
impl<L: Layer> ObjectStore for Layered<L> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests;
