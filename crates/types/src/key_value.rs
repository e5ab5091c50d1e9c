//! The largest key and the largest value of the key-value store. The store refuses larger ones; clients check before they
//! send.

/// The longest key, in bytes.
pub const MAX_KEY: usize = 1024;

/// The largest value, in bytes: 8 MiB.
pub const MAX_VALUE: usize = 8 * 1024 * 1024;
