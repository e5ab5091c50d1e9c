//! Pages of keys in order, and how the pages of several shards are merged into one.

use serde::{Deserialize, Serialize};

use super::Key;

/// A key in a page, and what is shown of it.
pub trait Listed {
    /// The key, encoded for a path.
    fn key(&self) -> &str;
    /// About how many bytes of a page it takes.
    fn size(&self) -> usize;
}

/// Keys in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The keys.
    pub keys: Vec<T>,
    /// The `after` of the next page; `None` if this is the last one.
    pub next: Option<String>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { keys: Vec::new(), next: None }
    }
}

/// Why the parts can't be merged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no key")]
pub struct NotAKey(String);

/// Merges the pages of several shards, all with the same range.
///
/// A page that is not the last one of its shard ends before some of its keys, so the merged page ends with that page's
/// last key.
pub fn merge<T: Listed>(pages: Vec<Page<T>>, limit: usize, bytes: usize) -> Result<Page<T>, NotAKey> {
    let mut horizon: Option<Key> = None;
    let mut all = Vec::new();
    for page in pages {
        let is_cut = page.next.is_some();
        let mut last = None;
        for listed in page.keys {
            let key = Key::from_path(listed.key()).map_err(|_| NotAKey(listed.key().to_owned()))?;
            last = Some(key.clone());
            all.push((key, listed));
        }
        if let Some(last) = last.filter(|_| is_cut) {
            horizon = Some(match horizon {
                Some(horizon) => horizon.min(last),
                None => last,
            });
        }
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    let known = horizon.as_ref().map_or(all.len(), |horizon| all.partition_point(|(key, _)| key <= horizon));
    // The first key is always returned, so that the next request makes progress.
    let mut size = 0;
    let fits = all.iter().take_while(|(_, listed)| {
        let is_room = size <= bytes;
        size += listed.size();
        is_room
    });
    let most = limit.min(fits.count().max(1));
    let is_cut = horizon.is_some() || known > most;
    all.truncate(known.min(most));
    let keys: Vec<_> = all.into_iter().map(|(_, listed)| listed).collect();
    let next = keys.last().filter(|_| is_cut).map(|last| last.key().to_owned());
    Ok(Page { keys, next })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::query::{percent_decode, percent_encode};
    use crate::shard::MAX_BYTES;

    /// A key, encoded.
    impl Listed for String {
        fn key(&self) -> &str {
            self
        }
        fn size(&self) -> usize {
            self.len() + 100
        }
    }

    fn listed(key: &[u8]) -> String {
        percent_encode(key)
    }

    fn page(keys: &[&str], is_cut: bool) -> Page<String> {
        let keys: Vec<_> = keys.iter().map(|key| listed(key.as_bytes())).collect();
        Page { next: keys.last().filter(|_| is_cut).cloned(), keys }
    }

    #[test]
    fn a_merged_page_ends_where_the_page_of_a_shard_is_cut() {
        let merged =
            merge(vec![page(&["a", "d"], true), page(&["b", "c", "e"], false)], 10, MAX_BYTES).unwrap();
        assert_eq!(merged, page(&["a", "b", "c", "d"], true), "what a shard has above `d` is not known");
        let merged = merge(vec![page(&["a"], false), page(&[], false)], 10, MAX_BYTES).unwrap();
        assert_eq!(merged, page(&["a"], false));
        let merged = merge(vec![page(&["a", "c"], false), page(&["b"], false)], 2, MAX_BYTES).unwrap();
        assert_eq!(merged, page(&["a", "b"], true));
        assert!(merge(vec![page(&[""], false)], 2, MAX_BYTES).is_err());
    }

    proptest! {
        #[test]
        fn paging_shows_every_key_once_and_in_order(
            keys in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 1..4), 0..40),
            shards in 1_usize..4,
            limit in 1_usize..6,
            bytes in prop_oneof![1_usize..1_000, Just(MAX_BYTES)],
        ) {
            let mut shown = Vec::new();
            let mut after: Option<Vec<u8>> = None;
            loop {
                let pages = (0..shards).map(|shard| {
                    let mut own = keys.iter().enumerate().filter(|(at, _)| at % shards == shard)
                        .map(|(_, key)| key).filter(|key| after.as_ref().is_none_or(|after| *key > after));
                    let page: Vec<_> = own.by_ref().take(limit).map(|key| listed(key)).collect();
                    let next = page.last().filter(|_| own.next().is_some()).cloned();
                    Page { keys: page, next }
                });
                let page = merge(pages.collect(), limit, bytes).unwrap();
                prop_assert!(page.keys.len() <= limit);
                shown.extend(page.keys.iter().map(|listed| percent_decode(listed).unwrap()));
                let Some(next) = page.next else { break };
                after = Some(percent_decode(&next).unwrap());
            }
            prop_assert_eq!(shown, keys.into_iter().collect::<Vec<_>>());
        }
    }
}
