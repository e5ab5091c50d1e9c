//! Lets the rest of a request outlive its service.
//!
//! A role that ends waits for the running requests of its service. Some of them no longer need the service: a value that
//! is in memory and is being sent to a slow client, or parts that were forwarded to other members. Their handlers detach
//! them, and the role ends without waiting for them.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use http::Extensions;

/// Ties a request to its service. Every request that a mounted service receives has it as an extension. Cheap to clone.
#[derive(Clone)]
pub struct Detach(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Detach {
    /// A tie that holds a guard until the request is detached.
    pub fn new(guard: impl Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(guard)))))
    }

    /// Declares that the request no longer needs its service: a role that ends neither waits for it nor aborts it.
    pub fn detach(&self) {
        // Dropped outside the lock: the guard may wake a task that waits for it.
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(guard);
    }

    /// Whether the request was detached.
    pub fn is_detached(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Detaches the request that has these extensions. Does nothing outside an agent.
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
    fn a_detached_request_no_longer_holds_its_guard() {
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
