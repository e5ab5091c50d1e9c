//! The answers of a gateway itself: its routes and services, and problems.

use std::collections::BTreeMap;

use axum::body::Body as AnyBody;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use plugin::http::grpc;
use types::{ErrorKind, Problem};

use super::Gateway;
use crate::explain::{self, Example};
use crate::table::Target;

/// The number of characters of a path that an error shows.
const SHOWN_PATH: usize = 200;

impl Gateway {
    /// The routes in order of precedence; with an example in the query, the one that takes it.
    pub(crate) fn routes(&self, query: &str) -> Response<AnyBody> {
        let example = match Example::of_query(query) {
            Ok(example) => example,
            Err(error) => return error.to_response(),
        };
        let body = match example {
            None => serde_json::json!({ "node": self.node, "routes": explain::routes(&self.table) }),
            Some(example) => {
                let mut explanation = explain::explain(&self.table, &example);
                // The path may begin with a word that is the name of no service.
                explanation.service = explanation.service.filter(|service| {
                    service
                        .parse()
                        .is_ok_and(|service| self.is_known(&self.view.borrow().normalized(service)))
                });
                serde_json::to_value(explanation).unwrap_or_default()
            }
        };
        plugin::http::json(body.to_string())
    }

    pub(super) fn nowhere(&self, path: &str) -> Problem {
        let shown: String = path.chars().take(SHOWN_PATH).collect();
        let detail = format!("neither a route nor a service begins `{shown}`");
        Problem::new(ErrorKind::NotFound, "no-route", detail).hint(self.what_there_is())
    }

    /// `routes: /files; services: storage, searcher`.
    pub(super) fn what_there_is(&self) -> String {
        let or_none = |names: Vec<String>| match names.len() {
            0 => "none".to_owned(),
            _ => names.join(", "),
        };
        let routes = self.table.ways().iter().map(|way| way.label.clone());
        let services = self.services().into_keys();
        format!("routes: {}; services: {}", or_none(routes.collect()), or_none(services.collect()))
    }

    /// The number of serving members of each service type that some member has.
    fn services(&self) -> BTreeMap<String, usize> {
        let view = self.view.borrow();
        let mut services = BTreeMap::new();
        for state in view.members().filter_map(|member| member.state.as_ref()) {
            if let Some(service) = state.role.service() {
                *services.entry(service.to_string()).or_default() += usize::from(state.phase.is_serving());
            }
        }
        services
    }

    /// `GET /`: the routes and services behind this gateway.
    pub(super) fn index(&self) -> Response<AnyBody> {
        let routes: BTreeMap<_, Vec<_>> = self
            .table
            .ways()
            .iter()
            .map(|way| {
                let to = way.addresses().iter().map(ToString::to_string);
                let service = match &way.target {
                    Target::Service(service, _) => Some(format!("service {service}")),
                    Target::Addresses { .. } | Target::Redirect(_) | Target::Answer { .. } => None,
                };
                (way.label.clone(), to.chain(service).collect())
            })
            .collect();
        let body = serde_json::json!({
            "node": self.node,
            "routes": routes,
            "services": self.services(),
        });
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
