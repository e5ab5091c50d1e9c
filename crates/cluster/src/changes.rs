//! The view as a stream: first every member, then each change, with no gap in between.

use std::collections::VecDeque;

use tokio::sync::watch;
use types::api::{EventKind, Member};

use crate::ClusterView;

/// A change of one member between two views.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The kind of change.
    pub kind: EventKind,
    /// The member after the change, or its last known state if it is gone.
    pub member: Member,
    /// The member before the change, if both views have it.
    pub before: Option<Member>,
}

impl Change {
    /// Whether the member is still in the view after the change.
    pub fn is_present(&self) -> bool {
        !matches!(self.kind, EventKind::Left | EventKind::Lost)
    }
}

/// The changes between two views of the same node. Departures come first; each part is ordered by id.
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

/// A stream of changes: first every member as [`EventKind::Present`], then each change.
///
/// Several changes of one member may be merged into one; its latest state is never missed.
#[derive(Debug)]
pub struct Changes {
    view: watch::Receiver<ClusterView>,
    shown: Option<ClusterView>,
    queue: VecDeque<Change>,
}

impl Changes {
    /// A stream of the changes of a view.
    pub fn new(view: watch::Receiver<ClusterView>) -> Self {
        Self { view, shown: None, queue: VecDeque::new() }
    }

    /// The next change; `None` once gossip has ended. Cancel-safe.
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
    fn diff_recognises_each_kind_of_change() {
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
    fn a_member_that_announced_its_leave_has_left_and_is_not_lost() {
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
