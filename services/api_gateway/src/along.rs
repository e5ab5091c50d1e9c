//! Sends one request along a route: what the route demands is checked first, then the head is rewritten, then it is sent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body::Body;
use mesh::head::{self, DotSegments, no_dot_segments};
use mesh::{Deadline, MeshError, Options, Repeated};
use plugin::client_addr::client_addr;
use tokio::time::Instant;
use types::{ErrorKind, Problem};

use crate::compression::Offer;
use crate::gateway::{Call, Gateway, Refused, cut};
use crate::keys::{Digest, KeyError};
use crate::path::{has_encoded_slash, joined};
use crate::places::{Place, Places};
use crate::rate::{By, Key};
use crate::route_body::{LimitedBody, RouteBody};
use crate::table::{Rewrite, Target, Way};
use crate::ticket::Ticket;

/// The shortest time that is left of a deadline: the mesh sends nothing that has less.
const SHORTEST: Duration = Duration::from_millis(1);

impl Gateway {
    /// Sends a request along a route whose path it matches with its first `matched` bytes.
    pub(crate) async fn along<B>(
        &self,
        way: &Way,
        matched: usize,
        mut parts: Box<Parts>,
        body: B,
        call: &Call<'_>,
        ticket: &mut Ticket,
    ) -> Result<Response<RouteBody>, Refused>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        // Measured from here, so that waiting for a place counts.
        let deadline = way.timeouts.total.map(|total| (Instant::now() + total, total));
        check_path(way, parts.uri.path())?;
        let key = admit(way, &mut parts.headers).map_err(|error| no_access(error, way))?;
        self.check_rate(way, &parts, call, key.as_ref())?;
        if let Some(places) = &way.places {
            let since = Instant::now();
            ticket.hold(self.place(way, places, deadline).await?, since);
        }
        let offer = way.compresses.then(|| Offer::of(&parts));
        let too_large = || too_large(way);
        if way.body.is_some_and(|limit| body.size_hint().lower() > limit) {
            return Err(too_large().into());
        }
        let mut answer = match (&way.target, way.body) {
            (Target::Redirect(redirect), _) => {
                let path =
                    parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
                let location = redirect.location(call.scheme, call.host, &path, matched);
                let location = location.ok_or_else(no_location)?;
                own(redirect.status, LOCATION, location, Bytes::new())
            }
            (Target::Answer { status, body, content_type }, _) => {
                own(*status, CONTENT_TYPE, content_type.clone(), body.clone())
            }
            (Target::Service(..) | Target::Addresses { .. }, Some(limit)) if !body.is_end_stream() => {
                let (body, exceeded) = LimitedBody::new(body, limit);
                let sent = self.send(way, matched, parts, body, call, (deadline, ticket)).await;
                if exceeded.is_true() {
                    return Err(too_large().into());
                }
                sent?
            }
            (Target::Service(..) | Target::Addresses { .. }, _) => {
                self.send(way, matched, parts, body, call, (deadline, ticket)).await?
            }
        };
        way.response_headers.apply(answer.headers_mut());
        Ok(match offer {
            Some(offer) => offer.apply(answer),
            None => answer,
        })
    }

    /// Sends a request to the service or an address of a route.
    async fn send<B>(
        &self,
        way: &Way,
        matched: usize,
        mut parts: Box<Parts>,
        body: B,
        call: &Call<'_>,
        (deadline, ticket): (Option<(Instant, Duration)>, &mut Ticket),
    ) -> Result<Response<RouteBody>, Refused>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let service = match &way.target {
            Target::Service(service, guard) => {
                let service = self.view.borrow().normalized(service.clone());
                if self.is_known(&service) {
                    guard.check(&parts)?;
                }
                head::strip_browser(&mut parts.headers);
                ticket.service(&service);
                Some(service)
            }
            Target::Addresses { .. } | Target::Redirect(_) | Target::Answer { .. } => None,
        };
        let client = || client_addr(call.peer, &parts.headers, call.trust);
        let (balance, cookie) = way.choice.of_request(client, &parts.headers, call.scheme);
        let stripped = match &way.rewrite {
            Rewrite::Keep => "",
            Rewrite::Strip => {
                cut(&mut parts.uri, matched);
                way.rule.path.prefix()
            }
            Rewrite::Replace(prefix) => {
                let path = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
                let path = joined(prefix, path.get(matched..).unwrap_or_default());
                parts.uri = path.map(Uri::from).ok_or_else(too_long)?;
                ""
            }
        };
        way.request_headers.apply(&mut parts.headers);
        head::add(&mut parts.headers, &call.added(stripped, way.forwarded));
        if let Some((at, _)) = deadline {
            // The client may give it less.
            let given = parts.extensions.get::<Deadline>().map(|given| given.0);
            parts.extensions.insert(Deadline(given.map_or(at, |given| given.min(at))));
        }
        let request = Request::from_parts(*parts, body);
        let trail = ticket.trail();
        let mut options = Options {
            trail: trail.as_ref(),
            pool: self.traffic.pool(way.place),
            head: way.timeouts.answer,
            idle: way.timeouts.idle,
            min_rate: way.min_rate,
            attempts: way.retries.attempts,
            repeated: Repeated {
                connect: way.retries.connect,
                reset: way.retries.reset,
                codes: &way.retries.codes,
            },
            balance,
            websocket: call.websocket,
            ..Options::default()
        };
        ticket.websocket_idle(self.table.websocket_idle(Some(way)));
        let sent = match (&service, &way.target) {
            (Some(service), _) => self.mesh.send_with(service, &options, request).await,
            (None, Target::Addresses { urls, weights }) => {
                options.host = way.host.as_ref();
                options.weights = weights;
                self.mesh.send_to_any_with(urls, &options, request).await
            }
            (None, Target::Service(..) | Target::Redirect(_) | Target::Answer { .. }) => {
                Err(MeshError::NoAddress)
            }
        };
        let mut answer = match (sent, deadline) {
            (Err(MeshError::DeadlinePassed { .. }), Some((at, total))) if at <= Instant::now() + SHORTEST => {
                Err(too_slow(way, total).into())
            }
            (sent, _) => self.forwarded(sent, deadline),
        }?;
        if let Some(cookie) = cookie {
            cookie.set(answer.headers_mut());
        }
        Ok(answer)
    }

    /// Refuses a request beyond the rate of its route.
    fn check_rate(
        &self,
        way: &Way,
        parts: &Parts,
        call: &Call<'_>,
        admitted: Option<&Digest>,
    ) -> Result<(), Refused> {
        let Some(rate) = &way.rate else { return Ok(()) };
        let joined;
        let key = match rate.by() {
            By::Route => Key::All,
            By::Key => admitted.map_or(Key::All, Key::Admitted),
            By::Client => Key::of_client(client_addr(call.peer, &parts.headers, call.trust)),
            By::Header(name) => {
                let mut values = parts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
                match (values.next(), values.next()) {
                    (None, _) => Key::Header(None),
                    (Some(value), None) => Key::Header(Some(value)),
                    (Some(_), Some(_)) => {
                        let all = parts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
                        joined = all.collect::<Vec<_>>().join(b", ".as_slice());
                        Key::Header(Some(&joined))
                    }
                }
            }
        };
        rate.take(key, Instant::now()).map_err(|wait| {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let detail = format!("the rate limit of the route {} is used up: {}", way.label, rate.shown());
            let problem = Problem::new(ErrorKind::TooManyRequests, "rate-limited", detail)
                .hint(format!("send the request again in {seconds} s; nothing was done"));
            Refused::With(Box::new(problem), RETRY_AFTER, HeaderValue::from(seconds))
        })
    }

    /// Waits for a permit of a route that has a limit.
    async fn place(
        &self,
        way: &Way,
        places: &Arc<Places>,
        deadline: Option<(Instant, Duration)>,
    ) -> Result<Place, Problem> {
        let wait = self.mesh.limits().wait;
        let until = Instant::now() + wait;
        let until = deadline.map_or(until, |(at, _)| at.min(until));
        if let Ok(Ok(place)) = tokio::time::timeout_at(until, places.acquire()).await {
            return Ok(place);
        }
        if let Some((_, total)) = deadline.filter(|(at, _)| *at <= Instant::now()) {
            return Err(too_slow(way, total));
        }
        let detail = format!("{} had its maximum number of requests in flight for {wait:?}", way.label);
        Err(Problem::new(ErrorKind::Unavailable, "route-busy", detail)
            .hint("send fewer requests at once, or raise max_in_flight of the route"))
    }
}

fn admit(way: &Way, headers: &mut HeaderMap) -> Result<Option<Digest>, KeyError> {
    way.keys.as_ref().map(|keys| keys.admit(headers)).transpose()
}

/// Refuses a request without a key of its route.
pub(crate) fn check_access(way: &Way, headers: &mut HeaderMap) -> Result<(), Problem> {
    admit(way, headers).map(drop).map_err(|error| error.to_problem(&way.label))
}

/// The refusal of a request that can't be redirected.
pub(crate) fn no_location() -> Problem {
    let detail = "the location of the redirect is no valid header";
    Problem::new(ErrorKind::Invalid, "bad-target", detail).hint("send a path of ASCII characters")
}

/// Refuses a path that the route's servers could read differently.
pub(crate) fn check_path(way: &Way, path: &str) -> Result<(), Problem> {
    match &way.target {
        Target::Addresses { urls, .. } => {
            let replaces = matches!(&way.rewrite, Rewrite::Replace(prefix) if !prefix.is_empty());
            let has_base_path = replaces || urls.iter().any(|url| !url.path().is_empty());
            no_dot_segments(path, has_base_path).map_err(DotSegments::to_problem)?;
        }
        Target::Service(..) => head::no_literal_dots(path)?,
        Target::Redirect(_) | Target::Answer { .. } => {}
    }
    if way.refuses_slashes && has_encoded_slash(path) {
        let detail = format!("the path has an encoded slash, which the route {} refuses", way.label);
        let problem = Problem::new(ErrorKind::Invalid, "bad-path", detail);
        return Err(problem.hint("send the path that is meant, without `%2F`"));
    }
    Ok(())
}

fn no_access(error: KeyError, way: &Way) -> Refused {
    let problem = Box::new(error.to_problem(&way.label));
    Refused::With(problem, WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn too_long() -> Problem {
    let detail = "the target is too long once its prefix is replaced";
    let mut problem =
        Problem::new(ErrorKind::Invalid, "target-too-long", detail).hint("send long values in a body");
    problem.status = 414;
    problem
}

fn too_large(way: &Way) -> Problem {
    let limit = way.body.unwrap_or_default();
    let detail =
        format!("the body has more than {limit} bytes, the limit `limits.body` of the route {}", way.label);
    Problem::new(ErrorKind::TooLarge, "body-too-large", detail).hint("send less at once")
}

fn too_slow(way: &Way, total: Duration) -> Problem {
    let detail = format!(
        "the exchange took longer than {total:?}, the limit `timeouts.total` of the route {}",
        way.label
    );
    Problem::new(ErrorKind::Timeout, "too-slow", detail)
        .hint("the request may have been acted on; look before you send it again")
}

/// An answer of the gateway's own.
fn own(status: StatusCode, name: HeaderName, value: HeaderValue, body: Bytes) -> Response<RouteBody> {
    let mut answer = Response::new(RouteBody::fixed(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(name, value);
    answer
}
