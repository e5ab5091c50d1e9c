//! Searches over the service: each index by itself, and what was found merged.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::answer::{EsAnswer, EsShards};
use super::members::{Members, text_query};
use super::request::{After, EsSearch, PARAMETERS};
use super::sort::Key;
use super::token::{Token, keep_alive};
use crate::catalog::{Index, Indexes};
use crate::es::error::EsError;
use crate::es::names::Rule;
use crate::es::parameters::Parameters;
use crate::gather::{Gathered, Search, level_of};
use crate::http::Refusal;
use crate::query_pool::QueryPool;
use crate::search::{Answer, merge};
use crate::service::SearcherService;

/// How many indexes are searched at a time.
const AT_A_TIME: usize = 4;

/// The parameters of `_count`.
const OF_COUNT: [&str; 8] = [
    "q",
    "df",
    "default_operator",
    "analyze_wildcard",
    "lenient",
    "terminate_after",
    "ignore_throttled",
    "min_score",
];

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl SearcherService {
    /// `_search`: of the indexes that an expression names, or of a point in time. With `scroll`, the first page of a scroll.
    pub(crate) async fn es_search(
        &self,
        expression: Option<&str>,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<EsAnswer, EsError> {
        let parameters = Parameters::parse(query, &PARAMETERS)?;
        let mut members = Members::read(body)?;
        members.add(&parameters)?;
        let scroll = parameters.text("scroll");
        if let Some(text) = scroll {
            keep_alive(text)?;
            if members.raw("sort").is_none() {
                members.set("sort", &json!(["_doc"]));
            }
        }
        let search = EsSearch::read(&members, &parameters, now())?;
        if let Some(id) = &search.pit {
            if expression.is_some() || scroll.is_some() {
                return Err(EsError::illegal("[indices] and [scroll] cannot be used with point in time"));
            }
            let Token::PointInTime { indexes } = Token::decode(id)? else {
                return Err(EsError::illegal("the id in [pit] is that of a scroll"));
            };
            let (catalog, indexes) = self.es_indexes_by_id(&indexes).await?;
            let mut answer = self.es_run(&catalog, &indexes, &search).await?;
            answer.pit_id = Some(id.clone());
            return Ok(answer);
        }
        let (catalog, indexes) = self.es_indexes(expression, Rule::of(&parameters)?).await?;
        if scroll.is_none() {
            return self.es_run(&catalog, &indexes, &search).await;
        }
        if !search.vectors.is_empty() {
            return Err(EsError::illegal("[knn] cannot be used in a scroll context"));
        }
        if search.sort.iter().any(Key::is_score) {
            return Err(EsError::illegal(
                "a scroll can't be sorted by _score, since scores change: leave [sort] out, or sort by fields",
            ));
        }
        if search.size == 0 || search.from > 0 || search.after.is_some() {
            return Err(EsError::illegal(
                "[size] cannot be [0], and [from] and [search_after] cannot be used, in a scroll context",
            ));
        }
        let token = Token::Scroll {
            indexes: indexes.iter().map(|index| index.uuid).collect(),
            request: members.to_json(),
            now: search.now,
            after: None,
        };
        self.es_page(&catalog, &indexes, &search, token).await
    }

    /// `_search/scroll`: the next page.
    pub(crate) async fn es_scroll(
        &self,
        id: Option<&str>,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<EsAnswer, EsError> {
        let parameters = Parameters::parse(query, &["scroll", "scroll_id", "rest_total_hits_as_int"])?;
        let body = Members::read(body)?;
        body.check(&["scroll", "scroll_id"], &[])?;
        let given: Option<String> = body.get("scroll_id", "text")?;
        let id = id.or(parameters.text("scroll_id")).or(given.as_deref());
        let id = id.ok_or_else(|| EsError::invalid(&["scrollId is missing".to_owned()]))?;
        let alive: Option<String> = body.get("scroll", "a duration")?;
        if let Some(text) = parameters.text("scroll").or(alive.as_deref()) {
            keep_alive(text)?;
        }
        let Token::Scroll { indexes, request, now, after } = Token::decode(id)? else {
            return Err(EsError::illegal("[scroll_id] is the id of a point in time"));
        };
        let mut members = Members::read(request.as_bytes())?;
        // They came with the first page.
        members.remove("aggs");
        members.remove("aggregations");
        let mut search = EsSearch::read(&members, &parameters, now)?;
        search.after = after.clone().map(After::Hit);
        let (catalog, found) = self.es_indexes_by_id(&indexes).await?;
        self.es_page(&catalog, &found, &search, Token::Scroll { indexes, request, now, after }).await
    }

    /// A page of a scroll, with the id for the next one.
    async fn es_page(
        &self,
        catalog: &Indexes,
        indexes: &[Arc<Index>],
        search: &EsSearch,
        token: Token,
    ) -> Result<EsAnswer, EsError> {
        let mut answer = self.es_run(catalog, indexes, search).await?;
        let token = match (token, answer.hits.hits.last()) {
            (Token::Scroll { indexes, request, now, .. }, Some(last)) => {
                let after = Some(Value::Array(last.place.clone()).to_string());
                Token::Scroll { indexes, request, now, after }
            }
            (token, _) => token,
        };
        answer.scroll_id = Some(token.encode());
        Ok(answer)
    }

    /// `DELETE _search/scroll` and `DELETE _pit`: there is nothing to free.
    pub(crate) fn es_close(path: Option<&str>, body: &[u8]) -> Result<Value, EsError> {
        let body = Members::read(body)?;
        body.check(&["scroll_id", "id"], &[])?;
        let ids: Value =
            body.get("scroll_id", "a text or a list")?.or(body.get("id", "a text")?).unwrap_or_default();
        let count = match (&ids, path) {
            (Value::Array(ids), _) => ids.len(),
            (Value::String(_), _) => 1,
            (_, Some(ids)) => ids.split(',').count(),
            _ => return Err(EsError::invalid(&["no scroll ids specified".to_owned()])),
        };
        Ok(json!({ "succeeded": true, "num_freed": count }))
    }

    /// `POST /{index}/_pit`: a point in time, which here is only the names of its indexes.
    pub(crate) async fn es_open_pit(
        &self,
        expression: Option<&str>,
        query: Option<&str>,
    ) -> Result<Value, EsError> {
        let parameters = Parameters::parse(
            query,
            &["keep_alive", "allow_partial_search_results", "max_concurrent_shard_requests"],
        )?;
        let alive = parameters.text("keep_alive");
        keep_alive(alive.ok_or_else(|| EsError::invalid(&["[keep_alive] is not specified".to_owned()]))?)?;
        let (_, indexes) = self.es_indexes(expression, Rule::of(&parameters)?).await?;
        let mut shards = EsShards::default();
        for index in &indexes {
            shards.add(&index.name, self.member.all_shards().len(), &[]);
        }
        let indexes = indexes.iter().map(|index| index.uuid).collect();
        Ok(json!({ "id": Token::PointInTime { indexes }.encode(), "_shards": shards }))
    }

    /// `_count`.
    pub(crate) async fn es_count(
        &self,
        expression: Option<&str>,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<Value, EsError> {
        let parameters = Parameters::parse(query, &OF_COUNT)?;
        if parameters.text("min_score").is_some() {
            return Err(EsError::unsupported("min_score"));
        }
        let mut members = Members::read(body)?;
        members.check(&["query"], &[])?;
        members.set("size", &json!(0));
        if let Some(query) = text_query(&parameters)? {
            members.set("query", &query);
        }
        let search = EsSearch::read(&members, &parameters, now())?;
        let (catalog, indexes) = self.es_indexes(expression, Rule::of(&parameters)?).await?;
        let (answer, shards) = self.es_find(&catalog, &indexes, &search).await?;
        Ok(json!({ "count": answer.total, "_shards": shards }))
    }

    /// The indexes with some ids, in their order.
    async fn es_indexes_by_id(&self, ids: &[Uuid]) -> Result<(Arc<Indexes>, Vec<Arc<Index>>), EsError> {
        let find = |indexes: &Indexes| {
            ids.iter().map(|id| indexes.index(*id).cloned().ok_or(*id)).collect::<Result<Vec<_>, _>>()
        };
        let known = self.catalog.now();
        if let Ok(found) = find(&known) {
            return Ok((known, found));
        }
        let indexes = self.catalog.fresh().await.map_err(Refusal::from)?;
        match find(&indexes) {
            Ok(found) => Ok((indexes, found)),
            Err(id) => Err(EsError::no_such_index(&id.to_string())),
        }
    }

    /// Searches some indexes.
    pub(super) async fn es_run(
        &self,
        catalog: &Indexes,
        indexes: &[Arc<Index>],
        search: &EsSearch,
    ) -> Result<EsAnswer, EsError> {
        let (answer, shards) = self.es_find(catalog, indexes, search).await?;
        EsAnswer::new(search, indexes, answer, shards)
    }

    async fn es_find(
        &self,
        catalog: &Indexes,
        indexes: &[Arc<Index>],
        search: &EsSearch,
    ) -> Result<(Answer, EsShards), EsError> {
        let began = Instant::now();
        let Some(first) = indexes.first() else {
            return Ok((Answer::default(), EsShards::default()));
        };
        let deadline = began + search.timeout;
        let is_alone = indexes.len() == 1;
        if !is_alone && !search.vectors.is_empty() {
            return Err(EsError::illegal("[knn] over several indexes is not supported: search one of them"));
        }
        let mut searches = Vec::with_capacity(indexes.len());
        for (number, index) in indexes.iter().enumerate() {
            let request = search.of_index(&index.schema, number, is_alone)?;
            let level = level_of(&request);
            searches.push(Search::new(Arc::clone(index), request, level, deadline));
        }
        let whole = search.of_index(&first.schema, 0, true)?;
        let searching: Vec<_> = searches.iter().map(|search| self.find(catalog, search)).collect();
        let found: Vec<Gathered> = stream::iter(searching).buffered(AT_A_TIME).try_collect().await?;
        let mut shards = EsShards::default();
        let (mut parts, mut has_timed_out) = (Vec::new(), false);
        for (index, gathered) in indexes.iter().zip(found) {
            let of_index = gathered.failures.of(self.member.all_shards().len());
            shards.add(&index.name, of_index.total, &of_index.failed);
            has_timed_out |= gathered.failures.has_timed_out();
            parts.extend(gathered.found);
        }
        let schema = Arc::clone(&first.schema);
        let merged =
            QueryPool::finish(!whole.has_aggregations(), move || merge(&whole, &schema, parts)).await;
        let mut answer = merged.map_err(|error| error.refusal())?.map_err(Refusal::from)?;
        answer.timed_out = has_timed_out;
        answer.took_ms = millis(began.elapsed());
        Ok((answer, shards))
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
