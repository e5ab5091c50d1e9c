//! Queries of other queries.

use serde_json::Value;

use super::keys::Keys;
use super::{DslError, Reader, boosted};
use crate::query::functions::{Combine, Function, Functions, Value as FunctionValue};
use crate::query::{Bool, Node};

impl Reader {
    pub(super) fn bool(&mut self, body: &Value) -> Result<Node, DslError> {
        let known =
            ["must", "filter", "should", "must_not", "minimum_should_match", "boost", "adjust_pure_negative"];
        let keys = Keys::of("bool", body, &known)?;
        keys.only("adjust_pure_negative", &["true"])?;
        let all = Bool {
            must: self.clauses(&keys, "must")?,
            filter: self.clauses(&keys, "filter")?,
            should: self.clauses(&keys, "should")?,
            must_not: self.clauses(&keys, "must_not")?,
            minimum: keys.minimum()?,
        };
        keys.boosted(Node::Bool(all))
    }

    /// A query or a list of queries.
    fn clauses(&mut self, keys: &Keys<'_>, key: &str) -> Result<Vec<Node>, DslError> {
        match keys.raw(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(clauses)) => clauses.iter().map(|clause| self.query(clause)).collect(),
            Some(clause) => Ok(vec![self.query(clause)?]),
        }
    }

    fn inner(&mut self, keys: &Keys<'_>, key: &str) -> Result<Node, DslError> {
        self.query(keys.needed(key, keys.raw(key))?)
    }

    pub(super) fn constant_score(&mut self, body: &Value) -> Result<Node, DslError> {
        let keys = Keys::of("constant_score", body, &["filter", "boost"])?;
        keys.boosted(Node::Constant(Box::new(self.inner(&keys, "filter")?)))
    }

    pub(super) fn dis_max(&mut self, body: &Value) -> Result<Node, DslError> {
        let keys = Keys::of("dis_max", body, &["queries", "tie_breaker", "boost"])?;
        let queries = self.clauses(&keys, "queries")?;
        if queries.is_empty() {
            return Err(DslError::parsing("[dis_max] requires 'queries' field with at least one clause"));
        }
        keys.boosted(Node::Best(queries, tie_breaker(&keys)?.unwrap_or(0.0)))
    }

    /// The score of what also matches `negative` is multiplied by `negative_boost`.
    pub(super) fn boosting(&mut self, body: &Value) -> Result<Node, DslError> {
        let keys = Keys::of("boosting", body, &["positive", "negative", "negative_boost", "boost"])?;
        keys.needed("negative_boost", keys.number("negative_boost")?)?;
        let functions = Functions {
            query: self.inner(&keys, "positive")?,
            functions: vec![Function {
                filter: Some(self.inner(&keys, "negative")?),
                weight: keys.boost("negative_boost")?,
                value: FunctionValue::One,
            }],
            score_mode: Combine::Multiply,
            boost_mode: Combine::Multiply,
            max_boost: f32::MAX,
        };
        Ok(boosted(Node::Functions(Box::new(functions)), keys.boost("boost")?))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is within a small range")]
pub(super) fn tie_breaker(keys: &Keys<'_>) -> Result<Option<f32>, DslError> {
    match keys.number("tie_breaker")? {
        Some(number) if !(0.0..=1.0).contains(&number) => {
            Err(keys.wrong("tie_breaker", "a number from 0 to 1"))
        }
        number => Ok(number.map(|number| number as f32)),
    }
}
