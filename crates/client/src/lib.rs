//! A typed client of the agents' HTTP API.
//!
//! Control calls connect within one second, end within a limit, follow no redirects, and use no proxy, so that a
//! loopback address is reached even where a proxy is configured. An API error is returned as the problem that the agent
//! sent.

mod backends;
mod call;
mod error;
mod events;
mod frames;
mod gateway;
mod index;
mod kv;
mod kv_dot;
mod kv_watch;
mod search;

pub use call::{Client, IfMatch, Leaving, plain_http};
pub use error::ClientError;
pub use gateway::{
    PassedRoute, Route, RouteAnswer, RouteBackend, RouteEdits, RouteLimits, RouteRedirect, RouteRefusal,
    RouteRetry, RouteRewrite, RouteTarget, RouteTest, Routes,
};
pub use index::{Created, Imported, IndexSummary, RefusedCopy, RefusedLine, Reindex, Reindexed};
pub use kv::{KeyCondition, KeyPage, KeyQuery, ListedKey, PutKey, Stored};
pub use kv_watch::{KvChange, KvChangeKind, KvChanged, KvWatch, KvWatchQuery};
pub use search::{FacetValue, FailedShard, Highlight, Hit, Search, SearchAnswer, SearchedShards};
