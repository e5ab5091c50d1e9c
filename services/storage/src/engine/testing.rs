//! Real claims on a cluster store in memory.

use plugin::Claim;
use store::Store;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use types::{Generation, ShardRef};

/// Takes the claim on a shard for one owner after another.
#[derive(Debug, Default)]
pub(crate) struct Owners(OnceCell<Store>);

impl Owners {
    /// The claim of a new owner; those of earlier owners are outdated.
    pub(crate) async fn take(&self) -> Claim {
        let open =
            async || Store::open(&"memory:///".parse().unwrap(), &"test".parse().unwrap()).await.unwrap();
        let claims = self.0.get_or_init(open).await.claims();
        let shard: ShardRef = "storage/0".parse().unwrap();
        let (asked_at, seen) = (Instant::now(), claims.read(&shard).await.unwrap());
        let node = format!("node-{}", seen.number).parse().unwrap();
        let holder = claims.take(&shard, &seen, &node, Generation(1)).await.unwrap();
        Claim::new(claims, shard, holder, asked_at)
    }
}
