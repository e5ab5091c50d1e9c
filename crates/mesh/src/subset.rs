//! Subsetting: of a large service a node uses a part of the members, so that idle connections and health estimates do not grow
//! with the number of nodes times that of members.
//!
//! Pure. Rendezvous hashing gives each node an order of the members. One that comes or goes changes the part of a node by one
//! member at most, and the parts of many nodes cover the service evenly.

use types::{KeyHash, NodeId};

/// Up to this many members, a node uses all.
pub(crate) const ALL_UP_TO: usize = 50;

/// How many members of a larger service a node uses.
pub(crate) const SIZE: usize = 20;

/// Whether each of the members is in the part that the node `me` uses.
pub(crate) fn subset(me: &NodeId, members: &[&NodeId]) -> Vec<bool> {
    if members.len() <= ALL_UP_TO {
        return vec![true; members.len()];
    }
    let me = KeyHash::of(me.as_str().as_bytes());
    let preference = |at: &usize| me.preference(KeyHash::of(members[*at].as_str().as_bytes()), 1.0);
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by(|one, other| preference(other).total_cmp(&preference(one)));
    let mut is_in = vec![false; members.len()];
    for at in &order[..SIZE] {
        is_in[*at] = true;
    }
    is_in
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn nodes(numbers: impl IntoIterator<Item = usize>) -> Vec<NodeId> {
        numbers.into_iter().map(|number| format!("node-{number}").parse().unwrap()).collect()
    }

    fn part<'a>(me: &NodeId, members: &'a [NodeId]) -> BTreeSet<&'a NodeId> {
        let all: Vec<_> = members.iter().collect();
        let chosen = subset(me, &all);
        all.into_iter().zip(chosen).filter_map(|(member, is_in)| is_in.then_some(member)).collect()
    }

    #[test]
    fn all_of_fifty_members_are_used_and_twenty_of_more() {
        let me = &nodes([900])[0];
        for (members, expected) in [(0, 0), (1, 1), (50, 50), (51, 20), (1_000, 20)] {
            assert_eq!(part(me, &nodes(0..members)).len(), expected, "{members}");
        }
    }

    #[test]
    fn the_parts_of_many_nodes_cover_a_service_evenly() {
        let members = nodes(0..100);
        let mut uses = vec![0_usize; members.len()];
        for me in nodes(1_000..1_500) {
            for (at, member) in members.iter().enumerate() {
                uses[at] += usize::from(part(&me, &members).contains(member));
            }
        }
        // Of 500 nodes, 100 use each member; the standard deviation is 9.
        assert!(uses.iter().all(|uses| (55..=145).contains(uses)), "{uses:?}");
    }

    proptest! {
        #[test]
        fn a_member_that_goes_changes_the_part_by_one_at_most(me in 0_usize..1_000, count in 52_usize..90, gone in 0_usize..90) {
            let (me, members) = (&nodes([me + 1_000])[0], nodes(0..count));
            let left = nodes((0..count).filter(|number| *number != gone));
            let (before, after) = (part(me, &members), part(me, &left));
            let stayed = before.iter().filter(|member| after.contains(*member)).count();
            prop_assert!(stayed >= SIZE - 1, "{before:?} {after:?}");
        }
    }
}
