//! What is wrong with a shard although it answers, and its metrics.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use plugin::shard::NotOpen;
use plugin::{Counter, Gauge, Health, Histogram, Metrics};
use types::reason::{CLAIM_PASSED, DAMAGED_DATA, REPLICA_BEHIND, STORE_UNAVAILABLE};
use types::{Reason, ReasonCode};

/// The shard is being opened, or was closed.
const DATA_NOT_OPEN: ReasonCode = ReasonCode::new("data-not-open");
/// The disk of the local segments is full.
const DISK_FULL: ReasonCode = ReasonCode::new("disk-full");
/// Local files can't be read.
const LOCAL_FILES_UNREADABLE: ReasonCode = ReasonCode::new("local-files-unreadable");
/// Local files are verified, because a request failed as it does if one is damaged.
const LOCAL_FILES_SUSPECT: ReasonCode = ReasonCode::new("local-files-suspect");
/// What is acknowledged is not indexed fast enough.
const INDEXING_BEHIND: ReasonCode = ReasonCode::new("indexing-behind");

/// What can be wrong, the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// Stored data is damaged.
    Damaged,
    /// The store does not take segments, or a replica can't read it.
    Store,
    /// Local files can't be read, so their segments are not stored.
    Unreadable,
    /// Local files are verified, or fetched again.
    Verifying,
    DiskFull,
    /// Operations can't be indexed.
    Indexing,
}

impl Trouble {
    fn code(self) -> ReasonCode {
        match self {
            Self::Damaged => DAMAGED_DATA,
            Self::Store => STORE_UNAVAILABLE,
            Self::Unreadable => LOCAL_FILES_UNREADABLE,
            Self::Verifying => LOCAL_FILES_SUSPECT,
            Self::DiskFull => DISK_FULL,
            Self::Indexing => INDEXING_BEHIND,
        }
    }
}

/// The health of an owner whose searches lack what was written a while ago.
pub(crate) fn indexing_behind(lag: Duration) -> Health {
    Health::degraded(INDEXING_BEHIND, format!("searches lack what was written {} s ago", lag.as_secs()))
}

/// The health of a replica that lacks what was written a while ago.
pub(crate) fn replica_behind(staleness: Duration) -> Health {
    Health::degraded(REPLICA_BEHIND, format!("the replica may be {} s behind its owner", staleness.as_secs()))
}

/// What is wrong now.
#[derive(Debug, Default)]
pub(crate) struct Status(Mutex<BTreeMap<Trouble, String>>);

impl Status {
    pub(crate) fn set(&self, trouble: Trouble, why: impl Into<String>) {
        self.troubles().insert(trouble, why.into());
    }

    pub(crate) fn clear(&self, trouble: Trouble) {
        self.troubles().remove(&trouble);
    }

    pub(crate) fn why(&self, trouble: Trouble) -> Option<String> {
        self.troubles().get(&trouble).cloned()
    }

    /// The health of a shard that is open, or is not for this reason.
    pub(crate) fn health(&self, not_open: Option<NotOpen>) -> Health {
        let trouble =
            self.troubles().first_key_value().map(|(trouble, why)| Reason::new(trouble.code(), why.clone()));
        match (not_open, trouble) {
            (None, None) => Health::Ready,
            (Some(NotOpen::Passed(why)), _) => Health::degraded(CLAIM_PASSED, why),
            (Some(NotOpen::Damaged(why)), _) => Health::degraded(DAMAGED_DATA, why),
            (_, Some(trouble)) => Health::Degraded(trouble),
            (Some(why @ (NotOpen::Opening(_) | NotOpen::Ended)), None) => {
                Health::degraded(DATA_NOT_OPEN, why.to_string())
            }
        }
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<Trouble, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The metrics of a shard.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    pub(crate) openings: Counter,
    pub(crate) operations: Counter,
    pub(crate) refused: Counter,
    pub(crate) documents: Gauge,
    pub(crate) segments: Gauge,
    pub(crate) bytes: Gauge,
    pub(crate) pending: Gauge,
    pub(crate) log_behind: Gauge,
    pub(crate) lag: Gauge<f64, AtomicU64>,
    pub(crate) refreshes: Histogram,
    pub(crate) durable: Histogram,
    pub(crate) uploads: Counter,
    pub(crate) upload_bytes: Counter,
    pub(crate) garbage: Counter,
    pub(crate) verifications: Counter,
}

impl Meters {
    /// Registers all of them.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.counter(name, help);
        let gauge = |name, help| metrics.gauge(name, help);
        // From a millisecond to 16 s, and from half a millisecond to 8 s.
        let seconds = |name, help, first| metrics.histogram(name, help, first, 2.0, 15);
        Self {
            openings: counter("openings", "Times that the shard was opened"),
            operations: counter("operations", "Operations that became durable"),
            refused: counter("writes_refused", "Writes refused because of their condition or document"),
            documents: gauge("documents", "Documents of this shard that searches find"),
            segments: gauge("segments", "Segments of this shard"),
            bytes: gauge("segment_bytes", "Size of this shard's segments on this node's disk"),
            pending: gauge("pending_operations", "Operations that are durable, and in no stored segment yet"),
            log_behind: gauge("log_behind", "Entries of the log whose operations searches do not find yet"),
            lag: metrics
                .gauge("refresh_lag_seconds", "Age of the oldest operation that searches do not find yet"),
            refreshes: seconds("refresh_seconds", "Time to make operations visible to searches", 0.001),
            durable: seconds("durable_seconds", "Time from a write's arrival until it was durable", 0.0005),
            uploads: counter("uploads", "Manifests written to the store"),
            upload_bytes: counter("upload_bytes", "Bytes of segments written to the store"),
            garbage: counter("garbage", "Garbage objects deleted from the store"),
            verifications: counter(
                "verifications",
                "Times that local files were verified after a failed request",
            ),
        }
    }
}
