//! Whether the shard is still ours, as narrow as the engine needs it.

use async_trait::async_trait;

/// The claim on a shard.
#[async_trait]
pub(crate) trait Ownership: Send + Sync + 'static {
    /// Asks the store, now, whether the shard is still ours.
    async fn confirm(&self) -> Result<(), Lost>;

    /// Says that the shard was found to be another's.
    fn fenced(&self, why: String);
}

/// Why the shard can't be said to be ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// Stop.
    #[error("{0}")]
    Passed(String),
    /// Ask again: the store did not say.
    #[error("{0}")]
    Unknown(String),
}

#[async_trait]
impl Ownership for plugin::Claim {
    async fn confirm(&self) -> Result<(), Lost> {
        Self::confirm(self).await.map_err(|lost| match lost {
            passed @ plugin::ClaimLost::Passed { .. } => Lost::Passed(passed.to_string()),
            plugin::ClaimLost::Unknown(error) => Lost::Unknown(error.to_string()),
        })
    }

    fn fenced(&self, why: String) {
        Self::fenced(self, why);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A claim on a shard without a store.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::{Lost, Ownership, async_trait};

    /// Knows who owns a shard.
    #[derive(Debug, Default)]
    pub(crate) struct Register(AtomicU64);

    /// What an owner has in hand.
    #[derive(Debug)]
    pub(crate) struct Deed {
        number: u64,
        register: Arc<Register>,
        /// How often it was said that it is worthless.
        pub(crate) fenced: AtomicU64,
    }

    impl Register {
        /// A new owner.
        pub(crate) fn take(self: &Arc<Self>) -> Arc<Deed> {
            let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            Arc::new(Deed { number, register: Arc::clone(self), fenced: AtomicU64::new(0) })
        }
    }

    #[async_trait]
    impl Ownership for Deed {
        async fn confirm(&self) -> Result<(), Lost> {
            let now = self.register.0.load(Ordering::SeqCst);
            if now == self.number { Ok(()) } else { Err(Lost::Passed(format!("owner {now} has it"))) }
        }

        fn fenced(&self, _why: String) {
            self.fenced.fetch_add(1, Ordering::SeqCst);
        }
    }
}
