use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use types::ErrorKind;

use super::*;

/// The updates that an owner sends.
type Sent = Vec<Result<Update<u64, &'static str>, String>>;

/// The successive owners of a shard.
type Script = VecDeque<Result<Sent, NotBegun>>;

/// A shard, and the position from which its stream was begun.
type Asked = (u32, Option<u64>);

/// Successive owners, and the position from which each stream was begun.
#[derive(Clone, Default)]
struct Owners {
    scripts: Arc<Mutex<BTreeMap<ShardId, Script>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Follow for Owners {
    type Place = u64;
    type Item = &'static str;

    async fn begin(&self, shard: ShardId, from: Option<u64>) -> Beginning<u64, &'static str> {
        self.asked.lock().unwrap().push((shard.as_u32(), from));
        let next = self.scripts.lock().unwrap().get_mut(&shard).and_then(VecDeque::pop_front);
        let updates = match next {
            Some(script) => stream::iter(script?).boxed(),
            None => stream::pending().boxed(),
        };
        Ok(Begun { place: from.unwrap_or(1), updates })
    }
}

fn shard(number: u32) -> ShardId {
    number.try_into().unwrap()
}

fn owners(scripts: impl IntoIterator<Item = (u32, Script)>) -> Owners {
    let scripts = scripts.into_iter().map(|(number, script)| (shard(number), script)).collect();
    Owners { scripts: Arc::new(Mutex::new(scripts)), ..Owners::default() }
}

fn item(place: u64, item: &'static str) -> Result<Update<u64, &'static str>, String> {
    Ok(Update::Item { place, item })
}

fn gone() -> Box<Problem> {
    Box::new(Problem::new(ErrorKind::NotFound, "history-gone", "it is not kept any more"))
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_at_the_next_owner_from_where_it_ended() {
    let script = Script::from([
        Ok(vec![item(2, "a"), Ok(Update::Silence(5))]),
        Err(NotBegun::Later("it is moving".to_owned())),
        Ok(vec![item(6, "b"), Err("reset".to_owned())]),
        Ok(vec![item(7, "c")]),
    ]);
    let owners = owners([(0, script)]);
    let (cursor, updates) = follow(owners.clone(), &[shard(0)], None).await.unwrap();
    assert_eq!(cursor.to_string(), "0:1");
    let seen: Vec<_> = Box::pin(updates).take(4).map(|(_, update)| Ok(update)).collect().await;
    assert_eq!(seen, [item(2, "a"), Ok(Update::Silence(5)), item(6, "b"), item(7, "c")]);
    assert_eq!(*owners.asked.lock().unwrap(), [(0, None), (0, Some(5)), (0, Some(5)), (0, Some(6))]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_one_shards_history_ends_the_whole_stream() {
    let owners = owners([
        (0, Script::from([Ok(vec![item(2, "a")])])),
        (1, Script::from([Ok(vec![]), Err(NotBegun::Gone(gone()))])),
    ]);
    let cursor = Cursor::new([(shard(0), 1), (shard(1), 9)]);
    let (_, updates) = follow(owners, &[shard(0), shard(1)], Some(&cursor)).await.unwrap();
    let seen: Vec<_> = Box::pin(updates).collect().await;
    assert_eq!(seen.last(), Some(&(shard(1), Update::Gone(gone()))));
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_says_that_it_lives_and_its_owner_is_asked_anew() {
    let owners = owners([]);
    let (_, updates) = follow(owners.clone(), &[shard(0)], None).await.unwrap();
    let began = Instant::now();
    let mut updates = Box::pin(updates);
    assert!(timeout(SILENCE * 3, updates.next()).await.is_err(), "a source reports its silence itself");
    assert!(owners.asked.lock().unwrap().len() >= 3, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_can_not_be_followed_in_time_is_named() {
    let later = || Err(NotBegun::Later("nobody owns it".to_owned()));
    let owners = owners([(1, (0..1_000).map(|_| later()).collect())]);
    let began = Instant::now();
    let problem = follow(owners, &[shard(0), shard(1)], None).await.err().unwrap();
    assert_eq!((problem.status, problem.code()), (503, "shard-missing"));
    assert_eq!(
        (problem.detail.as_str(), began.elapsed()),
        ("shard 1 could not be followed within 10s", START)
    );
}
