//! What a path names, and which member may answer.
//!
//! Paths are parsed raw, by the same functions for the choice of a member and for the answer.

use http::Method;
use http::request::Parts;
use plugin::http::query::only_shard;
use plugin::http::{ListQuery, read_level};
use plugin::shard::{Key, KeyError, ReadLevel};
use types::Target;

use super::watch::Watch;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Key(Result<Key, KeyError>),
    Listing,
    Batch,
    Import,
    Watch,
    Nowhere,
}

/// What a path below `/svc/storage` names.
pub(crate) fn endpoint(path: &str) -> Endpoint {
    match path {
        "/batch" => return Endpoint::Batch,
        "/import" => return Endpoint::Import,
        "/watch" => return Endpoint::Watch,
        _ => {}
    }
    match path.strip_prefix("/kv") {
        Some("") => Endpoint::Listing,
        Some(rest) => {
            rest.strip_prefix('/').map_or(Endpoint::Nowhere, |key| Endpoint::Key(Key::from_path(key)))
        }
        None => Endpoint::Nowhere,
    }
}

/// Which member may answer. Any member may refuse a malformed request.
pub(crate) fn target(head: &Parts) -> Target {
    let query = head.uri.query().unwrap_or_default();
    match endpoint(head.uri.path()) {
        // The query of a write, a `ttl`, is checked by the owner.
        Endpoint::Key(Ok(key)) if is_read(&head.method) => match read_level(query) {
            Ok(ReadLevel::Any) => Target::KeyReplica(key.hash()),
            Ok(ReadLevel::Strong | ReadLevel::Primary) | Err(_) => Target::Key(key.hash()),
        },
        Endpoint::Key(Ok(key)) => Target::Key(key.hash()),
        Endpoint::Listing => match ListQuery::parse(query) {
            Ok(ListQuery { shard: Some(shard), level: ReadLevel::Any, .. }) => Target::ShardReplica(shard),
            Ok(ListQuery { shard: Some(shard), .. }) => Target::Shard(shard),
            _ => Target::Any,
        },
        Endpoint::Watch => Watch::shard_of(query).map_or(Target::Any, Target::Shard),
        Endpoint::Batch | Endpoint::Import => {
            only_shard(query).ok().flatten().map_or(Target::Any, Target::Shard)
        }
        Endpoint::Key(Err(_)) | Endpoint::Nowhere => Target::Any,
    }
}

/// Whether a method reads.
pub(crate) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use types::{KeyHash, ShardId};

    use super::*;

    fn of(method: Method, uri: &str) -> Target {
        target(&Request::builder().method(method).uri(uri).body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_query_of_a_write_does_not_choose_a_member() {
        let key = Target::Key(KeyHash::of(b"a"));
        for query in ["", "?ttl=30s", "?ttl=", "?consistency=any", "?consistency=weak", "?%"] {
            for method in [Method::PUT, Method::DELETE, Method::PATCH] {
                assert_eq!(of(method.clone(), &format!("/kv/a{query}")), key, "{method} {query}");
            }
        }
        assert_eq!(of(Method::HEAD, "/kv/a?consistency=any"), Target::KeyReplica(KeyHash::of(b"a")));
    }

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
            ("/kv/a?consistency=any", Target::KeyReplica(KeyHash::of(b"a"))),
            ("/kv/a?consistency=primary", Target::Key(KeyHash::of(b"a"))),
            ("/kv?consistency=any", Target::Any),
            ("/kv?shard=2&consistency=any", Target::ShardReplica(ShardId::try_from(2).unwrap())),
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
            assert_eq!(of(Method::GET, uri), expected, "{uri}");
        }
    }
}
