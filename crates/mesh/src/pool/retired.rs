//! Which addresses get no new connections to reuse: those of members that drain, and those of members that left.
//!
//! Pure. A server that drains closes its idle connections, and a request that is already on its way is lost (hyper#3792). So we
//! close ours first.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::ClusterView;
use types::Phase;

/// The addresses of the members in one view, `host:port`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Addresses {
    all: BTreeSet<String>,
    draining: Arc<BTreeSet<String>>,
}

impl Addresses {
    pub(crate) fn of(view: &ClusterView) -> Self {
        let mut draining = BTreeSet::new();
        let mut all = BTreeSet::new();
        for member in view.members() {
            let address = member.http.trim_start_matches("http://").to_ascii_lowercase();
            if member.state.as_ref().is_some_and(|state| state.phase == Phase::Draining) {
                draining.insert(address.clone());
            }
            all.insert(address);
        }
        Self { all, draining: Arc::new(draining) }
    }

    /// The addresses of members that drain.
    pub(crate) fn draining(&self) -> &Arc<BTreeSet<String>> {
        &self.draining
    }

    /// The addresses whose idle connections are closed when this view follows another one.
    pub(crate) fn to_close(&self, before: &Self) -> BTreeSet<String> {
        let left = before.all.difference(&self.all);
        let draining = self.draining.difference(&before.draining);
        left.chain(draining).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{member, view};

    #[test]
    fn connections_to_members_that_drain_or_left_are_closed_once() {
        let addr = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let with = |phases: &[(&str, u16, Phase)]| {
            let members = phases.iter().map(|(id, port, phase)| member(id, addr(*port), *phase));
            Addresses::of(&view(members))
        };
        let none = BTreeSet::new();
        let both = with(&[("a", 1, Phase::Ready), ("b", 2, Phase::Ready)]);
        let draining = with(&[("a", 1, Phase::Draining), ("b", 2, Phase::Ready)]);
        let left = with(&[("b", 2, Phase::Ready)]);
        let a = BTreeSet::from(["127.0.0.1:1".to_owned()]);
        assert_eq!(both.to_close(&Addresses::default()), none);
        assert_eq!(draining.to_close(&both), a);
        assert_eq!(**draining.draining(), a);
        assert_eq!(draining.to_close(&draining), none);
        assert_eq!(left.to_close(&draining), a);
        assert_eq!(both.to_close(&left), none);
        assert!(both.draining().is_empty());
    }
}
