use serde_json::json;

use super::*;
use crate::faults::{Faults, Mode};
use crate::testing::{Place, objects};

fn service() -> ServiceName {
    "storage".parse().unwrap()
}

fn spec(flush: u32, shards: Option<u32>) -> Spec {
    Spec { settings: json!({ "flush": flush }), shards, ..Spec::default() }
}

#[tokio::test]
async fn of_two_changes_from_the_same_spec_one_fails_because_it_changed() {
    let specs = Specs::new(Place::memory().objects());
    assert_eq!(specs.latest(&service()).await.unwrap(), None);
    assert_eq!(specs.put(&service(), 0, &spec(1, Some(4))).await.unwrap(), 1);
    assert_eq!(specs.put(&service(), 1, &spec(2, Some(4))).await.unwrap(), 2);
    let error = specs.put(&service(), 1, &spec(3, Some(4))).await.unwrap_err();
    assert_eq!(error.to_string(), "the spec of `storage` has changed: it is number 2 now");
    assert_eq!(error.kind(), ErrorKind::Changed);
    let latest = specs.latest(&service()).await.unwrap().unwrap();
    assert_eq!(latest, NumberedSpec { number: 2, spec: spec(2, Some(4)) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_racing_changes_one_succeeds() {
    let place = Place::folder();
    let specs = Specs::new(place.objects());
    let race = (0..8).map(|number| {
        let specs = specs.clone();
        async move { specs.put(&service(), 0, &spec(number, None)).await.is_ok() }
    });
    let won = race.collect::<tokio::task::JoinSet<_>>().join_all().await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
    assert_eq!(specs.latest(&service()).await.unwrap().unwrap().number, 1);
}

#[tokio::test]
async fn the_number_of_shards_never_changes_once_written() {
    let specs = Specs::new(Place::memory().objects());
    specs.put(&service(), 0, &spec(1, None)).await.unwrap();
    specs.put(&service(), 1, &spec(1, Some(4))).await.unwrap();
    let error = specs.put(&service(), 2, &spec(1, Some(8))).await.unwrap_err();
    assert!(
        error.to_string().starts_with("the number of shards of `storage` is 4 and cannot become 8"),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.hint().unwrap().contains("shards: 4"));
    assert!(matches!(
        specs.put(&service(), 2, &spec(1, None)).await,
        Err(SpecError::ShardsFixed { shards: 4, wanted: None, .. })
    ));
    assert_eq!(specs.put(&service(), 2, &spec(9, Some(4))).await.unwrap(), 3);
}

#[tokio::test]
async fn the_type_never_changes_once_written() {
    let specs = Specs::new(Place::memory().objects());
    let sessions: ServiceName = "sessions".parse().unwrap();
    let typed = |service_type: Option<&str>| Spec {
        service_type: service_type.map(|name| name.parse().unwrap()),
        ..Spec::default()
    };
    specs.put(&sessions, 0, &typed(Some("storage"))).await.unwrap();
    for wanted in [Some("api_gateway"), None] {
        let error = specs.put(&sessions, 1, &typed(wanted)).await.unwrap_err();
        assert!(error.to_string().starts_with("the type of `sessions` is `storage`"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.hint().unwrap().contains("`type: storage`"));
    }
    assert_eq!(specs.put(&sessions, 1, &typed(Some("storage"))).await.unwrap(), 2);
    specs.put(&service(), 0, &typed(Some("storage"))).await.unwrap();
    let written = specs.latest(&service()).await.unwrap().unwrap().spec;
    assert_eq!(written.service_type, None, "the name is the type");
    assert_eq!(specs.put(&service(), 1, &typed(None)).await.unwrap(), 2);
}

#[tokio::test]
async fn a_removed_service_has_no_spec_and_its_numbers_continue() {
    let specs = Specs::new(Place::folder().objects());
    specs.put(&service(), 0, &spec(1, Some(4))).await.unwrap();
    assert!(matches!(specs.remove(&service(), 2).await, Err(SpecError::Changed { latest: 1, .. })));
    assert_eq!(specs.remove(&service(), 1).await.unwrap(), 2);
    assert_eq!(specs.latest(&service()).await.unwrap(), None);
    assert!(specs.all().await.unwrap().is_empty());
    assert!(matches!(specs.remove(&service(), 0).await, Err(SpecError::Changed { latest: 0, .. })));
    // A new service of that name may have another number of shards. A similar name is free too.
    let similar: ServiceName = "stor-age".parse().unwrap();
    specs.put(&similar, 0, &spec(1, None)).await.unwrap();
    assert_eq!(specs.put(&service(), 0, &spec(2, Some(8))).await.unwrap(), 3);
    assert_eq!(specs.latest(&service()).await.unwrap().unwrap().spec.shards, Some(8));
}

#[tokio::test]
async fn a_name_that_differs_in_hyphens_and_underscores_alone_is_refused() {
    let specs = Specs::new(Place::memory().objects());
    let [one, other] = ["my-store", "my_store"].map(|name| name.parse::<ServiceName>().unwrap());
    specs.put(&one, 0, &spec(1, None)).await.unwrap();
    let error = specs.put(&other, 0, &spec(1, None)).await.unwrap_err();
    assert_eq!(error.to_string(), "`my_store` differs from the service `my-store` in `-` and `_` alone");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(specs.put(&one, 1, &spec(2, None)).await.unwrap(), 2);
}

#[tokio::test]
async fn all_specs_are_the_latest_of_each_service() {
    let place = Place::folder();
    let specs = Specs::new(place.objects());
    assert!(specs.all().await.unwrap().is_empty());
    let other: ServiceName = "searcher".parse().unwrap();
    specs.put(&service(), 0, &spec(1, Some(4))).await.unwrap();
    specs.put(&service(), 1, &spec(2, Some(4))).await.unwrap();
    specs.put(&other, 0, &spec(7, None)).await.unwrap();
    let all = specs.all().await.unwrap();
    assert_eq!(all[&service()].as_ref().unwrap(), &NumberedSpec { number: 2, spec: spec(2, Some(4)) });
    assert_eq!(all[&other].as_ref().unwrap(), &NumberedSpec { number: 1, spec: spec(7, None) });
}

#[tokio::test]
async fn a_full_disk_is_reported_and_nothing_changes() {
    let faults = Faults::new(Place::memory().store);
    let specs = Specs::new(objects(faults.objects()));
    faults.set(Mode::FailWrites(std::io::ErrorKind::StorageFull));
    let error = specs.put(&service(), 0, &spec(1, None)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot write `spec/storage/00000000000000000001.json` in memory:///: the disk is full"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    faults.set(Mode::Work);
    assert_eq!(specs.latest(&service()).await.unwrap(), None);
}
