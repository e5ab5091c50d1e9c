//! Whether an object exists.

use std::sync::Arc;

use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, Result};

/// What the store has of an object; `None` if there is no such object.
pub async fn find(objects: &Arc<dyn ObjectStore>, location: &Path) -> Result<Option<ObjectMeta>> {
    match objects.head(location).await {
        Ok(found) => Ok(Some(found)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::faults::{Faults, Mode};

    #[tokio::test]
    async fn only_a_missing_object_is_none() {
        let faults = Faults::new(Arc::new(InMemory::new()));
        let (objects, path) = (faults.objects(), Path::from("a"));
        assert_eq!(find(&objects, &path).await.unwrap(), None);
        objects.put(&path, "12".into()).await.unwrap();
        assert_eq!(find(&objects, &path).await.unwrap().map(|found| found.size), Some(2));
        faults.set(Mode::Unreachable);
        assert!(find(&objects, &path).await.is_err());
    }
}
