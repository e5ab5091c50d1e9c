//! Rate limits: the generic cell rate algorithm (ITU-T I.371) over a table of fixed size.
//!
//! A client's state is one time: when its bucket is empty again. The table has sets of four slots. A key hashes to one
//! set; when that is full, the slot that empties first goes out, so clients that make up keys cost no memory, and at most
//! loosen the limit of others. Keys are hashed with a random seed. Each gateway counts alone; of a limit that they share, each
//! allows its part.
//!
//! The table has no locks, since all cores share it. Of two cores that take from one bucket at once, one takes again. Of two
//! that meet a new key at once, each may begin a bucket, so that one request too many passes; then the first one counts.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::HeaderName;
use tokio::time::Instant;

use crate::keys::Digest;

/// The number of slots of a table.
const SLOTS: usize = 1 << 16;
/// The slots of one set.
const WAYS: usize = 4;

/// Which requests share a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum By {
    /// Those of one client address; of IPv6 the first 64 bits.
    Client,
    /// All of the route.
    Route,
    /// Those with the same value of a header; those without it share a bucket.
    Header(HeaderName),
    /// Those with the same API key.
    Key,
}

/// A rate: a request costs one `interval`, and `burst` requests may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// In nanoseconds, at least 1.
    interval: u64,
    /// At least 1.
    burst: u64,
    /// How far ahead of the time a bucket may be when a request comes, in nanoseconds.
    tolerance: u64,
}

/// How many gateways share the limits of a service, this one included. It changes as they come and go.
#[derive(Debug)]
pub(crate) struct Gateways(AtomicU64);

impl Default for Gateways {
    fn default() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl Gateways {
    /// Sets how many serve; this one counts even while it does not.
    pub(crate) fn set(&self, serving: usize) {
        self.0.store((serving as u64).max(1), Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The rate limit of a route.
#[derive(Debug)]
pub(crate) struct RateLimit {
    rate: Rate,
    by: By,
    /// Those that it is shared with; `None` if this gateway allows all of it.
    shared: Option<Arc<Gateways>>,
    /// The limit as settings have it: `100 requests per 1s, burst 200, by client`.
    shown: String,
    /// Tells routes apart: their keys hash to different buckets.
    route: u64,
    /// The bucket of the whole route.
    own: Arc<Bucket>,
    buckets: Arc<Buckets>,
}

/// The buckets of all routes of a gateway: 1 MiB, from the first request with a limit by client or header.
#[derive(Debug)]
pub(crate) struct Buckets {
    hasher: RandomState,
    sets: OnceLock<Box<[Set]>>,
    /// The number of the next route.
    next: AtomicU64,
    start: Instant,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            sets: OnceLock::new(),
            next: AtomicU64::new(0),
            start: Instant::now(),
        }
    }
}

impl Buckets {
    /// A number that no other route has.
    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The set of a hash.
    fn set(&self, hash: u64) -> &Set {
        let sets = self.sets.get_or_init(|| (0..SLOTS / WAYS).map(|_| Set::default()).collect());
        let at = usize::try_from(hash % sets.len() as u64).expect("an index of a slice");
        &sets[at]
    }
}

/// What a bucket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key<'a> {
    V4([u8; 4]),
    /// The first 64 bits of an address.
    V6([u8; 8]),
    Header(Option<&'a [u8]>),
    /// That of an API key.
    Admitted(&'a Digest),
    /// The one bucket of a route, or of clients whose address is not known.
    All,
}

impl Rate {
    /// `requests` in each `per`, of which `burst` may come at once. All are at least 1.
    pub(crate) fn new(requests: u64, per: Duration, burst: u64) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        // Rounded up, so that there are never more than were allowed.
        Self::spaced(per.div_ceil(requests.max(1)).max(1), burst.max(1))
    }

    fn spaced(interval: u64, burst: u64) -> Self {
        Self { interval, burst, tolerance: interval.saturating_mul(burst - 1) }
    }

    /// The part of it that each of several gateways allows. Together they allow no more than one would, except that each one
    /// allows a single request at once.
    fn part_of(self, gateways: u64) -> Self {
        match gateways {
            0 | 1 => self,
            more => Self::spaced(self.interval.saturating_mul(more), (self.burst / more).max(1)),
        }
    }

    /// Takes one request from a bucket that is empty again at `full_until`. Returns the new time, or how long to wait.
    fn take(self, full_until: u64, now: u64) -> Result<u64, u64> {
        // Further ahead only if the rate was lower before the settings changed.
        let full_until = full_until.min(now.saturating_add(self.tolerance).saturating_add(self.interval));
        let ahead = full_until.saturating_sub(now);
        if ahead > self.tolerance {
            return Err(ahead - self.tolerance);
        }
        Ok(full_until.max(now).saturating_add(self.interval))
    }
}

/// When a bucket is empty again. 0 if it was never used.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl Bucket {
    /// Takes one request. Returns how long to wait if there is none left.
    fn take(&self, rate: Rate, now: u64) -> Result<(), u64> {
        let Self(full_until) = self;
        let mut seen = full_until.load(Ordering::Relaxed);
        loop {
            let next = rate.take(seen, now)?;
            match full_until.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(newer) => seen = newer,
            }
        }
    }
}

/// The slots that a hash may be in, each with its hash and its bucket.
#[derive(Debug, Default)]
struct Set([(AtomicU64, Bucket); WAYS]);

impl Set {
    /// Takes one request from the bucket of a hash. Returns how long to wait if there is none left.
    fn take(&self, hash: u64, rate: Rate, now: u64) -> Result<(), u64> {
        let Self(slots) = self;
        let until = |bucket: &Bucket| bucket.0.load(Ordering::Relaxed);
        loop {
            let known =
                slots.iter().find(|(key, bucket)| key.load(Ordering::Relaxed) == hash && until(bucket) > 0);
            if let Some((_, bucket)) = known {
                return bucket.take(rate, now);
            }
            let fresh = rate.take(0, now)?;
            let oldest = slots.iter().map(|slot| (slot, until(&slot.1))).min_by_key(|(_, until)| *until);
            let ((key, bucket), seen) = oldest.expect("a set has slots");
            // Another core may have taken from it, or have begun another bucket there.
            if bucket.0.compare_exchange(seen, fresh, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                key.store(hash, Ordering::Relaxed);
                return Ok(());
            }
        }
    }
}

impl RateLimit {
    /// An unused limit of a route.
    pub(crate) fn new(rate: Rate, by: By, shown: String, buckets: &Arc<Buckets>) -> Self {
        let (route, buckets) = (buckets.number(), Arc::clone(buckets));
        Self { rate, by, shared: None, shown, route, own: Arc::default(), buckets }
    }

    /// The same limit for all gateways of the service together.
    pub(crate) fn shared(self) -> Self {
        Self { shared: Some(Arc::default()), ..self }
    }

    /// Shares it with these gateways, if it is to be shared.
    pub(crate) fn share_with(&mut self, gateways: &Arc<Gateways>) {
        if self.shared.is_some() {
            self.shared = Some(Arc::clone(gateways));
        }
    }

    pub(crate) fn buckets(&self) -> &Arc<Buckets> {
        &self.buckets
    }

    /// Keeps its state in other buckets from now on, as a new route.
    pub(crate) fn move_to(&mut self, buckets: &Arc<Buckets>) {
        (self.route, self.buckets) = (buckets.number(), Arc::clone(buckets));
    }

    /// Continues with the state of an earlier limit of the same route, which has the same buckets.
    pub(crate) fn inherit(&mut self, old: &Self) {
        if self.by == old.by {
            (self.route, self.own) = (old.route, Arc::clone(&old.own));
        }
    }

    pub(crate) fn by(&self) -> &By {
        &self.by
    }

    /// The limit, and what part of it this gateway allows.
    pub(crate) fn shown(&self) -> String {
        match self.shared.as_ref().map(|gateways| gateways.count()) {
            None => self.shown.clone(),
            Some(1) => format!("{}, shared by 1 gateway", self.shown),
            Some(count) => format!("{}, shared by {count} gateways", self.shown),
        }
    }

    /// Takes one request. Returns how long to wait if the key's requests are used up.
    pub(crate) fn take(&self, key: Key<'_>, now: Instant) -> Result<(), Duration> {
        let Buckets { hasher, start, .. } = &*self.buckets;
        // Nanoseconds of a u64 last for 584 years. From 1 on, since 0 is a free slot.
        let now = u64::try_from(now.saturating_duration_since(*start).as_nanos()).unwrap_or(u64::MAX);
        let now = now.saturating_add(1);
        let rate = self.shared.as_ref().map_or(self.rate, |gateways| self.rate.part_of(gateways.count()));
        let taken = match self.by {
            By::Route => self.own.take(rate, now),
            By::Client | By::Header(_) | By::Key => {
                let hash = hasher.hash_one((self.route, key));
                self.buckets.set(hash).take(hash, rate, now)
            }
        };
        taken.map_err(Duration::from_nanos)
    }
}

impl Key<'_> {
    /// The bucket of a client's address.
    pub(crate) fn of_client(client: Option<IpAddr>) -> Self {
        match client.map(|client| client.to_canonical()) {
            None => Key::All,
            Some(IpAddr::V4(address)) => Key::V4(address.octets()),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Key::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[cfg(test)]
mod tests;
