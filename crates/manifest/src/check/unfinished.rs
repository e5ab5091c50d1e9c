//! A key of the manifest that belongs to replicas, which this version does not have.
//!
//! Remove this file, and its one use in `fields`, when they are there.

use crate::mistake::Mistake;
use crate::tree::Key;

/// The mistake to report for such a key.
pub(super) fn unfinished(key: &Key, what: &str) -> Option<Mistake> {
    if what != "a service" || key.text != "replicas" {
        return None;
    }
    let message = "`replicas` is known, but this version of Coterie has no replicas yet";
    Some(Mistake::new(key.at, message).hint("leave it out"))
}
