//! The requests that may be in flight on a route at once. The number can change while requests are in flight.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The places of a route. Waiting requests get them in the order in which they came.
#[derive(Debug)]
pub(crate) struct Places {
    semaphore: Arc<Semaphore>,
    size: Mutex<Size>,
}

#[derive(Debug)]
struct Size {
    limit: usize,
    /// How many places vanish as soon as they are given back: the limit was lowered while they were taken.
    surplus: usize,
}

/// A place that a request has. It is given back when this is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(limit)), size: Mutex::new(Size { limit, surplus: 0 }) }
    }

    /// The largest number of requests in flight.
    pub(crate) fn limit(&self) -> usize {
        self.lock().limit
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// Never: the semaphore is not closed.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Result<Place, AcquireError> {
        let permit = Arc::clone(&self.semaphore).acquire_owned().await?;
        Ok(Place { places: Arc::clone(self), permit: Some(permit) })
    }

    /// Changes the limit. Requests that are in flight keep their places.
    pub(crate) fn resize(&self, limit: usize) {
        let mut size = self.lock();
        let Size { limit: old, surplus } = *size;
        if limit >= old {
            let kept = surplus.min(limit - old);
            self.semaphore.add_permits(limit - old - kept);
            *size = Size { limit, surplus: surplus - kept };
        } else {
            let gone = self.semaphore.forget_permits(old - limit);
            *size = Size { limit, surplus: surplus + (old - limit - gone) };
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Size> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut size = self.places.lock();
        if size.surplus > 0 {
            size.surplus -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn take(places: &Arc<Places>) -> Option<Place> {
        places.acquire().now_or_never().map(|place| place.unwrap())
    }

    #[test]
    fn a_lower_limit_counts_the_requests_that_are_in_flight() {
        let places = Arc::new(Places::new(3));
        let mut taken: Vec<_> = (0..3).map(|_| take(&places).unwrap()).collect();
        places.resize(1);
        for _ in 0..3 {
            assert!(take(&places).is_none(), "{} are in flight", taken.len());
            taken.pop();
        }
        let _one = take(&places).expect("none is in flight");
        assert!(take(&places).is_none());
        places.resize(2);
        let _two = take(&places).expect("the limit was raised");
        assert!(take(&places).is_none());
    }

    proptest! {
        #[test]
        fn there_are_as_many_places_as_the_limit_says_whatever_happened_before(
            steps in prop::collection::vec((0_u8..3, 1_usize..6), 1..60),
        ) {
            let mut limit = 3;
            let places = Arc::new(Places::new(limit));
            let mut taken = Vec::new();
            for (step, number) in steps {
                match step {
                    0 => {
                        let place = take(&places);
                        prop_assert_eq!(place.is_some(), taken.len() < limit);
                        taken.extend(place);
                    }
                    1 => drop(taken.pop()),
                    _ => {
                        places.resize(number);
                        limit = number;
                    }
                }
            }
            prop_assert_eq!(places.limit(), limit);
            taken.clear();
            let all: Vec<_> = std::iter::from_fn(|| take(&places)).collect();
            prop_assert_eq!(all.len(), limit);
        }
    }
}
