//! Requests of one member to another one that has a shard: `/_shard/{n}/{verb}?index=&name=&catalog=`.
//!
//! They name an index by its uuid, with its name for messages, and the number of the catalog's record in which the sender
//! found it. A member that knows only earlier records reads the store first.

use std::fmt::Write;
use std::time::Duration;

use plugin::http::query::{QueryError, parameters, percent_decode, percent_encode};
use plugin::shard::ReadLevel;
use types::{ShardId, Target};
use uuid::Uuid;

use super::parameter;
use crate::catalog::{Index, Indexes};
use crate::shard::Refresh;

/// What a member is asked to do with its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Write documents.
    Write,
    /// Delete what a search finds.
    Delete,
    /// Copy documents into another index.
    Reindex,
    /// Read documents by their ids.
    Get,
    /// The first round of a search.
    Prepare,
    /// The second round of a search.
    Execute,
    Suggest,
    Refresh,
    Compact,
    /// How many documents an index has.
    State,
    /// How many documents each index has.
    States,
}

impl Verb {
    const ALL: [(&'static str, Self); 11] = [
        ("write", Self::Write),
        ("delete", Self::Delete),
        ("reindex", Self::Reindex),
        ("get", Self::Get),
        ("prepare", Self::Prepare),
        ("execute", Self::Execute),
        ("suggest", Self::Suggest),
        ("refresh", Self::Refresh),
        ("compact", Self::Compact),
        ("state", Self::State),
        ("states", Self::States),
    ];

    pub(crate) fn of(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, verb)| *verb)
    }

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, verb)| *verb == self).map_or("", |(name, _)| name)
    }

    fn is_read(self) -> bool {
        match self {
            Self::Get | Self::Prepare | Self::Execute | Self::Suggest | Self::State | Self::States => true,
            Self::Write | Self::Delete | Self::Reindex | Self::Refresh | Self::Compact => false,
        }
    }

    /// How much longer than its time limit the answer may take: what ends at the limit reports it. A first round has none, so
    /// that time is left for the second one.
    pub(crate) fn grace(self) -> Duration {
        match self {
            Self::Prepare => Duration::ZERO,
            Self::Write
            | Self::Delete
            | Self::Reindex
            | Self::Get
            | Self::Execute
            | Self::Suggest
            | Self::Refresh
            | Self::Compact
            | Self::State
            | Self::States => Duration::from_millis(1_500),
        }
    }

    pub(crate) fn may_repeat(self) -> bool {
        !matches!(self, Self::Write | Self::Delete)
    }

    /// Which members may answer it.
    pub(crate) fn target(self, shard: ShardId, level: ReadLevel) -> Target {
        match level {
            ReadLevel::Any if self.is_read() => Target::ShardReplica(shard),
            ReadLevel::Any | ReadLevel::Primary | ReadLevel::Strong => Target::Shard(shard),
        }
    }

    /// The path and the query of a request.
    pub(crate) fn uri(self, shard: ShardId, query: &InnerQuery) -> String {
        let mut uri = format!("/_shard/{shard}/{}?", self.as_str());
        let InnerQuery { index, name, catalog, level, refresh, timeout, seen_by } = query;
        let (ms, name) = (timeout.as_millis(), percent_encode(name.as_bytes()));
        let (level, refresh) = (level.as_str(), parameter::refresh_text(*refresh));
        write!(uri, "index={index}&name={name}&catalog={catalog}&consistency={level}&refresh={refresh}")
            .expect("a string takes any text");
        write!(uri, "&timeout_ms={ms}").expect("a string takes any text");
        if let Some(epoch) = seen_by {
            write!(uri, "&seen_by={epoch}").expect("a string takes any text");
        }
        uri
    }
}

/// The query of a request to a member with a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InnerQuery {
    pub(crate) index: Uuid,
    pub(crate) name: String,
    /// The number of the catalog's record in which the sender found the index.
    pub(crate) catalog: u64,
    pub(crate) level: ReadLevel,
    pub(crate) refresh: Refresh,
    /// How long the answer may take.
    pub(crate) timeout: Duration,
    /// The epoch of the owner that has answered the first round of this search.
    pub(crate) seen_by: Option<u64>,
}

impl Default for InnerQuery {
    fn default() -> Self {
        Self {
            index: Uuid::nil(),
            name: String::new(),
            catalog: 0,
            level: ReadLevel::Primary,
            refresh: Refresh::Durable,
            timeout: Duration::from_secs(10),
            seen_by: None,
        }
    }
}

impl InnerQuery {
    /// The query of a request that writes no documents.
    pub(crate) fn read(indexes: &Indexes, index: &Index, level: ReadLevel, timeout: Duration) -> Self {
        let (index, name) = (index.uuid, index.name.clone());
        Self { index, name, level, ..Self::of_all(indexes, timeout) }
    }

    /// The query of a request that concerns all indexes.
    pub(crate) fn of_all(indexes: &Indexes, timeout: Duration) -> Self {
        Self { catalog: indexes.number, timeout, ..Self::default() }
    }

    pub(crate) fn parse(query: &str) -> Result<Self, QueryError> {
        let mut parsed = Self::default();
        let known = ["index", "name", "catalog", "consistency", "refresh", "timeout_ms", "seen_by"];
        for (name, text) in parameters(query, &known)? {
            match name {
                "index" => {
                    let wrong = |_| QueryError::new(format!("`index` is a uuid, not `{text}`"));
                    parsed.index = text.parse().map_err(wrong)?;
                }
                "name" => {
                    let name = percent_decode(text).map_err(|error| QueryError::new(error.to_string()))?;
                    parsed.name = String::from_utf8_lossy(&name).into_owned();
                }
                "seen_by" => parsed.seen_by = Some(parameter::number(name, text)?),
                "catalog" => parsed.catalog = parameter::number(name, text)?,
                "consistency" => parsed.level = text.parse()?,
                "refresh" => parsed.refresh = parameter::refresh(text)?,
                _ => parsed.timeout = Duration::from_millis(parameter::number(name, text)?),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_parsed_as_it_was_written() {
        let query = InnerQuery {
            index: Uuid::from_u128(7),
            name: "größe&a=b%".to_owned(),
            catalog: 12,
            level: ReadLevel::Strong,
            refresh: Refresh::Wait,
            timeout: Duration::from_millis(1_500),
            seen_by: Some(3),
        };
        for (name, verb) in Verb::ALL {
            let uri = verb.uri(3.try_into().unwrap(), &query);
            let (path, text) = uri.split_once('?').unwrap();
            assert_eq!(path, format!("/_shard/3/{name}"));
            assert_eq!(InnerQuery::parse(text), Ok(query.clone()));
            assert_eq!(Verb::of(name), Some(verb));
        }
        for wrong in ["index=x", "catalog=-1", "catalog=1&catalog=1", "refresh=maybe", "level=any"] {
            assert!(InnerQuery::parse(wrong).is_err(), "{wrong}");
        }
    }
}
