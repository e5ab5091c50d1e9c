use std::collections::BTreeMap;

use plugin::Health;
use serde_json::json;
use store::Store;
use types::ShardRef;

use super::*;
use crate::definition::PartialDefinition;

/// A store in memory, and the logs of its first shard.
async fn store() -> Store {
    Store::open(&"memory:///".parse().unwrap(), &"test".parse().unwrap()).await.unwrap()
}

fn catalog(store: &Store) -> Catalog {
    Catalog::over(store.logs(&shard()).of_service(LOG))
}

fn shard() -> ShardRef {
    "searcher/0".parse().unwrap()
}

fn definition(value: serde_json::Value) -> PartialDefinition {
    serde_json::from_value(value).unwrap()
}

async fn make(
    catalog: &Catalog,
    name: &str,
    wanted: &PartialDefinition,
) -> Result<Uuid, ChangeError<CreateError>> {
    let uuid = Uuid::now_v7();
    let (indexes, ()) = catalog.change(|record| Ok((create(record, name, wanted, uuid)?, ()))).await?;
    Ok(indexes.named(name).unwrap().uuid)
}

#[tokio::test]
async fn an_index_that_one_member_creates_is_seen_by_a_fresh_read_of_another() {
    let store = store().await;
    let (one, other) = (catalog(&store), catalog(&store));
    assert_eq!(other.fresh().await.unwrap().number, 0);
    let uuid = make(&one, "x", &PartialDefinition::default()).await.unwrap();
    assert!(other.now().named("x").is_none(), "it was not read yet");
    let fresh = other.fresh().await.unwrap();
    assert_eq!((fresh.number, fresh.named("x").unwrap().uuid), (1, uuid));
    assert_eq!(other.at_least(1).await.unwrap().number, 1);
    let ahead = other.at_least(2).await.unwrap_err();
    assert_eq!(ahead.kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn of_many_members_that_create_an_index_at_once_one_does() {
    let store = store().await;
    let members: Vec<_> = (0..8).map(|_| catalog(&store)).collect();
    let wanted = definition(json!({"fields": {"a": {"type": "text"}}}));
    let made = futures_util::future::join_all(members.iter().map(|member| make(member, "x", &wanted))).await;
    let uuids: std::collections::BTreeSet<_> = made.into_iter().map(Result::unwrap).collect();
    assert_eq!(uuids.len(), 1);
    assert_eq!(members[0].fresh().await.unwrap().number, 1);
}

#[tokio::test]
async fn changes_of_different_indexes_at_once_are_all_made() {
    let store = store().await;
    let members: Vec<_> = (0..6).map(|_| catalog(&store)).collect();
    let names: Vec<_> = (0..6).map(|number| format!("x{number}")).collect();
    let wanted = PartialDefinition::default();
    let making = members.iter().zip(&names).map(|(member, name)| make(member, name, &wanted));
    for made in futures_util::future::join_all(making).await {
        made.unwrap();
    }
    let indexes = catalog(&store).fresh().await.unwrap();
    assert_eq!(indexes.all().map(|index| index.name.clone()).collect::<Vec<_>>(), names);
}

#[tokio::test]
async fn an_unchanged_index_keeps_its_schema_and_a_new_one_has_another_uuid() {
    let store = store().await;
    let catalog = catalog(&store);
    let uuid = make(&catalog, "x", &PartialDefinition::default()).await.unwrap();
    let before = Arc::clone(catalog.now().named("x").unwrap());
    make(&catalog, "y", &PartialDefinition::default()).await.unwrap();
    assert!(Arc::ptr_eq(&before, catalog.now().named("x").unwrap()));
    let (indexes, gone) = catalog
        .change(|record| delete(record, "x").map(|(next, uuid)| (Change::To(next), uuid)))
        .await
        .unwrap();
    assert_eq!((gone, indexes.index(uuid).is_some()), (uuid, false));
    assert_ne!(make(&catalog, "x", &PartialDefinition::default()).await.unwrap(), uuid);
}

#[tokio::test]
async fn a_member_that_missed_many_records_finds_the_latest() {
    let store = store().await;
    let (one, late) = (catalog(&store), catalog(&store));
    late.fresh().await.unwrap();
    for number in 0..MOST_NEXT + 3 {
        make(&one, &format!("x{number}"), &PartialDefinition::default()).await.unwrap();
    }
    let all = late.fresh().await.unwrap();
    assert_eq!((all.number, all.all().count()), (MOST_NEXT as u64 + 3, MOST_NEXT + 3));
}

/// Each removes the alias from all indexes and adds it to one.
#[tokio::test]
async fn of_members_that_switch_aliases_at_once_each_leaves_them_at_one_index() {
    let store = store().await;
    let members: Vec<_> = (0..6).map(|_| catalog(&store)).collect();
    for number in 0..6 {
        make(&members[0], &format!("x{number}"), &PartialDefinition::default()).await.unwrap();
    }
    let text = |text: &str| vec![text.to_owned()];
    let add = |number: usize, alias: &str| AliasAction::Add {
        indexes: text(&format!("x{number}")),
        aliases: text(alias),
        options: AliasOptions { is_write_index: Some(true) },
    };
    let remove = || AliasAction::Remove { indexes: text("*"), aliases: text("*"), must_exist: false };
    let switching = members.iter().enumerate().map(|(number, member)| async move {
        let actions = [remove(), add(number, "a"), add(number, "b")];
        member.change(|record| change_aliases(record, &actions, |_| false).map(|change| (change, ()))).await
    });
    for switched in futures_util::future::join_all(switching).await {
        let (indexes, ()) = switched.unwrap();
        let (a, b) = (&indexes.aliases["a"], &indexes.aliases["b"]);
        assert_eq!((a.indexes.len(), a), (1, b), "both are switched together");
    }
    assert_eq!(members[0].fresh().await.unwrap().number, 12);
}

#[tokio::test]
async fn a_damaged_record_is_an_error_that_names_the_object_and_what_was_read_stays() {
    let store = store().await;
    let catalog = catalog(&store);
    make(&catalog, "x", &PartialDefinition::default()).await.unwrap();
    let strange = store.logs(&shard()).of_service::<serde_json::Value>(LOG);
    strange.append(1, &json!({"indexes": {}, "nothing": {}})).await.unwrap();
    let error = catalog.fresh().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(error.message.contains("00000000000000000002.json"), "{error}");
    assert!(error.message.contains("newer version"), "{error}");
    assert!(catalog.now().named("x").is_some());
    assert_eq!(catalog.failure(), Some(error));
    assert!(make(&catalog, "y", &PartialDefinition::default()).await.is_err(), "nothing is built on it");
}

#[tokio::test]
async fn declared_indexes_are_created_and_a_conflict_is_reported_until_it_is_gone() {
    let store = store().await;
    let catalog = catalog(&store);
    make(&catalog, "x", &definition(json!({"fields": {"a": {"type": "bool"}}}))).await.unwrap();
    let wanted = definition(json!({"fields": {"a": {"type": "text"}}}));
    let declared =
        Declared::new(BTreeMap::from([("x".to_owned(), wanted.clone()), ("y".to_owned(), wanted)]));
    assert!(declared.apply(&catalog).await);
    assert!(catalog.now().named("y").is_some(), "a conflict does not stop the others");
    match declared.health() {
        Health::Degraded(reason) => assert!(reason.to_string().contains("`x`"), "{reason}"),
        other => panic!("{other:?}"),
    }
    catalog.change(|record| delete(record, "x").map(|(next, _)| (Change::To(next), ()))).await.unwrap();
    assert!(declared.create_missing(&catalog).await);
    assert_eq!(declared.health(), Health::Ready);
}

/// Members with different settings, as while a change of the settings is rolled out.
#[tokio::test]
async fn declared_definitions_are_applied_once_and_change_nothing_back_and_forth() {
    let store = store().await;
    let with = |synonyms: &str| definition(json!({"synonyms": [synonyms]}));
    let member = async |synonyms: &str| {
        let declared = Declared::new(BTreeMap::from([("x".to_owned(), with(synonyms))]));
        let role = "searcher/0".parse().unwrap();
        let (mut cx, catalog) = (Context::for_replica_test(role, &store).0, catalog(&store));
        cx.objects_poll = Duration::from_millis(5);
        declared.start(&cx, &catalog);
        let (polled, poll) = (catalog.clone(), cx.objects_poll);
        cx.tasks.spawn("catalog", async move {
            polled.poll(poll).await;
            Ok(())
        });
        (cx, catalog)
    };
    let synonyms =
        |catalog: &Catalog| catalog.now().named("x").map(|index| index.schema.definition.synonyms.join("; "));
    let until = async |catalog: &mut Catalog, wanted: &str| {
        while synonyms(catalog).as_deref() != Some(wanted) {
            catalog.changed().await;
        }
    };
    let (former, mut catalog) = member("a, b").await;
    until(&mut catalog, "a, b").await;
    let (later, mut other) = member("c, d").await;
    until(&mut catalog, "c, d").await;
    make(&catalog, "x", &with("e, f")).await.unwrap();
    until(&mut other, "e, f").await;
    // A missing one is created by both, with the definition of the first.
    other.change(|record| delete(record, "x").map(|(next, _)| (Change::To(next), ()))).await.unwrap();
    while catalog.fresh().await.unwrap().named("x").is_none() {
        tokio::task::yield_now().await;
    }
    let number = catalog.fresh().await.unwrap().number;
    assert_eq!(number, 5, "created, changed by the second member and by a request, deleted, created");
    for _ in 0..3 {
        make(&catalog, "y", &PartialDefinition::default()).await.unwrap();
        catalog.change(|record| delete(record, "y").map(|(next, _)| (Change::To(next), ()))).await.unwrap();
        other.fresh().await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(catalog.fresh().await.unwrap().number, number + 6);
    for cx in [former, later] {
        cx.tasks.abort();
    }
}

#[tokio::test]
async fn a_fixed_catalog_does_not_change() {
    let mut catalog = Catalog::fixed(Indexes::default());
    assert!(make(&catalog, "x", &PartialDefinition::default()).await.is_err());
    assert_eq!(catalog.fresh().await.unwrap().number, 0);
    let changed = tokio::time::timeout(Duration::from_millis(1), catalog.changed()).await;
    assert!(changed.is_err());
}
