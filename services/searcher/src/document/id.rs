//! The id of a document.

use uuid::Uuid;

use crate::definition::Definition;

use super::{DocumentError, Reading, Scalar, printable, read};

/// The longest id, in bytes.
pub(crate) const MAX_ID: usize = 512;

/// Why a document has no id that can be used. Change the id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdError {
    #[error("the id is empty")]
    Empty,
    #[error("the id has {bytes} bytes, at most {MAX_ID} are allowed")]
    TooLong { bytes: usize },
    /// The request and the document differ.
    #[error(
        "the request says id `{}`, but field `{field}` of the document says `{}`",
        printable(.given), printable(.found)
    )]
    Differs { field: String, given: String, found: String },
    #[error("field `{field}` is the id of a document: a string or an integer is wanted, found {found}")]
    NoId { field: String, found: String },
    #[error(transparent)]
    Document(#[from] DocumentError),
}

/// The id of a document: the value of the field that the definition names, else the given one, else a new one.
pub(crate) fn document_id(
    definition: &Definition,
    source: &str,
    given: Option<&str>,
) -> Result<String, IdError> {
    let found = match &definition.id {
        Some(field) => own_id(field, source)?,
        None => None,
    };
    let too_long = [found.as_deref(), given].into_iter().flatten().find(|id| id.len() > MAX_ID);
    if let Some(id) = too_long {
        return Err(IdError::TooLong { bytes: id.len() });
    }
    let id = match (found, given, &definition.id) {
        (Some(found), Some(given), Some(field)) if found != given => {
            return Err(IdError::Differs { field: field.clone(), given: given.to_owned(), found });
        }
        (Some(found), _, _) => found,
        (None, Some(given), _) => given.to_owned(),
        (None, None, _) => Uuid::now_v7().to_string(),
    };
    if id.is_empty() { Err(IdError::Empty) } else { Ok(id) }
}

/// The id that a document has in a field.
fn own_id(field: &str, source: &str) -> Result<Option<String>, IdError> {
    let mut values = Vec::new();
    let mut is_object = false;
    read(source, Reading::Lenient, |path, scalar| {
        match path.strip_prefix(field) {
            Some("") => values.push(scalar),
            Some(rest) => is_object |= rest.starts_with('.'),
            None => {}
        }
        Ok(())
    })?;
    let no_id = |found: String| IdError::NoId { field: field.to_owned(), found };
    if is_object {
        return Err(no_id("an object".to_owned()));
    }
    let mut values = values.into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    if let Some(more) = values.next() {
        return Err(no_id(format!("more than one value, {value} and {more}")));
    }
    match value {
        Scalar::Text(text) => Ok(Some(text.into_owned())),
        Scalar::I64(number) => Ok(Some(number.to_string())),
        Scalar::U64(number) => Ok(Some(number.to_string())),
        value @ (Scalar::F64(_) | Scalar::Bool(_)) => Err(no_id(value.to_string())),
    }
}
