use super::fake_searcher::{self, Flaw};
use super::*;
use crate::report::Report;
use crate::torture::checker::{self, Run};
use crate::torture::inventory;

/// The number of writes after which the clients stop.
const WRITES: u64 = 400;

/// Runs clients against a searcher in memory. Returns whether nothing is wrong, and the notes.
async fn run(flaw: Flaw) -> (bool, String, Counts) {
    let (addr, _serving) = fake_searcher::start(flaw).await;
    let shared = Arc::new(Shared::new(Service::Searcher, Endpoints::fixed(addr), Reads::Strong));
    let clients = Workload::start(&shared, 8, 1);
    let written = || async { (shared.acknowledged() > WRITES).then_some(()) };
    e2e::eventually("documents are written", written).await.unwrap();
    clients.stop().await;
    final_reads(&shared, shared.history.keys(), 4).await.unwrap();
    let mut run = Run { inventory: Some(inventory::take(&shared).await.unwrap()), ..Run::default() };
    (run.wrong, run.odd) = (shared.wrong(), shared.odd());
    let counts = shared.counts();
    run.counts = counts.clone();
    run.keys = shared.history.take();
    let mut report = Report::begin("torture", "peer");
    let is_right = checker::report(run, &mut report).await.unwrap();
    (is_right, report.notes.join("\n"), counts)
}

#[tokio::test]
async fn a_searcher_that_keeps_its_promises_is_right() {
    let (is_right, notes, counts) = run(Flaw::None).await;
    assert!(is_right, "{notes}");
    assert!(notes.contains("result: nothing is wrong") && !notes.contains("unexpected answer"), "{notes}");
    for kind in [
        "put",
        "create",
        "swap",
        "patch",
        "bulk",
        "delete",
        "delete if",
        "delete found",
        "get",
        "any",
        "scan",
        "search",
        "search any",
    ] {
        assert!(counts.get(&(kind, "ok".to_owned())).is_some_and(|count| *count > 0), "{kind}: {notes}");
    }
}

#[tokio::test]
async fn an_acknowledged_document_that_searches_miss_is_found() {
    let (is_right, notes, _) = run(Flaw::Loss).await;
    assert!(!is_right && notes.contains("<== no order explains this"), "{notes}");
}

#[tokio::test]
async fn a_document_that_searches_find_twice_is_found() {
    let (is_right, notes, _) = run(Flaw::Duplicate).await;
    assert!(!is_right && notes.contains("found 2 documents"), "{notes}");
}

#[tokio::test]
async fn a_document_that_reappears_in_searches_is_found() {
    let (is_right, notes, _) = run(Flaw::Resurrection).await;
    assert!(!is_right && notes.contains("<== no order explains this"), "{notes}");
}
