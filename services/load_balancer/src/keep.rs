//! Keeps the backends of a target up to date: from gossip or settings, through names, to addresses. And checks them.

use std::sync::Arc;
use std::time::Duration;

use cluster::ClusterView;
use plugin::check;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::address::{Address, Host};
use crate::backend::Wanted;
use crate::members::{self, Entry, Members};
use crate::plan::{Fixed, Forward, Source};
use crate::pool::{Lack, Pool};
use crate::resolve::{Known, Lookup, Names};
use crate::vanished::Vanished;

/// How long after its start a node may not have met the members of a service yet.
const MEETING: Duration = Duration::from_secs(5);
/// How often the backends are looked at, at least: those that have left go with their last connection.
const LOOK: Duration = Duration::from_secs(10);

/// Keeps a target's backends up to date, until it is retired and its last connection has ended. `detector` is how long the
/// failure detector takes to declare a member dead.
pub(crate) async fn keep(
    pool: Arc<Pool>,
    mut view: watch::Receiver<ClusterView>,
    lookup: Lookup,
    detector: Duration,
) {
    let mut names = Names::new(lookup);
    let mut changed = pool.changed.subscribe();
    let mut is_open = true;
    let met_by = Instant::now() + MEETING;
    let (mut vanished, mut known) = (Vanished::default(), None);
    loop {
        let source = pool.target.load().source.clone();
        let is_watching = is_open && matches!(source, Source::Service { .. });
        let now = Instant::now();
        let is_other = known.as_ref().is_some_and(|known| *known != source);
        if known.is_none() || is_other {
            (vanished, known) = (Vanished::default(), Some(source.clone()));
        }
        let members = match &source {
            Source::Service { service, listener } => {
                let view = view.borrow_and_update();
                let found = members::of(&view, service, listener);
                vanished.keep(found, &view, |node| pool.refuses(node), detector, now)
            }
            Source::Backends(fixed) => listed(fixed),
        };
        let members = if pool.forward.load().is_http { members.without_tls() } else { members };
        let members = if now < met_by { members.just_met() } else { members };
        names.want(members.entries.iter().map(|entry| &entry.address), now);
        let (wanted, lack) = expand(members, |address| names.known(address));
        pool.renew(wanted, lack, is_other);
        let next = [pool.cut(now), names.due(), vanished.until()].into_iter().flatten().min();
        let next = next.map_or(now + LOOK, |next| next.min(now + LOOK));
        let next = if now < met_by { next.min(met_by) } else { next };
        let is_retired = pool.retired.is_cancelled();
        if pool.has_ended() {
            return;
        }
        tokio::select! {
            biased;
            () = pool.retired.cancelled(), if !is_retired => {}
            seen = view.changed(), if is_watching => is_open = seen.is_ok(),
            // The pool has the sender.
            _ = changed.changed() => {}
            () = pool.refused.notified(), if vanished.until().is_some() => {}
            () = names.learn() => {}
            () = sleep_until(next) => {}
        }
    }
}

/// The backends that settings list.
fn listed(fixed: &[Fixed]) -> Members {
    let entries = fixed.iter().map(|fixed| Entry {
        named: fixed.address.to_string(),
        address: fixed.address.clone(),
        member: None,
        protocol: fixed.protocol.clone(),
        weight: fixed.weight,
        is_backup: fixed.is_backup,
        is_leaving: false,
        is_kept: false,
        is_tls: false,
    });
    Members { entries: entries.collect(), why: None, is_soon: false, is_unknown: false }
}

/// One backend for each address. Pure.
fn expand<'a>(members: Members, known: impl Fn(&Address) -> Option<&'a Known>) -> (Vec<Wanted>, Lack) {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut lack = Lack { is_soon: members.is_soon, why: members.why, unresolved: Vec::new() };
    for entry in members.entries {
        let addresses = match &entry.address.host {
            Host::Ip(ip) => vec![(*ip, entry.address.port).into()],
            Host::Name(_) => {
                let known = known(&entry.address);
                lack.is_soon |= known.is_none_or(|known| !known.is_answered);
                let failure = known.and_then(|known| known.failure.clone());
                lack.unresolved.extend(failure.map(|why| (entry.named.clone(), why)));
                known.map(|known| known.addresses.clone()).unwrap_or_default()
            }
        };
        for address in addresses {
            // Two names may lead to one server.
            if wanted.iter().any(|other| other.address == address && other.member == entry.member) {
                continue;
            }
            wanted.push(Wanted {
                address,
                named: entry.named.clone(),
                member: entry.member.clone(),
                protocol: entry.protocol.clone(),
                weight: entry.weight,
                is_backup: entry.is_backup,
                is_leaving: entry.is_leaving,
                is_kept: entry.is_kept,
            });
        }
    }
    (wanted, lack)
}

/// Checks a target's backends at their intervals. Never returns.
pub(crate) async fn checks(pool: Arc<Pool>) {
    let mut changed = pool.changed.subscribe();
    loop {
        if pool.retired.is_cancelled() {
            return std::future::pending().await;
        }
        let forward = pool.forward.load_full();
        tokio::select! {
            biased;
            () = pool.retired.cancelled() => {}
            // The pool has the sender.
            _ = changed.changed() => {}
            () = check_all(&pool, &forward) => {}
        }
    }
}

/// The same until the way to forward changes. Never returns.
async fn check_all(pool: &Pool, forward: &Forward) {
    let Some(checking) = &forward.check else { return std::future::pending().await };
    check::run(checking, || pool.to_check(), |id, result| pool.checked(id, result)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Protocol;

    fn entry(address: &str) -> Entry {
        Entry {
            address: address.parse().unwrap(),
            named: address.to_owned(),
            member: None,
            protocol: Protocol::Http1,
            weight: 1,
            is_backup: false,
            is_leaving: false,
            is_kept: false,
            is_tls: false,
        }
    }

    #[test]
    fn all_addresses_of_a_name_are_used_and_a_name_that_fails_stops_no_other() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let good = Known {
            addresses: addresses(&["10.0.0.1:80", "10.0.0.2:80"]),
            is_answered: true,
            ..Known::default()
        };
        let failure = Some("is a name that is not found".to_owned());
        let bad = Known { failure, is_answered: true, ..Known::default() };
        let known = |address: &Address| match address.to_string().as_str() {
            "good:80" => Some(&good),
            "bad:80" => Some(&bad),
            _ => None,
        };
        let shown = |entries: &[&str]| {
            let entries = entries.iter().map(|text| entry(text)).collect();
            let (wanted, lack) =
                expand(Members { entries, why: None, is_soon: false, is_unknown: false }, known);
            let wanted: Vec<_> = wanted.iter().map(|wanted| wanted.address.to_string()).collect();
            (wanted.join(" "), lack.is_soon, lack.unresolved.len())
        };
        assert_eq!(
            shown(&["good:80", "bad:80", "10.0.0.3:80", "10.0.0.2:80"]),
            ("10.0.0.1:80 10.0.0.2:80 10.0.0.3:80".to_owned(), false, 1)
        );
        assert_eq!(shown(&["new:80"]), (String::new(), true, 0), "it is being looked up");
    }
}
