//! The query of a listing: which keys, of which shard, and at which read level.

use types::ShardId;

use super::query::{self, QueryError, parameters, percent_encode};
use crate::shard::{MAX_BYTES, MAX_LIMIT, ReadLevel, ScanRange};

/// The least that a page with values is counted as, in bytes.
const LEAST: usize = 1024 * 1024;
/// About what a long key takes without its value.
const MOST_LISTED: usize = 2 * 1024;

const PARAMETERS: [&str; 9] =
    ["prefix", "start", "end", "after", "limit", "values", "bytes", "consistency", "shard"];

/// A parsed query.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Only this shard.
    pub shard: Option<ShardId>,
    /// The read level.
    pub level: ReadLevel,
    /// Which keys.
    pub range: ScanRange,
}

impl ListQuery {
    /// Reads the query of a URI: `prefix=user/&limit=10`. A `+` is a plus.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let mut found = Self::default();
        let range = &mut found.range;
        for (name, value) in parameters(query, &PARAMETERS)? {
            let bytes = query::bytes(name, value)?;
            match name {
                "prefix" => range.prefix = bytes,
                "start" => range.start = bytes,
                "end" => range.end = Some(bytes).filter(|end| !end.is_empty()),
                "after" => range.after = Some(bytes).filter(|after| !after.is_empty()),
                "limit" => range.limit = number(name, value, MAX_LIMIT)?,
                "bytes" => range.bytes = number(name, value, MAX_BYTES)?,
                "values" => range.values = query::flag(name, value)?,
                "consistency" => found.level = value.parse()?,
                _ => found.shard = Some(query::shard(value)?),
            }
        }
        Ok(found)
    }

    /// The same query as it is written in a URI, for one shard and this many bytes.
    pub fn for_shard(&self, shard: ShardId, bytes: usize) -> String {
        let range = &self.range;
        let (limit, level) = (range.limit, self.level.as_str());
        let mut text = format!("shard={shard}&limit={limit}&consistency={level}");
        if bytes != MAX_BYTES {
            text.push_str(&format!("&bytes={bytes}"));
        }
        if range.values {
            text.push_str("&values=true");
        }
        let parts = [
            ("prefix", Some(&range.prefix)),
            ("start", Some(&range.start)),
            ("end", range.end.as_ref()),
            ("after", range.after.as_ref()),
        ];
        for (name, bytes) in parts {
            if let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) {
                text.push_str(&format!("&{name}={}", percent_encode(bytes)));
            }
        }
        text
    }

    /// About how much memory the answer takes. It may be more, since the last value of a page may have any length.
    pub fn cost(&self) -> usize {
        if self.range.values {
            self.range.bytes.max(LEAST)
        } else {
            self.range.limit.saturating_mul(MOST_LISTED).min(self.range.bytes)
        }
    }
}

fn number(name: &str, value: &str, most: usize) -> Result<usize, QueryError> {
    let number = value.parse::<u32>().ok().and_then(|number| usize::try_from(number).ok());
    let number = number.filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| QueryError::new(format!("`{name}` is a number from 1 to {most}, not `{value}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_means_what_it_says() {
        let text = "prefix=user/&start=user/a%20b&end=user%2Fz&limit=7&shard=3&after=&values=true&bytes=99";
        let query = ListQuery::parse(text).unwrap();
        let range = &query.range;
        assert_eq!((&range.prefix[..], &range.start[..]), (&b"user/"[..], &b"user/a b"[..]));
        assert_eq!((range.end.as_deref(), range.after.as_deref()), (Some(&b"user/z"[..]), None));
        assert_eq!((range.limit, query.shard), (7, ShardId::try_from(3).ok()));
        assert_eq!((range.values, range.bytes), (true, 99));
        assert_eq!(ListQuery::parse("").unwrap(), ListQuery::default());
        assert_eq!(ListQuery::parse("prefix=a+b").unwrap().range.prefix, b"a+b", "a plus is a plus");
        let one = ListQuery { shard: ShardId::try_from(1).ok(), ..query.clone() };
        assert_eq!(ListQuery::parse(&query.for_shard(ShardId::try_from(1).unwrap(), 99)).unwrap(), one);
    }

    #[test]
    fn a_mistake_is_reported_with_what_was_meant() {
        let error = |query| ListQuery::parse(query).unwrap_err();
        assert_eq!(error("prefx=a").hint.as_deref(), Some("did you mean `prefix`?"));
        assert!(error("nothing_like_it=1").hint.unwrap().contains("prefix, start"));
        for query in
            ["limit=0", "limit=10001", "limit=x", "shard=x", "prefix=%", "limit=1&limit=2", "shard=-1"]
        {
            error(query);
        }
        for query in ["values", "values=1", "values=yes", "bytes=0", "bytes=4194305", "consistency=weak"] {
            error(query);
        }
    }
}
