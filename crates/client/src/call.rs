//! The calls to an agent, one method each.

use std::fmt;
use std::time::Duration;

use http::header::{ACCEPT, IF_MATCH, IF_NONE_MATCH};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use types::api::{
    AgentSelf, Claims, Event, MemberView, Members, NumberedSpec, Receipt, Removed, Services, Specs, Wait,
};
use types::{Generation, NodeId, Problem, Role, ServiceName, Spec};

use crate::error::ClientError;

const CONNECT_LIMIT: Duration = Duration::from_secs(1);
const DEFAULT_LIMIT: Duration = Duration::from_secs(5);
const STORAGE: &str = "storage";
/// The longest time an agent waits before it shows a member.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Larger than any answer of the API, so that another server can't fill the memory. The largest answer is a page of
/// values: 4 MiB, plus a last value of 8 MiB, each byte of which may take two in JSON.
const BODY_LIMIT: usize = 24 * 1024 * 1024;

/// Calls one agent. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    limit: Duration,
    /// The service that calls for keys and for documents go to.
    service: ServiceName,
}

/// The precondition of a change: the node is still in this incarnation, and no other command came in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IfMatch {
    /// The node's generation.
    pub generation: Generation,
    /// `RoleState::revision`.
    pub revision: u64,
}

impl fmt::Display for IfMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}.{}\"", self.generation, self.revision)
    }
}

/// The answer to `leave`: the node has accepted the command and is leaving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The node that leaves.
    pub node: NodeId,
    /// Its generation.
    pub generation: Generation,
}

#[derive(Deserialize)]
struct KeptEvents {
    events: Vec<Event>,
}

/// A builder of clients that speak `http://` without a proxy. A program that links an object store's client has TLS in
/// this library as well; the builder selects ring and no certificates, so that none are looked for on the machine.
pub fn plain_http() -> reqwest::ClientBuilder {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().tls_certs_only([]).no_proxy().tcp_nodelay(true)
}

impl Client {
    /// A client of the agent at this URL; `host:port` alone means `http://host:port`.
    ///
    /// Each call may take five seconds in all; see [`Client::within`].
    pub fn new(base_url: &str) -> Result<Self, ClientError> {
        let base = normalize(base_url)?;
        let http = plain_http()
            .connect_timeout(CONNECT_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("coterie/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError::BadUrl { url: base.clone(), why: error.to_string() })?;
        let service = STORAGE.parse().expect("the name follows the rule");
        Ok(Self { http, base, limit: DEFAULT_LIMIT, service })
    }

    /// The same client for another agent.
    pub fn at(&self, base_url: &str) -> Result<Self, ClientError> {
        Ok(Self { base: normalize(base_url)?, ..self.clone() })
    }

    /// The same client with another limit on each call, including the body of the answer.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// The same client for the keys of another service of type `storage`, or the indexes of one of type `searcher`.
    #[must_use]
    pub fn with_service(&self, service: ServiceName) -> Self {
        Self { service, ..self.clone() }
    }

    /// The service that calls for keys and for documents go to: `storage` unless another was chosen.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The agent's URL, without a trailing slash.
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// The agent's own node, in its own view.
    pub async fn agent_self(&self) -> Result<AgentSelf, ClientError> {
        self.json(self.get("/v1/agent/self")).await
    }

    /// Every member in this agent's view.
    pub async fn members(&self) -> Result<Members, ClientError> {
        self.json(self.get("/v1/members")).await
    }

    /// One member in this agent's view.
    pub async fn member(&self, id: &NodeId) -> Result<MemberView, ClientError> {
        self.json(self.get(&format!("/v1/members/{id}"))).await
    }

    /// One member, as soon as this agent has seen it in `generation` at `version` or later, or in a later generation;
    /// after `wait`, which is at most 30 seconds, the member as it is then.
    pub async fn member_since(
        &self,
        id: &NodeId,
        generation: Generation,
        version: u64,
        wait: Duration,
    ) -> Result<MemberView, ClientError> {
        let wait = wait.min(LONGEST_WAIT);
        let path = format!(
            "/v1/members/{id}?min_version={version}&generation={generation}&wait_ms={}",
            wait.as_millis()
        );
        let patient = self.within(self.limit.saturating_add(wait));
        patient.json(patient.get(&path)).await
    }

    /// Each service with its type, its spec's number and its members.
    pub async fn services(&self) -> Result<Services, ClientError> {
        self.json(self.get("/v1/services")).await
    }

    /// The spec of each service, from the object store.
    pub async fn specs(&self) -> Result<Specs, ClientError> {
        self.json(self.get("/v1/spec")).await
    }

    /// Replaces the spec of a service if its number is still `replaced`; 0 means that it has no spec yet.
    pub async fn put_spec(
        &self,
        service: &ServiceName,
        replaced: u64,
        spec: &Spec,
    ) -> Result<NumberedSpec, ClientError> {
        let request = self.http.put(self.url(&format!("/v1/spec/{service}"))).json(spec);
        let request = match replaced {
            0 => request.header(IF_NONE_MATCH, "*"),
            number => request.header(IF_MATCH, format!("\"{number}\"")),
        };
        self.json(request).await
    }

    /// Removes a service, whose spec has this number: its spec and all of its data. Members that run it become standbys.
    pub async fn remove_service(&self, service: &ServiceName, number: u64) -> Result<Removed, ClientError> {
        let request = self.http.delete(self.url(&format!("/v1/spec/{service}?stop=true")));
        self.json(request.header(IF_MATCH, format!("\"{number}\""))).await
    }

    /// The owner of each shard, from the object store.
    pub async fn claims(&self) -> Result<Claims, ClientError> {
        self.json(self.get("/v1/claims")).await
    }

    /// Gives a node another role. With `take`, the shard is moved there from its present owner. Any agent accepts this
    /// command and forwards it to the node.
    pub async fn set_service(
        &self,
        id: &NodeId,
        role: &Role,
        wait: Wait,
        take: bool,
        if_match: Option<IfMatch>,
    ) -> Result<Receipt, ClientError> {
        let take = if take { "&take=true" } else { "" };
        let path = format!("/v1/members/{id}/service?wait={}{take}", wait_word(wait));
        let mut request = self.http.put(self.url(&path)).json(role);
        if let Some(condition) = if_match {
            request = request.header(IF_MATCH, condition.to_string());
        }
        self.json(request).await
    }

    /// Drains a node: it finishes its requests and refuses new ones.
    pub async fn drain(&self, id: &NodeId, wait: Wait) -> Result<Receipt, ClientError> {
        let path = format!("/v1/members/{id}:drain?wait={}", wait_word(wait));
        self.json(self.http.post(self.url(&path))).await
    }

    /// Makes a node leave the cluster and exit. Returns as soon as the node has accepted.
    pub async fn leave(&self, id: &NodeId) -> Result<Leaving, ClientError> {
        self.json(self.http.post(self.url(&format!("/v1/members/{id}:leave")))).await
    }

    /// The latest events that the agent keeps, oldest first.
    pub async fn kept_events(&self) -> Result<Vec<Event>, ClientError> {
        let kept: KeptEvents = self.json(self.get("/v1/events")).await?;
        Ok(kept.events)
    }

    /// Whether the process answers at all.
    pub async fn is_live(&self) -> bool {
        self.probe("/health/livez").await
    }

    /// Whether the node is ready for requests.
    pub async fn is_ready(&self) -> bool {
        self.probe("/health/readyz").await
    }

    async fn probe(&self, path: &str) -> bool {
        let sent = self.get(path).timeout(self.limit).send().await;
        sent.is_ok_and(|response| response.status().is_success())
    }

    pub(crate) fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(self.url(path))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The body of an answer.
    pub(crate) async fn whole(&self, answer: reqwest::Response) -> Result<Vec<u8>, ClientError> {
        body(&self.base, self.limit, answer).await
    }

    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ClientError> {
        let response = request
            .timeout(self.limit)
            .header(ACCEPT, "application/json")
            .send()
            .await
            .map_err(|error| ClientError::transport(&self.base, self.limit, &error))?;
        let status = response.status();
        if !status.is_success() {
            return Err(problem_or_unexpected(&self.base, self.limit, response).await);
        }
        let body = body(&self.base, self.limit, response).await?;
        self.parsed(status.as_u16(), &body)
    }

    /// The value of a body in JSON.
    pub(crate) fn parsed<T: DeserializeOwned>(&self, status: u16, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|error| ClientError::Unexpected {
            url: self.base.clone(),
            status,
            excerpt: format!("{error}: {}", excerpt(body)),
        })
    }
}

fn wait_word(wait: Wait) -> &'static str {
    match wait {
        Wait::Local => "local",
        Wait::All => "all",
    }
}

fn normalize(text: &str) -> Result<String, ClientError> {
    let bad = |why: &str| ClientError::BadUrl { url: text.to_owned(), why: why.to_owned() };
    let text = text.trim();
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = reqwest::Url::parse(&with_scheme).map_err(|error| bad(&error.to_string()))?;
    match url.scheme() {
        "http" => {}
        "https" => return Err(bad("https is not spoken yet, write http://")),
        _ => return Err(bad("write http://host:port")),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad("the host is missing"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("leave the query and the fragment out"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

pub(crate) async fn problem_or_unexpected(
    url: &str,
    limit: Duration,
    response: reqwest::Response,
) -> ClientError {
    let status = response.status().as_u16();
    let is_problem = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with(Problem::MEDIA_TYPE));
    let body = match body(url, limit, response).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    if is_problem && let Ok(problem) = serde_json::from_slice::<Problem>(&body) {
        return ClientError::Problem(Box::new(problem));
    }
    ClientError::Unexpected { url: url.to_owned(), status, excerpt: excerpt(&body) }
}

async fn body(url: &str, limit: Duration, mut response: reqwest::Response) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|error| ClientError::transport(url, limit, &error))?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len() + chunk.len() > BODY_LIMIT {
            return Err(ClientError::TooLong { url: url.to_owned(), limit: BODY_LIMIT });
        }
        body.extend_from_slice(&chunk);
    }
}

/// The beginning of a body, without control characters.
pub(crate) fn excerpt(body: &[u8]) -> String {
    const SHOWN: usize = 200;
    if body.is_empty() {
        return "(empty)".to_owned();
    }
    let text = String::from_utf8_lossy(body);
    let mut short: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
    if text.chars().nth(SHOWN).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
