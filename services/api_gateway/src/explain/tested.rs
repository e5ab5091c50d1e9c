//! What would become of an example: `GET /routes?test=…`. The functions that decide about requests decide about it, in the
//! same order, so an example that would be refused is shown as refused.

use http::Method;
use http::header::HeaderValue;
use http::uri::PathAndQuery;
use mesh::MeshError;
use mesh::head::{self, websocket};
use types::{Problem, ServiceName};

use super::{Example, Explanation, explain};
use crate::along::{check_access, check_path, no_location};
use crate::gateway::Gateway;
use crate::host::MAX_NAME;
use crate::listeners::Arrival;
use crate::table::{Destination, Target, Way};

/// The refusal of an example.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Refusal {
    status: u16,
    code: String,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let code = problem.code().to_owned();
        Self { status: problem.status, code, detail: problem.detail, hint: problem.hint }
    }
}

impl Gateway {
    /// Which route takes an example, or why the gateway refuses it.
    pub(crate) fn explain(&self, example: &Example) -> Explanation {
        let mut explanation = explain(&self.table, example);
        // The path may begin with a word that is the name of no service.
        explanation.service = explanation.service.filter(|service| {
            service.parse().is_ok_and(|service| {
                let service = self.view.borrow().normalized(service);
                self.is_known(&service) && !self.mesh.is_proxy(&service)
            })
        });
        explanation.refused = self.refusal_of(example).err().map(Refusal::from);
        if explanation.refused.as_ref().is_none_or(|refused| !is_of_head(refused, example)) {
            let ready = self.arrivals.iter().filter(|arrival| is_ready(arrival, example));
            explanation.ready = ready.map(|arrival| arrival.listener.clone()).collect();
            explanation.is_ready_everywhere =
                !self.arrivals.is_empty() && explanation.ready.len() == self.arrivals.len();
        }
        explanation
    }

    /// As [`handle`](Self::handle) refuses a request, as far as its head decides about that.
    fn refusal_of(&self, example: &Example) -> Result<(), Problem> {
        refused_by_listener(example)?;
        let mut parts = example.head();
        websocket::handshake(&parts).map_err(|error| error.to_problem())?;
        head::strip(&mut parts.headers, example.source);
        let mut buffer = [0; MAX_NAME];
        let asked = example.asked(&mut buffer);
        match self.table.destination(&asked) {
            Destination::Route(way, matched) => {
                check_path(way, parts.uri.path())?;
                check_access(way, &mut parts.headers)?;
                self.refused_along(way, matched, example, &parts)
            }
            Destination::Service(service) => {
                let service = self.view.borrow().normalized(service);
                if self.is_known(&service) {
                    self.guard.check(&parts)?;
                }
                head::no_literal_dots(parts.uri.path())?;
                self.not_for_operators(service)
            }
            Destination::Nowhere => Ok(()),
        }
    }

    fn refused_along(
        &self,
        way: &Way,
        matched: usize,
        example: &Example,
        parts: &http::request::Parts,
    ) -> Result<(), Problem> {
        match &way.target {
            Target::Service(service, guard) => {
                let service: ServiceName = self.view.borrow().normalized(service.clone());
                if self.is_known(&service) {
                    guard.check(parts)?;
                }
                self.not_for_operators(service)
            }
            Target::Redirect(redirect) => {
                let path = parts.uri.path_and_query().cloned();
                let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
                let host = example.host();
                let location = redirect.location(example.scheme(), host.as_deref(), &path, matched);
                location.map(|_: HeaderValue| ()).ok_or_else(no_location)
            }
            Target::Addresses { .. } | Target::Answer { .. } => Ok(()),
        }
    }

    fn not_for_operators(&self, service: ServiceName) -> Result<(), Problem> {
        if self.mesh.is_proxy(&service) {
            Err(MeshError::ForOperators { service }.to_problem())
        } else {
            Ok(())
        }
    }
}

fn refused_by_listener(example: &Example) -> Result<(), Problem> {
    head::refuse(&example.head()).map_err(|error| error.to_problem())
}

/// Whether the listener refuses the example before it looks for readiness checks.
fn is_of_head(refused: &Refusal, example: &Example) -> bool {
    refused_by_listener(example).is_err_and(|problem| problem.code() == refused.code)
}

/// Whether the listener answers the example itself.
fn is_ready(arrival: &Arrival, example: &Example) -> bool {
    let head = example.head();
    arrival.ready.as_deref() == Some(head.uri.path()) && matches!(head.method, Method::GET | Method::HEAD)
}
