//! Which failed requests of a route are sent again.

pub use plugin::retry::{RetryOn, RetrySettings};

use super::check::Checked;
use crate::table::Retries;

impl Checked<'_> {
    pub(super) fn retries(&mut self) -> Retries {
        self.route.retry.plan(&format!("/routes/{}/retry", self.at), self.mistakes)
    }
}
