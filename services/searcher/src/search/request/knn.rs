//! The vectors of a search: `knn`, and how its hits are ranked together with those of `q`: `rrf`.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::members::shortened;
use super::{Dsl, MAX_SIZE, SearchRequest, parse_filter};
use crate::definition::{FieldDefinition, MAX_DIMS, Similarity, similar};
use crate::query::{Ast, MAX_BOOST, QueryError};
use crate::schema::IndexSchema;

/// The most vectors of a search.
const MAX_KNN: usize = 5;
/// The most documents that a vector finds.
pub(crate) const MAX_K: usize = 1_000;
const DEFAULT_K: usize = 10;

/// A vector whose nearest ones are searched.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Knn {
    pub(crate) field: String,
    pub(crate) vector: Vec<f32>,
    /// How many documents are found, over all shards.
    pub(crate) k: usize,
    /// What scores are multiplied by; with `rrf`, how much the ranking counts.
    pub(crate) boost: f32,
    /// The lowest similarity of a document, or the greatest distance, if the field is compared by that.
    pub(crate) min_similarity: Option<f32>,
    filter: Filter,
    /// What the documents must match, parsed.
    filters: Vec<Ast>,
}

/// The queries that documents must match.
#[derive(Debug, Clone, PartialEq)]
enum Filter {
    Texts(Vec<String>),
    /// By their numbers among those in Elasticsearch's form.
    Numbers(Vec<usize>),
}

/// How several rankings become one: by reciprocal rank fusion. A document has the score `boost / (rank_constant + rank)` from
/// each ranking in which it is one of the first `rank_window_size`, where ranks begin with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rrf {
    pub(crate) rank_constant: u32,
    /// At least as many as hits are wanted, if this is `None`.
    rank_window_size: Option<usize>,
}

impl Default for Rrf {
    fn default() -> Self {
        Self { rank_constant: 60, rank_window_size: None }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KnnBody {
    field: String,
    vector: Vec<f64>,
    k: Option<usize>,
    filter: Option<Value>,
    boost: Option<f32>,
    min_similarity: Option<f32>,
}

impl Knn {
    /// Reads `knn`: an object, or a list of some.
    pub(super) fn read_all(raw: &RawValue, dsl: Option<&Dsl>) -> Result<Vec<Self>, QueryError> {
        let wrong = |error: serde_json::Error| mistake("knn", error.to_string(), Some(EXAMPLE));
        let bodies: Vec<KnnBody> = match raw.get().starts_with('[') {
            true => serde_json::from_str(raw.get()).map_err(wrong)?,
            false => vec![serde_json::from_str(raw.get()).map_err(wrong)?],
        };
        if bodies.is_empty() || bodies.len() > MAX_KNN {
            let message = format!("there are from 1 to {MAX_KNN} vectors, not {}", bodies.len());
            return Err(mistake("knn", message, None));
        }
        bodies.into_iter().map(|body| Self::new(body, dsl)).collect()
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a number beyond the range becomes infinite, and is refused"
    )]
    fn new(body: KnnBody, dsl: Option<&Dsl>) -> Result<Self, QueryError> {
        let vector: Vec<f32> = body.vector.iter().map(|number| *number as f32).collect();
        if !(1..=usize::from(MAX_DIMS)).contains(&vector.len()) {
            let message = format!("`vector` has from 1 to {MAX_DIMS} numbers, not {}", vector.len());
            return Err(mistake("knn", message, None));
        }
        if let Some(at) = vector.iter().position(|number| !number.is_finite()) {
            let message = format!(
                "number {at} of `vector` is {:?}, which is beyond the range of 32-bit floating-point numbers",
                body.vector[at]
            );
            return Err(mistake("knn", message, None));
        }
        let k = body.k.unwrap_or(DEFAULT_K);
        if !(1..=MAX_K).contains(&k) {
            return Err(mistake("knn", format!("`k` is a whole number from 1 to {MAX_K}, not {k}"), None));
        }
        let boost = body.boost.unwrap_or(1.0);
        if !(boost > 0.0 && boost <= MAX_BOOST) {
            let message = format!("`boost` is a number above 0 and at most {MAX_BOOST}, not {boost}");
            return Err(mistake("knn", message, None));
        }
        if body.min_similarity.is_some_and(|least| !least.is_finite()) {
            return Err(mistake("knn", "`min_similarity` is beyond the range of numbers".to_owned(), None));
        }
        let filter = Filter::read(body.filter.as_ref(), dsl.is_some())?;
        let filters = filter.parse(dsl)?;
        let (field, min_similarity) = (body.field, body.min_similarity);
        Ok(Self { field, vector, k, boost, min_similarity, filter, filters })
    }

    fn to_json(&self) -> Value {
        let filter = match &self.filter {
            Filter::Texts(texts) => json!(texts),
            Filter::Numbers(numbers) => json!(numbers),
        };
        let mut members = json!({
            "field": self.field, "vector": self.vector, "k": self.k, "boost": self.boost, "filter": filter,
        });
        if let Some(least) = self.min_similarity {
            members["min_similarity"] = json!(least);
        }
        members
    }

    /// The queries that documents must match.
    pub(crate) fn filters(&self) -> impl Iterator<Item = &Ast> {
        self.filters.iter()
    }

    /// How the vectors of its field are compared.
    pub(crate) fn similarity(&self, schema: &IndexSchema) -> Result<Similarity, QueryError> {
        let fields = &schema.definition.fields;
        let (dims, similarity) = match fields.get(&self.field) {
            Some(FieldDefinition::Vector { dims, similarity }) => (usize::from(*dims), *similarity),
            other => {
                let field = shortened(&self.field);
                let message = match other {
                    Some(other) => format!("{field} is {}, not a vector", other.type_name()),
                    None => format!("no field {field} is declared"),
                };
                let vectors =
                    fields.iter().filter(|(_, field)| matches!(field, FieldDefinition::Vector { .. }));
                let near = similar(&self.field, vectors.map(|(name, _)| name.as_str()));
                let hint = near.map_or_else(
                    || "declare a field with {\"type\": \"vector\", \"dims\": 384}".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                return Err(mistake("knn", message, Some(&hint)));
            }
        };
        let field = &self.field;
        if self.vector.len() != dims {
            let message = format!("the vectors of `{field}` have {dims} numbers, not {}", self.vector.len());
            return Err(mistake("knn", message, None));
        }
        match similarity.problem(&self.vector) {
            Some(problem) => Err(mistake("knn", format!("the vector for `{field}`: {problem}"), None)),
            None => Ok(similarity),
        }
    }
}

const EXAMPLE: &str = "write for example {\"field\": \"embedding\", \"vector\": [0.1, 0.2], \"k\": 10}";

impl Filter {
    fn read(filter: Option<&Value>, has_numbers: bool) -> Result<Self, QueryError> {
        let one = |filter: &Value| vec![filter.clone()];
        let filters = match filter {
            None => Vec::new(),
            Some(Value::Array(filters)) => filters.clone(),
            Some(filter) => one(filter),
        };
        if has_numbers && filters.iter().all(Value::is_u64) {
            let numbers = filters.iter().filter_map(Value::as_u64);
            return Ok(Self::Numbers(numbers.filter_map(|number| usize::try_from(number).ok()).collect()));
        }
        let texts: Option<Vec<String>> =
            filters.iter().map(|filter| filter.as_str().map(str::to_owned)).collect();
        let wrong = || mistake("knn", "`filter` is a text or a list of texts".to_owned(), None);
        texts.map(Self::Texts).ok_or_else(wrong)
    }

    fn parse(&self, dsl: Option<&Dsl>) -> Result<Vec<Ast>, QueryError> {
        match (self, dsl) {
            (Self::Numbers(numbers), Some(dsl)) => numbers.iter().map(|number| dsl.filter(*number)).collect(),
            (Self::Texts(texts), _) => {
                let named = |error: QueryError| QueryError {
                    message: format!("`knn`: `filter`: {}", error.message),
                    ..error
                };
                texts.iter().map(|text| parse_filter(text).map_err(named)).collect()
            }
            (Self::Numbers(_), None) => Ok(Vec::new()),
        }
    }
}

impl Rrf {
    /// Reads `rrf`.
    pub(super) fn read(raw: &RawValue) -> Result<Self, QueryError> {
        let rrf: Self = serde_json::from_str(raw.get()).map_err(|error| {
            let hint = "write for example {\"rank_constant\": 60, \"rank_window_size\": 100}";
            mistake("rrf", error.to_string(), Some(hint))
        })?;
        if !(1..=1_000_000).contains(&rrf.rank_constant) {
            let message = format!("`rank_constant` is from 1 to 1000000, not {}", rrf.rank_constant);
            return Err(mistake("rrf", message, None));
        }
        if let Some(size) = rrf.rank_window_size.filter(|size| !(1..=MAX_SIZE).contains(size)) {
            let message = format!("`rank_window_size` is from 1 to {MAX_SIZE}, not {size}");
            return Err(mistake("rrf", message, None));
        }
        Ok(rrf)
    }
}

impl SearchRequest {
    /// Adds `knn` and `rrf` to a request in JSON.
    pub(super) fn knn_to_json(&self, members: &mut Map<String, Value>) {
        if !self.knn.is_empty() {
            members.insert("knn".to_owned(), self.knn.iter().map(Knn::to_json).collect());
        }
        if let Some(rrf) = self.rrf {
            let mut members_of = Map::from_iter([("rank_constant".to_owned(), json!(rrf.rank_constant))]);
            if let Some(size) = rrf.rank_window_size {
                members_of.insert("rank_window_size".to_owned(), json!(size));
            }
            members.insert("rrf".to_owned(), Value::Object(members_of));
        }
    }

    /// How rankings become one, if there are several that are not just added up as in Elasticsearch: what `q` finds, and what
    /// is nearest to each vector.
    pub(crate) fn fusion(&self) -> Option<Rrf> {
        let is_hybrid = !self.knn.is_empty() && usize::from(self.q.is_some()) + self.knn.len() > 1;
        match &self.dsl {
            Some(_) => self.rrf.filter(|_| !self.knn.is_empty()),
            None => is_hybrid.then(|| self.rrf.unwrap_or_default()),
        }
    }

    /// How many documents of each ranking count.
    pub(crate) fn rank_window(&self, rrf: Rrf) -> usize {
        const DEFAULT: usize = 100;
        rrf.rank_window_size.unwrap_or_else(|| self.window().max(DEFAULT))
    }

    /// Whether the query finds hits itself, beside those that are nearest to vectors.
    pub(crate) fn has_query(&self) -> bool {
        self.knn.is_empty() || self.q.is_some() || self.dsl.as_ref().is_some_and(|dsl| dsl.has_query)
    }

    /// What does not fit `knn` and `rrf`.
    pub(super) fn check_knn(&self) -> Result<(), QueryError> {
        let Some(rrf) = self.fusion() else {
            if self.rrf.is_some() {
                let hint = "add `q` or another vector, or leave `rrf` out";
                return Err(mistake("rrf", "there is only one ranking".to_owned(), Some(hint)));
            }
            return Ok(());
        };
        let what = "the order of several rankings";
        if !self.sort.is_empty() || self.search_after.is_some() {
            let message = format!("`sort` and `search_after` can't be used with {what}");
            let hint = "leave them out, or search with `knn` alone and put conditions into `filter`";
            return Err(mistake("knn", message, Some(hint)));
        }
        let window = self.rank_window(rrf);
        if self.window() > window {
            let message =
                format!("`from` and `size` together are at most `rank_window_size`, which is {window}");
            return Err(mistake("rrf", message, Some("1000 is the most that `rank_window_size` can be")));
        }
        if window > MAX_SIZE {
            let message = format!("`from` and `size` together are at most {MAX_SIZE} with {what}");
            return Err(mistake("rrf", message, None));
        }
        Ok(())
    }
}

fn mistake(member: &str, mut message: String, hint: Option<&str>) -> QueryError {
    message.insert_str(0, &format!("`{member}`: "));
    QueryError { message, at: None, hint: hint.map(str::to_owned) }
}
