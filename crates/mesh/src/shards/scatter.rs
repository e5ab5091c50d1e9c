//! Requests to all shards at once.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use types::ShardId;

use super::ShardError;

/// Runs a request for each shard, all at once, and returns one result per shard, in their order. One that takes longer
/// than `limit` has timed out. The caller decides what a missing one means.
pub async fn scatter<T, F>(
    shards: impl IntoIterator<Item = ShardId>,
    limit: Duration,
    mut ask: impl FnMut(ShardId) -> F,
) -> Vec<(ShardId, Result<T, ShardError>)>
where
    F: Future<Output = Result<T, ShardError>>,
{
    let asked = shards.into_iter().map(|shard| {
        let asked = timeout(limit, ask(shard));
        async move { (shard, asked.await.unwrap_or(Err(ShardError::TimedOut(limit)))) }
    });
    join_all(asked).await
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_shard_has_a_result_and_none_waits_for_another() {
        let (limit, began) = (Duration::from_secs(10), Instant::now());
        let shards = (0..3).map(|shard| ShardId::try_from(shard).unwrap());
        let results = scatter(shards, limit, |shard| async move {
            sleep(Duration::from_secs(6 * u64::from(shard.as_u32()))).await;
            Ok(shard.as_u32() * 10)
        })
        .await;
        let results: Vec<_> = results.into_iter().map(|(shard, result)| (shard.as_u32(), result)).collect();
        assert_eq!(results, [(0, Ok(0)), (1, Ok(10)), (2, Err(ShardError::TimedOut(limit)))]);
        assert_eq!(began.elapsed(), limit);
    }
}
