//! How long a verb waits, as given on the command line.

use types::range::DurationIn;

/// From 0 to a year.
pub(crate) type Timeout = DurationIn<0>;
