//! The Tantivy schema of an index, and where in it a field is.
//!
//! | Tantivy field | holds |
//! |---|---|
//! | `_id`, `_seq`, `_term`, `_version`, `_source` | the document's id, its numbers, and its JSON text |
//! | `_values` | JSON: keywords, numbers, booleans, dates and addresses by path, as terms and as columns; dynamic strings, too |
//! | `_text_{analyzer}` | JSON: the text of fields that are dynamic or were declared after the index was created |
//! | `_all` | all dynamic text in one field, for queries without a field name: JSON fields are searched by path only |
//! | `_fields` | the paths of all values that the document has, for `field:*` |
//! | `_vectors` | vectors, for the [plugin](crate::vectors) that keeps them: Tantivy itself neither indexes nor stores them |
//! | `text.{path}` | a text field that was declared when the index was created |
//!
//! There is a `_text_{analyzer}` for every analyzer, for a field that is declared later may have any. An empty one costs a
//! segment nothing: Tantivy 0.27 writes only fields that have terms. These fields have positions, but no length normalization,
//! which Tantivy does not do by path.

pub(crate) mod addresses;
mod analysis;
mod convert;
mod dates;
mod places;
pub(crate) mod query_text;
mod ranges;
mod synonyms;

use std::collections::BTreeMap;
use std::sync::Arc;

use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, JsonObjectOptions, STORED, Schema, TextFieldIndexing,
    TextOptions,
};
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{Directory, IndexSettings, TantivyDocument, Term};

use crate::definition::{Analyzer, Definition, FieldDefinition};
use crate::document::{Document, DocumentError, Reading};
use analysis::Side;
use synonyms::Synonyms;

use crate::vectors;

/// The size of a block of stored documents, in bytes. Each hit costs the decompression of a block, which is most of the work of a
/// search for a word; Tantivy's own size is 16 KiB.
const BLOCK: usize = 4 * 1024;

/// The Tantivy schema of an index. It is fixed by the definition with which the index was created; what is declared later
/// lives in JSON fields.
#[derive(Debug, Clone)]
pub(crate) struct IndexSchema {
    pub(crate) schema: Schema,
    pub(crate) definition: Arc<Definition>,
    /// `_id`: the document's id, one term, stored.
    pub(crate) id: Field,
    /// `_seq`: the number of the operation that wrote the document: u64, fast.
    pub(crate) seq: Field,
    /// `_term`: the epoch of the claim under which it was written: u64, fast.
    pub(crate) term: Field,
    /// `_version`: how often the id was written since it last had no document: u64, fast.
    pub(crate) version: Field,
    /// `_source`: the document as it was received, stored.
    pub(crate) source: Field,
    /// `_values`: whole values by path.
    pub(crate) values: Field,
    /// `_text_{analyzer}`: text by path.
    text: [Field; Analyzer::ALL.len()],
    /// `_all`: all dynamic text.
    pub(crate) all: Field,
    /// `_fields`: the paths that have a value.
    pub(crate) fields: Field,
    /// `_vectors`: each with its path.
    pub(crate) vectors: Field,
    /// The fields of the text fields that were declared when the index was created.
    own: BTreeMap<String, Field>,
    synonyms: Arc<BTreeMap<Analyzer, Synonyms>>,
}

/// Where values of a field are indexed. A field may have several places, such as text and keyword.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) field: Field,
    /// The path in a JSON field; `None` for a field of its own.
    pub(crate) path: Option<String>,
    pub(crate) kind: PlaceKind,
}

/// What is indexed in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceKind {
    /// Analyzed text, with positions.
    Text(Analyzer),
    /// Whole values, also as fast fields: keywords, numbers, booleans, dates. A path may hold several types.
    Values,
}

/// The field is not declared, and the index has no dynamic fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", match .is_vector {
    true => format!("`{field}` is a vector, which only `knn` searches"),
    false => format!("there is no field `{field}`"),
})]
pub(crate) struct UnknownField {
    pub(crate) field: String,
    /// A field with a similar name.
    pub(crate) similar: Option<String>,
    /// Whether it is declared, but has neither words nor whole values.
    pub(crate) is_vector: bool,
}

impl IndexSchema {
    /// The schema of an index that was created with one definition and has another one now.
    pub(crate) fn new(created: &Definition, now: Arc<Definition>) -> Self {
        let mut schema = Schema::builder();
        let id = schema.add_text_field("_id", keyword().set_stored());
        let seq = schema.add_u64_field("_seq", FAST | INDEXED);
        let term = schema.add_u64_field("_term", FAST);
        let version = schema.add_u64_field("_version", FAST);
        let source = schema.add_text_field("_source", STORED);
        let values = JsonObjectOptions::default()
            .set_indexing_options(indexing("raw", IndexRecordOption::Basic).set_fieldnorms(false))
            .set_fast("raw")
            .set_expand_dots_enabled();
        let values = schema.add_json_field("_values", values);
        let text = Analyzer::ALL.map(|analyzer| {
            let name = tokenizer_name(analyzer);
            let indexing = indexing(&name, IndexRecordOption::WithFreqsAndPositions).set_fieldnorms(false);
            let options =
                JsonObjectOptions::default().set_indexing_options(indexing).set_expand_dots_enabled();
            schema.add_json_field(&format!("_text_{}", analyzer.name()), options)
        });
        let all = schema.add_text_field("_all", analyzed(Analyzer::Default));
        let fields = schema.add_text_field("_fields", keyword());
        let vectors = schema.add_custom_field("_vectors", "vectors", serde_json::Value::Null);
        let own = (created.fields.iter())
            .filter_map(|(path, field)| match field {
                FieldDefinition::Text { analyzer, .. } => {
                    let field = schema.add_text_field(&format!("text.{path}"), analyzed(*analyzer));
                    Some((path.clone(), field))
                }
                FieldDefinition::Keyword { .. }
                | FieldDefinition::I64 {}
                | FieldDefinition::F64 {}
                | FieldDefinition::Bool {}
                | FieldDefinition::Date {}
                | FieldDefinition::Ip {}
                | FieldDefinition::Json {}
                | FieldDefinition::Vector { .. } => None,
            })
            .collect();
        let synonyms = Arc::new(Synonyms::of_all(&now));
        let schema = schema.build();
        Self {
            schema,
            definition: now,
            id,
            seq,
            term,
            version,
            source,
            values,
            text,
            all,
            fields,
            vectors,
            own,
            synonyms,
        }
    }

    /// Makes an index in an empty directory.
    pub(crate) fn create(&self, directory: impl Into<Box<dyn Directory>>) -> tantivy::Result<tantivy::Index> {
        let settings = IndexSettings { docstore_blocksize: BLOCK, ..IndexSettings::default() };
        let builder = tantivy::Index::builder().schema(self.schema.clone()).settings(settings);
        let index = builder.register_plugin(vectors::plugin(self.vectors)).open_or_create(directory)?;
        self.register(&index);
        Ok(index)
    }

    /// Opens the index that is in a directory. It may have been made with another schema.
    pub(crate) fn open(&self, directory: impl Into<Box<dyn Directory>>) -> tantivy::Result<tantivy::Index> {
        let mut index = tantivy::Index::open(directory)?;
        index.register_plugin(vectors::plugin(self.vectors));
        self.register(&index);
        Ok(index)
    }

    /// Registers the analyzers of this schema with an index that was opened or created with it.
    #[expect(clippy::unused_self, reason = "the schema decides what must be registered")]
    fn register(&self, index: &tantivy::Index) {
        let tokenizers = index.tokenizers();
        for analyzer in Analyzer::ALL {
            tokenizers.register(&tokenizer_name(analyzer), analysis::analyzer(analyzer, Side::Document));
        }
    }

    /// The analyzer of documents' text, for highlights.
    pub(crate) fn analyzer(analyzer: Analyzer) -> TextAnalyzer {
        analysis::analyzer(analyzer, Side::Document)
    }

    /// The JSON field of text with an analyzer.
    pub(crate) fn text_field(&self, analyzer: Analyzer) -> Field {
        self.text[analyzer as usize]
    }

    /// The term of an id, by which a document is found and deleted.
    pub(crate) fn id_term(&self, id: &str) -> Term {
        Term::from_field_text(self.id, id)
    }

    /// Checks everything for which a document can be refused. A checked document can be converted.
    pub(crate) fn check(&self, source: &str) -> Result<(), DocumentError> {
        self.leaves(source, Reading::Strict).map(drop)
    }

    /// The same, and the paths of the fields that are indexed though they are not declared.
    pub(crate) fn dynamic_paths(&self, source: &str) -> Result<Vec<String>, DocumentError> {
        self.leaves(source, Reading::Strict).map(convert::Leaves::into_dynamic)
    }

    /// Converts a document that was checked by [`check`](Self::check), perhaps with an earlier definition of the same index. What
    /// can't be converted with the present one is left out of the index, and stays in the source.
    pub(crate) fn convert(&self, document: &Document<'_>) -> TantivyDocument {
        self.converted(document)
    }
}

fn tokenizer_name(analyzer: Analyzer) -> String {
    format!("text_{}", analyzer.name())
}

fn indexing(tokenizer: &str, option: IndexRecordOption) -> TextFieldIndexing {
    TextFieldIndexing::default().set_tokenizer(tokenizer).set_index_option(option)
}

/// A field of whole terms.
fn keyword() -> TextOptions {
    TextOptions::default()
        .set_indexing_options(indexing("raw", IndexRecordOption::Basic).set_fieldnorms(false))
}

/// A field of analyzed text.
fn analyzed(analyzer: Analyzer) -> TextOptions {
    let name = tokenizer_name(analyzer);
    TextOptions::default().set_indexing_options(indexing(&name, IndexRecordOption::WithFreqsAndPositions))
}

#[cfg(test)]
mod tests;
