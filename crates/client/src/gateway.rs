//! The routes of a gateway.

use std::collections::BTreeMap;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use types::NodeId;

use crate::call::Client;
use crate::error::ClientError;

/// The routes of a gateway, in order of precedence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    /// The node that answers.
    pub node: NodeId,
    /// Each route under each of its hosts.
    pub routes: Vec<Route>,
}

/// A route under one of its hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Route {
    /// Its place in the settings, as a JSON pointer.
    pub place: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The host, or `*.` and a suffix; every host without this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The beginning of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The methods; every method without these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Header fields and their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// It takes only requests with another scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unless_scheme: Option<String>,
    /// Where it leads.
    pub target: RouteTarget,
    /// How one of its members or addresses is chosen, unless by affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance: Option<String>,
    /// What requests to the same member or address have in common: `client`, `cookie sid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<String>,
    /// Its limits.
    pub limits: RouteLimits,
    /// The name of the API keys that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// Which failed requests are sent again, where its settings say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RouteRetry>,
    /// Whether answers are compressed for clients that accept it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compress: bool,
    /// Whether its servers get `Forwarded` besides `X-Forwarded-*`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forwarded: bool,
    /// False if the prefix is sent with the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strip_prefix: Option<bool>,
    /// What the address gets instead of what the client sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<RouteRewrite>,
    /// `refuse` if a path with `%2F` is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slashes: Option<String>,
    /// Changes of the header fields of requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<RouteEdits>,
    /// Changes of the header fields of answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<RouteEdits>,
    /// Its time limits by their names in settings, such as `total`: `5s`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub timeouts: BTreeMap<String, String>,
    /// How its addresses are checked, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

/// What the address gets instead of what the client sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteRewrite {
    /// What replaces the prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The `Host` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// Changes of header fields; those that are set or added as `name: value`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteEdits {
    /// Fields that are removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Fields that replace others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
    /// Fields that are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
}

/// Which failed requests of a route are sent again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteRetry {
    /// How often a request may be sent in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Failures without an answer: `connect`, `reset`.
    #[serde(default)]
    pub on: Vec<String>,
    /// Statuses of answers.
    #[serde(default)]
    pub codes: Vec<u16>,
}

/// Where a route leads; one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteTarget {
    /// A service, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Addresses, chosen by load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<String>>,
    /// Addresses with weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<RouteBackend>>,
    /// Another URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RouteRedirect>,
    /// A fixed answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<RouteAnswer>,
}

/// An address with its weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteBackend {
    /// The address.
    pub url: String,
    /// Its share of the requests.
    pub weight: u32,
}

/// A redirect; the parts of the URL that change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteRedirect {
    /// The status.
    pub status: u16,
    /// The scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// The host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path, in which `{rest}` stands for the rest of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteAnswer {
    /// The status.
    pub status: u16,
}

/// The limits of a route's requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RouteLimits {
    /// The largest body, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<u64>,
    /// The least rate of a body, in bytes per second; 0 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_rate: Option<u64>,
    /// The largest number of concurrent requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u64>,
    /// The largest rate, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
}

/// Which route takes a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTest {
    /// The routes before it in the order of precedence.
    pub passed: Vec<PassedRoute>,
    /// The route that takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Route>,
    /// The service that gets it, if no route takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The gateway answers it with the list of its routes, because neither takes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_index: bool,
    /// Some of its header fields count only from the trusted proxies of a listener, as one of which it is explained.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_of_proxy: bool,
    /// Why the gateway refuses it, although a route or a service would take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RouteRefusal>,
    /// The listeners that answer it themselves, as a readiness check.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ready: Vec<String>,
    /// Whether all listeners do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_ready_everywhere: bool,
}

/// Why a gateway refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteRefusal {
    /// The status of its answer.
    pub status: u16,
    /// The code of the problem.
    pub code: String,
    /// What is wrong.
    pub detail: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A route that does not take a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedRoute {
    /// The route.
    pub route: Route,
    /// The first condition that the request does not meet.
    pub why: String,
}

impl Client {
    /// The routes of a gateway, in order of precedence.
    pub async fn routes(&self) -> Result<Routes, ClientError> {
        self.json(self.get(&format!("/svc/{}/routes", self.service()))).await
    }

    /// Which route takes a request such as `GET https://shop.example/path`, with header fields such as `x-version: 2`.
    pub async fn test_route(&self, request: &str, headers: &[String]) -> Result<RouteTest, ClientError> {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut path = format!("/svc/{}/routes?test={}", self.service(), encoded(request));
        for header in headers {
            path += &format!("&header={}", encoded(header));
        }
        self.json(self.get(&path)).await
    }
}

#[cfg(test)]
mod tests {
    use mesh::testing::Upstream;

    use super::*;

    #[tokio::test]
    async fn a_test_is_percent_encoded() {
        let body = r#"{"passed":[],"service":"storage"}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let server = Upstream::writing(answer).await;
        let client = Client::new(&server.url().to_string()).unwrap().with_service("edge".parse().unwrap());
        let test = client.test_route("GET /a?b&c", &["x-a: 1".to_owned()]).await.unwrap();
        assert_eq!((test.route, test.service.as_deref()), (None, Some("storage")));
        let head = &server.heads()[0];
        let path = "GET /svc/edge/routes?test=GET%20%2Fa%3Fb%26c&header=x%2Da%3A%201 HTTP/1.1\r\n";
        assert!(head.starts_with(path), "{head}");
    }
}
