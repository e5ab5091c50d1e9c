use super::*;
use crate::definition::Definition;
use crate::schema::IndexSchema;

fn index() -> Arc<Index> {
    let created = Definition::default();
    let schema = Arc::new(IndexSchema::new(&created, Arc::new(created.clone())));
    Arc::new(Index { name: "one".to_owned(), uuid: Uuid::nil(), created, schema })
}

fn logged(index: &Arc<Index>, id: &str, seq: u64) -> Logged {
    Logged { index: Arc::clone(index), id: id.into(), seq, term: 1, version: 1, source: None }
}

/// Three entries; the second has no operation.
fn three(index: &Arc<Index>) -> Pending {
    let pending = Pending::new(7);
    pending.begin(vec![logged(index, "a", 7), logged(index, "b", 8)]);
    pending.begin(vec![logged(index, "a", 9)]);
    pending.begin(vec![logged(index, "c", 10)]);
    pending.durable(3, 2);
    pending.durable(4, 0);
    pending.durable(5, 1);
    pending
}

fn latest(pending: &Pending, id: &str) -> Option<u64> {
    pending.latest(Uuid::nil(), id).map(|logged| logged.seq)
}

#[test]
fn only_what_was_fed_is_covered_by_a_commit() {
    let pending = three(&index());
    assert_eq!((pending.next_seq(), pending.fed_up_to()), (11, None));
    for (count, covered) in [(1, (3, 10)), (1, (4, 10)), (1, (5, 11))] {
        assert!(!pending.unfed(usize::MAX).is_empty());
        pending.fed(count);
        assert_eq!(pending.fed_up_to(), Some(covered));
    }
    assert!(pending.unfed(usize::MAX).is_empty());
    pending.feed_again();
    assert_eq!(pending.fed_up_to(), None);
    let again: Vec<_> = pending.unfed(usize::MAX).iter().map(|entry| entry.number).collect();
    assert_eq!(again, [3, 4, 5]);
    assert_eq!(pending.unfed(1).len(), 1, "at least one entry");
}

#[tokio::test(start_paused = true)]
async fn entries_without_operations_are_not_behind() {
    let index = index();
    let pending = Pending::new(7);
    pending.durable(3, 0);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(pending.lag(), Duration::ZERO);
    pending.begin(vec![logged(&index, "a", 7)]);
    pending.durable(4, 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(pending.lag(), Duration::from_secs(1));
    pending.fed(2);
    pending.visible(4, 8);
    assert_eq!(pending.lag(), Duration::ZERO);
}

#[test]
fn an_operation_is_forgotten_only_once_it_and_no_later_one_of_its_id_is_pending() {
    let index = index();
    let pending = three(&index);
    assert_eq!(
        (latest(&pending, "a"), latest(&pending, "b"), latest(&pending, "c")),
        (Some(9), Some(8), Some(10))
    );
    pending.begin(vec![logged(&index, "b", 11)]);
    pending.durable(6, 1);
    pending.fed(2);
    pending.visible(4, 10);
    assert_eq!(
        (latest(&pending, "a"), latest(&pending, "b"), latest(&pending, "c")),
        (None, Some(11), Some(10))
    );
    assert!(pending.is_visible(10) && !pending.is_visible(11));
    assert_eq!(pending.fed_up_to(), None, "what is visible is fed no more");
    assert_eq!(pending.unfed(usize::MAX).len(), 2);
    pending.fed(2);
    pending.visible(6, 12);
    assert_eq!((latest(&pending, "b"), latest(&pending, "c")), (None, None));
}

#[test]
fn what_is_in_no_manifest_counts_as_behind() {
    let pending = three(&index());
    assert_eq!(pending.behind().operations, 4);
    pending.fed(3);
    pending.visible(5, 11);
    assert_eq!(pending.behind().operations, 4, "though it is visible");
    pending.stored(10);
    assert_eq!(pending.behind().operations, 1);
    pending.stored(9);
    pending.stored(11);
    assert_eq!(pending.behind(), Behind::default());
}

#[tokio::test]
async fn waits_end_when_the_shard_is_closed() {
    let pending = three(&index());
    assert!(pending.until_visible(7).await);
    pending.want(11);
    assert!(pending.is_wanted());
    let waits =
        async { tokio::join!(pending.until_visible(11), pending.until_stored(11), pending.until_merged()) };
    let closing = async {
        pending.close();
    };
    let ((visible, stored, merged), ()) = tokio::join!(waits, closing);
    assert!(!visible && !stored && !merged);
}
