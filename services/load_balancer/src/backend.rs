//! What a balancer knows of each backend, and how that follows from settings, gossip and names. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use mesh::BaseUrl;
use plugin::check::Checked;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use types::{Generation, NodeId};

use crate::eject::Ejection;
use crate::plan::Protocol;

/// The weight of 1 in settings. Weights in slow start are fractions of it.
const UNIT: u64 = 1000;
/// The share with which slow start begins, as a divisor.
const FIRST_SHARE: u64 = 10;

/// An address that connections should go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) address: SocketAddr,
    /// The address as settings or gossip name it.
    pub(crate) named: String,
    /// The member and its incarnation, if it is one.
    pub(crate) member: Option<(NodeId, Generation)>,
    pub(crate) protocol: Protocol,
    pub(crate) weight: u32,
    pub(crate) is_backup: bool,
    /// It drains: no new connections.
    pub(crate) is_leaving: bool,
    /// It has disappeared from gossip together with most others, and may still be there.
    pub(crate) is_kept: bool,
}

/// A backend.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Names it among all that there ever were.
    pub(crate) id: u64,
    /// Names it on every balancer: the member, or else the address.
    pub(crate) key: String,
    pub(crate) of: Wanted,
    /// When it came, if others were there already.
    pub(crate) since: Option<Instant>,
    /// The open connections, and those that are being opened.
    pub(crate) connections: u32,
    /// How many connections it accepted.
    pub(crate) opened: u64,
    /// How many it did not.
    pub(crate) failed: u64,
    /// Why the last one failed, until one succeeds.
    pub(crate) failure: Option<String>,
    pub(crate) checked: Checked,
    pub(crate) ejection: Ejection,
    /// Where requests go; none if the address is no host of a URL.
    pub(crate) url: Option<BaseUrl>,
    /// Since when it gets no new connections for good.
    pub(crate) left_at: Option<Instant>,
    /// It left because settings name another target, which says nothing of it: its connections live until they end.
    pub(crate) is_spared: bool,
    /// Cancelled when its connections must end.
    pub(crate) cut: CancellationToken,
}

/// Whether a backend gets connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Up,
    /// It did not accept several connections in a row.
    Ejected,
    /// Its checks fail.
    Down,
    /// In HTTP mode, the last connection to it could not be opened. It is avoided for a moment, then tried again.
    Unreachable,
    /// It drains, or is not listed any more, and still has connections.
    Draining,
}

impl Standing {
    /// All of them, in the order of their declaration.
    pub(crate) const ALL: [Self; 5] =
        [Self::Up, Self::Ejected, Self::Down, Self::Unreachable, Self::Draining];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Ejected => "ejected",
            Self::Down => "down",
            Self::Unreachable => "unreachable",
            Self::Draining => "draining",
        }
    }
}

impl Slot {
    pub(crate) fn new(id: u64, of: Wanted, since: Option<Instant>) -> Self {
        let key = of.member.as_ref().map_or_else(|| of.address.to_string(), |(node, _)| node.to_string());
        let url = of.protocol.url(of.address).map(|url| match &of.member {
            // Its port may differ after each start.
            Some((node, _)) => url.named(node.as_str()),
            None => url,
        });
        Self {
            id,
            key,
            of,
            since,
            connections: 0,
            opened: 0,
            failed: 0,
            failure: None,
            checked: Checked::default(),
            ejection: Ejection::default(),
            url,
            left_at: None,
            is_spared: false,
            cut: CancellationToken::new(),
        }
    }

    /// Whether it may get connections. In HTTP mode the mesh decides further.
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        if self.left_at.is_some() {
            Standing::Draining
        } else if !self.checked.is_up() {
            Standing::Down
        } else if self.ejection.is_out(now) || self.ejected().is_some() {
            Standing::Ejected
        } else {
            Standing::Up
        }
    }

    /// The same as operators see it.
    pub(crate) fn shown_standing(&self, now: Instant) -> Standing {
        match self.standing(now) {
            Standing::Up if self.url.as_ref().is_some_and(|url| url.why_unreachable().is_some()) => {
                Standing::Unreachable
            }
            standing => standing,
        }
    }

    /// Why it gets no requests for a while, if too many failed.
    pub(crate) fn ejected(&self) -> Option<&'static str> {
        self.url.as_ref().and_then(BaseUrl::ejected)
    }

    /// Its weight now: after its arrival or return it rises from a tenth to the whole.
    pub(crate) fn weight(&self, now: Instant, slow_start: Duration) -> u64 {
        let whole = u64::from(self.of.weight) * UNIT;
        let Some(since) = self.since.max(self.ejection.back_since(now)) else { return whole };
        let age = now.saturating_duration_since(since);
        if age >= slow_start {
            return whole;
        }
        let part = age.as_secs_f64() / slow_start.as_secs_f64();
        let first = whole / FIRST_SHARE;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "the part is from 0 to 1, and weights are small"
        )]
        let gained = ((whole - first) as f64 * part) as u64;
        (first + gained).max(1)
    }

    fn is(&self, wanted: &Wanted) -> bool {
        self.of.address == wanted.address
            && self.of.member == wanted.member
            && self.of.named == wanted.named
            && self.of.protocol == wanted.protocol
    }
}

/// Brings backends in line with those that are wanted. New ones get the ids from `next_id` on; those that are gone stay
/// while they have connections. Returns the ids that were removed.
pub(crate) fn reconcile(
    slots: &mut Vec<Slot>,
    wanted: Vec<Wanted>,
    now: Instant,
    next_id: &mut u64,
) -> Vec<u64> {
    let has_others = slots.iter().any(|slot| slot.left_at.is_none());
    let mut is_listed: Vec<bool> = slots.iter().map(|_| false).collect();
    for wanted in wanted {
        match slots.iter().position(|slot| slot.is(&wanted)) {
            Some(at) => {
                let slot = &mut slots[at];
                slot.left_at = wanted.is_leaving.then(|| slot.left_at.unwrap_or(now));
                slot.is_spared = false;
                slot.of = wanted;
                is_listed[at] = true;
            }
            None if wanted.is_leaving => {}
            None => {
                slots.push(Slot::new(*next_id, wanted, has_others.then_some(now)));
                is_listed.push(true);
                *next_id += 1;
            }
        }
    }
    let mut removed = Vec::new();
    let mut listed = is_listed.into_iter();
    slots.retain_mut(|slot| {
        if listed.next() == Some(true) {
            return true;
        }
        slot.left_at.get_or_insert(now);
        let is_used = slot.connections > 0 || slot.url.as_ref().is_some_and(|url| url.in_flight() > 0);
        if !is_used {
            removed.push(slot.id);
        }
        is_used
    });
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(address: &str) -> Wanted {
        Wanted {
            address: address.parse().unwrap(),
            named: address.to_owned(),
            member: None,
            protocol: Protocol::Http1,
            weight: 2,
            is_backup: false,
            is_leaving: false,
            is_kept: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn backends_keep_what_is_known_of_them_and_leave_with_their_last_connection() {
        let (mut slots, mut next_id, now) = (Vec::new(), 0, Instant::now());
        let (a, b) = (wanted("10.0.0.1:80"), wanted("10.0.0.2:80"));
        reconcile(&mut slots, vec![a.clone(), b.clone()], now, &mut next_id);
        assert!(slots.iter().all(|slot| slot.since.is_none()), "a whole new pool has no slow start");
        slots[0].connections = 1;
        slots[0].opened = 7;
        assert_eq!(reconcile(&mut slots, vec![wanted("10.0.0.3:80")], now, &mut next_id), [1]);
        assert_eq!(slots[0].standing(now), Standing::Draining);
        assert_eq!(slots[1].since, Some(now), "it came to others");
        // The first comes back before it was gone.
        reconcile(&mut slots, vec![a.clone(), wanted("10.0.0.3:80")], now, &mut next_id);
        assert_eq!((slots[0].standing(now), slots[0].opened, slots.len()), (Standing::Up, 7, 2));
        let leaving = Wanted { is_leaving: true, ..a.clone() };
        reconcile(&mut slots, vec![leaving.clone()], now, &mut next_id);
        let later = now + Duration::from_secs(5);
        reconcile(&mut slots, vec![leaving.clone()], later, &mut next_id);
        assert_eq!(slots[0].left_at, Some(now), "it counts from the beginning of the drain");
        slots[0].connections = 0;
        reconcile(&mut slots, vec![leaving], later, &mut next_id);
        assert_eq!(slots.len(), 1, "a member that drains is still listed");
        reconcile(&mut slots, vec![], later, &mut next_id);
        assert!(slots.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_incarnation_of_a_member_is_another_backend() {
        let (mut slots, mut next_id, now) = (Vec::new(), 0, Instant::now());
        let member = |generation| Wanted {
            member: Some(("a".parse().unwrap(), Generation(generation))),
            ..wanted("10.0.0.1:80")
        };
        reconcile(&mut slots, vec![member(1)], now, &mut next_id);
        slots[0].connections = 1;
        reconcile(&mut slots, vec![member(2)], now, &mut next_id);
        let standings: Vec<_> = slots.iter().map(|slot| (slot.id, slot.standing(now))).collect();
        assert_eq!(standings, [(0, Standing::Draining), (1, Standing::Up)]);
        assert_eq!(slots[0].key, slots[1].key, "clients stay with the member");
    }

    #[tokio::test(start_paused = true)]
    async fn a_weight_rises_from_a_tenth_to_the_whole() {
        let now = Instant::now();
        let slow_start = Duration::from_secs(10);
        let slot = Slot::new(1, wanted("10.0.0.1:80"), Some(now));
        for (seconds, weight) in [(0, 200), (5, 1100), (9, 1820), (10, 2000), (99, 2000)] {
            assert_eq!(slot.weight(now + Duration::from_secs(seconds), slow_start), weight, "{seconds} s");
        }
        assert_eq!(slot.weight(now, Duration::ZERO), 2000);
        assert_eq!(Slot::new(1, wanted("10.0.0.1:80"), None).weight(now, slow_start), 2000);
    }
}
