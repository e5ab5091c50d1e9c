//! The query of a URI: names that are known, each at most once.

use types::ShardId;

/// Why a query can't be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct QueryError {
    message: String,
    /// What to write instead.
    pub(crate) hint: Option<String>,
}

impl QueryError {
    pub(crate) fn new(message: String) -> Self {
        Self { message, hint: None }
    }
}

/// The parameters of a query, each known one at most once.
pub(crate) fn parameters<'a>(
    query: &'a str,
    all: &[&'static str],
) -> Result<Vec<(&'static str, &'a str)>, QueryError> {
    let mut found: Vec<(&'static str, &str)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(&name) = all.iter().find(|known| **known == name) else {
            return Err(unknown(name, all));
        };
        if found.iter().any(|(seen, _)| *seen == name) {
            return Err(QueryError::new(format!("`{name}` is given twice")));
        }
        found.push((name, value));
    }
    Ok(found)
}

/// The number of a shard, as it is written in a query.
pub(crate) fn shard(value: &str) -> Result<ShardId, QueryError> {
    let shard = value.parse::<u32>().ok().and_then(|shard| ShardId::try_from(shard).ok());
    shard.ok_or_else(|| QueryError::new(format!("`shard` is the number of a shard, not `{value}`")))
}

/// The shard in a query that can have nothing else.
pub(crate) fn only_shard(query: &str) -> Result<Option<ShardId>, QueryError> {
    parameters(query, &["shard"])?.first().map(|(_, value)| shard(value)).transpose()
}

fn unknown(name: &str, all: &[&'static str]) -> QueryError {
    let near = all
        .iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min()
        .map(|(_, known)| format!("did you mean `{known}`?"));
    let hint = near.unwrap_or_else(|| format!("there are {}", all.join(", ")));
    QueryError { message: format!("there is no parameter `{name}`"), hint: Some(hint) }
}
