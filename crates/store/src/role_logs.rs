//! Numbered logs among a role's own data: those of its shard, and those that all shards of its service share.

use object_store::path::Path;
use serde::Serialize;
use serde::de::DeserializeOwned;
use types::ShardRef;

use crate::log::{LIMITS, Log};
use crate::objects::Objects;

/// Opens logs below `data/{service}`. A log's name must not be a number, as those are the folders of shards.
#[derive(Debug, Clone)]
pub struct RoleLogs {
    objects: Objects,
    service: Path,
    shard: Path,
}

impl RoleLogs {
    pub(crate) fn new(objects: Objects, shard: &ShardRef) -> Self {
        let service = Path::from("data").join(shard.service.as_str());
        Self { objects, shard: service.clone().join(shard.shard.to_string()), service }
    }

    /// A log of the shard: `data/{service}/{shard}/{name}`.
    pub fn of_shard<T: Serialize + DeserializeOwned>(&self, name: &str) -> Log<T> {
        Log::new(self.objects.clone(), self.shard.clone().join(name), LIMITS)
    }

    /// A log of the service: `data/{service}/{name}`.
    pub fn of_service<T: Serialize + DeserializeOwned>(&self, name: &str) -> Log<T> {
        Log::new(self.objects.clone(), self.service.clone().join(name), LIMITS)
    }
}

#[cfg(test)]
mod tests {
    use crate::open::Store;
    use crate::testing::Place;

    #[tokio::test]
    async fn shards_have_logs_of_their_own_and_share_those_of_their_service() {
        let place = Place::memory();
        let url = "memory:///".parse().unwrap();
        let store = Store::over(place.store, url, &"test".parse().unwrap()).await.unwrap();
        let (zero, one) =
            (store.logs(&"search/0".parse().unwrap()), store.logs(&"search/1".parse().unwrap()));
        zero.of_shard::<u32>("manifest").append(0, &7).await.unwrap();
        zero.of_service::<u32>("catalog").append(0, &8).await.unwrap();
        assert_eq!(one.of_shard::<u32>("manifest").latest().await.unwrap(), None);
        assert_eq!(
            one.of_service::<u32>("catalog").latest().await.unwrap().map(|entry| entry.value),
            Some(8)
        );
        assert_eq!(store.delete_data(&"search".parse().unwrap()).await.unwrap(), 2);
    }
}
