//! What a path of Elasticsearch's API names, and which member may answer. Pure.

use http::Method;
use http::request::Parts;
use plugin::http::query::percent_decode;
use types::Target;

use super::error::EsError;
use crate::http::DocumentId;

/// A path in its parts, decoded: `/books/_doc/7` is the index `books`, the API `_doc` and the rest `7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EsPath {
    /// An index, or an expression that names several.
    pub(crate) index: Option<String>,
    /// `_doc`, `_bulk`; empty for an index itself and for the root.
    pub(crate) api: String,
    pub(crate) rest: Vec<String>,
}

impl EsPath {
    pub(crate) fn parse(path: &str) -> Result<Self, EsError> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut parts = Vec::new();
        for part in path.split('/').filter(|_| !path.is_empty()) {
            let bytes = percent_decode(part).map_err(|error| EsError::illegal(error.to_string()))?;
            let part = String::from_utf8(bytes);
            parts.push(part.map_err(|_| EsError::illegal("the path is no UTF-8"))?);
        }
        let mut parts = parts.into_iter().peekable();
        let is_index = parts.peek().is_some_and(|first| !first.starts_with('_') || first == "_all");
        let index = if is_index { parts.next() } else { None };
        let api = parts.next().unwrap_or_default();
        Ok(Self { index, api, rest: parts.collect() })
    }

    /// The document that it names.
    fn document(&self) -> Option<DocumentId> {
        match (&self.index, self.api.as_str(), self.rest.as_slice()) {
            (Some(_), "_doc" | "_create" | "_update" | "_source", [id]) => DocumentId::new(id.as_str()).ok(),
            _ => None,
        }
    }

    /// Whether a request only reads, whatever its method.
    fn is_read(&self) -> bool {
        matches!(
            self.api.as_str(),
            "_search"
                | "_msearch"
                | "_count"
                | "_mget"
                | "_refresh"
                | "_flush"
                | "_forcemerge"
                | "_field_caps"
                | "_analyze"
                | "_pit"
                | "_validate"
        )
    }
}

/// Which member may answer: a document's owner, to save a step; any for everything else.
pub(crate) fn target(path: &str) -> Target {
    let document = EsPath::parse(path).ok().and_then(|path| path.document());
    document.map_or(Target::Any, |id| Target::Key(id.hash()))
}

/// Whether a request may be sent again although it may have been processed already.
pub(crate) fn may_repeat(method: &Method, path: &str) -> bool {
    method.is_safe() || EsPath::parse(path).is_ok_and(|path| path.is_read())
}

/// Refuses other methods.
pub(crate) fn allow(head: &Parts, allowed: &[Method]) -> Result<(), EsError> {
    if allowed.contains(&head.method) {
        return Ok(());
    }
    let (path, method) = (head.uri.path(), &head.method);
    let allowed: Vec<_> = allowed.iter().map(Method::as_str).collect();
    let allowed = allowed.join(", ");
    let reason =
        format!("Incorrect HTTP method for uri [{path}] and method [{method}], allowed: [{allowed}]");
    Err(EsError::new(405, "illegal_argument_exception", reason))
}

#[cfg(test)]
mod tests {
    use types::KeyHash;

    use super::*;

    fn path(index: Option<&str>, api: &str, rest: &[&str]) -> EsPath {
        let rest = rest.iter().map(|part| (*part).to_owned()).collect();
        EsPath { index: index.map(str::to_owned), api: api.to_owned(), rest }
    }

    #[test]
    fn a_path_is_taken_apart_and_decoded_once() {
        for (text, parsed) in [
            ("", path(None, "", &[])),
            ("/", path(None, "", &[])),
            ("/a", path(Some("a"), "", &[])),
            ("/a/", path(Some("a"), "", &[])),
            ("/_bulk", path(None, "_bulk", &[])),
            ("/a%2Cb/_search", path(Some("a,b"), "_search", &[])),
            ("/_all/_search", path(Some("_all"), "_search", &[])),
            ("/a/_doc/x%2Fy%2525+", path(Some("a"), "_doc", &["x/y%25+"])),
            ("/_cat/indices/a*", path(None, "_cat", &["indices", "a*"])),
        ] {
            assert_eq!(EsPath::parse(text), Ok(parsed), "{text}");
        }
        assert!(EsPath::parse("/%").is_err() && EsPath::parse("/%FF").is_err());
    }

    #[test]
    fn documents_go_to_their_owners() {
        assert_eq!(target("/a/_doc/x%2Fy"), Target::Key(KeyHash::of(b"x/y")));
        assert_eq!(target("/a/_update/1"), Target::Key(KeyHash::of(b"1")));
        for any in ["/a/_doc", "/_bulk", "/a/_doc/%", "/a/_doc/1/2", ""] {
            assert_eq!(target(any), Target::Any, "{any}");
        }
    }

    #[test]
    fn only_what_changes_nothing_may_be_sent_twice() {
        for (method, path, expected) in [
            (Method::GET, "/a/_doc/1", true),
            (Method::PUT, "/a/_doc/1", false),
            (Method::POST, "/a/_search", true),
            (Method::POST, "/_bulk", false),
            (Method::POST, "/a/_delete_by_query", false),
            (Method::POST, "/a/_refresh", true),
            (Method::PUT, "/a", false),
            (Method::DELETE, "/a", false),
        ] {
            assert_eq!(may_repeat(&method, path), expected, "{method} {path}");
        }
    }
}
