//! An object store whose timestamps are converted to another clock.
//!
//! For a reader that compares an object's age with its own clock, where the store stamps objects by the store's clock.

use std::sync::Arc;

use chrono::TimeDelta;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, ListResult, ObjectMeta, ObjectStore, Result};

use crate::{Layer, Layered};

/// An object store whose timestamps are shifted.
#[derive(Debug)]
pub struct TimestampOffset {
    inner: Arc<dyn ObjectStore>,
    offset: TimeDelta,
}

impl TimestampOffset {
    /// Adds `offset` to each timestamp.
    pub fn new(inner: Arc<dyn ObjectStore>, offset: TimeDelta) -> Layered<Self> {
        Layered::new(Self { inner, offset })
    }
}

fn shifted(mut object: ObjectMeta, offset: TimeDelta) -> ObjectMeta {
    let at = object.last_modified.checked_add_signed(offset);
    object.last_modified = at.unwrap_or(object.last_modified);
    object
}

impl Layer for TimestampOffset {
    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(location, options).await?;
        found.meta = shifted(found.meta, self.offset);
        Ok(found)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = self.offset;
        self.inner.list(prefix).map(move |object| object.map(|object| shifted(object, offset))).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (shift, listed) = (self.offset, self.inner.list_with_offset(prefix, offset));
        listed.map(move |object| object.map(|object| shifted(object, shift))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut found = self.inner.list_with_delimiter(prefix).await?;
        found.objects = found.objects.into_iter().map(|object| shifted(object, self.offset)).collect();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn every_timestamp_is_shown_with_the_offset() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let (a, b) = (Path::from("a"), Path::from("b"));
        for path in [&a, &b] {
            inner.put(path, "1".into()).await.unwrap();
        }
        let stamped = inner.head(&b).await.unwrap().last_modified;
        for offset in [TimeDelta::hours(5), TimeDelta::hours(-5), TimeDelta::zero()] {
            let store = TimestampOffset::new(Arc::clone(&inner), offset);
            let mut shown = vec![store.head(&b).await.unwrap(), store.get(&b).await.unwrap().meta];
            shown.extend(store.list(Some(&Path::default())).try_collect::<Vec<_>>().await.unwrap().pop());
            shown.extend(store.list_with_offset(None, &a).try_collect::<Vec<_>>().await.unwrap());
            shown.extend(store.list_with_delimiter(None).await.unwrap().objects.pop());
            assert_eq!(shown.len(), 5);
            for object in shown {
                assert_eq!((object.location, object.last_modified), (b.clone(), stamped + offset));
            }
        }
        let store = TimestampOffset::new(inner, TimeDelta::MAX);
        assert_eq!(store.head(&b).await.unwrap().last_modified, stamped, "there is no such time");
    }
}
