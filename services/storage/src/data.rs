//! What is stored and asked for: keys, records, changes and ranges. Pure.

pub(crate) mod change;
pub(crate) mod key;
pub(crate) mod layout;
pub(crate) mod page;
pub(crate) mod range;
pub(crate) mod record;
