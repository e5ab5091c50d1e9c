//! Lists folders of numbered files from the newest known file onwards, instead of all of them.
//!
//! A reader that finds the newest file of a folder by listing takes longer with every file that was ever added. Where
//! numbers only rise and the newest file is never deleted, a listing can begin at any number that has existed
//! (`start-after` in S3).
//!
//! If no file is left from that number onwards, because an operator removed damaged ones, everything is listed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, PutOptions, PutPayload, PutResult, Result};

use crate::{Layer, Layered};

/// An object store that lists its folders of numbered files from the newest known one onwards: the newest that it has
/// listed or written itself.
///
/// Each file's name begins with its number, in twenty digits, and a dot: `00000000000000000007.json`.
#[derive(Debug)]
pub struct IncrementalListing {
    inner: Arc<dyn ObjectStore>,
    known: Arc<Known>,
}

/// The highest number that was seen in each folder of numbered files; none where there was none yet.
#[derive(Debug)]
struct Known(Mutex<BTreeMap<Path, Option<u64>>>);

impl Known {
    fn note(&self, file: &Path) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_in = |folder: &Path| file.prefix_match(folder).is_some_and(|below| below.count() == 1);
        let Some((_, newest)) = known.iter_mut().find(|(folder, _)| is_in(folder)) else { return };
        *newest = number(file).max(*newest);
    }

    fn of(&self, folder: &Path) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(folder).copied().flatten()
    }
}

/// The number of a numbered file.
fn number(file: &Path) -> Option<u64> {
    file.filename()?.split_once('.')?.0.parse().ok()
}

impl IncrementalListing {
    /// A store without known files in these folders of numbered files. All others are listed whole.
    pub fn new(inner: Arc<dyn ObjectStore>, folders: impl IntoIterator<Item = Path>) -> Layered<Self> {
        let known = folders.into_iter().map(|folder| (folder, None)).collect();
        Layered::new(Self { inner, known: Arc::new(Known(Mutex::new(known))) })
    }
}

impl Layer for IncrementalListing {
    fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let result = self.inner.put_opts(location, payload, options).await?;
        self.known.note(location);
        Ok(result)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let known = Arc::clone(&self.known);
        let note = move |object: &ObjectMeta| known.note(&object.location);
        // This offset sorts after the file before the newest known one, so the newest known one is listed too.
        let before = prefix.and_then(|folder| {
            Some(folder.clone().join(format!("{:020}.zz", self.known.of(folder)?.checked_sub(1)?)))
        });
        let Some(before) = before else { return self.inner.list(prefix).inspect_ok(note).boxed() };
        let (inner, prefix) = (Arc::clone(&self.inner), prefix.cloned());
        let listed = async move {
            let newest: Vec<ObjectMeta> =
                inner.list_with_offset(prefix.as_ref(), &before).try_collect().await?;
            let all = newest.is_empty().then(|| inner.list(prefix.as_ref()));
            Ok::<_, Error>(stream::iter(newest.into_iter().map(Ok)).chain(stream::iter(all).flatten()))
        };
        stream::once(listed).try_flatten().inspect_ok(note).boxed()
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    fn listing(inner: Arc<dyn ObjectStore>) -> Layered<IncrementalListing> {
        IncrementalListing::new(inner, [Path::from("db/manifest"), Path::from("db/compactions")])
    }

    async fn names(store: &impl ObjectStore, folder: &str) -> Vec<String> {
        let listed = store
            .list(Some(&Path::from(folder)))
            .map_ok(|object| object.location.filename().map(str::to_owned));
        let mut names: Vec<_> = listed.try_collect::<Vec<_>>().await.unwrap().into_iter().flatten().collect();
        names.sort();
        names
    }

    fn manifest(number: u64) -> Path {
        Path::from(format!("db/manifest/{number:020}.manifest"))
    }

    #[tokio::test]
    async fn the_newest_known_file_and_all_later_ones_are_listed() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        for number in 1..=9 {
            inner.put(&manifest(number), "old".into()).await.unwrap();
            inner.put(&Path::from(format!("db/wal/{number:020}.sst")), "log".into()).await.unwrap();
        }
        let store = listing(Arc::clone(&inner));
        assert_eq!(names(&store, "db/manifest").await.len(), 9, "nothing is known at first");
        assert_eq!(names(&store, "db/manifest").await, ["00000000000000000009.manifest"]);
        // One file of this process, and one of another.
        store.put(&manifest(10), "own".into()).await.unwrap();
        inner.put(&manifest(11), "other".into()).await.unwrap();
        let newest = ["00000000000000000010.manifest", "00000000000000000011.manifest"];
        assert_eq!(names(&store, "db/manifest").await, newest);
        assert_eq!(names(&store, "db/wal").await.len(), 9, "other folders are listed whole");
        assert_eq!(names(&store, "db").await.len(), 20, "and so is what contains them");
    }

    #[tokio::test]
    async fn everything_is_listed_when_the_newest_known_file_was_removed() {
        let store = listing(Arc::new(InMemory::new()));
        for number in 1..=3 {
            store.put(&manifest(number), "state".into()).await.unwrap();
        }
        assert_eq!(names(&store, "db/manifest").await.len(), 1);
        store.delete(&manifest(3)).await.unwrap();
        let left = ["00000000000000000001.manifest", "00000000000000000002.manifest"];
        assert_eq!(names(&store, "db/manifest").await, left);
    }
}
