//! The view as a stream: the initial set, then each change, without a gap.

use std::collections::VecDeque;

use tokio::sync::watch;
use types::api::{EventKind, Member};

use crate::ClusterView;

/// What happened to one member between two views.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What happened.
    pub kind: EventKind,
    /// The member: after the change, or as it was last seen when it is gone.
    pub member: Member,
    /// The same member as it was before, if it is there before and after.
    pub before: Option<Member>,
}

impl Change {
    /// Whether the member is still there after it.
    pub fn is_present(&self) -> bool {
        !matches!(self.kind, EventKind::Left | EventKind::Lost)
    }
}

/// What happened between two views of the same node, ordered by member.
pub fn diff(before: &ClusterView, after: &ClusterView) -> Vec<Change> {
    let gone = before.members().filter(|old| after.member(&old.id).is_none()).map(|old| {
        let kind = if after.has_left(&old.id, old.generation) { EventKind::Left } else { EventKind::Lost };
        Change { kind, member: old.clone(), before: None }
    });
    let here = after.members().filter_map(|new| {
        let old = before.member(&new.id);
        let kind = match old {
            None => EventKind::Joined,
            Some(old) if old.generation != new.generation => EventKind::Restarted,
            Some(old) if old != new => EventKind::Changed,
            Some(_) => return None,
        };
        Some(Change { kind, member: new.clone(), before: old.cloned() })
    });
    gone.chain(here).collect()
}

/// A stream of changes: at first every member as [`EventKind::Present`], then what changes.
///
/// Several changes of one member may arrive as one; the last state of each is never missed.
#[derive(Debug)]
pub struct Changes {
    view: watch::Receiver<ClusterView>,
    shown: Option<ClusterView>,
    queue: VecDeque<Change>,
}

impl Changes {
    /// The changes of a view.
    pub fn new(view: watch::Receiver<ClusterView>) -> Self {
        Self { view, shown: None, queue: VecDeque::new() }
    }

    /// The next change; none when the node has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.queue.pop_front() {
                return Some(change);
            }
            let now = if let Some(shown) = self.shown.as_ref() {
                self.view.changed().await.ok()?;
                let now = self.view.borrow_and_update().clone();
                self.queue.extend(diff(shown, &now));
                now
            } else {
                let now = self.view.borrow_and_update().clone();
                let present = now.members().map(|member| Change {
                    kind: EventKind::Present,
                    member: member.clone(),
                    before: None,
                });
                self.queue.extend(present);
                now
            };
            self.shown = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use types::api::About;
    use types::{Generation, Role, RoleState};

    use super::*;

    fn member(id: &str, generation: u64, version: u64) -> Member {
        Member {
            id: id.parse().unwrap(),
            generation: Generation(generation),
            version,
            http: "http://127.0.0.1:1".to_owned(),
            gossip: "127.0.0.1:1".to_owned(),
            state: Some(RoleState::starting(Role::Standby)),
            about: About::default(),
            store: None,
        }
    }

    fn view(members: Vec<Member>, left: &[(&str, u64)]) -> ClusterView {
        let members = members.into_iter().map(|member| (member.id.clone(), member)).collect();
        let left =
            left.iter().map(|(id, generation)| (id.parse().unwrap(), Generation(*generation))).collect();
        ClusterView::with_left("c".parse().unwrap(), "a".parse().unwrap(), members, left)
    }

    #[test]
    fn each_kind_of_change_is_told_apart() {
        let before =
            view(vec![member("a", 1, 1), member("b", 1, 1), member("c", 1, 1), member("d", 1, 1)], &[]);
        let after =
            view(vec![member("a", 1, 1), member("c", 1, 2), member("d", 2, 1), member("e", 1, 1)], &[]);
        let kinds: Vec<_> =
            diff(&before, &after).iter().map(|change| (change.member.id.to_string(), change.kind)).collect();
        let expected = [
            ("b", EventKind::Lost),
            ("c", EventKind::Changed),
            ("d", EventKind::Restarted),
            ("e", EventKind::Joined),
        ];
        assert_eq!(kinds, expected.map(|(id, kind)| (id.to_owned(), kind)));
    }

    #[test]
    fn who_said_goodbye_has_left_and_is_not_lost() {
        let before = view(vec![member("a", 1, 1), member("b", 2, 1)], &[]);
        assert_eq!(diff(&before, &view(vec![member("a", 1, 1)], &[("b", 2)]))[0].kind, EventKind::Left);
        assert_eq!(diff(&before, &view(vec![member("a", 1, 1)], &[("b", 1)]))[0].kind, EventKind::Lost);
    }

    #[tokio::test]
    async fn the_stream_begins_with_the_present_set_and_misses_nothing() {
        let (sender, receiver) = watch::channel(view(vec![member("a", 1, 1)], &[]));
        let mut changes = Changes::new(receiver);
        assert_eq!(changes.next().await.unwrap().kind, EventKind::Present);
        sender.send_replace(view(vec![member("a", 1, 1), member("b", 1, 1)], &[]));
        sender.send_replace(view(vec![member("a", 1, 2)], &[]));
        let change = changes.next().await.unwrap();
        assert_eq!((change.kind, change.member.version), (EventKind::Changed, 2));
        drop(sender);
        assert_eq!(changes.next().await, None);
    }
}
