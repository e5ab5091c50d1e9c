//! How long a request waits for the object store: less once the store is known to be in trouble, so that the client
//! learns the reason before it stops waiting.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::StoreHealth;

/// How often the state of the store is checked after the shorter limit.
const CHECK: Duration = Duration::from_millis(100);

/// How long work that needs the object store may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreTimeout {
    /// While nothing is wrong with the store.
    pub usual: Duration,
    /// While the store fails or does not answer.
    pub in_trouble: Duration,
}

impl StoreTimeout {
    /// Runs work that needs the store.
    ///
    /// # Errors
    /// The work took too long. The error is the known fault of the store, if there is one.
    pub async fn run<T>(
        self,
        health: &StoreHealth,
        work: impl Future<Output = T>,
    ) -> Result<T, Option<String>> {
        let began = Instant::now();
        let (mut check_at, deadline) = (began + self.in_trouble, began + self.usual);
        let mut work = pin!(work);
        loop {
            if let Ok(done) = timeout_at(check_at, &mut work).await {
                return Ok(done);
            }
            let trouble = health.trouble();
            if check_at >= deadline || trouble.is_some() {
                return Err(trouble);
            }
            check_at = deadline.min(check_at + CHECK);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use tokio::time::sleep;

    use super::*;
    use crate::Instrumented;
    use crate::faults::{Faults, Mode};

    const TIMEOUT: StoreTimeout =
        StoreTimeout { usual: Duration::from_secs(10), in_trouble: Duration::from_secs(3) };

    #[tokio::test(start_paused = true)]
    async fn a_store_in_trouble_is_waited_for_less_long() {
        let faults = Faults::new(Arc::new(InMemory::new()));
        let store = Instrumented::new(faults.objects());
        let health = store.health();
        let after = async |seconds| {
            let began = Instant::now();
            let outcome = TIMEOUT.run(&health, sleep(Duration::from_secs(seconds))).await;
            (outcome, began.elapsed())
        };
        assert_eq!(after(9).await, (Ok(()), Duration::from_secs(9)));
        assert_eq!(after(60).await, (Err(None), TIMEOUT.usual));

        faults.set(Mode::Unreachable);
        assert!(store.put(&Path::from("a"), "1".into()).await.is_err());
        assert_eq!(after(2).await, (Ok(()), Duration::from_secs(2)));
        let (outcome, waited) = after(60).await;
        assert!(outcome.unwrap_err().unwrap().contains("connection refused"));
        assert_eq!(waited, TIMEOUT.in_trouble);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_that_begins_later_is_noticed_soon() {
        let faults = Faults::new(Arc::new(InMemory::new()));
        let store = Instrumented::new(faults.objects());
        let (health, began) = (store.health(), Instant::now());
        faults.set(Mode::Unreachable);
        let fail = async {
            sleep(Duration::from_secs(5)).await;
            store.put(&Path::from("a"), "1".into()).await
        };
        let (outcome, failed) = tokio::join!(TIMEOUT.run(&health, sleep(Duration::from_secs(60))), fail);
        assert!(outcome.is_err() && failed.is_err());
        assert!(began.elapsed() <= Duration::from_secs(5) + 2 * CHECK, "{:?}", began.elapsed());
    }
}
