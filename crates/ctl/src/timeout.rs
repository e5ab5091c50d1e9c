//! How long a verb waits, as it is given on the command line.

use types::range::DurationIn;

/// From nothing to a year.
pub(crate) type Timeout = DurationIn<0>;
