//! What is returned of a hit: its id, source, highlights and the explanation of its score.

use tantivy::query::{Query, Weight};
use tantivy::schema::{Field, Value};
use tantivy::{DocAddress, TantivyDocument};

use super::fusion::explain;
use super::highlight::Highlighter;
use super::order::SortedDoc;
use super::{Hit, SearchError, SearchRequest};
use crate::shard::Snapshot;

/// Reads the hits of one search.
pub(super) struct HitReader<'a> {
    snapshot: &'a Snapshot,
    request: &'a SearchRequest,
    highlighter: Option<Highlighter<'a>>,
    /// Explains with the statistics of all shards.
    explaining: Option<Box<dyn Weight>>,
}

impl<'a> HitReader<'a> {
    pub(super) fn new(
        snapshot: &'a Snapshot,
        request: &'a SearchRequest,
        scored: &dyn Query,
        explaining: Option<Box<dyn Weight>>,
    ) -> Self {
        let highlight = request.highlight.as_ref();
        let highlighter = highlight.map(|options| Highlighter::new(options, &snapshot.index.schema, scored));
        Self { snapshot, request, highlighter, explaining }
    }

    /// The term and version of a document, if they are wanted.
    fn numbers(&self, address: DocAddress) -> Result<Option<[u64; 2]>, SearchError> {
        if !self.request.dsl.as_ref().is_some_and(|dsl| dsl.has_numbers) {
            return Ok(None);
        }
        let schema = &self.snapshot.index.schema;
        let columns = self.snapshot.searcher.segment_reader(address.segment_ord).fast_fields();
        let number = |field: Field| -> Result<u64, SearchError> {
            let column = columns.u64(schema.schema.get_field_name(field))?;
            Ok(column.first(address.doc_id).unwrap_or_default())
        };
        Ok(Some([number(schema.term)?, number(schema.version)?]))
    }

    pub(super) fn read(&mut self, hit: SortedDoc) -> Result<Hit, SearchError> {
        let schema = &self.snapshot.index.schema;
        let document: TantivyDocument = self.snapshot.searcher.doc(hit.address)?;
        let text = |field: Field| document.get_first(field).and_then(|value| value.as_str());
        let missing = || SearchError::Damaged("a stored document has no id or source".to_owned());
        let (id, source) = (text(schema.id).ok_or_else(missing)?, text(schema.source).ok_or_else(missing)?);
        let highlight = self.highlighter.as_mut().map(|highlighter| highlighter.highlight(source));
        let explanation = match &self.explaining {
            Some(weight) => Some(explain(weight.as_ref(), &self.snapshot.searcher, hit.address)?),
            None => None,
        };
        Ok(Hit {
            id: id.to_owned(),
            score: self.request.has_score().then_some(hit.score),
            cursor: hit.cursor,
            source: self.request.source.apply(source)?,
            highlight: highlight.filter(|fields| !fields.is_empty()),
            explanation,
            numbers: self.numbers(hit.address)?,
        })
    }
}
