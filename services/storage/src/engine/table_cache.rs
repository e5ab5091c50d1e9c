//! Follows the tables of a shard, and how much cache they need.
//!
//! The filters and indexes of a table that a compaction replaced would stay in the cache, since they have priority over
//! blocks; so they are dropped, for they are never read again. Those of the current tables must fit, or each read that
//! misses them costs as much as many reads; if they do not, the log and the metrics report it.

use std::collections::BTreeMap;

use slatedb::manifest::SsTableHandle;
use slatedb::{CacheTarget, DbCacheManagerOps, DbMetadataOps};
use tracing::{debug, info, warn};

use crate::engine::cache::{Need, Part};
use crate::meters::Meters;

/// Follows the tables of an open database. Never ends; may be dropped at any time.
pub(crate) async fn follow_tables(
    database: &(impl DbMetadataOps + DbCacheManagerOps),
    cache: &Part,
    meters: &Meters,
) {
    let mut status = database.subscribe();
    let (mut known, mut reported) = (BTreeMap::new(), None);
    loop {
        let manifest = status.borrow_and_update().current_manifest.clone();
        let tables: BTreeMap<u128, SsTableHandle> =
            manifest.all_sst_views().map(|view| (view.sst.id.value().0, view.sst.clone())).collect();
        let bytes = tables.values().map(|table| table.info.filter_len.saturating_add(table.info.index_len));
        let need = cache.needs(bytes.fold(0, u64::saturating_add));
        meters.cache(need);
        reported = report(reported, need);
        for table in gone(&known, &tables) {
            let metadata = [CacheTarget::Filters, CacheTarget::Index, CacheTarget::Stats];
            if let Err(error) = database.evict_cached_sst(table, &metadata).await {
                debug!(%error, "could not drop a deleted table from the cache");
            }
        }
        known = tables;
        let seen = manifest.id();
        // An error means that the database is closed, which the caller notices as well.
        if status.wait_for(|status| status.current_manifest.id() != seen).await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// What has disappeared.
fn gone<'a, V>(known: &'a BTreeMap<u128, V>, now: &BTreeMap<u128, V>) -> Vec<&'a V> {
    known.iter().filter(|(id, _)| !now.contains_key(id)).map(|(_, table)| table).collect()
}

/// Logs that the cache is too small, and that it is large enough again. Returns the size that was last recommended;
/// `None` while the cache is large enough.
fn report(reported: Option<u64>, need: Need) -> Option<u64> {
    let now = size_to_report(reported, need);
    if let Some(would_do) = now.filter(|_| now != reported) {
        let Need { bytes, of_all, cache, .. } = need;
        warn!(
            filters_and_indexes = bytes,
            of_all_shards = of_all,
            cache,
            "the filters and indexes of this shard's tables do not fit the cache, so reads fetch them again and again: \
             set `cache` to {would_do} or more"
        );
    } else if reported.is_some() && now.is_none() {
        info!(cache = need.cache, "the filters and indexes of this shard's tables fit the cache again");
    }
    now
}

/// The size to recommend: the one that was reported, until twice as much is needed. `None` if the cache is large
/// enough; after it was too small, only with a tenth to spare.
fn size_to_report(reported: Option<u64>, need: Need) -> Option<u64> {
    let limit = if reported.is_some() { need.room / 10 * 9 } else { need.room };
    let would_do = need.would_do();
    (need.of_all > limit)
        .then(|| reported.filter(|reported| would_do < reported.saturating_mul(2)).unwrap_or(would_do))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recommended_size_is_reported_once_and_again_when_it_has_doubled() {
        const MIB: u64 = 1024 * 1024;
        for (reported, of_all, expected) in [
            (None, 100, None),
            (None, 101, Some(128)),
            (Some(128), 101, Some(128)),
            (Some(128), 140, Some(128)),
            (Some(64), 101, Some(128)),
            (Some(128), 91, Some(128)),
            (Some(128), 90, None),
        ] {
            let of_all = of_all * MIB;
            let need = Need { bytes: 112 * MIB, of_all, cache: 200 * MIB, room: 100 * MIB };
            let reported = reported.map(|mib| mib * MIB);
            assert_eq!(
                size_to_report(reported, need),
                expected.map(|mib| mib * MIB),
                "{reported:?} {of_all}"
            );
        }
    }

    #[test]
    fn deleted_tables_are_found() {
        let set = |ids: [u128; 3]| ids.map(|id| (id, id)).into_iter().collect::<BTreeMap<_, _>>();
        let (known, now) = (set([1, 2, 3]), set([3, 4, 5]));
        assert_eq!(gone(&known, &now), [&1, &2]);
    }
}
