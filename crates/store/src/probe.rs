//! Tests whether a store gives the guarantee that everything here depends on.
//!
//! Not every store with an S3 API does: some ignore `If-None-Match` and let every creator of an object win.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use object_store::path::Path;
use uuid::Uuid;

use crate::error::{Fault, StoreError};
use crate::objects::{Created, Objects};

/// How many creators race for one object.
pub(crate) const RACERS: usize = 16;

/// How much is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Everything; once per store.
    Full,
    /// Only whether an object can be created twice; at each opening.
    Quick,
}

/// Why a store did not pass.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It gave a wrong answer.
    Unfit(String),
    /// It did not answer.
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The folder of one test, relative to the cluster's.
pub(crate) fn folder() -> Path {
    Path::from("probe").join(Uuid::now_v7().to_string())
}

/// Runs the test in `folder` and removes what it wrote, whatever its result. (A process that is killed meanwhile
/// leaves a few small objects below `probe/`, which are never read and can be removed.)
pub(crate) async fn test(objects: &Objects, folder: &Path, depth: Depth) -> Result<(), Refusal> {
    let result = match depth {
        Depth::Full => {
            let tests = tokio::try_join!(
                creates_once(objects, folder),
                has_one_winner(objects, folder),
                overwrites_and_deletes(objects, folder),
                lists_all(objects, folder),
            );
            tests.map(|_| ())
        }
        Depth::Quick => creates_once(objects, folder).await,
    };
    let removed = remove(objects, folder).await;
    result?;
    Ok(removed?)
}

async fn remove(objects: &Objects, folder: &Path) -> Result<(), StoreError> {
    let left = objects.list(folder).await?;
    try_join_all(left.iter().map(|meta| objects.delete(&meta.location))).await?;
    Ok(())
}

async fn creates_once(objects: &Objects, folder: &Path) -> Result<(), Refusal> {
    let path = folder.clone().join("once");
    if create(objects, &path, "first").await? != Created::Yes {
        return unfit("a new object could not be created: the store reports that it exists already");
    }
    if create(objects, &path, "second").await? == Created::Yes {
        return unfit(
            "2 creators of one object both succeeded: it ignores If-None-Match, so two nodes could own one shard",
        );
    }
    match objects.read(&path).await? {
        Some(content) if content == "first" => Ok(()),
        Some(_) => unfit("the second creator of an object was refused, and yet its content is there"),
        None => unfit("an object that was just created is not found: reads lag behind writes"),
    }
}

async fn has_one_winner(objects: &Objects, folder: &Path) -> Result<(), Refusal> {
    let path = folder.clone().join("race");
    let race = (0..RACERS).map(async |racer| (racer, create(objects, &path, &racer.to_string()).await));
    let mut winners = Vec::new();
    for (racer, created) in join_all(race).await {
        if created? == Created::Yes {
            winners.push(racer);
        }
    }
    let [winner] = winners.as_slice() else {
        return unfit(format!(
            "{} of {RACERS} creators of one object succeeded at the same time, so {}",
            winners.len(),
            if winners.is_empty() { "no node could own a shard" } else { "two nodes could own one shard" },
        ));
    };
    match objects.read(&path).await? {
        Some(content) if content == winner.to_string() => Ok(()),
        Some(_) => unfit("one of the racing creators succeeded, but another's content is there"),
        None => unfit("an object that was just created is not found: reads lag behind writes"),
    }
}

async fn overwrites_and_deletes(objects: &Objects, folder: &Path) -> Result<(), Refusal> {
    let path = folder.clone().join("again");
    objects.overwrite(&path, Bytes::from_static(b"old")).await?;
    objects.overwrite(&path, Bytes::from_static(b"new")).await?;
    match objects.read(&path).await? {
        Some(content) if content == "new" => {}
        Some(_) => return unfit("an object that was overwritten still has its old content"),
        None => return unfit("an object that was just overwritten is not found: reads lag behind writes"),
    }
    objects.delete(&path).await?;
    match objects.read(&path).await? {
        None => Ok(()),
        Some(_) => unfit("an object that was deleted is still there"),
    }
}

async fn lists_all(objects: &Objects, folder: &Path) -> Result<(), Refusal> {
    let folder = folder.clone().join("list");
    let paths: Vec<Path> = (0..4).map(|number| folder.clone().join(format!("{number:020}.json"))).collect();
    let created = try_join_all(paths.iter().map(|path| create(objects, path, "listed"))).await?;
    if created.contains(&Created::AlreadyThere) {
        return unfit("a new object could not be created: the store reports that it exists already");
    }
    let listed = |found: Vec<object_store::ObjectMeta>| -> BTreeSet<Path> {
        found.into_iter().map(|meta| meta.location).collect()
    };
    let all = listed(objects.list(&folder).await?);
    if all != paths.iter().cloned().collect() {
        return unfit(format!("of {} objects just created {} are listed", paths.len(), all.len()));
    }
    let after = listed(objects.list_after(&folder, &paths[1]).await?);
    if after != paths[2..].iter().cloned().collect() {
        return unfit(format!("a list from a name on has {} objects instead of {}", after.len(), 2));
    }
    Ok(())
}

async fn create(objects: &Objects, path: &Path, content: &str) -> Result<Created, Refusal> {
    match objects.create(path, Bytes::copy_from_slice(content.as_bytes())).await {
        Ok(created) => Ok(created),
        Err(error) if error.fault() == Fault::Unsupported => {
            unfit(format!("it cannot create an object only if there is none: {}", error.cause()))
        }
        Err(error) => Err(error.into()),
    }
}

fn unfit<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Unfit(reason.into()))
}
