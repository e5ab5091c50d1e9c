//! Searches as Elasticsearch's clients ask for them: `_search`, `_msearch`, `_count`, scrolls and points in time.
//!
//! A scroll and a point in time keep nothing at any member: their ids hold the request and the last hit's place in the
//! order. So every document that does not change meanwhile is seen once, and one that changes may be seen twice or not at
//! all. A scroll without `sort` goes in the order of writes, since scores change with the documents of an index.

mod aggregations;
mod answer;
mod highlight;
mod knn;
mod members;
mod multi;
mod request;
mod routes;
mod run;
mod sort;
mod token;

#[cfg(test)]
mod tests;

pub(crate) use self::routes::is_search;
pub(crate) use self::run::{millis, now};
