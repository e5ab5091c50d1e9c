//! What is stored and requested: keys, records, changes and ranges. Pure.

pub(crate) mod change;
pub(crate) mod key;
pub(crate) mod layout;
pub(crate) mod page;
pub(crate) mod range;
pub(crate) mod record;
