//! A document, and why one is refused.

pub(crate) mod compact;
pub(crate) mod id;
mod read;
mod vector;

pub(crate) use read::{Reading, Scalar, Sink, read, read_into};

/// The largest document, in bytes as it was sent. The log's records hold at most 16 MiB.
pub(crate) const MAX_DOCUMENT: usize = 8 * 1024 * 1024;
/// How many indexed fields a document may have.
pub(crate) const MAX_PATHS: usize = 1_000;
/// How many different fields that are not declared the documents of an index may have in a shard.
pub(crate) const MAX_DYNAMIC_PATHS: usize = 5_000;
/// How deep objects and lists may be nested.
pub(crate) const MAX_DEPTH: usize = 100;
/// The longest path of a field, in bytes.
pub(crate) const MAX_PATH: usize = 1_024;

/// A document with its numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Document<'a> {
    pub(crate) id: &'a str,
    pub(crate) seq: u64,
    pub(crate) term: u64,
    pub(crate) version: u64,
    /// The JSON object, in one line.
    pub(crate) source: &'a str,
}

/// Why a document is refused. Change the document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DocumentError {
    /// The text is no JSON, or has a number that no type holds.
    #[error("the document is no JSON: {0}")]
    Json(String),
    /// Only an object has fields.
    #[error("a document is a JSON object, found {found}")]
    NoObject { found: String },
    #[error("the document has {bytes} bytes, at most {MAX_DOCUMENT} are allowed")]
    TooLarge { bytes: usize },
    #[error("field `{}`: objects and lists are nested more than {MAX_DEPTH} deep", printable(.path))]
    TooDeep { path: String },
    #[error("field `{}`: the document has more than {MAX_PATHS} fields, counting those in objects", printable(.path))]
    TooManyFields { path: String },
    /// The documents of the index have too many different fields: declare them, or do not index them.
    #[error(
        "field `{}`: the document has {new} new fields that are not declared, and the index has {present} of them at this shard; \
         at most {MAX_DYNAMIC_PATHS} are allowed: declare fields, or copy the documents into an index with `dynamic: false`",
        printable(.path)
    )]
    TooManyPaths { path: String, new: usize, present: usize },
    /// A name is twice in one object, and readers differ in which of the values counts.
    #[error("field `{}` is twice in one object", printable(.path))]
    DuplicateKey { path: String },
    /// The name of a field that is not declared can't be indexed.
    #[error("field `{}`: {problem}", printable(.path))]
    FieldName { path: String, problem: String },
    /// The index takes declared fields only: declare the field, or leave it out.
    #[error("field `{}` is not declared, and the index takes declared fields only", printable(.path))]
    UnknownField {
        path: String,
        /// A declared field with a similar name.
        similar: Option<String>,
    },
    /// The value is not the vector that the field wants.
    #[error("field `{}`, a vector: {problem}", printable(.path))]
    Vector { path: String, problem: String },
    /// The value does not fit the field's type.
    #[error("field `{}`: {wanted} is wanted, found {found}", printable(.path))]
    Value { path: String, wanted: &'static str, found: String },
}

impl DocumentError {
    /// What to write instead.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownField { similar, .. } => {
                similar.as_ref().map(|similar| format!("did you mean `{similar}`?"))
            }
            _ => None,
        }
    }
}

/// A name or a value for a message: control characters become visible.
fn printable(text: &str) -> String {
    let visible = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    text.chars().map(visible).collect()
}

#[cfg(test)]
mod tests;
