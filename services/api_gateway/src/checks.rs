//! Active checks of the addresses of routes that have them: what they find decides which addresses get requests.
//!
//! A route without them has probes instead, which only notice that it is dead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use mesh::BaseUrl;
use plugin::Health;
use plugin::check::{self, Checked, Checking};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use types::ReasonCode;

use crate::table::{RouteTable, Way};

/// The checks of all addresses of a route fail.
const NO_BACKEND: ReasonCode = ReasonCode::new("no-backend");
/// The number of routes that the health reason names.
const NAMED: usize = 3;

/// The routes that have checks.
#[derive(Debug)]
pub(crate) struct Checks {
    routes: Vec<CheckedRoute>,
    /// Whether others have taken their place.
    is_over: Arc<AtomicBool>,
}

#[derive(Debug)]
struct CheckedRoute {
    label: String,
    checking: Checking,
    addresses: Vec<(BaseUrl, Mutex<Checked>)>,
    is_over: Arc<AtomicBool>,
}

impl Checks {
    /// The checks of a table. Every address counts as up until its first check, unless a route of the same name had checks
    /// before that found it down. Those from before find nothing any more.
    pub(crate) fn new(table: &RouteTable, before: Option<&Self>) -> Self {
        if let Some(before) = before {
            before.end();
        }
        // An address may be known from an earlier table whose route had checks.
        let unchecked = table.ways().iter().filter(|way| way.check.is_none());
        unchecked.flat_map(Way::addresses).for_each(|url| url.checked(None));
        let known = |label: &str, url: &BaseUrl| {
            let found = before.and_then(|before| before.found(label, url));
            Mutex::new(found.unwrap_or_default())
        };
        let is_over = Arc::<AtomicBool>::default();
        let routes = table.ways().iter().filter_map(|way| {
            Some(CheckedRoute {
                is_over: Arc::clone(&is_over),
                label: way.label.clone(),
                checking: way.check.clone()?,
                addresses: way.addresses().iter().map(|url| (url.clone(), known(&way.label, url))).collect(),
            })
        });
        Self { routes: routes.collect(), is_over }
    }

    /// Returns once no check that is under way can change what is known of an address.
    fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        for (_, checked) in self.routes.iter().flat_map(|route| &route.addresses) {
            drop(lock(checked));
        }
    }

    /// What the checks of a route have found about an address.
    fn found(&self, label: &str, url: &BaseUrl) -> Option<Checked> {
        let route = self.routes.iter().find(|route| route.label == label)?;
        let (_, checked) = route.addresses.iter().find(|(known, _)| known.has_same_target(url))?;
        Some(lock(checked).clone())
    }

    /// Checks until `stopping`.
    pub(crate) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        if !self.routes.is_empty() {
            stopping.run_until_cancelled(join_all(self.routes.iter().map(CheckedRoute::run))).await;
        }
    }

    /// Degraded while no address of some route is up.
    pub(crate) fn health(&self) -> Health {
        let dead: Vec<_> = self.routes.iter().filter_map(CheckedRoute::trouble).collect();
        if dead.is_empty() {
            return Health::Ready;
        }
        let more = dead.len().saturating_sub(NAMED);
        let mut text = dead.into_iter().take(NAMED).collect::<Vec<_>>().join("; ");
        if more > 0 {
            text += &format!("; {more} more routes");
        }
        Health::degraded(NO_BACKEND, text)
    }
}

impl CheckedRoute {
    async fn run(&self) {
        let listed = || {
            let of = |(id, (url, _)): (u64, &(BaseUrl, _))| {
                let (host, port) = url.host_and_port();
                // An IPv6 address needs its brackets again.
                let address =
                    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                (id, address, url.authority().to_owned())
            };
            (0..).zip(&self.addresses).map(of).collect()
        };
        check::run(&self.checking, listed, |id, result| self.found(id, result)).await;
    }

    fn found(&self, id: u64, result: Result<(), String>) {
        let Some((url, checked)) = usize::try_from(id).ok().and_then(|at| self.addresses.get(at)) else {
            return;
        };
        let mut checked = lock(checked);
        if self.is_over.load(Ordering::SeqCst) {
            return;
        }
        let has_changed = checked.observe(result, &self.checking);
        if checked.is_up() {
            url.checked(None);
        } else {
            url.checked(Some(checked.why().unwrap_or("fails its checks").to_owned()));
        }
        match has_changed {
            true if checked.is_up() => info!(route = self.label, %url, "an address is up"),
            true => warn!(route = self.label, %url, why = checked.why(), "an address is down"),
            false => {}
        }
    }

    /// Why no address gets requests; `None` if one does.
    fn trouble(&self) -> Option<String> {
        let down: Option<Vec<_>> = self
            .addresses
            .iter()
            .map(|(url, _)| Some(format!("{} {}", url.authority(), url.why_down()?)))
            .collect();
        let causes = down?.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
        Some(format!("the checks of every address of route {} fail: {causes}", self.label))
    }
}

fn lock(checked: &Mutex<Checked>) -> MutexGuard<'_, Checked> {
    checked.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn a_check_that_ends_after_checks_were_removed_takes_nothing_out() {
        let table = |route: serde_json::Value| {
            let settings = serde_json::json!({ "listen": "127.0.0.1:0", "routes": [route] });
            plugin::check_settings(&settings, Settings::check).unwrap().table
        };
        let url = "http://127.0.0.1:1";
        let checks =
            Checks::new(&table(serde_json::json!({"prefix": "/a", "to": [url], "check": {"tcp": {}}})), None);
        let address = checks.routes[0].addresses[0].0.clone();
        checks.routes[0].found(0, Err("refuses connections".to_owned()));
        assert!(address.is_down());
        let without = Checks::new(&table(serde_json::json!({"prefix": "/a", "to": [url]})), Some(&checks));
        assert!(without.routes.is_empty());
        // As the new table does for an address that it takes over.
        address.checked(None);
        checks.routes[0].found(0, Err("refuses connections".to_owned()));
        assert!(!address.is_down());
    }
}
