//! Keeps the members of a service that all disappear at once: then it is more likely that gossip fails than they.
//!
//! A process that was paused, or whose datagrams are lost, declares healthy members dead (a single crash looks the same, so
//! one lost member is no panic). If more than half of the serving members disappear within the detector's interval, they are
//! kept for two intervals, and connections decide: one that can't be opened ends it for that member. Envoy's panic
//! threshold has the same purpose. Pure: the caller passes the time.
//!
//! A shard's owner is never kept. Its successor is decided by a claim in the store, and requests wait for it.

use std::time::Duration;

use tokio::time::Instant;
use types::NodeId;

/// The fewest members whose loss is a panic.
const FEWEST: usize = 2;

/// How long the members are kept, in intervals of the detector.
const KEPT_FOR: u32 = 2;

/// The members of one service that disappeared recently. `M` is what is kept of each.
#[derive(Debug, Clone)]
pub struct Lost<M> {
    members: Vec<(NodeId, M, Instant)>,
    /// The end of the present panic.
    until: Option<Instant>,
}

impl<M> Default for Lost<M> {
    fn default() -> Self {
        Self { members: Vec::new(), until: None }
    }
}

impl<M> Lost<M> {
    /// Notes the members that have just disappeared, and those that are back.
    ///
    /// `serving` is the number of members that still serve. Returns whether a panic begins.
    pub fn note(
        &mut self,
        disappeared: impl IntoIterator<Item = (NodeId, M)>,
        is_back: impl Fn(&NodeId) -> bool,
        serving: usize,
        interval: Duration,
        now: Instant,
    ) -> bool {
        if self.until.is_some_and(|until| now >= until) {
            *self = Self::default();
        }
        let is_recent = |at: Instant| now.saturating_duration_since(at) < interval;
        let has_panic = self.until.is_some();
        self.members.retain(|(node, _, at)| !is_back(node) && (has_panic || is_recent(*at)));
        let disappeared = disappeared.into_iter().map(|(node, member)| (node, member, now));
        self.members.extend(disappeared);
        let lost = self.members.iter().filter(|(.., at)| is_recent(*at)).count();
        let begins = !has_panic && lost >= FEWEST && lost > serving;
        if begins {
            self.until = Some(now + interval * KEPT_FOR);
        }
        begins
    }

    /// The members that are kept, each with the time when it disappeared.
    pub fn kept(&self) -> impl Iterator<Item = (&M, Instant)> {
        let kept = if self.until.is_some() { self.members.as_slice() } else { &[] };
        kept.iter().map(|(_, member, at)| (member, *at))
    }

    /// Every member that disappeared recently, kept or not.
    pub fn members(&self) -> impl Iterator<Item = &M> {
        self.members.iter().map(|(_, member, _)| member)
    }

    /// The end of the present panic.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether nothing needs to be remembered.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);
    const SECOND: Duration = Duration::from_secs(1);

    fn nodes(names: &[&str]) -> Vec<(NodeId, ())> {
        names.iter().map(|name| (name.parse().unwrap(), ())).collect()
    }

    fn nobody(_: &NodeId) -> bool {
        false
    }

    #[test]
    fn more_than_half_at_once_is_a_panic() {
        let now = Instant::now();
        for (lost, serving, expected) in [
            (&["a"][..], 0, false),
            (&["a"], 2, false),
            (&["a", "b"], 2, false),
            (&["a", "b"], 1, true),
            (&["a", "b"], 0, true),
            (&["a", "b", "c"], 3, false),
            (&["a", "b", "c", "d"], 3, true),
        ] {
            let mut memory = Lost::default();
            assert_eq!(
                memory.note(nodes(lost), nobody, serving, INTERVAL, now),
                expected,
                "{lost:?} {serving}"
            );
            assert_eq!(memory.kept().count(), if expected { lost.len() } else { 0 });
        }
    }

    #[test]
    fn members_lost_one_after_the_other_within_an_interval_count_together() {
        let now = Instant::now();
        let mut memory = Lost::default();
        assert!(!memory.note(nodes(&["a"]), nobody, 2, INTERVAL, now));
        assert!(memory.note(nodes(&["b"]), nobody, 1, INTERVAL, now + SECOND));
        assert_eq!(memory.kept().count(), 2);

        let mut memory = Lost::default();
        assert!(!memory.note(nodes(&["a"]), nobody, 2, INTERVAL, now));
        assert!(!memory.note(nodes(&["b"]), nobody, 1, INTERVAL, now + INTERVAL));
    }

    #[test]
    fn a_panic_ends_after_two_intervals_or_when_the_members_are_back() {
        let now = Instant::now();
        let mut memory = Lost::default();
        memory.note(nodes(&["a", "b", "c"]), nobody, 1, INTERVAL, now);
        memory.note([], |node| node.as_str() == "a", 2, INTERVAL, now + SECOND);
        assert_eq!(memory.kept().count(), 2);
        assert!(!memory.note(nodes(&["d"]), nobody, 0, INTERVAL, now + INTERVAL), "it does not begin again");
        assert_eq!(memory.kept().count(), 3);
        memory.note([], nobody, 0, INTERVAL, now + INTERVAL * 2);
        assert_eq!((memory.kept().count(), memory.until()), (0, None));
        assert!(memory.is_empty());
    }

    proptest! {
        #[test]
        fn members_are_kept_for_two_intervals_at_most(
            steps in prop::collection::vec((0_usize..5, 0_usize..5, 0_u64..3_000), 1..40),
        ) {
            let mut memory = Lost::default();
            let (mut now, mut began) = (Instant::now(), None);
            for (lost, serving, pause) in steps {
                now += Duration::from_millis(pause);
                let names = ["a", "b", "c", "d", "e"];
                if memory.note(nodes(&names[..lost]), nobody, serving, INTERVAL, now) {
                    began = Some(now);
                }
                if memory.kept().count() > 0 {
                    let began: Instant = began.unwrap();
                    prop_assert!(now < began + INTERVAL * 2);
                }
            }
        }
    }
}
