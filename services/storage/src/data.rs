//! What is stored and requested: records, changes and what a listing shows. Pure.

pub(crate) mod change;
pub(crate) mod layout;
pub(crate) mod page;
pub(crate) mod record;
