//! Keeps the members of a target that disappear from gossip at once, by the rule of the mesh ([`Lost`]): then it is more likely
//! that gossip fails than they. Pure.

use std::time::Duration;

use cluster::ClusterView;
use mesh::Lost;
use tokio::time::Instant;
use types::NodeId;

use crate::members::{Entry, Members};

/// The members of a target that have disappeared.
#[derive(Debug, Default)]
pub(crate) struct Vanished {
    lost: Lost<Entry>,
    /// Those that the view had when it was seen last.
    before: Vec<Entry>,
}

impl Vanished {
    /// The members, with those that are kept. One that `refuses` connections is kept no more. `detector` is how long the
    /// failure detector takes to declare a member dead.
    pub(crate) fn keep(
        &mut self,
        mut members: Members,
        view: &ClusterView,
        refuses: impl Fn(&NodeId) -> bool,
        detector: Duration,
        now: Instant,
    ) -> Members {
        let serving = members.entries.iter().filter(|entry| !entry.is_leaving).count();
        let before = std::mem::replace(&mut self.before, members.entries.clone());
        let disappeared = before.into_iter().filter_map(|entry| {
            let (node, generation) = entry.member.clone().filter(|_| !entry.is_leaving)?;
            (view.member(&node).is_none() && !view.has_left(&node, generation)).then_some((node, entry))
        });
        self.lost.note(disappeared, |node| view.member(node).is_some(), serving, detector, now);
        let kept = self.lost.kept().map(|(entry, _)| entry);
        let kept = kept.filter(|entry| entry.member.as_ref().is_some_and(|(node, _)| !refuses(node)));
        let kept: Vec<_> = kept.map(|entry| Entry { is_kept: true, ..entry.clone() }).collect();
        if !kept.is_empty() {
            members.why = None;
            members.entries.extend(kept);
        }
        members
    }

    /// When members are kept no more, if some are.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.lost.until()
    }
}

#[cfg(test)]
mod tests {
    use types::Phase;

    use super::*;
    use crate::members::{of, tests::member};

    const DETECTOR: Duration = Duration::from_secs(2);

    fn view(members: &[&str]) -> ClusterView {
        let web = [("web", "http://10.0.0.1:80")];
        let members: Vec<_> =
            members.iter().map(|id| member(id, "api_gateway", Phase::Ready, &web)).collect();
        ClusterView::new("test".parse().unwrap(), "self".parse().unwrap(), members)
    }

    /// The members that get connections, a letter each.
    fn kept(vanished: &mut Vanished, view: &ClusterView, refuses: &str, now: Instant) -> String {
        let members = of(view, &"api_gateway".parse().unwrap(), "web");
        let members = vanished.keep(members, view, |node| refuses.contains(node.as_str()), DETECTOR, now);
        let names = members.entries.iter().map(|entry| entry.member.as_ref().unwrap().0.as_str());
        names.collect()
    }

    #[test]
    fn most_members_that_disappear_at_once_are_kept_until_one_refuses_or_time_is_up() {
        let (mut vanished, now) = (Vanished::default(), Instant::now());
        assert_eq!(kept(&mut vanished, &view(&["a", "b", "c"]), "", now), "abc");
        assert_eq!(kept(&mut vanished, &view(&["a"]), "", now), "abc");
        assert_eq!(kept(&mut vanished, &view(&["a"]), "b", now), "ac");
        assert_eq!(kept(&mut vanished, &view(&["a", "b"]), "", now), "abc", "one of them is back");
        let end = vanished.until().unwrap();
        assert_eq!(end, now + DETECTOR * 2);
        assert_eq!(kept(&mut vanished, &view(&["a", "b"]), "", end), "ab");
        assert_eq!(vanished.until(), None);
    }

    #[test]
    fn a_single_member_that_disappears_is_gone() {
        let (mut vanished, now) = (Vanished::default(), Instant::now());
        assert_eq!(kept(&mut vanished, &view(&["a", "b"]), "", now), "ab");
        assert_eq!(kept(&mut vanished, &view(&["a"]), "", now), "a");
        assert_eq!(kept(&mut vanished, &view(&[]), "", now + DETECTOR), "");
    }
}
