//! How long a request waits for the object store: less once the store is known to be in trouble, so that the client
//! learns the reason before it stops waiting.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::engine::log_files::Seen;

/// How long a request may wait for the object store.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The same while the store fails or hangs.
pub(crate) const IN_TROUBLE: Duration = Duration::from_secs(3);
/// How often the state of the store is checked after that.
const CHECK: Duration = Duration::from_millis(100);

/// Runs work that needs the store. If that takes too long, returns the known fault of the store, if any.
pub(crate) async fn patiently<T>(seen: &Seen, work: impl Future<Output = T>) -> Result<T, Option<String>> {
    let began = Instant::now();
    let (mut check_at, deadline) = (began + IN_TROUBLE, began + PATIENCE);
    let mut work = pin!(work);
    loop {
        if let Ok(done) = timeout_at(check_at, &mut work).await {
            return Ok(done);
        }
        let trouble = seen.trouble();
        if check_at >= deadline || trouble.is_some() {
            return Err(trouble);
        }
        check_at = deadline.min(check_at + CHECK);
    }
}
