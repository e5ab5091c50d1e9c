//! Notes of an owner beside its database, to distinguish damage to the log from its fences.
//!
//! SlateDB's fence is an empty file in the log, and an emptied file looks the same. So before an owner acknowledges
//! its first write, it notes which numbers its opening has fenced; and once a minute it notes how far its log goes,
//! since a newest file that is removed leaves no other trace. There is one note for each epoch, `notes/{epoch}.json`,
//! which only that epoch's writer writes.
//!
//! An opening that ended early has no note. Fences are in the log in the order of their epochs, so an empty file in no
//! note may be the fence of an epoch without a note, if there is one between the epochs noted before and after it.
//!
//! An operator who has permanently lost a file of the log creates an object `notes/lost-{number}` to declare that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use serde::{Deserialize, Serialize};
use slatedb::object_store::path::Path;
use slatedb::object_store::{self, ObjectStore, ObjectStoreExt};
use store::find;
use tracing::warn;

/// How many notes are requested by name when a listing may have missed one.
const MOST_READ: u64 = 64;

/// The note of one owner.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The numbers at which its opening put a fence, or may have.
    pub(crate) fences: BTreeSet<u64>,
    /// How far its log was known to go.
    pub(crate) last: u64,
}

/// The notes of all owners, by epoch.
#[derive(Debug, Default)]
pub(crate) struct Notes(BTreeMap<u64, Note>);

fn folder() -> Path {
    Path::from("notes")
}

fn path(epoch: u64) -> Path {
    folder().join(format!("{epoch:020}.json"))
}

/// The object by which an operator declares a file of the log lost.
pub(crate) fn lost(number: u64) -> Path {
    folder().join(format!("lost-{number}"))
}

/// Whether an operator has declared a file of the log lost.
pub(crate) async fn is_lost(objects: &Arc<dyn ObjectStore>, number: u64) -> object_store::Result<bool> {
    Ok(find(objects, &lost(number)).await?.is_some())
}

impl Note {
    /// Writes the note. Returns the timestamp that the store gave it.
    pub(crate) async fn write(
        &self,
        objects: &Arc<dyn ObjectStore>,
        epoch: u64,
    ) -> object_store::Result<DateTime<Utc>> {
        let content = serde_json::to_vec(self).expect("plain numbers are always JSON");
        objects.put(&path(epoch), content.into()).await?;
        Ok(objects.head(&path(epoch)).await?.last_modified)
    }
}

impl Notes {
    /// Reads all notes.
    pub(crate) async fn read(objects: &Arc<dyn ObjectStore>) -> object_store::Result<Self> {
        let mut notes = Self::default();
        let mut listed = objects.list(Some(&folder()));
        while let Some(object) = listed.try_next().await? {
            let name = object.location.filename().and_then(|name| name.strip_suffix(".json"));
            if let Some(epoch) = name.and_then(|name| name.parse().ok()) {
                notes.read_one(objects, epoch).await?;
            }
        }
        Ok(notes)
    }

    async fn read_one(&mut self, objects: &Arc<dyn ObjectStore>, epoch: u64) -> object_store::Result<()> {
        let content = match objects.get(&path(epoch)).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&content) {
            Ok(note) => {
                self.0.insert(epoch, note);
            }
            // Treated as missing: a note only helps to find damage elsewhere.
            Err(error) => warn!(%error, epoch, "an owner's note can't be read"),
        }
        Ok(())
    }

    /// Reads those notes by name that may explain an empty file.
    pub(crate) async fn read_around(
        &mut self,
        objects: &Arc<dyn ObjectStore>,
        number: u64,
        writer_epoch: u64,
    ) -> object_store::Result<()> {
        let (before, after) = self.around(number, writer_epoch);
        for epoch in (before + 1..after).rev().take(usize::try_from(MOST_READ).unwrap_or(usize::MAX)) {
            self.read_one(objects, epoch).await?;
        }
        self.read_one(objects, writer_epoch).await
    }

    /// How far the log is known to go; 0 if no note says.
    pub(crate) fn last(&self) -> u64 {
        self.0.values().map(|note| note.last).max().unwrap_or_default()
    }

    /// Whether an empty file with that number is a fence, or may be one of an opening without a note.
    pub(crate) fn explain(&self, number: u64, writer_epoch: u64) -> bool {
        if self.0.values().any(|note| note.fences.contains(&number)) {
            return true;
        }
        let (before, after) = self.around(number, writer_epoch);
        before.saturating_add(1) < after
    }

    /// The last epoch that noted a fence before a number, and the first one that noted one after it.
    fn around(&self, number: u64, writer_epoch: u64) -> (u64, u64) {
        let is_before = |note: &Note| note.fences.last().is_some_and(|last| *last < number);
        let is_after = |note: &Note| note.fences.first().is_some_and(|first| *first > number);
        let before = self.0.iter().filter(|(_, note)| is_before(note)).map(|(epoch, _)| *epoch).max();
        let after = self.0.iter().filter(|(_, note)| is_after(note)).map(|(epoch, _)| *epoch).min();
        (before.unwrap_or_default(), after.unwrap_or_else(|| writer_epoch.saturating_add(1)))
    }

    /// Deletes the notes that are not needed for the log after a number: all before the last one with a fence up to it.
    pub(crate) async fn prune(&self, objects: &Arc<dyn ObjectStore>, after: u64) -> object_store::Result<()> {
        let is_over = |note: &Note| note.fences.last().is_some_and(|last| *last <= after);
        let Some(newest) = self.0.iter().rev().find(|(_, note)| is_over(note)).map(|(epoch, _)| *epoch)
        else {
            return Ok(());
        };
        for (epoch, _) in self.0.range(..newest) {
            objects.delete(&path(*epoch)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use slatedb::object_store::memory::InMemory;

    use super::*;

    fn notes(of: &[(u64, &[u64], u64)]) -> Notes {
        let note = |fences: &[u64], last| Note { fences: fences.iter().copied().collect(), last };
        Notes(of.iter().map(|(epoch, fences, last)| (*epoch, note(fences, *last))).collect())
    }

    #[test]
    fn an_empty_file_is_a_fence_if_it_was_noted_or_may_be_one_of_an_opening_without_a_note() {
        let known = notes(&[(1, &[1], 5), (2, &[6], 9), (4, &[20, 21], 25)]);
        for (number, writer, is_explained) in [
            (1, 4, true),
            (21, 4, true),
            (3, 4, false),
            // Epoch 3 has no note, and is between 2 and 4.
            (15, 4, true),
            (24, 4, false),
            // An opening has begun since.
            (24, 5, true),
        ] {
            assert_eq!(known.explain(number, writer), is_explained, "{number} {writer}");
        }
        assert!(Notes::default().explain(3, 7), "without notes any empty file may be a fence");
        assert_eq!((known.last(), Notes::default().last()), (25, 0));
    }

    #[tokio::test]
    async fn notes_are_read_back_and_pruned_but_for_the_last_before_the_point_of_replay() {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        for (epoch, fence) in [(1, 1), (2, 6), (4, 20)] {
            Note { fences: BTreeSet::from([fence]), last: fence + 1 }.write(&objects, epoch).await.unwrap();
        }
        objects.put(&path(5), "junk".into()).await.unwrap();
        objects.put(&lost(17), "".into()).await.unwrap();
        let read = Notes::read(&objects).await.unwrap();
        assert_eq!(read.0.keys().copied().collect::<Vec<_>>(), [1, 2, 4]);
        assert!(is_lost(&objects, 17).await.unwrap() && !is_lost(&objects, 1).await.unwrap());
        read.prune(&objects, 10).await.unwrap();
        let left = Notes::read(&objects).await.unwrap();
        assert_eq!(left.0.keys().copied().collect::<Vec<_>>(), [2, 4]);
        let mut fresh = Notes::default();
        fresh.read_around(&objects, 25, 5).await.unwrap();
        assert!(fresh.0.contains_key(&4));
    }
}
