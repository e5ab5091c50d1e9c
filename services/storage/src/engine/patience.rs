//! How long a request waits for the object store: shorter once the store is known to be in trouble, so that a client hears
//! why before it stops waiting.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::engine::log_files::Seen;

/// How long a request may wait for the object store.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The same while the store fails or does not answer.
pub(crate) const IN_TROUBLE: Duration = Duration::from_secs(3);
/// How often it is looked after that whether it does.
const LOOK: Duration = Duration::from_millis(100);

/// Does something that needs the store. If that takes too long: what is wrong with the store, if anything is known.
pub(crate) async fn patiently<T>(seen: &Seen, work: impl Future<Output = T>) -> Result<T, Option<String>> {
    let began = Instant::now();
    let (mut look_at, deadline) = (began + IN_TROUBLE, began + PATIENCE);
    let mut work = pin!(work);
    loop {
        if let Ok(done) = timeout_at(look_at, &mut work).await {
            return Ok(done);
        }
        let trouble = seen.trouble();
        if look_at >= deadline || trouble.is_some() {
            return Err(trouble);
        }
        look_at = deadline.min(look_at + LOOK);
    }
}
