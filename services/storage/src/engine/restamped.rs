//! An object store whose stamps are shown in another clock's time.
//!
//! SlateDB's collector of garbage has one clock. It ages tables by their names, which are in data time, and the files of
//! the log, manifests and lists of compactions by the stamps of the store, which has a clock of its own. Seen through
//! this, both are in data time.

use std::sync::Arc;

use chrono::TimeDelta;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use slatedb::object_store::path::Path;
use slatedb::object_store::{GetOptions, GetResult, ListResult, ObjectMeta, ObjectStore, Result};
use store::{Layer, Layered};

/// An object store whose stamps are shifted.
#[derive(Debug)]
pub(crate) struct Restamped {
    inner: Arc<dyn ObjectStore>,
    shift: TimeDelta,
}

impl Restamped {
    /// Shows stamps later by `shift`.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, shift: TimeDelta) -> Layered<Self> {
        Layered::new(Self { inner, shift })
    }
}

fn shifted(mut object: ObjectMeta, shift: TimeDelta) -> ObjectMeta {
    let at = object.last_modified.checked_add_signed(shift);
    object.last_modified = at.unwrap_or(object.last_modified);
    object
}

impl Layer for Restamped {
    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(location, options).await?;
        found.meta = shifted(found.meta, self.shift);
        Ok(found)
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
}
