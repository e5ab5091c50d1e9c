//! `_msearch`: several searches in one request, each with its own answer or error.

use futures_util::{StreamExt, stream};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::time::Instant;

use super::answer::EsAnswer;
use super::members::Members;
use super::request::EsSearch;
use super::run::{millis, now};
use crate::es::error::EsError;
use crate::es::names::Rule;
use crate::es::parameters::Parameters;
use crate::service::SearcherService;

/// The most searches in a request.
const MAX_SEARCHES: usize = 1_000;
/// How many are run at a time.
const AT_A_TIME: usize = 4;

/// The parameters of `_msearch`.
const PARAMETERS: [&str; 7] = [
    "max_concurrent_searches",
    "max_concurrent_shard_requests",
    "pre_filter_shard_size",
    "ccs_minimize_roundtrips",
    "rest_total_hits_as_int",
    "typed_keys",
    "search_type",
];

/// What is said of a search before its body.
const HEADER: [&str; 10] = [
    "index",
    "ignore_unavailable",
    "allow_no_indices",
    "expand_wildcards",
    "preference",
    "request_cache",
    "search_type",
    "allow_partial_search_results",
    "ccs_minimize_roundtrips",
    "ignore_throttled",
];

/// The answers to several searches.
#[derive(Debug, serde::Serialize)]
pub(crate) struct EsAnswers {
    took: u64,
    responses: Vec<Box<RawValue>>,
}

/// What is said of a search, and the search.
type Pair<'a> = (&'a [u8], &'a [u8]);

/// The lines of a body.
fn pairs(body: &[u8]) -> Result<Vec<Pair<'_>>, EsError> {
    let mut lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    if lines.is_empty() {
        return Err(EsError::invalid(&["no requests added".to_owned()]));
    }
    if !lines.len().is_multiple_of(2) {
        return Err(EsError::parsing("each search of the body has two lines: its indexes, and its body"));
    }
    if lines.len() / 2 > MAX_SEARCHES {
        return Err(EsError::illegal(format!("there are more than [{MAX_SEARCHES}] searches")));
    }
    Ok(lines.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

impl SearcherService {
    /// `_msearch`; the expression is for searches that name no index.
    pub(crate) async fn es_msearch(
        &self,
        expression: Option<&str>,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<EsAnswers, EsError> {
        let began = Instant::now();
        let parameters = Parameters::parse(query, &PARAMETERS)?;
        let pairs = pairs(body)?;
        let searching: Vec<_> = pairs
            .into_iter()
            .map(|(header, body)| self.es_one_of_several(expression, &parameters, header, body))
            .collect();
        let answers: Vec<_> = stream::iter(searching).buffered(AT_A_TIME).collect().await;
        let written = answers.into_iter().map(|answer| match answer {
            Ok(answer) => to_raw_value(&EsAnswer { status: Some(200), ..answer }),
            Err(error) => to_raw_value(&error.to_json()),
        });
        let responses = written.collect::<Result<_, _>>();
        let responses = responses.map_err(|error| EsError::new(500, "exception", error.to_string()))?;
        Ok(EsAnswers { took: millis(began.elapsed()), responses })
    }

    async fn es_one_of_several(
        &self,
        expression: Option<&str>,
        parameters: &Parameters,
        header: &[u8],
        body: &[u8],
    ) -> Result<EsAnswer, EsError> {
        let header = Members::read(header)?;
        header.check(&HEADER, &["routing"])?;
        let named = match header.get::<Value>("index", "a text or a list")? {
            None => None,
            Some(Value::String(name)) => Some(name),
            Some(Value::Array(names)) => {
                let names: Option<Vec<&str>> = names.iter().map(Value::as_str).collect();
                Some(names.ok_or_else(|| EsError::parsing("[index] is a text or a list of texts"))?.join(","))
            }
            Some(_) => return Err(EsError::parsing("[index] is a text or a list of texts")),
        };
        let rule = Rule {
            ignores_unavailable: header.flag("ignore_unavailable")?,
            allows_none: header.raw("allow_no_indices").is_none_or(|text| text.trim_matches('"') != "false"),
        };
        let members = Members::read(body)?;
        let search = EsSearch::read(&members, parameters, now())?;
        if search.pit.is_some() {
            return Err(EsError::unsupported("pit in _msearch"));
        }
        let (catalog, indexes) = self.es_indexes(named.as_deref().or(expression), rule).await?;
        self.es_run(&catalog, &indexes, &search).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_search_has_two_lines() {
        let count =
            |body: &str| pairs(body.as_bytes()).map(|pairs| pairs.len()).map_err(|error| error.status);
        assert_eq!(count("{}\n{}\n"), Ok(1));
        assert_eq!(count("\n{}\n{\"index\":\"a\"}\n{}\n\n"), Ok(2));
        assert_eq!(count("{}\n{}\n{}\n"), Err(400));
        assert_eq!(count(""), Err(400));
        assert_eq!(count(&"{}\n".repeat(2_002)), Err(400));
    }
}
