//! What is wrong with shards, in words. Pure.

use types::api::{ClaimView, Member};
use types::{NodeId, Phase, Post, Role, ServiceName, ServiceType};

use super::Spares;
use crate::render;

/// A replica that may be further behind than this causes a warning.
const LAG_MS: u64 = 5_000;

/// Whether a node is a standby that takes over services of this type.
pub(super) fn can_take_over(member: &Member, service: &ServiceName, service_type: &ServiceType) -> bool {
    member.about.takes_over(service, service_type)
        && member
            .state
            .as_ref()
            .is_some_and(|state| state.role == Role::Standby && state.phase == Phase::Ready)
}

/// A node that the shard can be moved to: a replica of it, else a standby.
fn next_owner<'a>(claim: &'a ClaimView, spares: &Spares<'a>) -> Option<&'a NodeId> {
    let replica = claim.replicas.first().map(|replica| &replica.node);
    let mut standbys = spares.of(&claim.service);
    replica.or_else(|| standbys.next().map(|member| &member.id))
}

/// The note on a service whose shards no node could take over.
pub(super) fn no_spare(service: &ServiceName, spares: &Spares<'_>) -> Option<String> {
    (spares.standbys(service) == 0).then(|| {
        format!("no standby is left to take over a shard of {service} whose owner dies; {}", spares.remedy)
    })
}

/// How many replicas a shard should have, with the role of a replica in words.
pub(super) fn wanted_replicas(claim: &ClaimView) -> (String, usize) {
    let role = Role::Service { service: claim.service.clone(), shard: Some(claim.shard) };
    let wanted = usize::try_from(claim.wanted_replicas).unwrap_or(usize::MAX);
    (render::role_words(&role, Some(Post::Replica)), wanted)
}

/// The note on a shard that has more replicas than it should have.
pub(super) fn surplus(claim: &ClaimView) -> Option<String> {
    let ClaimView { service, shard, .. } = claim;
    let (_, wanted) = wanted_replicas(claim);
    let there = claim.replicas.len();
    (there > wanted).then(|| {
        let there = render::count(there, "replica");
        format!(
            "{service}/{shard} has {there}, and its spec says {wanted}; one that no command placed stands by again after a minute"
        )
    })
}

/// The warnings about a shard: no node runs it, or it has too few replicas, or one that lags.
pub(super) fn warnings(claim: &ClaimView, spares: &Spares<'_>) -> Vec<String> {
    let ClaimView { service, shard, .. } = claim;
    let standbys = spares.standbys(service);
    let next = if standbys + claim.replicas.len() > 0 {
        "another node takes it over shortly".to_owned()
    } else {
        format!("no node is there to take it over; {}", spares.remedy)
    };
    let mut warnings = Vec::new();
    match &claim.holder {
        Some(_) if claim.honoured => {}
        Some(holder) if claim.elsewhere => warnings.push(format!(
            "{service}/{shard} is owned by {} (epoch {}), which answers at {} and is no member here: another cluster of \
             the same name uses this store, or gossip does not get through; end one of the two, or let them meet",
            holder.node,
            holder.epoch,
            claim.http.as_deref().unwrap_or("its address")
        )),
        Some(holder) if claim.defended => warnings.push(format!(
            "{service}/{shard} is owned by {} (epoch {}), which no member reaches; it reaches the store and defends the \
             shard there; restore its network{}",
            holder.node,
            holder.epoch,
            next_owner(claim, spares).map_or_else(String::new, |node| format!(
                ", or move the shard: `ctl set-service {node} {service} --shard {shard} --take`"
            ))
        )),
        Some(holder) => warnings.push(format!(
            "{service}/{shard} is owned by {} (epoch {}), which is not seen to run it; {next}",
            holder.node, holder.epoch
        )),
        None => {
            let why = claim.note.as_deref().unwrap_or("it never had an owner");
            warnings.push(format!("{service}/{shard} has no owner ({why}); {next}"));
        }
    }
    let there = claim.replicas.len();
    if u32::try_from(there).is_ok_and(|there| there < claim.wanted_replicas) {
        let next = match standbys {
            0 => "; no standby is left to become one",
            _ => "; a standby becomes one shortly",
        };
        warnings.push(format!("{service}/{shard} has {there} of {} replicas{next}", claim.wanted_replicas));
    }
    for replica in &claim.replicas {
        match replica.staleness_ms {
            Some(ms) if ms <= LAG_MS => {}
            Some(ms) => warnings.push(format!(
                "{service}/{shard}: the replica {} may be {} s behind",
                replica.node,
                ms / 1000
            )),
            None => warnings.push(format!(
                "{service}/{shard}: the replica {} is {} and does not say how far behind it is",
                replica.node, replica.phase
            )),
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::render::tests::member;

    fn warnings_with(claim: &ClaimView, standbys: usize) -> Vec<String> {
        let standby = || {
            let mut member = member("s", "standby", Phase::Ready);
            member.about.runnable = vec!["storage".parse().unwrap()];
            member
        };
        let members: Vec<Member> = (0..standbys).map(|_| standby()).collect();
        warnings(
            claim,
            &Spares { members: &members, types: BTreeMap::new(), remedy: "`ctl up` starts one".to_owned() },
        )
    }

    #[test]
    fn warnings_about_a_shard_are_in_words() {
        let replica = |ms| types::api::ReplicaView {
            node: "b".parse().unwrap(),
            phase: Phase::Ready,
            staleness_ms: ms,
        };
        let well = ClaimView {
            service: "storage".parse().unwrap(),
            shard: "0".parse().unwrap(),
            number: 3,
            holder: Some(types::Holder {
                node: "a".parse().unwrap(),
                generation: types::Generation(1),
                epoch: types::Epoch(3),
            }),
            since_ms: None,
            http: None,
            elsewhere: false,
            honoured: true,
            defended: false,
            wanted_replicas: 1,
            replicas: vec![replica(Some(80))],
            note: None,
        };
        assert_eq!(warnings_with(&well, 0), Vec::<String>::new());
        let gone = ClaimView { honoured: false, replicas: Vec::new(), ..well.clone() };
        assert_eq!(
            warnings_with(&gone, 1),
            [
                "storage/0 is owned by a (epoch 3), which is not seen to run it; another node takes it over shortly",
                "storage/0 has 0 of 1 replicas; a standby becomes one shortly",
            ]
        );
        let cut_off = ClaimView { defended: true, wanted_replicas: 0, ..gone.clone() };
        assert_eq!(
            warnings_with(&cut_off, 1),
            [
                "storage/0 is owned by a (epoch 3), which no member reaches; it reaches the store and defends the \
                 shard there; restore its network, or move the shard: `ctl set-service s storage --shard 0 --take`",
            ]
        );
        let http = Some("http://h:1".to_owned());
        let elsewhere = ClaimView { elsewhere: true, http, ..cut_off.clone() };
        assert_eq!(
            warnings_with(&elsewhere, 1),
            [
                "storage/0 is owned by a (epoch 3), which answers at http://h:1 and is no member here: another cluster of \
                 the same name uses this store, or gossip does not get through; end one of the two, or let them meet",
            ]
        );
        let nowhere = warnings_with(&cut_off, 0);
        assert!(nowhere[0].ends_with("restore its network"), "{nowhere:?}");
        let note = Some("released by a: leaving".to_owned());
        let released = ClaimView { holder: None, replicas: Vec::new(), note, ..gone };
        assert_eq!(
            warnings_with(&released, 0),
            [
                "storage/0 has no owner (released by a: leaving); no node is there to take it over; \
                 `ctl up` starts one",
                "storage/0 has 0 of 1 replicas; no standby is left to become one",
            ]
        );
        let two = ClaimView { replicas: vec![replica(Some(1)), replica(Some(1))], ..well.clone() };
        assert_eq!(wanted_replicas(&two), ("storage/0 (replica)".to_owned(), 1));
        assert_eq!(surplus(&well), None);
        assert_eq!(
            surplus(&two).unwrap(),
            "storage/0 has 2 replicas, and its spec says 1; one that no command placed stands by again after a minute"
        );
        let lagging = ClaimView { replicas: vec![replica(Some(12_345)), replica(None)], ..well };
        assert_eq!(
            warnings_with(&lagging, 0),
            [
                "storage/0: the replica b may be 12 s behind",
                "storage/0: the replica b is ready and does not say how far behind it is",
            ]
        );
    }
}
