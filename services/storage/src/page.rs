//! A part of the keys in their order: what is asked for, and how the parts of several shards become one.
//!
//! Pure.

use serde::{Deserialize, Serialize};
use types::ShardId;

use crate::consistency::Consistency;
use crate::key::{Key, decode, encode};
use crate::parameters::{QueryError, parameters, shard};

/// Keys in a page unless the caller says.
const DEFAULT_LIMIT: usize = 1_000;
/// The most keys in a page.
const MAX_LIMIT: usize = 10_000;
/// What a listed key takes besides its texts.
const LISTED: usize = 128;
/// What a page with values is taken for at least, in bytes.
const LEAST: usize = 1024 * 1024;
/// What a long one takes without its value.
const MOST_LISTED: usize = 2 * 1024;
/// The most bytes that a page has before its last key, about.
pub(crate) const MAX_BYTES: usize = 4 * 1024 * 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    /// Only this shard.
    pub(crate) shard: Option<ShardId>,
    /// Keys that begin with it.
    pub(crate) prefix: Vec<u8>,
    /// Keys that are not below it.
    pub(crate) start: Vec<u8>,
    /// Keys below it.
    pub(crate) end: Option<Vec<u8>>,
    /// Keys above it.
    pub(crate) after: Option<Vec<u8>>,
    /// Keys at once.
    pub(crate) limit: usize,
    /// With their values.
    pub(crate) values: bool,
    /// Bytes of a page before its last key, about.
    pub(crate) bytes: usize,
    /// How new it must be.
    pub(crate) consistency: Consistency,
}

impl Default for Query {
    fn default() -> Self {
        let (prefix, start) = (Vec::new(), Vec::new());
        let (limit, values, bytes) = (DEFAULT_LIMIT, false, MAX_BYTES);
        let consistency = Consistency::default();
        Self { shard: None, prefix, start, end: None, after: None, limit, values, bytes, consistency }
    }
}

const PARAMETERS: [&str; 9] =
    ["prefix", "start", "end", "after", "limit", "values", "bytes", "consistency", "shard"];

impl Query {
    /// Reads the query of a URI: `prefix=user/&limit=10`. A `+` is a plus.
    pub(crate) fn parse(query: &str) -> Result<Self, QueryError> {
        let mut found = Self::default();
        for (name, value) in parameters(query, &PARAMETERS)? {
            let bytes = decode(value).map_err(|error| QueryError::new(format!("`{name}`: {error}")))?;
            let number = || value.parse::<u32>().ok();
            match name {
                "prefix" => found.prefix = bytes,
                "start" => found.start = bytes,
                "end" => found.end = Some(bytes).filter(|end| !end.is_empty()),
                "after" => found.after = Some(bytes).filter(|after| !after.is_empty()),
                "limit" | "bytes" => {
                    let most = if name == "limit" { MAX_LIMIT } else { MAX_BYTES };
                    let number = number().and_then(|number| usize::try_from(number).ok());
                    let number = number.filter(|number| (1..=most).contains(number)).ok_or_else(|| {
                        QueryError::new(format!("`{name}` is a number from 1 to {most}, not `{value}`"))
                    })?;
                    *if name == "limit" { &mut found.limit } else { &mut found.bytes } = number;
                }
                "values" => {
                    found.values = value.parse().map_err(|_| {
                        QueryError::new(format!("`values` is `true` or `false`, not `{value}`"))
                    })?;
                }
                "consistency" => found.consistency = Consistency::parse(value)?,
                _ => found.shard = Some(shard(value)?),
            }
        }
        Ok(found)
    }

    /// The same for one shard alone, as it is written in a URI.
    pub(crate) fn for_shard(&self, shard: ShardId) -> String {
        let (limit, consistency) = (self.limit, self.consistency.as_str());
        let mut text = format!("shard={shard}&limit={limit}&consistency={consistency}");
        if self.bytes != MAX_BYTES {
            text.push_str(&format!("&bytes={}", self.bytes));
        }
        if self.values {
            text.push_str("&values=true");
        }
        let parts = [
            ("prefix", Some(&self.prefix)),
            ("start", Some(&self.start)),
            ("end", self.end.as_ref()),
            ("after", self.after.as_ref()),
        ];
        for (name, bytes) in parts {
            if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
                text.push_str(&format!("&{name}={}", encode(bytes)));
            }
        }
        text
    }

    /// What the answer takes of memory, about. The last value of a page may be of any length, so it may be more.
    pub(crate) fn cost(&self) -> usize {
        if self.values {
            self.bytes.max(LEAST)
        } else {
            self.limit.saturating_mul(MOST_LISTED).min(self.bytes)
        }
    }

    /// The first key that it may be, and the first one above that it can't be, if any. Nothing if no key is asked for.
    pub(crate) fn range(&self) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let mut first = self.start.as_slice().max(self.prefix.as_slice()).to_vec();
        if let Some(after) = &self.after {
            // The smallest key above another one is that key and a zero byte.
            let next = [after.as_slice(), &[0]].concat();
            first = first.max(next);
        }
        let end = match (&self.end, successor(&self.prefix)) {
            (Some(end), Some(successor)) => Some(end.clone().min(successor)),
            (Some(end), None) => Some(end.clone()),
            (None, successor) => successor,
        };
        end.as_ref().is_none_or(|end| first < *end).then_some((first, end))
    }
}

/// The first key above all that begin with a prefix; none if there can be none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

/// A key of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// The key as it may be put into a path.
    pub(crate) key: String,
    /// Bytes of the value.
    pub(crate) size: u64,
    /// The write that the value came from.
    pub(crate) version: u64,
    /// The same as an ETag, quoted.
    pub(crate) etag: String,
    /// The value's content type.
    pub(crate) content_type: String,
    /// When it expires, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_ms: Option<u64>,
    /// The value, if it was asked for and is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    /// The value in base64, if it was asked for and is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value_base64: Option<String>,
}

impl Listed {
    /// What it takes of a page, about.
    pub(crate) fn size(&self) -> usize {
        let values = [&self.value, &self.value_base64].into_iter().flatten().map(String::len);
        self.key.len() + self.content_type.len() + values.sum::<usize>() + LISTED
    }
}

/// Keys in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Page {
    /// The keys.
    pub(crate) keys: Vec<Listed>,
    /// What to ask `after` for the next page; nothing if this is the last.
    pub(crate) next: Option<String>,
}

/// Why the parts do not make a page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no key")]
pub(crate) struct NotAKey(String);

/// One page of the pages of several shards, which all asked for the same.
///
/// A page that is not its shard's last says nothing of keys above its own last one, so the outcome ends there.
pub(crate) fn merge(pages: Vec<Page>, limit: usize, bytes: usize) -> Result<Page, NotAKey> {
    let mut horizon: Option<Key> = None;
    let mut all = Vec::new();
    for page in pages {
        let is_cut = page.next.is_some();
        let mut last = None;
        for listed in page.keys {
            let key = Key::from_path(&listed.key).map_err(|_| NotAKey(listed.key.clone()))?;
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
    // The first one is always given, so that asking again leads further.
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
    let next = keys.last().filter(|_| is_cut).map(|last| last.key.clone());
    Ok(Page { keys, next })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_means_what_it_says() {
        let query = "prefix=user/&start=user/a%20b&end=user%2Fz&limit=7&shard=3&after=&values=true&bytes=99";
        let query = Query::parse(query).unwrap();
        assert_eq!(query.prefix, b"user/");
        assert_eq!(query.start, b"user/a b");
        assert_eq!(query.end.as_deref(), Some(&b"user/z"[..]));
        assert_eq!((query.limit, query.shard, query.after.clone()), (7, ShardId::try_from(3).ok(), None));
        assert_eq!((query.values, query.bytes), (true, 99));
        assert_eq!(Query::parse("").unwrap(), Query::default());
        assert_eq!(Query::parse("prefix=a+b").unwrap().prefix, b"a+b", "a plus is a plus");
        let one = Query { shard: ShardId::try_from(1).ok(), ..query.clone() };
        assert_eq!(Query::parse(&query.for_shard(ShardId::try_from(1).unwrap())).unwrap(), one);
    }

    #[test]
    fn a_mistake_is_told_with_what_was_meant() {
        let error = |query| Query::parse(query).unwrap_err();
        assert_eq!(error("prefx=a").hint.as_deref(), Some("did you mean `prefix`?"));
        assert!(error("nothing_like_it=1").hint.unwrap().contains("prefix, start"));
        for query in
            ["limit=0", "limit=10001", "limit=x", "shard=x", "prefix=%", "limit=1&limit=2", "shard=-1"]
        {
            error(query);
        }
        for query in ["values", "values=1", "values=yes", "bytes=0", "bytes=4194305"] {
            error(query);
        }
    }

    #[test]
    fn a_range_is_what_all_limits_leave() {
        let range = |query| {
            Query::parse(query)
                .unwrap()
                .range()
                .map(|(first, end)| (encode(&first), end.map(|end| encode(&end))))
        };
        let of = |first: &str, end: Option<&str>| Some((first.to_owned(), end.map(str::to_owned)));
        assert_eq!(range(""), of("", None));
        assert_eq!(range("prefix=a"), of("a", Some("b")));
        assert_eq!(range("prefix=a%FF"), of("a%FF", Some("b")));
        assert_eq!(range("prefix=%FF%FF"), of("%FF%FF", None));
        assert_eq!(range("prefix=a&start=ab&end=ad"), of("ab", Some("ad")));
        assert_eq!(range("prefix=a&start=A&end=z"), of("a", Some("b")));
        assert_eq!(range("start=a&after=a"), of("a%00", None));
        assert_eq!(range("start=b&after=a"), of("b", None));
        for nothing in ["start=b&end=b", "prefix=a&start=b", "end=a&after=a", "prefix=b&end=b"] {
            assert_eq!(range(nothing), None, "{nothing}");
        }
    }

    fn listed(key: &[u8]) -> Listed {
        Listed {
            key: encode(key),
            size: 0,
            version: 1,
            etag: String::new(),
            content_type: String::new(),
            expires_ms: None,
            value: None,
            value_base64: None,
        }
    }

    fn page(keys: &[&str], is_cut: bool) -> Page {
        let keys: Vec<_> = keys.iter().map(|key| listed(key.as_bytes())).collect();
        Page { next: keys.last().filter(|_| is_cut).map(|last| last.key.clone()), keys }
    }

    #[test]
    fn a_merged_page_ends_where_a_shard_says_no_more() {
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
                    let next = page.last().filter(|_| own.next().is_some()).map(|last| last.key.clone());
                    Page { keys: page, next }
                });
                let page = merge(pages.collect(), limit, bytes).unwrap();
                prop_assert!(page.keys.len() <= limit);
                shown.extend(page.keys.iter().map(|listed| decode(&listed.key).unwrap()));
                let Some(next) = page.next else { break };
                after = Some(decode(&next).unwrap());
            }
            prop_assert_eq!(shown, keys.into_iter().collect::<Vec<_>>());
        }
    }
}
