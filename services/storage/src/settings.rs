//! The settings, as an operator writes them.

use plugin::{SettingsError, SettingsMistake};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use types::key_value::MAX_VALUE;
use types::range::NumberIn;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
/// The largest value that can be set as `max_value`.
const MOST_VALUE: u64 = MAX_VALUE as u64;
/// How much larger than the largest value the queue of writes must be, at least.
const BESIDE_VALUE: u64 = 64 * KIB;
/// The smallest cache on disk.
const LEAST_DISK_CACHE: u64 = 64 * MIB;
/// The largest cache of a shard, in memory and on disk: 1 TiB.
const MOST_CACHE: u64 = 1024 * 1024 * MIB;
/// The largest queue of writes.
const MOST_QUEUE: u64 = 1024 * MIB;
/// The largest allowed number of watches.
const MOST_WATCHES: u64 = 100_000;

/// The settings of storage. Everything has a default; sizes are in bytes.
///
/// ```yaml
/// cache: 268435456        # a cache of 256 MiB for each shard of its own, instead of the one that all share
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Memory for data that was read from the object store, for each shard separately, at most 1 TiB. Unless given, all
    /// shards of a process share a cache of a sixteenth of the memory that the process may use (the machine's or its
    /// control group's), at least 32 MiB, of which blocks of values take 64 MiB at most. Filters and indexes have
    /// priority over blocks. The cache grows only as data is read.
    pub cache: Option<NumberIn<0, MOST_CACHE>>,
    /// How much of this node's disk may hold parts of tables that were read from the object store, so that a read that
    /// misses `cache` costs no request. The parts are in `cache/storage` of the node's data folder; that subfolder may
    /// be deleted at any time. 0 for none, else at least 64 MiB and at most 1 TiB. Unless given, none if the store is a
    /// folder; on a cloud store 4 GiB or a tenth of the disk, whichever is less.
    pub disk_cache: Option<NumberIn<0, MOST_CACHE>>,
    /// How many bytes may wait to be written to the object store, per shard. Bodies take room as they arrive; one that
    /// finds no further room for two seconds is refused with 503, the youngest first. At least `max_value` and 64 KiB
    /// more, at most 1 GiB; 32 MiB unless given.
    pub write_queue: NumberIn<{ BESIDE_VALUE + 1 }, MOST_QUEUE>,
    /// The largest value; larger ones are refused with 413. At most 8 MiB, which is the default: a value is held in
    /// memory as a whole.
    pub max_value: NumberIn<1, MOST_VALUE>,
    /// The largest number of concurrent watches at each member; more are refused with 503. A watch of all shards counts
    /// at the member that receives it and at each owner. A watch takes about 20 KiB of memory, and up to 150 KiB if it
    /// is read slowly. 1 to 100000; 1000 unless given.
    pub max_watches: NumberIn<1, MOST_WATCHES>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache: None,
            disk_cache: None,
            write_queue: NumberIn::of::<{ 32 * MIB }>(),
            max_value: NumberIn::of::<MOST_VALUE>(),
            max_watches: NumberIn::of::<1_000>(),
        }
    }
}

impl Settings {
    /// Checks what the range of each setting does not ensure: that the largest value fits into the queue, and that a
    /// cache on disk is large enough to be of use.
    pub(crate) fn check(self) -> Result<Self, SettingsError> {
        let mut mistakes = Vec::new();
        let disk_cache = self.disk_cache.map(NumberIn::get);
        if let Some(bytes) = disk_cache.filter(|bytes| (1..LEAST_DISK_CACHE).contains(bytes)) {
            let message = format!("{bytes} bytes are too few to be of use");
            let hint = format!("write a number from {LEAST_DISK_CACHE} to {MOST_CACHE}, or 0 for none");
            mistakes.push(SettingsMistake::new("/disk_cache", message).hint(hint));
        }
        let least = self.max_value.get() + BESIDE_VALUE;
        if self.write_queue.get() < least {
            let message = format!("{} bytes are too few for the largest value", self.write_queue);
            let mistake = SettingsMistake::new("/write_queue", message);
            let hint = format!(
                "write a number from {least} to {MOST_QUEUE}, or lower `max_value`, {} now",
                self.max_value
            );
            mistakes.push(mistake.hint(hint));
        }
        if mistakes.is_empty() { Ok(self) } else { Err(SettingsError { mistakes }) }
    }

    /// The size of the shard's own cache, if it has one.
    pub(crate) fn cache_bytes(&self) -> Option<u64> {
        self.cache.map(NumberIn::get)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(Settings::default().check(), Ok(Settings::default()));
        assert_eq!(plugin::parse_settings(&json!({})), Ok(Settings::default()));
    }

    #[test]
    fn all_mistakes_are_reported_at_once_each_with_its_place_and_range() {
        let found = |settings| -> Vec<_> {
            let error = plugin::check_settings::<Settings, _>(&settings, Settings::check).unwrap_err();
            error.mistakes.into_iter().map(|mistake| (mistake.pointer, mistake.message)).collect()
        };
        let queue = "65536 bytes are too few for the largest value";
        assert_eq!(found(json!({"write_queue": 65_537 - 1}))[0].1, {
            "a whole number from 65537 to 1073741824 is wanted, found the number 65536"
        });
        let queue_alone = found(json!({"write_queue": 70_000}));
        assert_eq!(queue_alone, [("/write_queue".to_owned(), queue.replace("65536", "70000"))]);
        let all = found(json!({
            "cache": -1, "write_queue": u64::MAX, "max_value": MOST_VALUE + 1, "max_watches": 1e300,
        }));
        let (places, messages): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        assert_eq!(places, ["/cache", "/max_value", "/max_watches", "/write_queue"]);
        assert_eq!(messages[1], "a whole number from 1 to 8388608 is wanted, found the number 8388609");
        let disk = found(json!({"disk_cache": 1_000, "write_queue": 70_000}));
        let places: Vec<_> = disk.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, ["/disk_cache", "/write_queue"]);
        assert_eq!(disk[0].1, "1000 bytes are too few to be of use");
        let unknown = plugin::parse_settings::<Settings>(&json!({"max_vale": 1})).unwrap_err();
        assert_eq!(unknown.mistakes[0].hint.as_deref(), Some("did you mean `max_value`?"));
    }
}
