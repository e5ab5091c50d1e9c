//! The settings, as an operator writes them.

use plugin::{SettingsError, SettingsMistake};
use serde::Deserialize;

const MIB: usize = 1024 * 1024;
/// The largest value that there may be.
const MOST_VALUE: usize = 8 * MIB;
/// The most watches that may be allowed.
const MOST_WATCHES: usize = 100_000;

/// The settings of storage. Everything has a default; sizes are in bytes.
///
/// ```yaml
/// cache: 268435456        # 256 MiB for a shard that is read much and does not fit into memory
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Memory for data that was read from the object store, per shard. It is used only as far as there is data.
    pub cache: usize,
    /// How much may wait to be written to the object store, per shard. Bodies take room as they arrive; one that finds no
    /// further room for two seconds is refused with 503, the youngest first. At least `max_value` and 64 KiB more.
    pub write_queue: usize,
    /// The largest value; larger ones are refused with 413. At most 8 MiB: values are held in memory whole.
    pub max_value: usize,
    /// Watches at once, at each member; more are refused with 503. One of all shards counts at the member that is asked
    /// and at each owner. Some 20 KiB each, and up to 150 KiB if it is read slowly. 1 to 100000.
    pub max_watches: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { cache: 32 * MIB, write_queue: 32 * MIB, max_value: MOST_VALUE, max_watches: 1_000 }
    }
}

impl Settings {
    /// Checks everything, and tells all mistakes at once.
    pub(crate) fn check(self) -> Result<Self, SettingsError> {
        let mut mistakes = Vec::new();
        if self.max_value == 0 || self.max_value > MOST_VALUE {
            let mistake =
                SettingsMistake::new("/max_value", format!("{} bytes are out of bounds", self.max_value));
            mistakes.push(mistake.hint(format!("write a number from 1 to {MOST_VALUE}")));
        }
        let (least, most) = (self.max_value.saturating_add(64 * 1024), 1024 * MIB);
        if !(least..=most).contains(&self.write_queue) {
            let mistake =
                SettingsMistake::new("/write_queue", format!("{} bytes are out of bounds", self.write_queue));
            mistakes.push(mistake.hint(format!("write a number from {least} to {most}")));
        }
        if !(1..=MOST_WATCHES).contains(&self.max_watches) {
            let mistake = SettingsMistake::new(
                "/max_watches",
                format!("{} watches are out of bounds", self.max_watches),
            );
            mistakes.push(mistake.hint(format!("write a number from 1 to {MOST_WATCHES}")));
        }
        if mistakes.is_empty() { Ok(self) } else { Err(SettingsError { mistakes }) }
    }

    /// The size of the cache.
    pub(crate) fn cache_bytes(&self) -> u64 {
        u64::try_from(self.cache).unwrap_or(u64::MAX)
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
    fn all_mistakes_are_told_at_once_each_with_its_place() {
        let wrong = Settings { cache: 0, write_queue: 1, max_value: MOST_VALUE + 1, max_watches: 0 };
        let mistakes = wrong.check().unwrap_err().mistakes;
        let places: Vec<_> = mistakes.iter().map(|mistake| mistake.pointer.as_str()).collect();
        assert_eq!(places, ["/max_value", "/write_queue", "/max_watches"]);
        let unknown = plugin::parse_settings::<Settings>(&json!({"max_vale": 1})).unwrap_err();
        assert_eq!(unknown.mistakes[0].hint.as_deref(), Some("did you mean `max_value`?"));
    }
}
