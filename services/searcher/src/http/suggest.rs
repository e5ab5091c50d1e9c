//! Completes a prefix to values of a field: `GET /{index}/suggest?field=&prefix=&size=`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use plugin::http::query::{QueryError, bytes, parameters};
use plugin::http::{Answer, method_not_allowed};
use plugin::shard::{Read, ReadLevel};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;

use super::inner::{InnerQuery, Verb};
use super::parameter::number;
use super::path::is_read;
use super::refusal::Refusal;
use crate::catalog::Index;
use crate::gather::Search;
use crate::search::{
    MAX_SUGGESTIONS, SearchError, SearchRequest, Shards, Suggestion, merge_suggestions, suggest,
};
use crate::service::SearcherService;

const DEFAULT_SIZE: usize = 10;
/// How long the shards may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What is asked for, at each shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    field: String,
    prefix: String,
    size: usize,
}

impl Wanted {
    /// Reads what another member asks for.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Refusal> {
        let hint = "members write these bodies for each other";
        serde_json::from_slice(body).map_err(|error| Refusal::invalid("bad-suggest", &error, hint))
    }

    /// Reads the query of a request.
    fn parse(query: &str) -> Result<(Self, ReadLevel), QueryError> {
        let (mut field, mut prefix, mut size, mut level) =
            (None, String::new(), DEFAULT_SIZE, ReadLevel::Primary);
        for (name, text) in parameters(query, &["field", "prefix", "size", "consistency"])? {
            let decoded = || {
                let text = String::from_utf8(bytes(name, text)?);
                text.map_err(|_| QueryError::new(format!("`{name}` is no UTF-8")))
            };
            match name {
                "field" => field = Some(decoded()?),
                "prefix" => prefix = decoded()?,
                "size" => {
                    size = usize::try_from(number(name, text)?).unwrap_or(usize::MAX);
                    if !(1..=MAX_SUGGESTIONS).contains(&size) {
                        return Err(QueryError::new(format!("`size` is 1 to {MAX_SUGGESTIONS}, not {size}")));
                    }
                }
                _ => level = text.parse()?,
            }
        }
        match field {
            Some(field) if !field.is_empty() => Ok((Self { field, prefix, size }, level)),
            _ => Err(QueryError::new("`field` is missing").hint("`?field=section&prefix=ne`")),
        }
    }
}

impl SearcherService {
    /// Answers a request for suggestions.
    pub(crate) async fn suggest(&self, name: &str, head: &Parts) -> Answer {
        let (indexes, named) = self.indexes_to_read(name).await?;
        if !is_read(&head.method) {
            return Err(method_not_allowed("GET, HEAD"));
        }
        let wanted = Wanted::parse(head.uri.query().unwrap_or_default());
        let (wanted, level) = wanted.map_err(|error| error.to_response())?;
        let body = serde_json::to_vec(&wanted).expect("strings and numbers are written to memory");
        let (body, deadline) = (Bytes::from(body), Instant::now() + LIMIT);
        let (mut all, mut shards) = (Vec::new(), Shards::default());
        for index in &named {
            let query = InnerQuery::read(&indexes, index, level, LIMIT);
            let here = || self.suggest_here(index, wanted.clone(), level, deadline);
            let (found, failures) = self.ask_all(Verb::Suggest, &query, &body, here).await;
            if (found.is_empty() || level == ReadLevel::Strong)
                && let Some(refusal) = failures.refusal("asked for suggestions")
            {
                return Err(refusal.into());
            }
            shards.add(failures.of(self.member.all_shards().len()));
            all.extend(found.into_iter().map(|(_, read)| read));
        }
        let read = Read::all(all);
        let values = merge_suggestions(read.value, wanted.size);
        let answer = json!({ "values": values, "shards": shards });
        self.found(&answer, read.staleness.filter(|_| level == ReadLevel::Any), head).await
    }

    /// The most frequent values at this member's shard.
    pub(crate) async fn suggest_here(
        &self,
        index: &Arc<Index>,
        wanted: Wanted,
        level: ReadLevel,
        deadline: Instant,
    ) -> Result<Read<Vec<Suggestion>>, Refusal> {
        let request = SearchRequest::from_json(b"{}").map_err(SearchError::from)?;
        let search = Search::new(Arc::clone(index), request, level, deadline);
        let Read { value: snapshot, staleness } = self.snapshot(&search).await?;
        let work = move || suggest(&snapshot, &wanted.field, &wanted.prefix, wanted.size);
        Ok(Read { value: self.query(deadline, &search.cancel, level, work).await?, staleness })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggestion_names_a_field_and_a_prefix() {
        let (wanted, level) = Wanted::parse("field=section&prefix=n%20e%22*&size=3&consistency=any").unwrap();
        assert_eq!(level, ReadLevel::Any);
        assert_eq!(wanted, Wanted { field: "section".to_owned(), prefix: "n e\"*".to_owned(), size: 3 });
        let written = serde_json::to_vec(&wanted).unwrap();
        assert_eq!(Wanted::read(&written).unwrap(), wanted);
        assert_eq!(Wanted::parse("field=section").unwrap().0.size, DEFAULT_SIZE);
        for (query, message) in [
            ("", "`field` is missing"),
            ("field=", "`field` is missing"),
            ("field=a&size=0", "`size` is 1 to 1000"),
            ("field=a&size=1001", "`size` is 1 to 1000"),
            ("field=a&prefix=%FF", "no UTF-8"),
            ("field=a&consistency=weak", "consistency"),
            ("field=a&prefx=b", "no parameter `prefx`"),
        ] {
            let error = Wanted::parse(query).unwrap_err();
            assert!(error.to_string().contains(message), "{query}: {error}");
        }
    }
}
