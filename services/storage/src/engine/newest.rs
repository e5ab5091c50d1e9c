//! Lists numbered files from the newest one that is known on, and not all of them.
//!
//! SlateDB finds its newest manifest, and the newest state of its compactions, by listing every one, several times for
//! each opening. They stay for a day ([`super::garbage`]), and a shard that is written to without a pause adds hundreds
//! a minute, so each opening, and with it each takeover, would take longer than the one before. Numbers only rise and
//! the newest file is never collected, so a search for it can begin at any number that was there.
//!
//! If nothing is left from that number on, because an operator removed what was damaged, everything is listed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use slatedb::object_store::path::Path;
use slatedb::object_store::{Error, ObjectMeta, ObjectStore, PutOptions, PutPayload, PutResult, Result};
use store::{Layer, Layered};

use super::open::PATH;

/// The folders of numbered files, below [`PATH`].
const FOLDERS: [&str; 2] = ["manifest", "compactions"];

/// An object store that lists the folders of numbered files from the newest known one on.
#[derive(Debug)]
pub(crate) struct Newest {
    inner: Arc<dyn ObjectStore>,
    known: Arc<Known>,
}

/// The highest number that was seen in each folder.
#[derive(Debug, Default)]
struct Known(Mutex<BTreeMap<Path, u64>>);

impl Known {
    fn note(&self, file: &Path) {
        let Some((folder, number)) = split(file) else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = known.entry(folder).or_default();
        *newest = number.max(*newest);
    }

    fn of(&self, folder: &Path) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(folder).copied()
    }
}

/// The folder and the number of a numbered file: `db/manifest/00000000000000000007.manifest`.
fn split(file: &Path) -> Option<(Path, u64)> {
    let folder = FOLDERS
        .into_iter()
        .map(|name| Path::from(PATH).join(name))
        .find(|folder| file.prefix_match(folder).is_some_and(|below| below.count() == 1))?;
    let number = file.filename()?.split_once('.')?.0.parse().ok()?;
    Some((folder, number))
}

impl Newest {
    /// Nothing is known yet.
    pub(crate) fn new(inner: Arc<dyn ObjectStore>) -> Layered<Self> {
        Layered::new(Self { inner, known: Arc::default() })
    }
}

impl Layer for Newest {
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
        // What comes after this sorts after the file before the newest known one, so that one is listed too.
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
    use slatedb::object_store::ObjectStoreExt;
    use slatedb::object_store::memory::InMemory;

    use super::*;

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
        let store = Newest::new(Arc::clone(&inner));
        assert_eq!(names(&store, "db/manifest").await.len(), 9, "nothing is known at first");
        assert_eq!(names(&store, "db/manifest").await, ["00000000000000000009.manifest"]);
        // One of its own, and one of another process.
        store.put(&manifest(10), "own".into()).await.unwrap();
        inner.put(&manifest(11), "other".into()).await.unwrap();
        let newest = ["00000000000000000010.manifest", "00000000000000000011.manifest"];
        assert_eq!(names(&store, "db/manifest").await, newest);
        assert_eq!(names(&store, "db/wal").await.len(), 9, "other folders are listed whole");
        assert_eq!(names(&store, "db").await.len(), 20, "and so is what contains them");
    }

    #[tokio::test]
    async fn everything_is_listed_when_the_newest_known_file_was_removed() {
        let store = Newest::new(Arc::new(InMemory::new()));
        for number in 1..=3 {
            store.put(&manifest(number), "state".into()).await.unwrap();
        }
        assert_eq!(names(&store, "db/manifest").await.len(), 1);
        store.delete(&manifest(3)).await.unwrap();
        let left = ["00000000000000000001.manifest", "00000000000000000002.manifest"];
        assert_eq!(names(&store, "db/manifest").await, left);
    }
}
