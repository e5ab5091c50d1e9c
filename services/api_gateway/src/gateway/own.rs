//! The answers of a gateway itself: its routes and services, and problems.

use std::collections::BTreeMap;

use axum::body::Body as AnyBody;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use plugin::http::grpc;
use serde_json::Value;
use types::{ErrorKind, Problem};

use super::Gateway;
use crate::explain::{self, Example};

/// The number of characters of a path that an error shows.
const SHOWN_PATH: usize = 200;
/// The hint for a request that nothing takes. It lists nothing: a stranger need not know the routes of other hosts, and there may
/// be thousands.
const NOWHERE: &str = "`GET /` lists the routes of this host and the services; `ctl routes --test 'GET URL'` shows why no route takes it";
/// The same where services have no paths.
const NO_ROUTE: &str =
    "`GET /` lists the routes of this host; `ctl routes --test 'GET URL'` shows why none of them takes it";

impl Gateway {
    /// The routes in order of precedence; with an example in the query, the one that takes it.
    pub(crate) fn routes(&self, query: &str) -> Response<AnyBody> {
        let example = match Example::of_query(query) {
            Ok(example) => example,
            Err(error) => return error.to_response(),
        };
        let body = match example {
            None => serde_json::json!({ "node": self.node, "routes": explain::routes(&self.table) }),
            Some(example) => serde_json::to_value(self.explain(&self.arriving(example))).unwrap_or_default(),
        };
        plugin::http::json(body.to_string())
    }

    /// The example as the first listener with trusted proxies gets it from one of these, if there is such a listener.
    fn arriving(&self, example: Example) -> Example {
        match self.arrivals.iter().find(|arrival| !arrival.trust.is_empty()) {
            Some(arrival) => example.sent_by_proxy(&arrival.trust),
            None => example,
        }
    }

    pub(super) fn nowhere(&self, path: &str) -> Problem {
        let shown: String = path.chars().take(SHOWN_PATH).collect();
        let detail = format!("neither a route nor a service begins `{shown}`");
        Problem::new(ErrorKind::NotFound, "no-route", detail).hint(if self.table.has_services() {
            NOWHERE
        } else {
            NO_ROUTE
        })
    }

    /// The number of serving members of each service that has a path of its own.
    fn services(&self) -> BTreeMap<String, usize> {
        let mut services = BTreeMap::new();
        if !self.table.has_services() {
            return services;
        }
        let view = self.view.borrow();
        for state in view.members().filter_map(|member| member.state.as_ref()) {
            if let Some(service) = state.role.service()
                && !self.mesh.is_proxy(service)
            {
                *services.entry(service.to_string()).or_default() += usize::from(state.phase.is_serving());
            }
        }
        services
    }

    /// The routes that clients may take under a host, given as [`name_of`](crate::host::name_of) returns it.
    pub(super) fn routes_of(&self, host: Option<&str>) -> Vec<Value> {
        let ways = self.table.ways().iter().filter(|way| way.hosts.iter().any(|rule| rule.takes(host)));
        ways.map(explain::for_clients).collect()
    }

    /// `GET /`: the routes and services behind this gateway, as far as they concern its clients: not where they lead.
    pub(super) fn index(&self, routes: &[Value]) -> Response<AnyBody> {
        let mut body = serde_json::json!({ "node": self.node, "routes": routes });
        if self.table.has_services() {
            body["services"] = serde_json::json!(self.services());
        }
        let mut answer = Response::new(AnyBody::from(body.to_string()));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }

    /// The answer that reports a problem, in the form that the client reads.
    pub(super) fn refusal(&self, problem: Problem, id: &HeaderValue, is_grpc: bool) -> Response<AnyBody> {
        let problem = self.signed(problem, id);
        if is_grpc { grpc::refusal(&problem) } else { plugin::http::problem(&problem) }
    }

    /// The problem, completed with the node and the request's id.
    fn signed(&self, problem: Problem, id: &HeaderValue) -> Problem {
        Problem {
            node: Some(self.node.to_string()),
            request_id: id.to_str().ok().map(ToOwned::to_owned),
            ..problem
        }
    }
}
