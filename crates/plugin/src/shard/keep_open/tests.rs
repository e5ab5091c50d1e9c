use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use super::*;
use crate::Tasks;

const SECOND: Duration = Duration::from_secs(1);
const PAUSES: Pauses = Pauses {
    backoff: Backoff::new(SECOND, Duration::from_secs(4)),
    damaged: Duration::from_secs(60),
    steady: Duration::from_secs(10),
};

/// What happens at each opening: how long the data is served, or why it fails. After the last one it is served forever.
#[derive(Default)]
struct Script {
    openings: Mutex<VecDeque<Result<Duration, OpenError>>>,
    log: Mutex<Vec<(Duration, String)>>,
    began: Option<Instant>,
}

impl Script {
    fn of(openings: impl IntoIterator<Item = Result<Duration, OpenError>>) -> Self {
        let openings = Mutex::new(openings.into_iter().collect());
        Self { openings, began: Some(Instant::now()), ..Self::default() }
    }

    fn note(&self, what: &str) {
        let at = self.began.map(|began| began.elapsed()).unwrap_or_default();
        self.log.lock().unwrap().push((at, what.to_owned()));
    }

    /// What happened, each with the time since what happened before it.
    fn log(&self) -> Vec<(Duration, String)> {
        let mut before = Duration::ZERO;
        let gap = |(at, what): &(Duration, String)| (*at - std::mem::replace(&mut before, *at), what.clone());
        self.log.lock().unwrap().iter().map(gap).collect()
    }
}

impl Open for Script {
    type Opened = Option<Duration>;
    type Data = u32;

    async fn open(&self) -> Result<Option<Duration>, OpenError> {
        self.note("open");
        self.openings.lock().unwrap().pop_front().transpose()
    }

    async fn serve(&self, opened: &Option<Duration>, kept: &Kept<u32>) -> String {
        kept.open(7);
        match opened {
            Some(time) => sleep(*time).await,
            None => std::future::pending().await,
        }
        "fenced".to_owned()
    }

    async fn close(&self, _opened: Option<Duration>, reason: Closing) {
        self.note(&format!("{reason:?}"));
    }

    fn passed(&self, why: &str) {
        self.note(why);
    }
}

/// The time from one entry to the next, in seconds.
type Gap = RangeInclusive<f64>;

/// A pause with jitter: from half of it to all of it.
fn up_to(seconds: f64) -> Gap {
    seconds / 2.0..=seconds
}

fn exactly(seconds: f64) -> Gap {
    seconds..=seconds
}

#[track_caller]
fn assert_log(log: &[(Duration, String)], expected: &[(Gap, &str)]) {
    let is_expected = |((gap, what), (range, expected)): (&(Duration, String), &(Gap, &str))| {
        // The timer counts whole milliseconds.
        let gap = gap.as_secs_f64();
        what == expected && *range.start() <= gap && gap <= *range.end() + 0.002
    };
    let is_same = log.len() == expected.len() && log.iter().zip(expected).all(is_expected);
    assert!(is_same, "{log:?} is not {expected:?}");
}

fn failed() -> Result<Duration, OpenError> {
    Err(OpenError::Failed("no store".to_owned()))
}

fn damaged() -> Result<Duration, OpenError> {
    Err(OpenError::Damaged("a file is gone".to_owned()))
}

/// Keeps the data open in the background.
fn begin(script: Script) -> (Arc<Script>, Arc<Kept<u32>>, CancellationToken, Tasks) {
    let (script, kept, stop) = (Arc::new(script), Arc::new(Kept::default()), CancellationToken::new());
    let (its, data, token) = (Arc::clone(&script), Arc::clone(&kept), stop.clone());
    let (tasks, _failures) = Tasks::new();
    tasks.spawn("data", async move {
        keep_open(&*its, &data, PAUSES, &token).await;
        Ok(())
    });
    (script, kept, stop, tasks)
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_opened_again_after_longer_and_longer_pauses() {
    let (script, kept, stop, tasks) = begin(Script::of([failed(), failed(), failed(), failed()]));
    sleep(SECOND / 4).await;
    assert_eq!(kept.get(), Err(NotOpen::Opening(Some("no store".to_owned()))));
    assert_eq!(kept.opened(60 * SECOND).await, Ok(7));
    stop.cancel();
    tasks.wait().await;
    assert_eq!(kept.get(), Err(NotOpen::Ended));
    let opened = [
        (exactly(0.0), "open"),
        (up_to(1.0), "open"),
        (up_to(2.0), "open"),
        (up_to(4.0), "open"),
        (up_to(4.0), "open"),
        (exactly(0.0), "Ending"),
    ];
    assert_log(&script.log(), &opened);
}

#[tokio::test(start_paused = true)]
async fn what_was_served_for_long_is_opened_again_soon() {
    let script = Script::of([failed(), failed(), Ok(SECOND), Ok(20 * SECOND)]);
    let (script, kept, stop, tasks) = begin(script);
    sleep(40 * SECOND).await;
    assert_eq!(kept.get(), Ok(7));
    stop.cancel();
    tasks.wait().await;
    let opened = [
        (exactly(0.0), "open"),
        (up_to(1.0), "open"),
        (up_to(2.0), "open"),
        (exactly(1.0), "Failed"),
        (up_to(4.0), "open"),
        (exactly(20.0), "Failed"),
        (up_to(1.0), "open"),
        (11.0..=40.0, "Ending"),
    ];
    assert_log(&script.log(), &opened);
}

#[tokio::test(start_paused = true)]
async fn damage_is_reported_when_it_is_seen_twice_and_looked_at_rarely() {
    let (script, kept, stop, tasks) = begin(Script::of((0..10).map(|_| damaged())));
    sleep(SECOND / 4).await;
    assert_eq!(kept.get(), Err(NotOpen::Opening(Some("a file is gone".to_owned()))));
    sleep(SECOND).await;
    assert_eq!(kept.get(), Err(NotOpen::Damaged("a file is gone".to_owned())));
    sleep(600 * SECOND).await;
    assert_eq!(kept.get(), Ok(7));
    let mut pauses: Vec<_> = [1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0].map(up_to).into();
    pauses.insert(0, exactly(0.0));
    assert_log(&script.log(), &pauses.into_iter().map(|gap| (gap, "open")).collect::<Vec<_>>());
    stop.cancel();
    tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn damage_after_an_outage_is_checked_soon_and_then_ever_more_rarely() {
    let openings = (0..9).map(|_| failed()).chain((0..3).map(|_| damaged()));
    let (script, kept, stop, tasks) = begin(Script::of(openings));
    sleep(200 * SECOND).await;
    assert_eq!(kept.get(), Ok(7));
    stop.cancel();
    tasks.wait().await;
    let gaps: Vec<_> = script.log().into_iter().map(|(gap, _)| gap).collect();
    let [reported, checked, served, _ending] = gaps[gaps.len() - 4..] else { panic!("{gaps:?}") };
    assert!(reported <= 4 * SECOND + SECOND / 100, "{gaps:?}");
    assert!(checked <= SECOND + SECOND / 100 && served <= 2 * SECOND + SECOND / 100, "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_has_passed_is_not_opened_again() {
    let (script, kept, _stop, tasks) =
        begin(Script::of([Err(OpenError::Passed("node b has it".to_owned()))]));
    tasks.wait().await;
    assert_eq!(kept.get(), Err(NotOpen::Passed("node b has it".to_owned())));
    assert_log(&script.log(), &[(exactly(0.0), "open"), (exactly(0.0), "node b has it")]);
}

/// Takes this long to open.
struct Slow(Duration, Mutex<Vec<Closing>>);

impl Open for Slow {
    type Opened = ();
    type Data = u32;

    async fn open(&self) -> Result<(), OpenError> {
        sleep(self.0).await;
        Ok(())
    }

    async fn serve(&self, _opened: &(), _kept: &Kept<u32>) -> String {
        std::future::pending().await
    }

    async fn close(&self, _opened: (), reason: Closing) {
        self.1.lock().unwrap().push(reason);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_being_opened_at_the_end_is_closed_if_it_opens_soon() {
    for (takes, closed, ends_after) in
        [(4 * SECOND, vec![Closing::Unused], 4 * SECOND), (60 * SECOND, Vec::new(), LAST_OPENING + SECOND)]
    {
        let (slow, kept, stop) = (Slow(takes, Mutex::default()), Kept::default(), CancellationToken::new());
        let began = Instant::now();
        let stopping = async {
            sleep(SECOND).await;
            stop.cancel();
        };
        tokio::join!(keep_open(&slow, &kept, PAUSES, &stop), stopping);
        assert_eq!((slow.1.into_inner().unwrap(), began.elapsed()), (closed, ends_after));
    }
}
