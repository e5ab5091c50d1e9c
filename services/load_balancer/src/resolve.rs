//! The addresses behind host names, looked up again and again.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::address::{Address, Host};

/// The time from one lookup of a name to the next.
const EVERY: Duration = Duration::from_secs(9);
/// How long a lookup may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Looks up a name and a port.
pub(crate) type Lookup =
    Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Looks names up as this machine does.
pub(crate) fn system() -> Lookup {
    Arc::new(|name, port| Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) }))
}

/// A lookup that runs: whose it is, and what it finds.
type Running = BoxFuture<'static, (Address, Result<Vec<SocketAddr>, String>)>;

/// The names of one target.
pub(crate) struct Names {
    lookup: Lookup,
    known: BTreeMap<Address, Known>,
    running: FuturesUnordered<Running>,
}

/// What is known of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The addresses that were found last.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Why the last lookup failed, if it did.
    pub(crate) failure: Option<String>,
    /// Whether there has been an answer.
    pub(crate) is_answered: bool,
    /// When it is to be looked up next; `None` while it is being looked up.
    pub(crate) due: Option<Instant>,
}

impl Names {
    pub(crate) fn new(lookup: Lookup) -> Self {
        Self { lookup, known: BTreeMap::new(), running: FuturesUnordered::new() }
    }

    /// Keeps only these names, and begins to look up those that are new or due.
    pub(crate) fn want<'a>(&mut self, addresses: impl Iterator<Item = &'a Address>, now: Instant) {
        let mut before = std::mem::take(&mut self.known);
        for address in addresses {
            let Host::Name(name) = &address.host else { continue };
            let mut known =
                before.remove(address).unwrap_or_else(|| Known { due: Some(now), ..Known::default() });
            if known.due.is_some_and(|due| due <= now) {
                known.due = None;
                let looking = timeout(LIMIT, (self.lookup)(name.clone(), address.port));
                let address = address.clone();
                self.running.push(Box::pin(async move {
                    let found = match looking.await {
                        Ok(Ok(found)) if found.is_empty() => Err("has no address".to_owned()),
                        Ok(Ok(found)) => Ok(found),
                        Ok(Err(_)) => Err("is a name that is not found".to_owned()),
                        Err(_elapsed) => Err(format!("is a name that is not found within {LIMIT:?}")),
                    };
                    (address, found)
                }));
            }
            self.known.insert(address.clone(), known);
        }
    }

    /// What is known of a name.
    pub(crate) fn known(&self, address: &Address) -> Option<&Known> {
        self.known.get(address)
    }

    /// When the next name is due, if any is.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.known.values().filter_map(|known| known.due).min()
    }

    /// Waits for the end of a lookup. Pending while there is none. Cancel-safe.
    pub(crate) async fn learn(&mut self) {
        let Some((address, found)) = self.running.next().await else { return std::future::pending().await };
        let Some(known) = self.known.get_mut(&address) else { return };
        known.is_answered = true;
        known.due = Some(Instant::now() + EVERY);
        match found {
            Ok(mut addresses) => {
                if known.failure.take().is_some() {
                    info!(%address, "a name is found again");
                }
                addresses.sort_unstable();
                addresses.dedup();
                known.addresses = addresses;
            }
            Err(why) => {
                if known.failure.is_none() {
                    warn!(%address, why, "a name can't be resolved");
                }
                known.failure = Some(why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A lookup whose answers are taken from a list, and then stay the last one.
    fn scripted(answers: &[&[&str]]) -> Lookup {
        let answers: Vec<Vec<SocketAddr>> = answers
            .iter()
            .map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect())
            .collect();
        let left = Arc::new(Mutex::new(answers));
        Arc::new(move |_, _| {
            let mut left = left.lock().unwrap();
            let answer = if left.len() > 1 { left.remove(0) } else { left[0].clone() };
            let answer = if answer.is_empty() { Err(io::Error::other("not found")) } else { Ok(answer) };
            Box::pin(async move { answer })
        })
    }

    #[tokio::test(start_paused = true)]
    async fn behaviour_8_a_name_is_looked_up_within_ten_seconds_and_keeps_its_last_addresses() {
        let name: Address = "db.example:80".parse().unwrap();
        let mut names = Names::new(scripted(&[
            &[],
            &["10.0.0.2:80", "10.0.0.1:80", "10.0.0.1:80"],
            &[],
            &["10.0.0.3:80"],
        ]));
        let mut seen = Vec::new();
        let began = Instant::now();
        for _ in 0..4 {
            names.want([&name].into_iter(), Instant::now());
            names.learn().await;
            let Known { addresses, failure, is_answered, .. } = names.known(&name).unwrap().clone();
            assert!(is_answered);
            seen.push((addresses.len(), failure.is_some()));
            tokio::time::sleep_until(names.due().unwrap()).await;
        }
        assert_eq!(seen, [(0, true), (2, false), (2, true), (1, false)]);
        assert!(began.elapsed() < Duration::from_secs(4 * 10));
        names.want([].into_iter(), Instant::now());
        assert_eq!((names.known(&name), names.due()), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_hangs_fails_in_time() {
        let name: Address = "db.example:80".parse().unwrap();
        let mut names = Names::new(Arc::new(|_, _| Box::pin(std::future::pending())));
        names.want([&name].into_iter(), Instant::now());
        names.learn().await;
        assert!(names.known(&name).unwrap().failure.as_ref().unwrap().contains("within 5s"));
    }
}
