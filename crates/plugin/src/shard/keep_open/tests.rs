use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::*;
use crate::Tasks;

const SECOND: Duration = Duration::from_secs(1);
const PAUSES: Pauses = Pauses {
    first: SECOND,
    longest: Duration::from_secs(4),
    damaged: Duration::from_secs(60),
    steady: Duration::from_secs(10),
};

/// What happens at each opening: how long the data is served, or why it fails. After the last one it is served forever.
#[derive(Default)]
struct Script {
    openings: Mutex<VecDeque<Result<Duration, OpenError>>>,
    log: Mutex<Vec<(u64, String)>>,
    began: Option<Instant>,
}

impl Script {
    fn of(openings: impl IntoIterator<Item = Result<Duration, OpenError>>) -> Self {
        let openings = Mutex::new(openings.into_iter().collect());
        Self { openings, began: Some(Instant::now()), ..Self::default() }
    }

    fn note(&self, what: &str) {
        let at = self.began.map(|began| began.elapsed().as_secs()).unwrap_or_default();
        self.log.lock().unwrap().push((at, what.to_owned()));
    }

    fn log(&self) -> Vec<(u64, String)> {
        self.log.lock().unwrap().clone()
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

fn log(entries: &[(u64, &str)]) -> Vec<(u64, String)> {
    entries.iter().map(|(at, what)| (*at, (*what).to_owned())).collect()
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
    sleep(SECOND / 2).await;
    assert_eq!(kept.get(), Err(NotOpen::Opening(Some("no store".to_owned()))));
    assert_eq!(kept.opened(60 * SECOND).await, Ok(7));
    stop.cancel();
    tasks.wait().await;
    assert_eq!(kept.get(), Err(NotOpen::Ended));
    let opened = [(0, "open"), (1, "open"), (3, "open"), (7, "open"), (11, "open"), (11, "Ending")];
    assert_eq!(script.log(), log(&opened));
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
        (0, "open"),
        (1, "open"),
        (3, "open"),
        (4, "Failed"),
        (8, "open"),
        (28, "Failed"),
        (29, "open"),
        (40, "Ending"),
    ];
    assert_eq!(script.log(), log(&opened));
}

#[tokio::test(start_paused = true)]
async fn damage_is_reported_when_it_is_seen_twice_and_looked_at_rarely() {
    let (script, kept, stop, tasks) = begin(Script::of((0..10).map(|_| damaged())));
    sleep(SECOND / 2).await;
    assert_eq!(kept.get(), Err(NotOpen::Opening(Some("a file is gone".to_owned()))));
    sleep(SECOND).await;
    assert_eq!(kept.get(), Err(NotOpen::Damaged("a file is gone".to_owned())));
    sleep(600 * SECOND).await;
    assert_eq!(kept.get(), Ok(7));
    let openings = script.log().len();
    assert!(openings <= 11, "{openings}");
    stop.cancel();
    tasks.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_has_passed_is_not_opened_again() {
    let (script, kept, _stop, tasks) =
        begin(Script::of([Err(OpenError::Passed("node b has it".to_owned()))]));
    tasks.wait().await;
    assert_eq!(kept.get(), Err(NotOpen::Passed("node b has it".to_owned())));
    assert_eq!(script.log(), log(&[(0, "open"), (0, "node b has it")]));
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
