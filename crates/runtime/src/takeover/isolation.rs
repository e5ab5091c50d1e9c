//! Whether a node has lost sight of all others.
//!
//! An owner that reaches the store but no other member is of no use to clients. So each node remembers the members that
//! vanished without leaving. A node that sees no other member is cut off if it remembers such a member, or if it has seeds
//! and has not met any member yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use cluster::ClusterView;
use tokio::sync::watch;
use types::{Generation, NodeId};

/// The other members that a node sees, and those that it has lost. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Isolation(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    has_seeds: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    present: BTreeMap<NodeId, Generation>,
    /// Members that vanished without leaving.
    lost: BTreeMap<NodeId, Generation>,
    has_met: bool,
}

impl Isolation {
    pub(crate) fn new(has_seeds: bool) -> Self {
        Self(Arc::new(Inner { has_seeds, state: Mutex::default() }))
    }

    /// Tracks a view until it ends.
    pub(crate) async fn keep(self, mut view: watch::Receiver<ClusterView>) {
        loop {
            self.look(&view.borrow_and_update().clone());
            if view.changed().await.is_err() {
                return;
            }
        }
    }

    fn look(&self, view: &ClusterView) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let present = view.peers().map(|peer| (peer.id.clone(), peer.generation)).collect();
        let before = std::mem::replace(&mut state.present, present);
        let State { present, lost, has_met } = &mut *state;
        *has_met |= !present.is_empty();
        lost.extend(before);
        lost.retain(|id, generation| !present.contains_key(id) && !view.has_left(id, *generation));
    }

    /// Whether it sees no other member, although there should be one.
    pub(crate) fn is_cut_off(&self) -> bool {
        let state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        let should_see = if state.has_met { !state.lost.is_empty() } else { self.0.has_seeds };
        state.present.is_empty() && should_see
    }
}

#[cfg(test)]
mod tests {
    use types::api::{About, Member};

    use super::*;

    fn view(peers: &[&str], left: &[&str]) -> ClusterView {
        let member = |id: &str| Member {
            id: id.parse().unwrap(),
            generation: Generation(1),
            version: 1,
            http: String::new(),
            gossip: String::new(),
            state: None,
            about: About::default(),
            store: None,
        };
        let members = ["me"].iter().chain(peers).map(|id| (id.parse().unwrap(), member(id))).collect();
        let left = left.iter().map(|id| (id.parse().unwrap(), Generation(1))).collect();
        ClusterView::with_left("c".parse().unwrap(), "me".parse().unwrap(), members, left)
    }

    #[test]
    fn a_node_is_cut_off_when_others_vanish_and_not_when_they_leave() {
        for (has_seeds, views, is_cut_off) in [
            (false, vec![view(&[], &[])], false),
            (true, vec![view(&[], &[])], true),
            (true, vec![view(&["a"], &[])], false),
            (false, vec![view(&["a"], &[]), view(&[], &[])], true),
            (true, vec![view(&["a", "b"], &[]), view(&["a"], &[])], false),
            (true, vec![view(&["a"], &[]), view(&[], &["a"])], false),
            (true, vec![view(&["a", "b"], &[]), view(&["b"], &["a"]), view(&[], &["a"])], true),
            (false, vec![view(&["a"], &[]), view(&[], &[]), view(&["a"], &[]), view(&[], &["a"])], false),
        ] {
            let isolation = Isolation::new(has_seeds);
            views.iter().for_each(|view| isolation.look(view));
            assert_eq!(isolation.is_cut_off(), is_cut_off, "seeds: {has_seeds}, {views:?}");
        }
    }
}
