//! A listener with the settings that it has now: its targets, its limits, and how it forwards.
//!
//! A connection or request takes it once, so it ends with the settings with which it began. New settings make another one,
//! which shares with the one before whatever outlives them: counts, limits, and the backends of targets that stay.

use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use plugin::access_log::AccessLog;
use plugin::{Context, InFlight, Tls};

use crate::admission::Admission;
use crate::http::front::Front;
use crate::meters::ListenerMeters;
use crate::plan::{Forward, ListenerPlan};
use crate::pool::Pool;
use crate::sni::Names;

/// The present state of a listener that is open.
pub(crate) type Live = Arc<ArcSwap<Listener>>;

/// A listener with its settings.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: String,
    pub(crate) pools: Vec<Arc<Pool>>,
    pub(crate) names: Option<Names>,
    pub(crate) trust: Option<Vec<IpNet>>,
    pub(crate) forward: Forward,
    pub(crate) lasting: Lasting,
    /// In HTTP mode.
    pub(crate) front: Option<Front>,
}

/// What a listener keeps whatever its settings are.
#[derive(Debug, Clone)]
pub(crate) struct Lasting {
    pub(crate) admission: Arc<Admission>,
    pub(crate) meters: Arc<ListenerMeters>,
    pub(crate) log: AccessLog,
    /// Its connections, in HTTP mode its requests.
    pub(crate) in_flight: InFlight,
    /// None if it speaks plain HTTP or is in TCP mode.
    pub(crate) tls: Option<Tls>,
}

impl Listener {
    /// A listener with these settings. The backends of the one before are kept where the targets stay.
    pub(crate) fn new(plan: ListenerPlan, lasting: Lasting, before: Option<&Self>, cx: &Context) -> Self {
        let ListenerPlan { name, targets, names, trust, forward, http, .. } = plan;
        let known = before.map_or_else(Default::default, |before| before.pools.as_slice());
        let old: Vec<_> = known.iter().map(|pool| pool.target.load().hosts.clone()).collect();
        let new: Vec<_> = targets.iter().map(|target| target.hosts.clone()).collect();
        let kept = continued(&old, &new);
        let pools = targets.into_iter().zip(kept).enumerate().map(|(at, (target, kept))| {
            match kept.and_then(|kept| known.get(kept)) {
                Some(pool) => {
                    pool.apply(target, forward.clone());
                    Arc::clone(pool)
                }
                None => {
                    let mesh = http.is_some().then(|| cx.mesh.clone());
                    Arc::new(Pool::new(target, forward.clone(), mesh, cx.seed.wrapping_add(at as u64)))
                }
            }
        });
        let pools = pools.collect();
        let front = http.map(|http| Front::new(http, cx, before.and_then(|before| before.front.as_ref())));
        Self { name, pools, names, trust, forward, lasting, front }
    }

    /// The targets of this one that the other one does not have.
    pub(crate) fn without(&self, other: &Self) -> Vec<Arc<Pool>> {
        let is_gone = |pool: &&Arc<Pool>| !other.pools.iter().any(|kept| Arc::ptr_eq(pool, kept));
        self.pools.iter().filter(is_gone).cloned().collect()
    }
}

/// For each new target, the place of the old one with the same server names, if there is one. Pure.
fn continued(old: &[Vec<String>], new: &[Vec<String>]) -> Vec<Option<usize>> {
    // No name is there twice, so neither is a list of them.
    new.iter().map(|hosts| old.iter().position(|known| known == hosts)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_stays_with_its_server_names_wherever_they_are_listed() {
        let hosts = |all: &[&[&str]]| -> Vec<Vec<String>> {
            all.iter().map(|one| one.iter().map(|name| (*name).to_owned()).collect()).collect()
        };
        let old = hosts(&[&["a"], &["b", "c"]]);
        for (new, expected) in [
            (hosts(&[&["b", "c"], &["a"]]), vec![Some(1), Some(0)]),
            (hosts(&[&["b"], &["a"], &["d"]]), vec![None, Some(0), None]),
            // No longer by name.
            (hosts(&[&[]]), vec![None]),
            (vec![], vec![]),
        ] {
            assert_eq!(continued(&old, &new), expected, "{new:?}");
        }
        assert_eq!(continued(&hosts(&[&[]]), &hosts(&[&[]])), [Some(0)], "the only target of a listener");
    }
}
