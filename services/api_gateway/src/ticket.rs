//! A request through the gateway: counted and timed from its head to the end of its answer.

use std::sync::Arc;

use plugin::InFlightGuard;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::meters::{Meters, Outcome};

/// A request in flight. It ends when this is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct Ticket {
    _in_flight: InFlightGuard,
    meters: Arc<Meters>,
    began: Instant,
    outcome: Outcome,
    /// Its permit of a route that has a limit.
    place: Option<OwnedSemaphorePermit>,
}

impl Ticket {
    pub(crate) fn new(in_flight: InFlightGuard, meters: &Arc<Meters>) -> Self {
        meters.began();
        let (meters, began) = (Arc::clone(meters), Instant::now());
        Self { _in_flight: in_flight, meters, began, outcome: Outcome::Aborted, place: None }
    }

    /// Keeps a permit until the request ends.
    pub(crate) fn hold(&mut self, place: OwnedSemaphorePermit) {
        self.place = Some(place);
    }

    /// Records the status of the answer.
    pub(crate) fn answered(&mut self, status: http::StatusCode) {
        self.outcome = Outcome::Status(status.as_u16() / 100);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.meters.ended(self.outcome, self.began.elapsed().as_secs_f64());
    }
}
