//! Where requests go: the addresses of a pool in the form that a request needs, replaced as a whole when they change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh::{BaseUrl, Mesh, RoutePool};
use tokio::sync::Notify;

use crate::backend::Slot;

/// The addresses of a pool. A request reads them without a lock.
#[derive(Debug)]
pub(crate) struct Urls {
    /// Counts the requests to them; none in TCP mode.
    mesh: Option<Mesh>,
    now: ArcSwap<Addresses>,
    changed: Notify,
}

/// The addresses at one time.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) urls: Vec<BaseUrl>,
    /// In the order of the addresses. Backups have none, so they get requests only while all others have failed.
    pub(crate) weights: Vec<u32>,
    /// Under whose name requests are counted.
    pub(crate) pool: Option<RoutePool>,
    /// Some will be there soon.
    is_soon: bool,
}

impl PartialEq for Addresses {
    fn eq(&self, other: &Self) -> bool {
        (&self.urls, &self.weights, self.is_soon) == (&other.urls, &other.weights, other.is_soon)
    }
}

impl Addresses {
    fn of(slots: &[Slot], is_soon: bool) -> Self {
        let mut addresses = Self { is_soon, ..Self::default() };
        for slot in slots.iter().filter(|slot| slot.left_at.is_none()) {
            if let Some(url) = &slot.url {
                addresses.urls.push(url.clone());
                addresses.weights.push(if slot.of.is_backup { 0 } else { slot.of.weight });
            }
        }
        addresses
    }

    /// Whether one of them passes its checks.
    fn has_one_that_is_up(&self) -> bool {
        self.urls.iter().any(|url| !url.is_down())
    }
}

impl Urls {
    /// None yet.
    pub(crate) fn new(mesh: Option<Mesh>) -> Self {
        let addresses = Addresses { is_soon: true, ..Addresses::default() };
        Self { mesh, now: ArcSwap::from_pointee(addresses), changed: Notify::new() }
    }

    /// Takes over the backends of the pool. Requests are counted under the name of the listener.
    pub(crate) fn publish(&self, listener: &str, slots: &[Slot], is_soon: bool) {
        // Equal addresses may be those of other backends, with a state of their own.
        let mut addresses = Addresses::of(slots, is_soon);
        let counted = || addresses.urls.iter().zip(addresses.weights.iter().copied());
        addresses.pool = self.mesh.as_ref().map(|mesh| mesh.route_pool(listener, counted()));
        self.now.store(Arc::new(addresses));
        self.changed.notify_waiters();
    }

    /// The addresses, if a request need not wait for them: `Some(None)` if there are none and will not be soon.
    pub(crate) fn now(&self) -> Option<Option<Arc<Addresses>>> {
        let now = self.now.load_full();
        match now.urls.is_empty() {
            true if now.is_soon => None,
            true => Some(None),
            false => Some(Some(now).filter(|now| now.has_one_that_is_up())),
        }
    }

    /// The addresses; waits while there are none and will be soon.
    pub(crate) async fn some(&self) -> Option<Arc<Addresses>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(known) = self.now() {
                return known;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Wanted;
    use crate::plan::Protocol;

    fn slot(port: u16, is_backup: bool, is_leaving: bool) -> Slot {
        let address = ([10, 0, 0, 1], port).into();
        let named = format!("db:{port}");
        let of = Wanted {
            address,
            named,
            member: None,
            protocol: Protocol::Http1,
            weight: 3,
            is_backup,
            is_leaving,
            is_kept: false,
        };
        let mut slot = Slot::new(u64::from(port), of, None);
        slot.left_at = is_leaving.then(tokio::time::Instant::now);
        slot
    }

    #[tokio::test]
    async fn a_request_waits_for_addresses_only_if_some_will_be_there_soon() {
        let urls = Urls::new(None);
        assert!(urls.now().is_none(), "before the first look");
        urls.publish("a", &[], false);
        assert_eq!(urls.now(), Some(None));
        urls.publish("a", &[], true);
        let slots = [slot(1, false, false), slot(2, true, false), slot(3, false, true)];
        let publishing = async {
            tokio::task::yield_now().await;
            urls.publish("a", &slots, false);
        };
        let (found, ()) = tokio::join!(urls.some(), publishing);
        let found = found.unwrap();
        let shown: Vec<_> = found.urls.iter().map(BaseUrl::as_str).collect();
        assert_eq!((shown, &found.weights), (vec!["http://10.0.0.1:1", "http://10.0.0.1:2"], &vec![3, 0]));
        found.urls.iter().for_each(|url| url.checked(Some("refuses connections".to_owned())));
        assert_eq!(urls.now(), Some(None), "none is up");
    }

    #[test]
    fn a_backend_that_follows_another_one_at_its_address_has_a_state_of_its_own() {
        let urls = Urls::new(None);
        let (first, second) = (slot(1, false, false), slot(1, false, false));
        first.url.as_ref().unwrap().checked(Some("refuses connections".to_owned()));
        urls.publish("a", &[first], false);
        assert_eq!(urls.now(), Some(None));
        urls.publish("a", &[second], false);
        assert!(urls.now().flatten().is_some());
    }
}
