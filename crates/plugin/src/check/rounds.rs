//! Checks the backends of a pool at their intervals, each by itself.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::{Checking, check};

/// The share by which the time between checks varies at random, so that nodes do not check in step.
const JITTER: f64 = 0.1;

/// Checks backends until it is dropped. Never returns.
///
/// `listed` returns those that are to be checked: what names each among all that there ever were, its host and port, and the
/// address as the settings name it. A new one is checked within a second, or the interval if that is shorter. `found` gets
/// each result.
pub async fn run<L, F>(checking: &Checking, listed: L, found: F)
where
    L: Fn() -> Vec<(u64, String, String)> + Send,
    F: Fn(u64, Result<(), String>) + Send,
{
    let mut running = FuturesUnordered::new();
    // When each backend is due; `None` while it is being checked.
    let mut due: Vec<(u64, Option<Instant>)> = Vec::new();
    let pause = || checking.every.mul_f64(rand::random_range(1.0 - JITTER..1.0 + JITTER));
    loop {
        let now = Instant::now();
        let backends = listed();
        due.retain(|(id, _)| backends.iter().any(|(known, ..)| known == id));
        for (id, address, named) in backends {
            let at = match due.iter().position(|(known, _)| *known == id) {
                Some(at) => at,
                None => {
                    due.push((id, Some(now)));
                    due.len() - 1
                }
            };
            if due[at].1.is_some_and(|due| due <= now) {
                due[at].1 = None;
                running.push(async move { (id, check(checking, &address, &named).await) });
            }
        }
        // New backends are noticed at the next look.
        let next = due.iter().filter_map(|(_, due)| *due).min();
        let look = now + checking.every.min(Duration::from_secs(1));
        tokio::select! {
            biased;
            Some((id, result)) = running.next() => {
                found(id, result);
                if let Some(entry) = due.iter_mut().find(|(known, _)| *known == id) {
                    entry.1 = Some(Instant::now() + pause());
                }
            }
            () = sleep_until(next.map_or(look, |next| next.min(look))) => {}
        }
    }
}
