//! What a path names, and which member may answer.
//!
//! Paths are parsed raw, by the same functions for the choice of a member and for the answer.

use std::fmt;

use http::Method;
use http::request::Parts;
use plugin::http::query::{EncodingError, percent_decode, percent_encode};
use plugin::http::read_level;
use plugin::shard::ReadLevel;
use types::{KeyHash, ShardId, Target};

use super::inner::{InnerQuery, Verb};
use crate::catalog::{NameError, check_name};
use crate::es;

/// The longest id, in bytes.
const MAX_ID: usize = 512;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// The list of indexes.
    Indexes,
    Index {
        name: Result<String, NameError>,
        what: OfIndex,
    },
    /// A request of one member to another one that has the shard.
    Shard(ShardId, Verb),
    /// A request of one member to another one: to read the catalog.
    Catalog,
    /// All aliases.
    Aliases,
    /// All templates.
    Templates,
    Template(Result<String, NameError>),
    /// Elasticsearch's API: the path below `/es`.
    Elasticsearch(String),
    Nowhere,
}

/// What of an index a path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OfIndex {
    Itself,
    Documents,
    Document(Result<DocumentId, IdError>),
    Delete,
    Reindex,
    Search,
    Suggest,
    Refresh,
    Compact,
    /// Its aliases.
    Aliases,
    Alias(Result<String, NameError>),
}

/// The id of a document: 1 to 512 bytes of UTF-8, any characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DocumentId(String);

/// Why a text is not an id. Choose another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdError {
    #[error("the id is empty")]
    Empty,
    #[error("the id has {0} bytes; at most {MAX_ID} are allowed")]
    TooLong(usize),
    #[error("the id is no UTF-8")]
    Encoding,
    #[error(transparent)]
    Percent(#[from] EncodingError),
}

impl DocumentId {
    pub(crate) fn new(id: impl Into<String>) -> Result<Self, IdError> {
        let id = id.into();
        match id.len() {
            0 => Err(IdError::Empty),
            long if long > MAX_ID => Err(IdError::TooLong(long)),
            _ => Ok(Self(id)),
        }
    }

    /// The id that a part of a path names: decoded once; `/` and `+` stand for themselves.
    fn from_path(encoded: &str) -> Result<Self, IdError> {
        let bytes = percent_decode(encoded)?;
        if bytes.len() > MAX_ID {
            return Err(IdError::TooLong(bytes.len()));
        }
        Self::new(String::from_utf8(bytes).map_err(|_| IdError::Encoding)?)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash that decides its shard.
    pub(crate) fn hash(&self) -> KeyHash {
        KeyHash::of(self.0.as_bytes())
    }
}

/// As in paths.
impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&percent_encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DocumentId({self})")
    }
}

/// What a path below `/svc/{service}` names.
pub(crate) fn endpoint(path: &str) -> Endpoint {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() {
        return Endpoint::Indexes;
    }
    if let Some(rest) = path.strip_prefix("es").filter(|rest| rest.is_empty() || rest.starts_with('/')) {
        return Endpoint::Elasticsearch(rest.to_owned());
    }
    match path {
        "_catalog" => return Endpoint::Catalog,
        "_aliases" => return Endpoint::Aliases,
        "_templates" => return Endpoint::Templates,
        _ => {}
    }
    if let Some(name) = path.strip_prefix("_templates/") {
        return Endpoint::Template(index_name(name));
    }
    if let Some(rest) = path.strip_prefix("_shard/") {
        let parsed = rest.split_once('/').and_then(|(shard, verb)| {
            let shard = ShardId::try_from(shard.parse::<u32>().ok()?).ok()?;
            Some(Endpoint::Shard(shard, Verb::of(verb)?))
        });
        return parsed.unwrap_or(Endpoint::Nowhere);
    }
    let (name, rest) = path.split_once('/').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let what = match rest {
        None => OfIndex::Itself,
        Some("docs") => OfIndex::Documents,
        Some("delete") => OfIndex::Delete,
        Some("reindex") => OfIndex::Reindex,
        Some("search") => OfIndex::Search,
        Some("suggest") => OfIndex::Suggest,
        Some("refresh") => OfIndex::Refresh,
        Some("compact") => OfIndex::Compact,
        Some("aliases") => OfIndex::Aliases,
        Some(rest) => match (rest.strip_prefix("docs/"), rest.strip_prefix("aliases/")) {
            (Some(id), _) => OfIndex::Document(DocumentId::from_path(id)),
            (_, Some(alias)) => OfIndex::Alias(index_name(alias)),
            (None, None) => return Endpoint::Nowhere,
        },
    };
    let name = if what == OfIndex::Search { expression(name) } else { index_name(name) };
    Endpoint::Index { name, what }
}

/// What a search may have instead of the name of an index: a list of names, patterns and exclusions.
fn expression(encoded: &str) -> Result<String, NameError> {
    let bytes = percent_decode(encoded).map_err(|_| NameError::Encoding)?;
    let expression = String::from_utf8(bytes).map_err(|_| NameError::Encoding)?;
    for (number, part) in expression.split(',').enumerate() {
        let part = part.strip_prefix('-').filter(|_| number > 0).unwrap_or(part);
        // A star may stand for any letters, so one of them shows whether the rest can be in a name.
        check_name(&part.replace('*', "x"))?;
    }
    Ok(expression)
}

fn index_name(encoded: &str) -> Result<String, NameError> {
    let bytes = percent_decode(encoded).map_err(|_| NameError::Encoding)?;
    let name = String::from_utf8(bytes).map_err(|_| NameError::Encoding)?;
    check_name(&name)?;
    Ok(name)
}

/// Which member may answer. Any member may refuse a malformed request.
pub(crate) fn target(head: &Parts) -> Target {
    let query = head.uri.query().unwrap_or_default();
    match endpoint(head.uri.path()) {
        Endpoint::Index { name: Ok(_), what: OfIndex::Document(Ok(id)) } => {
            let is_any = is_read(&head.method) && read_level(query) == Ok(ReadLevel::Any);
            if is_any { Target::KeyReplica(id.hash()) } else { Target::Key(id.hash()) }
        }
        Endpoint::Shard(shard, verb) => {
            let is_any = InnerQuery::parse(query).is_ok_and(|query| query.level == ReadLevel::Any);
            verb.target(shard, if is_any { ReadLevel::Any } else { ReadLevel::Primary })
        }
        Endpoint::Elasticsearch(path) => es::target(&path),
        Endpoint::Indexes
        | Endpoint::Index { .. }
        | Endpoint::Catalog
        | Endpoint::Aliases
        | Endpoint::Templates
        | Endpoint::Template(_)
        | Endpoint::Nowhere => Target::Any,
    }
}

/// Whether a request may be sent again although it may have been processed already: it changes no document and no index.
///
/// A repeated write could undo what others wrote in between, even a `PUT`.
pub(crate) fn may_repeat(head: &Parts) -> bool {
    if head.method.is_safe() {
        return true;
    }
    match endpoint(head.uri.path()) {
        Endpoint::Index { what, .. } => match what {
            // A copy never replaces what is newer.
            OfIndex::Search | OfIndex::Suggest | OfIndex::Refresh | OfIndex::Compact | OfIndex::Reindex => {
                true
            }
            OfIndex::Itself
            | OfIndex::Documents
            | OfIndex::Document(_)
            | OfIndex::Delete
            | OfIndex::Aliases
            | OfIndex::Alias(_) => false,
        },
        Endpoint::Shard(_, verb) => verb.may_repeat(),
        Endpoint::Elasticsearch(path) => es::may_repeat(&head.method, &path),
        Endpoint::Aliases | Endpoint::Templates | Endpoint::Template(_) => false,
        Endpoint::Indexes | Endpoint::Catalog | Endpoint::Nowhere => true,
    }
}

/// Whether a method reads.
pub(crate) fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(method: &Method, uri: &str) -> Parts {
        Request::builder().method(method).uri(uri).body(()).unwrap().into_parts().0
    }

    fn document(id: &str) -> OfIndex {
        OfIndex::Document(Ok(DocumentId::new(id).unwrap()))
    }

    #[test]
    fn each_path_names_one_thing() {
        let of = |name: &str, what| Endpoint::Index { name: Ok(name.to_owned()), what };
        for (path, expected) in [
            ("", Endpoint::Indexes),
            ("/", Endpoint::Indexes),
            ("/a", of("a", OfIndex::Itself)),
            ("/gr%C3%B6%C3%9Fe", of("größe", OfIndex::Itself)),
            ("/a/docs", of("a", OfIndex::Documents)),
            ("/a/docs/1", of("a", document("1"))),
            ("/docs/docs/docs", of("docs", document("docs"))),
            ("/a/docs/b/../c%2Fd+e", of("a", document("b/../c/d+e"))),
            ("/a/docs/%2525%23%3F", of("a", document("%25#?"))),
            ("/a/docs//", of("a", document("/"))),
            ("/a/docs/%00%0A", of("a", document("\0\n"))),
            ("/a/docs/search", of("a", document("search"))),
            ("/a/delete", of("a", OfIndex::Delete)),
            ("/a/reindex", of("a", OfIndex::Reindex)),
            ("/a/search", of("a", OfIndex::Search)),
            ("/a/suggest", of("a", OfIndex::Suggest)),
            ("/a/refresh", of("a", OfIndex::Refresh)),
            ("/a/compact", of("a", OfIndex::Compact)),
            ("/a/docs/", of("a", OfIndex::Document(Err(IdError::Empty)))),
            ("/a/docs/%FF", of("a", OfIndex::Document(Err(IdError::Encoding)))),
            ("/a/docs/%", of("a", OfIndex::Document(Err(EncodingError { at: 0 }.into())))),
            ("/a/", Endpoint::Nowhere),
            ("/a/nothing", Endpoint::Nowhere),
            ("/a/search/", Endpoint::Nowhere),
            ("/_shard/3/write", Endpoint::Shard(3.try_into().unwrap(), Verb::Write)),
            ("/_shard/x/write", Endpoint::Nowhere),
            ("/_shard/3/nothing", Endpoint::Nowhere),
            ("/_catalog", Endpoint::Catalog),
            ("/_aliases", Endpoint::Aliases),
            ("/_templates", Endpoint::Templates),
            ("/_templates/logs", Endpoint::Template(Ok("logs".to_owned()))),
            ("/a/aliases", of("a", OfIndex::Aliases)),
            ("/a/aliases/b", of("a", OfIndex::Alias(Ok("b".to_owned())))),
            ("/a/aliases/B", of("a", OfIndex::Alias(Err(NameError::UpperCase('B'))))),
            ("/a,b*,-c/search", of("a,b*,-c", OfIndex::Search)),
            ("/*/search", of("*", OfIndex::Search)),
            ("/es", Endpoint::Elasticsearch(String::new())),
            ("/es/a/_doc/1", Endpoint::Elasticsearch("/a/_doc/1".to_owned())),
            ("/est", of("est", OfIndex::Itself)),
        ] {
            assert_eq!(endpoint(path), expected, "{path}");
        }
    }

    #[test]
    fn the_length_of_an_id_counts_after_it_was_decoded() {
        let of = |id: &str| match endpoint(&format!("/a/docs/{id}")) {
            Endpoint::Index { what: OfIndex::Document(id), .. } => id.map(|_| ()),
            other => panic!("{other:?}"),
        };
        assert_eq!(of(&"a".repeat(512)), Ok(()));
        assert_eq!(of(&"%61".repeat(512)), Ok(()));
        assert_eq!(of(&"a".repeat(513)), Err(IdError::TooLong(513)));
        assert_eq!(of(&"a".repeat(600)), Err(IdError::TooLong(600)));
        assert_eq!(of(&"%C3%BC".repeat(257)), Err(IdError::TooLong(514)));
    }

    #[test]
    fn bad_names_of_indexes_are_refused_by_any_member() {
        for (path, error) in [
            ("/..", NameError::Dots("..".to_owned())),
            ("/.", NameError::Dots(".".to_owned())),
            ("/..%2Fx", NameError::Character('/')),
            ("/Packages/search", NameError::UpperCase('P')),
            ("//search", NameError::Empty),
            ("/_nothing", NameError::Beginning('_')),
            ("/%FF", NameError::Encoding),
            ("/%/docs/1", NameError::Encoding),
            ("/a,b/docs", NameError::Character(',')),
            ("/-a,b/search", NameError::Beginning('-')),
            ("/a,,b/search", NameError::Empty),
            ("/*B/search", NameError::UpperCase('B')),
        ] {
            match endpoint(path) {
                Endpoint::Index { name, .. } => assert_eq!(name, Err(error), "{path}"),
                other => panic!("{path}: {other:?}"),
            }
            assert_eq!(target(&head(&Method::GET, path)), Target::Any, "{path}");
        }
    }

    #[test]
    fn the_choice_of_a_shard_decodes_as_the_handler_does() {
        let key = |id: &str| Target::Key(KeyHash::of(id.as_bytes()));
        let shard = ShardId::try_from(2).unwrap();
        for (method, uri, expected) in [
            (Method::GET, "/a/docs/x%2Fy+z", key("x/y+z")),
            (Method::PUT, "/a/docs/x%2Fy+z?refresh=true", key("x/y+z")),
            (Method::PUT, "/a/docs/x?consistency=any", key("x")),
            (Method::GET, "/a/docs/%7Ba%7Db", key("{a}b")),
            (Method::GET, "/a/docs/x?consistency=any", Target::KeyReplica(KeyHash::of(b"x"))),
            (Method::HEAD, "/a/docs/x?consistency=any", Target::KeyReplica(KeyHash::of(b"x"))),
            (Method::GET, "/a/docs/x?consistency=weak", key("x")),
            (Method::GET, "/a/docs/%", Target::Any),
            (Method::GET, "/a/search?consistency=any", Target::Any),
            (Method::POST, "/a/docs", Target::Any),
            (Method::POST, "/_shard/2/write", Target::Shard(shard)),
            (Method::POST, "/_shard/2/write?consistency=any", Target::Shard(shard)),
            (Method::POST, "/_shard/2/execute?consistency=any", Target::ShardReplica(shard)),
            (Method::POST, "/_shard/2/execute?consistency=strong", Target::Shard(shard)),
        ] {
            assert_eq!(target(&head(&method, uri)), expected, "{method} {uri}");
        }
    }

    #[test]
    fn only_what_changes_nothing_may_be_sent_twice() {
        for (method, uri, expected) in [
            (Method::GET, "/a/docs/x", true),
            (Method::PUT, "/a/docs/x", false),
            (Method::PATCH, "/a/docs/x", false),
            (Method::DELETE, "/a/docs/x", false),
            (Method::PUT, "/a", false),
            (Method::DELETE, "/a", false),
            (Method::POST, "/a/docs", false),
            (Method::POST, "/a/delete", false),
            (Method::POST, "/a/search", true),
            (Method::POST, "/a/reindex", true),
            (Method::POST, "/a/refresh", true),
            (Method::POST, "/a/compact", true),
            (Method::POST, "/_shard/0/write", false),
            (Method::POST, "/_shard/0/delete", false),
            (Method::POST, "/_shard/0/reindex", true),
            (Method::POST, "/_shard/0/prepare", true),
            (Method::POST, "/_shard/0/execute", true),
            (Method::POST, "/_catalog?number=3", true),
            (Method::POST, "/_aliases", false),
            (Method::PUT, "/_templates/a", false),
            (Method::PUT, "/a/aliases/b", false),
        ] {
            assert_eq!(may_repeat(&head(&method, uri)), expected, "{method} {uri}");
        }
    }
}
