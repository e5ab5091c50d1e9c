//! What a search has that came in Elasticsearch's form. It only travels between members.

use serde::{Deserialize, Serialize};

use crate::es::dsl;
use crate::query::{Ast, QueryError};

/// What a search has that came in Elasticsearch's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dsl {
    /// The query, as JSON text, so that all members read the same numbers.
    pub(crate) query: String,
    /// The filters in the aggregations, in the order in which these have them by number.
    pub(crate) filters: Vec<String>,
    /// `now`, in milliseconds since 1970.
    pub(crate) now: i64,
    /// The number of the index among those that are searched.
    pub(crate) index: u16,
    /// Whether the query finds hits itself, if there are vectors whose nearest ones are found.
    #[serde(default = "yes")]
    pub(crate) has_query: bool,
    /// Whether hits have their term and version.
    pub(crate) has_numbers: bool,
}

impl Dsl {
    pub(super) fn ast(&self) -> Result<Ast, QueryError> {
        self.parse(&self.query)
    }

    /// A filter of an aggregation.
    pub(crate) fn filter(&self, number: usize) -> Result<Ast, QueryError> {
        let text = self.filters.get(number).ok_or_else(|| wrong("there is no such filter".to_owned()))?;
        self.parse(text)
    }

    fn parse(&self, text: &str) -> Result<Ast, QueryError> {
        let query = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        dsl::parse(&query, self.now).map_err(|error| wrong(error.to_string()))
    }
}

fn yes() -> bool {
    true
}

fn wrong(message: String) -> QueryError {
    QueryError { message, at: None, hint: None }
}
