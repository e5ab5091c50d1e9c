//! What has happened to one request so far.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use types::Problem;

use crate::base_url::BaseUrl;
use crate::deadline::Deadline;
use crate::error::MeshError;
use crate::upstream::Upstream;

/// The history of one request. What few requests have is boxed: all of it is part of the state of every request.
#[derive(Default)]
pub(super) struct History {
    /// The addresses it was sent to. Cleared after a pause once all were tried.
    pub(super) tried: Vec<BaseUrl>,
    /// The number of attempts, not counting refusals without processing.
    pub(super) attempts: u32,
    /// The time it waited, including pauses.
    pub(super) waited: Duration,
    /// When the request must have been answered.
    pub(super) deadline: Option<Deadline>,
    /// Until when the last address that was asked wants to be left alone.
    pub(super) not_before: Option<Instant>,
    /// The last failure, unless it was a refusal without processing.
    pub(super) failed: Option<Box<MeshError>>,
    /// The last refusal without processing.
    pub(super) refusal: Option<Box<Problem>>,
    /// What is counted of requests like this.
    pub(super) upstream: Option<Arc<Upstream>>,
}

impl History {
    /// The time that is left until the request's deadline; `None` if it has none.
    pub(super) fn time_left(&self) -> Result<Option<Duration>, MeshError> {
        let Some(deadline) = self.deadline else { return Ok(None) };
        let left = deadline.left(Instant::now());
        left.map(Some).ok_or(MeshError::DeadlinePassed { address: None })
    }
}
