//! A query whose scores are combined with the values of functions.

use tantivy::columnar::DynamicColumn;
use tantivy::query::{EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::{DocId, DocSet, Score, SegmentReader, TERMINATED, TantivyError, Term};

use super::functions::{Combine, Value};

/// A query with functions.
#[derive(Debug)]
pub(super) struct Scored {
    pub(super) query: Box<dyn Query>,
    pub(super) functions: Vec<Function>,
    pub(super) score_mode: Combine,
    pub(super) boost_mode: Combine,
    pub(super) max_boost: f32,
}

/// A function over a column.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) filter: Option<Box<dyn Query>>,
    pub(super) weight: f32,
    pub(super) value: Value,
    /// The name of the column of the value's field.
    pub(super) column: Option<String>,
}

impl Clone for Scored {
    fn clone(&self) -> Self {
        let function = |function: &Function| Function {
            filter: function.filter.as_ref().map(|filter| filter.box_clone()),
            weight: function.weight,
            value: function.value.clone(),
            column: function.column.clone(),
        };
        Self {
            query: self.query.box_clone(),
            functions: self.functions.iter().map(function).collect(),
            score_mode: self.score_mode,
            boost_mode: self.boost_mode,
            max_boost: self.max_boost,
        }
    }
}

impl Query for Scored {
    fn weight(&self, scoring: EnableScoring<'_>) -> Result<Box<dyn Weight>, TantivyError> {
        let inner = self.query.weight(scoring)?;
        let EnableScoring::Enabled { searcher, .. } = scoring else {
            return Ok(inner);
        };
        let unscored = EnableScoring::disabled_from_searcher(searcher);
        let filters = self
            .functions
            .iter()
            .map(|function| function.filter.as_ref().map(|filter| filter.weight(unscored)).transpose());
        let filters = filters.collect::<Result<_, _>>()?;
        Ok(Box::new(ScoredWeight { query: self.clone(), inner, filters }))
    }

    fn query_terms<'a>(&'a self, visitor: &mut dyn FnMut(&'a Term, bool)) {
        self.query.query_terms(visitor);
    }
}

struct ScoredWeight {
    query: Scored,
    inner: Box<dyn Weight>,
    filters: Vec<Option<Box<dyn Weight>>>,
}

impl Weight for ScoredWeight {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> Result<Box<dyn Scorer>, TantivyError> {
        let mut functions = Vec::with_capacity(self.filters.len());
        for (function, filter) in self.query.functions.iter().zip(&self.filters) {
            functions.push(SegmentFunction {
                filter: filter.as_ref().map(|filter| filter.scorer(reader, 1.0)).transpose()?,
                columns: match &function.column {
                    Some(name) => columns(reader, name)?,
                    None => Vec::new(),
                },
                weight: function.weight.into(),
                value: function.value.clone(),
            });
        }
        Ok(Box::new(ScoredScorer {
            inner: self.inner.scorer(reader, 1.0)?,
            functions,
            values: Vec::new(),
            score_mode: self.query.score_mode,
            boost_mode: self.query.boost_mode,
            max_boost: self.query.max_boost.into(),
            boost: boost.into(),
        }))
    }

    fn explain(&self, reader: &SegmentReader, doc: DocId) -> Result<Explanation, TantivyError> {
        let mut scorer = self.scorer(reader, 1.0)?;
        if scorer.doc() > doc || scorer.seek(doc) != doc {
            return Err(TantivyError::InvalidArgument(format!("document {doc} does not match")));
        }
        let mut explanation = Explanation::new("function score, combined from:", scorer.score());
        explanation.add_detail(self.inner.explain(reader, doc)?);
        Ok(explanation)
    }
}

fn columns(reader: &SegmentReader, name: &str) -> Result<Vec<DynamicColumn>, TantivyError> {
    let handles = reader.fast_fields().dynamic_column_handles(name)?;
    handles.iter().map(|handle| Ok(handle.open()?)).collect()
}

struct SegmentFunction {
    filter: Option<Box<dyn Scorer>>,
    columns: Vec<DynamicColumn>,
    weight: f64,
    value: Value,
}

impl SegmentFunction {
    /// Whether the function is for a document, which comes after all those before.
    fn applies(&mut self, doc: DocId) -> bool {
        match &mut self.filter {
            None => true,
            Some(filter) => {
                if filter.doc() < doc {
                    filter.seek(doc);
                }
                filter.doc() == doc
            }
        }
    }

    fn of(&self, doc: DocId) -> f64 {
        self.value.of(self.columns.iter().flat_map(|column| numbers(column, doc)))
    }
}

/// The numbers of a document; dates in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "scores are floating-point numbers")]
fn numbers(column: &DynamicColumn, doc: DocId) -> Vec<f64> {
    match column {
        DynamicColumn::I64(column) => column.values_for_doc(doc).map(|number| number as f64).collect(),
        DynamicColumn::U64(column) => column.values_for_doc(doc).map(|number| number as f64).collect(),
        DynamicColumn::F64(column) => column.values_for_doc(doc).collect(),
        DynamicColumn::Bool(column) => {
            column.values_for_doc(doc).map(|flag| f64::from(u8::from(flag))).collect()
        }
        DynamicColumn::DateTime(column) => {
            column.values_for_doc(doc).map(|date| date.into_timestamp_millis() as f64).collect()
        }
        DynamicColumn::Str(_) | DynamicColumn::IpAddr(_) | DynamicColumn::Bytes(_) => Vec::new(),
    }
}

struct ScoredScorer {
    inner: Box<dyn Scorer>,
    functions: Vec<SegmentFunction>,
    values: Vec<(f64, f64)>,
    score_mode: Combine,
    boost_mode: Combine,
    max_boost: f64,
    boost: f64,
}

impl DocSet for ScoredScorer {
    fn advance(&mut self) -> DocId {
        self.inner.advance()
    }

    fn seek(&mut self, target: DocId) -> DocId {
        self.inner.seek(target)
    }

    fn doc(&self) -> DocId {
        self.inner.doc()
    }

    fn size_hint(&self) -> u32 {
        self.inner.size_hint()
    }

    fn cost(&self) -> u64 {
        self.inner.cost()
    }
}

impl Scorer for ScoredScorer {
    fn score(&mut self) -> Score {
        let doc = self.inner.doc();
        if doc == TERMINATED {
            return 0.0;
        }
        self.values.clear();
        for function in &mut self.functions {
            if function.applies(doc) {
                self.values.push((function.of(doc), function.weight));
            }
        }
        let value = self.score_mode.all(&self.values).min(self.max_boost);
        let score = self.boost_mode.pair(self.inner.score().into(), value) * self.boost;
        // Neither negative nor beyond all limits, as a logarithm of 0 is.
        #[expect(clippy::cast_possible_truncation, reason = "it is limited")]
        let score = if score.is_nan() { 0.0 } else { score.clamp(0.0, f64::from(Score::MAX)) as Score };
        score
    }
}
