//! Merges that take long: nothing waits for them but the compaction that wants one.

use super::*;

use tantivy::DocSet as _;
use tokio::task::JoinSet;

use super::local::ShardFolder;
use super::local_indexes::LocalIndexes;
use super::manifest::Manifest;
use super::pending::Logged;

/// How many documents there are, half of them replaced, in several segments.
const DOCUMENTS: usize = 60;

/// An owner of the shard whose compaction runs for a long time, as its disk is very slow.
async fn compacting(world: &World) -> (Running, JoinSet<Result<(), ShardError>>) {
    let (owner, one) = (world.owner("a").await, world.index("one"));
    for number in 0..DOCUMENTS {
        owner.put(&one, &number.to_string(), "word first").await;
        if number % 10 == 9 {
            owner.put(&one, &(number - 5).to_string(), "word second").await;
            owner.shard.refresh().await.unwrap();
        }
    }
    let metas = || {
        let entries =
            std::fs::read_dir(world.folder("a").join("searcher/search/0").join(one.uuid.to_string()));
        entries.unwrap().count()
    };
    let before = metas();
    set_fault(&owner, directory::SLOW, true);
    let (shard, of) = (owner.shard.clone(), Arc::clone(&one));
    let mut compaction = JoinSet::new();
    compaction.spawn(async move { shard.compact(&of).await });
    until(async || metas() > before).await;
    assert!(compaction.try_join_next().is_none());
    (owner, compaction)
}

/// Checks that nothing is lost and all can be used.
async fn check(owner: &Running, one: &Arc<Index>, acknowledged: usize) {
    assert_eq!(owner.search(one, "word", ReadLevel::Strong).await.len(), DOCUMENTS);
    assert_eq!(owner.search(one, "second", ReadLevel::Strong).await.len(), DOCUMENTS / 10);
    assert_eq!(owner.search(one, "late", ReadLevel::Strong).await.len(), acknowledged);
    owner.shard.compact(one).await.unwrap();
    let snapshot = owner.shard.snapshot(one, ReadLevel::Strong).await.unwrap().value;
    assert_eq!(snapshot.searcher.segment_readers().len(), 1);
    assert_eq!(owner.count(one).await, u64::try_from(DOCUMENTS + acknowledged).unwrap());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_merge_and_nothing_is_lost() {
    let world = World::new().await;
    let one = world.index("one");
    let (owner, mut compaction) = compacting(&world).await;
    for number in 0..5 {
        owner.put(&one, &format!("late-{number}"), "late").await;
    }
    let began = tokio::time::Instant::now();
    let limit = Duration::from_secs(1);
    owner.shard.drain(began + limit).await;
    assert!(began.elapsed() < limit + Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(matches!(owner.write(put(&one, "x", "late")).await, Err(ShardError::Elsewhere(_))));
    owner.stop().await;
    assert!(began.elapsed() < limit + Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(compaction.join_next().await.unwrap().unwrap().is_err());
    let next = world.owner("b").await;
    check(&next, &one, 5).await;
    next.stop().await;
    let again = world.owner("a").await;
    check(&again, &one, 5).await;
    again.stop().await;
}

#[tokio::test]
async fn an_owner_that_is_replaced_in_the_middle_of_a_merge_harms_nothing() {
    let world = World::new().await;
    let one = world.index("one");
    let (owner, mut compaction) = compacting(&world).await;
    owner.put(&one, "late", "late").await;
    let replica = world.replica("r").await;
    let next = world.owner("b").await;
    next.put(&one, "late-2", "late").await;
    assert!(matches!(owner.write(put(&one, "lost", "late")).await, Err(ShardError::Elsewhere(_))));
    let began = tokio::time::Instant::now();
    owner.shard.stop().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(compaction.join_next().await.unwrap().unwrap().is_err());
    owner.kill().await;
    check(&next, &one, 2).await;
    until(async || replica.search(&one, "word", ReadLevel::Any).await.len() == DOCUMENTS).await;
    until(async || replica.search(&one, "late", ReadLevel::Any).await.len() == 2).await;
    next.stop().await;
    replica.stop().await;
    let again = world.owner("a").await;
    check(&again, &one, 2).await;
    again.stop().await;
}

#[tokio::test]
async fn however_many_indexes_are_written_eight_writers_are_open_at_most() {
    let mut world = World::new().await;
    let indexes: Vec<_> = (0..40).map(|number| index(&format!("index-{number}"))).collect();
    world.indexes.send_replace(Arc::new(Indexes::new(1, indexes.clone())));
    world.limits.heap = 1 << 30;
    let owner = world.owner("a").await;
    let mut most = 0;
    for round in 0..2 {
        for one in &indexes {
            owner.put(one, "x", &format!("word r{round}")).await;
            if round == 1 {
                owner.shard.refresh().await.unwrap();
            }
            most = most.max(indexer::lock(&local(&owner)).writers());
        }
    }
    owner.shard.refresh().await.unwrap();
    assert_eq!(most, 8);
    for one in &indexes {
        assert_eq!(owner.search(one, "r1", ReadLevel::Strong).await, ["x"]);
    }
    owner.stop().await;
}

/// Operations on documents, in the order of the log.
struct Feed {
    index: Arc<Index>,
    pending: Pending,
    entries: u64,
}

impl Feed {
    /// Feeds a put of these ids, or a delete, as the next entry of the log.
    fn all(&mut self, local: &mut LocalIndexes, ids: &[&str], is_put: bool) {
        let first = self.pending.next_seq();
        let logged = |(seq, id): (u64, &&str)| Logged {
            index: Arc::clone(&self.index),
            id: (**id).into(),
            seq,
            term: 1,
            version: 2,
            source: is_put.then(|| Arc::from(raw(&body("word")))),
        };
        let operations: Vec<_> = (first..).zip(ids).map(logged).collect();
        let end = first + u64::try_from(ids.len()).unwrap();
        self.entries += 1;
        self.pending.replayed(self.entries, operations, end);
        let entries = self.pending.unfed(usize::MAX);
        local.feed(&entries).unwrap();
        self.pending.fed(entries.len());
    }
}

/// The torture test found this: a document that was replaced by the first operation of an owner was found twice for ever.
#[tokio::test]
async fn a_merge_beside_the_first_operation_of_a_writer_keeps_its_delete() {
    let (world, one) = (World::new().await, index("one"));
    let catalog = Indexes::new(1, [Arc::clone(&one)]);
    let folder = Arc::new(ShardFolder::open(world.folder("a")).unwrap());
    let mut local = LocalIndexes::open(folder, 15_000_000, &Manifest::default(), &catalog).unwrap();
    let mut feed = Feed { index: Arc::clone(&one), pending: Pending::new(0), entries: 0 };
    // A merge keeps the delete cursor of the first segment, which is the largest.
    let others: Vec<String> = (0..16).map(|number| number.to_string()).collect();
    feed.all(&mut local, &others.iter().map(String::as_str).collect::<Vec<_>>(), true);
    local.refresh().unwrap();
    // So many that the merge policy leaves the segment alone.
    feed.all(&mut local, &["replaced", "deleted", "a", "b", "c", "d", "e", "f"], true);
    local.refresh().unwrap();
    // The last commit has a delete in one segment, and none in the other.
    feed.all(&mut local, &["deleted"], false);
    local.refresh().unwrap();
    local.reset().unwrap();
    feed.all(&mut local, &["replaced"], true);
    local.merge(&one).unwrap().unwrap().await.unwrap();
    let refreshed = local.refresh().unwrap();
    let searcher = &refreshed.searchers[&one.uuid];
    let term = one.schema.id_term("replaced");
    let mut found = 0;
    for segment in searcher.segment_readers() {
        let inverted = segment.inverted_index(one.schema.id).unwrap();
        let postings = inverted.read_postings(&term, IndexRecordOption::Basic).unwrap();
        let Some(mut postings) = postings else { continue };
        while postings.doc() != tantivy::TERMINATED {
            found += usize::from(!segment.is_deleted(postings.doc()));
            postings.advance();
        }
    }
    assert_eq!((found, searcher.num_docs()), (1, 23));
}
