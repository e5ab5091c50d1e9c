use std::sync::Mutex;
use std::time::Instant;

use plugin::{Metrics, TaskFailure};
use slatedb::object_store::memory::InMemory;
use store::faults::{Faults, Mode};
use tokio::sync::mpsc;
use tokio::time::sleep;
use types::Reason;

use super::*;
use crate::engine::garbage::testing::collect_now;
use crate::engine::testing::Owners;
use crate::engine::tests::Running;

const POLL: Duration = Duration::from_millis(10);

fn source(objects: Arc<dyn ObjectStore>) -> Source {
    Source { objects, poll: POLL, disk: None }
}

/// A running replica with its own handle to the store.
struct RunningReplica {
    replica: Replica,
    tasks: Tasks,
    failures: mpsc::UnboundedReceiver<TaskFailure>,
}

impl RunningReplica {
    async fn start(objects: Arc<dyn ObjectStore>) -> Self {
        let (tasks, failures) = Tasks::new();
        let meters = Meters::new(&Metrics::new("test"), &Seen::default());
        let stop = CancellationToken::new();
        let replica = Replica::start(source(objects), &Settings::default(), meters, &tasks, stop);
        replica.tried(Duration::from_secs(30)).await;
        Self { replica, tasks, failures }
    }

    async fn get(&self, name: &str) -> Result<(Option<String>, Duration), EngineError> {
        let found = self.replica.get(&Key::new(name.to_owned()).unwrap()).await?;
        let value = found.value.map(|found| String::from_utf8_lossy(found.record.value()).into_owned());
        Ok((value, found.staleness.unwrap()))
    }

    async fn shows(&self, name: &str, value: &str) {
        until(async || self.get(name).await.is_ok_and(|(found, _)| found.as_deref() == Some(value))).await;
    }

    async fn stop(mut self) {
        self.replica.stop().await;
        self.tasks.wait().await;
        assert_eq!(self.failures.try_recv().ok(), None, "no task failed");
    }
}

/// Waits for a condition to become true.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(60), waiting).await.expect("it becomes true");
}

fn memory() -> (Arc<dyn ObjectStore>, Arc<Owners>) {
    (Arc::new(InMemory::new()), Arc::default())
}

#[tokio::test]
async fn a_replica_shows_what_its_owner_wrote_and_what_the_next_one_writes() {
    let (objects, owners) = memory();
    let running = RunningReplica::start(Arc::clone(&objects)).await;
    assert!(
        matches!(running.get("a").await, Err(EngineError::NotOpen(why)) if why.contains("no replica yet"))
    );
    assert!(matches!(running.replica.health(), Health::Degraded(_)), "there is no data yet");
    for incarnation in ["1", "2", "3"] {
        let owner = Running::start(Arc::clone(&objects), &owners).await;
        for round in 0..20 {
            owner.put("a", &format!("{incarnation}-{round}")).await.unwrap();
            running.shows("a", &format!("{incarnation}-{round}")).await;
        }
        owner.stop().await;
    }
    let listed = running.replica.scan(&ScanRange::default()).await.unwrap();
    assert_eq!(listed.value.keys[0].key, "a");
    assert_eq!(running.replica.health(), Health::Ready);
    running.stop().await;
}

#[tokio::test]
async fn a_replica_does_not_show_what_is_not_durable() {
    let (objects, owners) = memory();
    let way = Faults::new(Arc::clone(&objects));
    let owner = Running::start(way.objects(), &owners).await;
    owner.put("a", "durable").await.unwrap();
    let running = RunningReplica::start(objects).await;
    running.shows("a", "durable").await;
    way.set(Mode::Hang);
    let (written, ()) = tokio::join!(owner.put("a", "pending"), async {
        let began = Moment::now();
        // Polls that began after the write do not see it either.
        until(async || running.replica.staleness() < began.elapsed()).await;
        assert_eq!(running.get("a").await.unwrap().0.as_deref(), Some("durable"));
        way.set(Mode::Work);
    });
    written.unwrap();
    running.shows("a", "pending").await;
    owner.stop().await;
    running.stop().await;
}

/// The numbers whose writes were acknowledged, and when.
type Answered = Mutex<Vec<(u64, Instant)>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_never_further_behind_than_it_says() {
    let (objects, owners) = memory();
    let way = Faults::new(Arc::clone(&objects));
    let owner = Running::start(objects, &owners).await;
    owner.put("n", "0").await.unwrap();
    let running = RunningReplica::start(way.objects()).await;
    let answered = Answered::default();
    let stop = CancellationToken::new();
    let writing = async {
        for number in 1_u64.. {
            owner.put("n", &number.to_string()).await.unwrap();
            answered.lock().unwrap().push((number, Instant::now()));
            if stop.is_cancelled() {
                break;
            }
        }
    };
    let reading = async {
        let mut reads = 0_u32;
        while !stop.is_cancelled() {
            // The staleness may have been computed at any time since this one: the thread may be paused in between.
            let asked = Instant::now();
            let Ok((value, by)) = running.get("n").await else { continue };
            let all_before = asked.checked_sub(by).unwrap();
            let expected =
                answered.lock().unwrap().iter().rev().find(|(_, at)| *at < all_before).map(|(n, _)| *n);
            let found: u64 = value.unwrap().parse().unwrap();
            assert!(found >= expected.unwrap_or(0), "{found} of {expected:?}, {by:?} behind at most");
            reads += 1;
            tokio::task::yield_now().await;
        }
        reads
    };
    let trouble = async {
        for mode in [Mode::Hang, Mode::Unreachable, Mode::Hang] {
            let before = running.replica.staleness();
            way.set(mode);
            until(async || running.replica.staleness() > before + 20 * POLL).await;
            way.set(Mode::Work);
            until(async || running.replica.staleness() < 15 * POLL).await;
        }
        stop.cancel();
    };
    let ((), reads, ()) = tokio::join!(writing, reading, trouble);
    assert!(reads > 10, "{reads}");
    owner.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn a_replica_survives_a_store_outage_in_which_the_log_that_it_missed_is_collected() {
    for trouble in [Mode::Hang, Mode::Unreachable] {
        let (objects, owners) = memory();
        let way = Faults::new(Arc::clone(&objects));
        let owner = Running::start(Arc::clone(&objects), &owners).await;
        owner.put("before", "1").await.unwrap();
        let running = RunningReplica::start(way.objects()).await;
        running.shows("before", "1").await;
        way.set(trouble);
        owner.put("during", "1").await.unwrap();
        // Everything moves from the log to tables, and the old log is collected.
        owner.stop().await;
        let owner = Running::start(Arc::clone(&objects), &owners).await;
        collect_now(&objects).await;
        owner.put("after", "1").await.unwrap();
        way.set(Mode::Work);
        for name in ["before", "during", "after"] {
            running.shows(name, "1").await;
        }
        until(async || running.replica.staleness() < 20 * POLL).await;
        owner.stop().await;
        running.stop().await;
    }
}

#[tokio::test]
async fn a_replica_writes_nothing_and_disturbs_no_owner() {
    let (objects, owners) = memory();
    let way = Faults::new(Arc::clone(&objects));
    way.set(Mode::FailWrites(std::io::ErrorKind::ReadOnlyFilesystem));
    let before = Running::start(Arc::clone(&objects), &owners).await;
    before.put("a", "1").await.unwrap();
    let running = RunningReplica::start(way.objects()).await;
    running.shows("a", "1").await;
    // The next owner opens by the open rule, and the previous owner notices.
    let owner = Running::start(Arc::clone(&objects), &owners).await;
    owner.put("a", "2").await.unwrap();
    running.shows("a", "2").await;
    until(async || matches!(before.get("a").await, Err(EngineError::Passed(_)))).await;
    assert_eq!(running.replica.0.seen.trouble(), None, "nothing was tried that failed");
    for running in [before, owner] {
        running.stop().await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_replica_stops_at_once_while_the_store_hangs() {
    let (objects, owners) = memory();
    let way = Faults::new(Arc::clone(&objects));
    let owner = Running::start(objects, &owners).await;
    let open = RunningReplica::start(way.objects()).await;
    way.set(Mode::Hang);
    until(async || open.replica.staleness() > 10 * POLL).await;
    let opening = async {
        let (tasks, failures) = Tasks::new();
        let meters = Meters::new(&Metrics::new("test"), &Seen::default());
        let stop = CancellationToken::new();
        let replica = Replica::start(source(way.objects()), &Settings::default(), meters, &tasks, stop);
        RunningReplica { replica, tasks, failures }
    };
    for running in [open, opening.await] {
        let began = Instant::now();
        running.stop().await;
        assert!(began.elapsed() < CLOSE / 2, "{:?}", began.elapsed());
    }
    way.set(Mode::Work);
    owner.stop().await;
}

/// Waits for at least twenty polls; the number of polls, and of requests to the store.
async fn twenty_polls(running: &RunningReplica) -> (u64, u64) {
    let staleness = running.replica.open().unwrap().staleness;
    let (begun, requests) = (staleness.begun(), running.replica.0.seen.asked());
    until(async || staleness.begun() >= begun + 20).await;
    (staleness.begun() - begun, running.replica.0.seen.asked() - requests)
}

#[tokio::test]
async fn a_poll_that_finds_nothing_makes_two_requests() {
    let (objects, owners) = memory();
    let owner = Running::start(Arc::clone(&objects), &owners).await;
    owner.put("a", "1").await.unwrap();
    let running = RunningReplica::start(Arc::clone(&objects)).await;
    running.shows("a", "1").await;
    // The owner's compactor may have written a manifest meanwhile.
    let (begun, requests) = twenty_polls(&running).await;
    assert!(requests <= 2 * begun + 12, "{requests} requests for {begun} polls");
    owner.stop().await;

    // The next owner begins with an empty file in the log.
    let owner = Running::start(objects, &owners).await;
    twenty_polls(&running).await;
    let (begun, requests) = twenty_polls(&running).await;
    assert!(requests <= 2 * begun + 12, "{requests} requests for {begun} polls");
    owner.put("a", "2").await.unwrap();
    running.shows("a", "2").await;
    owner.stop().await;
    running.stop().await;
}

#[test]
fn a_replica_that_may_be_far_behind_is_degraded_and_says_why() {
    assert_eq!(health(BEHIND, Some("slow".to_owned())), Health::Ready);
    let words = |trouble| match health(BEHIND + Duration::from_secs(2), trouble) {
        Health::Degraded(Reason { code, text }) if code == REPLICA_BEHIND => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(words(None), "the replica may be 7 s behind");
    assert_eq!(words(Some("refused".to_owned())), "the replica may be 7 s behind: refused");
}
