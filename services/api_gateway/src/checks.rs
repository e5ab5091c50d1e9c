//! Active checks of the addresses of routes that have them: what they find decides which addresses get requests.
//!
//! A route without them has probes instead, which only notice that it is dead.

use std::sync::{Arc, Mutex, PoisonError};

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
pub(crate) struct Checks(Vec<CheckedRoute>);

#[derive(Debug)]
struct CheckedRoute {
    label: String,
    checking: Checking,
    addresses: Vec<(BaseUrl, Mutex<Checked>)>,
}

impl Checks {
    /// The checks of a table. Every address counts as up until its first check, unless a route of the same name had checks
    /// before that found it down.
    pub(crate) fn new(table: &RouteTable, before: Option<&Self>) -> Self {
        // An address may be known from an earlier table whose route had checks.
        let unchecked = table.ways().iter().filter(|way| way.check.is_none());
        unchecked.flat_map(Way::addresses).for_each(|url| url.checked(None));
        let known = |label: &str, url: &BaseUrl| {
            let found = before.and_then(|before| before.found(label, url));
            Mutex::new(found.unwrap_or_default())
        };
        let routes = table.ways().iter().filter_map(|way| {
            Some(CheckedRoute {
                label: way.label.clone(),
                checking: way.check.clone()?,
                addresses: way.addresses().iter().map(|url| (url.clone(), known(&way.label, url))).collect(),
            })
        });
        Self(routes.collect())
    }

    /// What the checks of a route have found about an address.
    fn found(&self, label: &str, url: &BaseUrl) -> Option<Checked> {
        let route = self.0.iter().find(|route| route.label == label)?;
        let (_, checked) = route.addresses.iter().find(|(known, _)| known.has_same_target(url))?;
        Some(checked.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Checks until `stopping`.
    pub(crate) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        if !self.0.is_empty() {
            stopping.run_until_cancelled(join_all(self.0.iter().map(CheckedRoute::run))).await;
        }
    }

    /// Degraded while no address of some route is up.
    pub(crate) fn health(&self) -> Health {
        let dead: Vec<_> = self.0.iter().filter_map(CheckedRoute::trouble).collect();
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
        let mut checked = checked.lock().unwrap_or_else(PoisonError::into_inner);
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
