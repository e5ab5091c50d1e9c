//! Finds documents by id in an index.

use serde_json::value::RawValue;
use tantivy::schema::{IndexRecordOption, TantivyDocument, Value};
use tantivy::{DocAddress, DocSet, Searcher, TERMINATED};

use super::FoundDocument;
use crate::schema::IndexSchema;

/// What an index can't do with its own files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("a local index can't be read: {0}")]
    Tantivy(#[from] tantivy::TantivyError),
    #[error("a stored document is not what was written: {0}")]
    Damaged(String),
}

/// Where a document is, and its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) seq: u64,
    pub(crate) term: u64,
    pub(crate) version: u64,
    address: DocAddress,
}

/// The document of an id.
pub(crate) fn locate(
    searcher: &Searcher,
    schema: &IndexSchema,
    id: &str,
) -> Result<Option<Located>, LookupError> {
    let id = schema.id_term(id);
    let mut latest: Option<Located> = None;
    for (ord, segment) in (0..).zip(searcher.segment_readers()) {
        let inverted = segment.inverted_index(schema.id)?;
        let postings = inverted.read_postings(&id, IndexRecordOption::Basic);
        let Some(mut postings) = postings.map_err(tantivy::TantivyError::from)? else { continue };
        while postings.doc() != TERMINATED {
            let doc = postings.doc();
            if !segment.is_deleted(doc) {
                let number = |field: tantivy::schema::Field| -> Result<u64, LookupError> {
                    let name = schema.schema.get_field_name(field);
                    let value = segment.fast_fields().u64(name)?.first(doc);
                    value.ok_or_else(|| LookupError::Damaged(format!("it has no `{name}`")))
                };
                let found = Located {
                    seq: number(schema.seq)?,
                    term: number(schema.term)?,
                    version: number(schema.version)?,
                    address: DocAddress::new(ord, doc),
                };
                if latest.is_none_or(|latest| latest.seq < found.seq) {
                    latest = Some(found);
                }
            }
            postings.advance();
        }
    }
    Ok(latest)
}

/// The source of a document that was located with the same searcher.
pub(crate) fn source(
    searcher: &Searcher,
    schema: &IndexSchema,
    located: &Located,
) -> Result<Box<RawValue>, LookupError> {
    let document: TantivyDocument = searcher.doc(located.address)?;
    let value = document.get_first(schema.source);
    let text = value.as_ref().and_then(Value::as_str);
    let text = text.ok_or_else(|| LookupError::Damaged("it has no source".to_owned()))?;
    RawValue::from_string(text.to_owned()).map_err(|error| LookupError::Damaged(error.to_string()))
}

/// The document of an id, with its source.
pub(crate) fn find(
    searcher: &Searcher,
    schema: &IndexSchema,
    id: &str,
) -> Result<Option<FoundDocument>, LookupError> {
    let Some(located) = locate(searcher, schema, id)? else { return Ok(None) };
    let Located { seq, term, version, .. } = located;
    Ok(Some(FoundDocument { seq, term, version, source: source(searcher, schema, &located)? }))
}
