//! Keys of the manifest that belong to storage, which this version does not have.
//!
//! Remove this file, and its one use in `fields`, when storage is there.

use crate::mistake::Mistake;
use crate::tree::Key;

const UNFINISHED: &[&str] = &["store", "shards", "replicas"];

/// The mistake to report for such a key.
pub(super) fn unfinished(key: &Key, what: &str) -> Option<Mistake> {
    let has_place = match what {
        "a manifest" => key.text == "store",
        "a service" => key.text != "store",
        _ => false,
    };
    if !has_place || !UNFINISHED.contains(&key.text.as_str()) {
        return None;
    }
    let message = format!("`{}` is known, but this version of Coterie has no storage yet", key.text);
    Some(Mistake::new(key.at, message).hint("leave it out"))
}
