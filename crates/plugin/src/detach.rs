//! Lets the rest of a request outlive its service.
//!
//! A role that ends waits for the requests inside its service. What is left of some needs nothing of the service: a value
//! that is in memory and on its way to a slow client, parts that are passed on to other members. Their handlers say so,
//! and the role ends without them.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use http::Extensions;

/// A request's tie to its service, an extension of every request that a mounted service receives. Cheap to clone.
#[derive(Clone)]
pub struct Detach(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Detach {
    /// A tie that holds a guard until it is cut.
    pub fn new(guard: impl Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(guard)))))
    }

    /// From now on the request needs nothing of its service: a role that ends neither waits for it nor cuts it off.
    pub fn detach(&self) {
        // Dropped outside of the lock: the guard may wake whoever waits for it.
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(guard);
    }

    /// Whether that was said.
    pub fn is_detached(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Detaches the request whose extensions these are. Does nothing outside of an agent.
    pub fn of(extensions: &Extensions) {
        if let Some(tie) = extensions.get::<Self>() {
            tie.detach();
        }
    }
}

impl fmt::Debug for Detach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detach").field("is_detached", &self.is_detached()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_detached_holds_its_guard_no_more() {
        let guard = Arc::new(());
        let tie = Detach::new(Arc::clone(&guard));
        let mut extensions = Extensions::new();
        extensions.insert(tie.clone());
        assert_eq!((Arc::strong_count(&guard), tie.is_detached()), (2, false));
        Detach::of(&extensions);
        assert_eq!((Arc::strong_count(&guard), tie.is_detached()), (1, true));
        Detach::of(&extensions);
        Detach::of(&Extensions::new());
    }
}
