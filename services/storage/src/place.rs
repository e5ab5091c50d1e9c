//! What a path names, and which member may answer.
//!
//! Paths are read raw, by the same functions for the choice of a member and for the answer.

use http::Uri;
use types::Target;

use crate::consistency::Consistency;
use crate::key::{Key, KeyError};
use crate::page::Query;
use crate::parameters::only_shard;
use crate::watch::Watch;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Key(Result<Key, KeyError>),
    Listing,
    Batch,
    Import,
    Watch,
    Nowhere,
}

/// What a path below `/svc/storage` names.
pub(crate) fn place(path: &str) -> Place {
    match path {
        "/batch" => return Place::Batch,
        "/import" => return Place::Import,
        "/watch" => return Place::Watch,
        _ => {}
    }
    match path.strip_prefix("/kv") {
        Some("") => Place::Listing,
        Some(rest) => rest.strip_prefix('/').map_or(Place::Nowhere, |key| Place::Key(Key::from_path(key))),
        None => Place::Nowhere,
    }
}

/// Which member may answer. What is malformed anyone may refuse.
pub(crate) fn target(uri: &Uri) -> Target {
    match place(uri.path()) {
        Place::Key(Ok(key)) => match Consistency::of_query(uri.query().unwrap_or_default()) {
            Ok(Consistency::Any) => Target::Copy(key.hash()),
            _ => Target::Key(key.hash()),
        },
        Place::Listing => match Query::parse(uri.query().unwrap_or_default()) {
            Ok(Query { shard: Some(shard), consistency: Consistency::Any, .. }) => Target::CopyOf(shard),
            Ok(Query { shard: Some(shard), .. }) => Target::Shard(shard),
            _ => Target::Any,
        },
        Place::Watch => Watch::shard_of(uri).map_or(Target::Any, Target::Shard),
        Place::Batch | Place::Import => {
            only_shard(uri.query().unwrap_or_default()).ok().flatten().map_or(Target::Any, Target::Shard)
        }
        Place::Key(Err(_)) | Place::Nowhere => Target::Any,
    }
}

#[cfg(test)]
mod tests {
    use types::{KeyHash, ShardId};

    use super::*;

    #[test]
    fn the_choice_of_a_shard_decodes_as_the_handler_does() {
        for (uri, expected) in [
            ("/kv/a", Target::Key(KeyHash::of(b"a"))),
            ("/kv/a%2Fb+c", Target::Key(KeyHash::of(b"a/b+c"))),
            ("/kv/%2525?x=1", Target::Key(KeyHash::of(b"%25"))),
            ("/kv//", Target::Key(KeyHash::of(b"/"))),
            ("/kv/a/../b", Target::Key(KeyHash::of(b"a/../b"))),
            ("/kv/%FF", Target::Key(KeyHash::of(&[255]))),
            ("/kv/%", Target::Any),
            ("/kv/", Target::Any),
            ("/kv", Target::Any),
            ("/kv?shard=2&limit=3", Target::Shard(ShardId::try_from(2).unwrap())),
            ("/kv?shard=x", Target::Any),
            ("/kv/a?consistency=any", Target::Copy(KeyHash::of(b"a"))),
            ("/kv/a?consistency=primary", Target::Key(KeyHash::of(b"a"))),
            ("/kv?consistency=any", Target::Any),
            ("/kv?shard=2&consistency=any", Target::CopyOf(ShardId::try_from(2).unwrap())),
            ("/watch", Target::Any),
            ("/watch?prefix=a&from=0:1.0", Target::Any),
            ("/watch?shard=2&from=2:1.0", Target::Shard(ShardId::try_from(2).unwrap())),
            ("/watch?shard=x", Target::Any),
            ("/kvs/a", Target::Any),
            ("/kv/x%7Ba%7Dy", Target::Key(KeyHash::of(b"a"))),
            ("/batch", Target::Any),
            ("/batch?shard=2", Target::Shard(ShardId::try_from(2).unwrap())),
            ("/import", Target::Any),
            ("/import?shard=2", Target::Shard(ShardId::try_from(2).unwrap())),
            ("/import?shard=x", Target::Any),
            ("/import/", Target::Any),
            ("/", Target::Any),
        ] {
            assert_eq!(target(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
