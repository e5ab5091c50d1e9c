//! The index in Tantivy: the fields that a searcher's documents have, one indexing thread, a commit each second.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::json;
use tantivy::aggregation::agg_req::Aggregations;
use tantivy::aggregation::agg_result::AggregationResults;
use tantivy::aggregation::{AggContextParams, AggregationCollector};
use tantivy::collector::{Count, TopDocs};
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::query::{BooleanQuery, FuzzyTermQuery, Occur, PhraseQuery, Query, TermQuery};
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, JsonObjectOptions, OwnedValue, STORED, Schema,
    TextFieldIndexing, TextOptions, Value,
};
use tantivy::tokenizer::{AsciiFoldingFilter, LowerCaser, SimpleTokenizer, TextAnalyzer};
use tantivy::{
    DocAddress, Index, IndexReader, IndexWriter, ReloadPolicy, Score, Searcher, TantivyDocument, Term,
};

use super::Loaded;
use crate::search::queries::Kind;

/// The heap of the writer; a searcher's default.
const HEAP: usize = 64 * 1024 * 1024;
/// The time between two commits; a searcher's default pause between refreshes.
const COMMIT: Duration = Duration::from_secs(1);
/// A segment of which more than this part is deleted is merged, as in a searcher.
const DELETED: f32 = 0.25;
const TOP: usize = 10;
const TOKENIZER: &str = "words";

/// A document, as far as it is indexed.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    id: &'a str,
    title: Option<Cow<'a, str>>,
    body: Option<Cow<'a, str>>,
    section: Option<&'a str>,
    size: Option<i64>,
}

/// An open index.
pub(super) struct Engine {
    index: Index,
    reader: IndexReader,
    writer: Mutex<Writer>,
    fields: Fields,
}

struct Writer {
    tantivy: IndexWriter,
    seq: u64,
}

struct Fields {
    id: Field,
    seq: Field,
    term: Field,
    version: Field,
    source: Field,
    values: Field,
    present: Field,
    title: Field,
    body: Field,
}

/// What a search found.
struct Found {
    total: usize,
    hits: Vec<(Score, DocAddress)>,
    facets: Option<AggregationResults>,
}

fn schema() -> (Schema, Fields) {
    let mut schema = Schema::builder();
    let indexing = |tokenizer: &str, option| {
        TextFieldIndexing::default().set_tokenizer(tokenizer).set_index_option(option)
    };
    let whole = || indexing("raw", IndexRecordOption::Basic).set_fieldnorms(false);
    let text = || {
        let indexing = indexing(TOKENIZER, IndexRecordOption::WithFreqsAndPositions);
        TextOptions::default().set_indexing_options(indexing)
    };
    let values = JsonObjectOptions::default().set_indexing_options(whole()).set_fast("raw");
    let fields = Fields {
        id: schema.add_text_field("_id", TextOptions::default().set_indexing_options(whole()).set_stored()),
        seq: schema.add_u64_field("_seq", FAST | INDEXED),
        term: schema.add_u64_field("_term", FAST),
        version: schema.add_u64_field("_version", FAST),
        source: schema.add_text_field("_source", STORED),
        values: schema.add_json_field("_values", values),
        present: schema.add_text_field("_fields", TextOptions::default().set_indexing_options(whole())),
        title: schema.add_text_field("title", text()),
        body: schema.add_text_field("body", text()),
    };
    (schema.build(), fields)
}

impl Engine {
    /// Creates an index in a new folder.
    pub(super) fn create(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir(folder).with_context(|| format!("creating {}", folder.display()))?;
        let (schema, fields) = schema();
        let index = Index::create_in_dir(folder, schema)?;
        let words =
            TextAnalyzer::builder(SimpleTokenizer::default()).filter(LowerCaser).filter(AsciiFoldingFilter);
        index.tokenizers().register(TOKENIZER, words.build());
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(HEAP)
            .build();
        let tantivy: IndexWriter = index.writer_with_options(options)?;
        let mut policy = LogMergePolicy::default();
        policy.set_del_docs_ratio_before_merge(DELETED);
        tantivy.set_merge_policy(Box::new(policy));
        let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        Ok(Self { index, reader, writer: Mutex::new(Writer { tantivy, seq: 0 }), fields })
    }

    /// Indexes the lines of a file, with a commit each second.
    pub(super) fn load(&self, file: &Path) -> anyhow::Result<Loaded> {
        let mut lines = BufReader::new(File::open(file)?);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let (mut committed, mut documents, mut line) = (began, 0, String::new());
        while lines.read_line(&mut line)? > 0 {
            self.write(&mut writer, line.trim_end())?;
            documents += 1;
            line.clear();
            if committed.elapsed() >= COMMIT {
                self.commit(&mut writer)?;
                committed = Instant::now();
            }
        }
        self.commit(&mut writer)?;
        Ok(Loaded { documents, seconds: began.elapsed().as_secs_f64() })
    }

    /// Writes these documents again, and merges all segments into one.
    pub(super) fn merge(&self, lines: &str) -> anyhow::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines.lines() {
            self.write(&mut writer, line)?;
        }
        self.commit(&mut writer)?;
        let segments = self.index.searchable_segment_ids()?;
        if segments.len() > 1 {
            writer.tantivy.merge(&segments).wait()?;
        }
        Ok(self.reader.reload()?)
    }

    fn commit(&self, writer: &mut Writer) -> anyhow::Result<()> {
        writer.tantivy.commit()?;
        Ok(self.reader.reload()?)
    }

    fn write(&self, writer: &mut Writer, source: &str) -> anyhow::Result<()> {
        let Fields { id, seq, term, version, values, present, title, body, .. } = self.fields;
        let line: Line<'_> = serde_json::from_str(source)?;
        let mut document = TantivyDocument::new();
        document.add_text(id, line.id);
        document.add_u64(seq, writer.seq);
        document.add_u64(term, 1);
        document.add_u64(version, 1);
        document.add_text(self.fields.source, source);
        document.add_text(present, "id");
        let mut whole = BTreeMap::from([("id".to_owned(), OwnedValue::from(line.id))]);
        for (field, name, text) in [(title, "title", line.title), (body, "body", line.body)] {
            if let Some(text) = text {
                document.add_text(field, text);
                document.add_text(present, name);
            }
        }
        if let Some(section) = line.section {
            whole.insert("section".to_owned(), OwnedValue::from(section));
            document.add_text(present, "section");
        }
        if let Some(size) = line.size {
            whole.insert("size".to_owned(), OwnedValue::from(size));
            document.add_text(present, "size");
        }
        document.add_object(values, whole);
        writer.tantivy.delete_term(Term::from_field_text(id, line.id));
        writer.tantivy.add_document(document)?;
        writer.seq += 1;
        Ok(())
    }

    /// Searches, and writes the answer of a searcher.
    pub(super) fn search(&self, kind: Kind, words: &[&str]) -> anyhow::Result<String> {
        let began = Instant::now();
        let searcher = self.reader.searcher();
        let terms: Vec<Term> =
            words.iter().map(|word| Term::from_field_text(self.fields.body, word)).collect();
        let found = find(&searcher, kind, &terms)?;
        self.answer(&searcher, &found, began)
    }

    /// The JSON of an answer. Sources are not parsed.
    fn answer(&self, searcher: &Searcher, found: &Found, began: Instant) -> anyhow::Result<String> {
        let mut text = String::with_capacity(8 * 1024);
        let best = found.hits.first().map(|(score, _)| *score);
        write!(
            text,
            r#"{{"took_ms":{},"timed_out":false,"total":{},"max_score":{},"shards":{{"total":1,"ok":1,"failed":[]}},"hits":["#,
            began.elapsed().as_millis(),
            found.total,
            best.map_or_else(|| "null".to_owned(), |score| score.to_string()),
        )?;
        let mut seqs = BTreeMap::new();
        let mut last = None;
        for (number, (score, address)) in found.hits.iter().enumerate() {
            let document: TantivyDocument = searcher.doc(*address)?;
            let stored = |field| document.get_first(field).and_then(|value| value.as_str());
            let (id, source) = stored(self.fields.id)
                .zip(stored(self.fields.source))
                .context("a stored document has no id or source")?;
            let column = match seqs.entry(address.segment_ord) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    new.insert(searcher.segment_reader(address.segment_ord).fast_fields().u64("_seq")?)
                }
            };
            let seq = column.first(address.doc_id).context("a document has no number")?;
            let comma = if number > 0 { "," } else { "" };
            let id = serde_json::to_string(id)?;
            write!(
                text,
                r#"{comma}{{"id":{id},"score":{score},"sort":[{score},{seq},0],"source":{source}}}"#
            )?;
            last = Some((score, seq));
        }
        text.push(']');
        if let Some(facets) = &found.facets {
            write!(text, r#","facets":{}"#, serde_json::to_string(facets)?)?;
        }
        if let Some((score, seq)) = last.filter(|_| found.total > found.hits.len()) {
            write!(text, r#","next":[{score},{seq},0]"#)?;
        }
        text.push('}');
        Ok(text)
    }
}

/// The ten best documents, and the number of matches. Counting apart keeps the pruning of terms.
fn find(searcher: &Searcher, kind: Kind, terms: &[Term]) -> anyhow::Result<Found> {
    let top = || TopDocs::with_limit(TOP).order_by_score();
    let (first, option) = (terms.first().context("no word")?.clone(), IndexRecordOption::WithFreqs);
    let each = |occur| {
        let clause = |term: &Term| (occur, Box::new(TermQuery::new(term.clone(), option)) as Box<dyn Query>);
        BooleanQuery::new(terms.iter().map(clause).collect())
    };
    let query: Box<dyn Query> = match kind {
        Kind::Term | Kind::Facet => Box::new(TermQuery::new(first, option)),
        Kind::Or => Box::new(each(Occur::Should)),
        Kind::And => Box::new(each(Occur::Must)),
        Kind::Phrase => {
            ensure!(terms.len() > 1, "a phrase has two words");
            Box::new(PhraseQuery::new(terms.to_vec()))
        }
        Kind::Prefix => Box::new(FuzzyTermQuery::new_prefix(first, 0, true)),
        Kind::Fuzzy => Box::new(FuzzyTermQuery::new(first, 1, true)),
    };
    let (total, hits, facets) = match kind {
        Kind::Term | Kind::Or | Kind::And => (query.count(searcher)?, searcher.search(&query, &top())?, None),
        Kind::Phrase | Kind::Prefix | Kind::Fuzzy => {
            let (total, hits) = searcher.search(&query, &(Count, top()))?;
            (total, hits, None)
        }
        Kind::Facet => {
            let facet = json!({ "section": { "terms": { "field": "_values.section", "size": TOP, "segment_size": 10_000 } } });
            let request: Aggregations = serde_json::from_value(facet)?;
            let (total, facets) = searcher.search(
                &query,
                &(Count, AggregationCollector::from_aggs(request, AggContextParams::default())),
            )?;
            (total, searcher.search(&query, &top())?, Some(facets))
        }
    };
    Ok(Found { total, hits, facets })
}
