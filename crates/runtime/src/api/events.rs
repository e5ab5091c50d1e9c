//! `GET /v1/events`: the kept events as JSON, or a stream that can be resumed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::stream;
use http::header::ACCEPT;
use http::{HeaderMap, Response};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use types::NodeId;
use types::api::{Event, EventKind};

use super::App;
use crate::node::events::Events;

/// A comment is sent after this long without an event, so that proxies keep the stream open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The events that are kept.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct KeptEvents {
    /// The node whose view it is.
    viewed_by: NodeId,
    /// The earliest first.
    events: Vec<Event>,
}

/// What happened in this node's view. With `Accept: text/event-stream` a stream: first every present member, then
/// each change; `Last-Event-ID` resumes it. Otherwise the events that are kept.
#[utoipa::path(get, path = "/v1/events",
    params(("Last-Event-ID" = Option<String>, Header, description = "the id of the last event that was read")),
    responses((status = 200, body = KeptEvents)))]
pub(crate) async fn events(State(app): State<App>, headers: HeaderMap) -> Response<Body> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if !header(ACCEPT.as_str()).is_some_and(|accept| accept.contains("text/event-stream")) {
        return Json(KeptEvents { viewed_by: app.facts.node.clone(), events: app.events.kept() })
            .into_response();
    }
    let resumed = header("last-event-id")
        .and_then(|id| app.events.number(id))
        .filter(|number| *number <= app.events.last());
    let feed = match resumed {
        Some(number) => Feed::after(&app, number, VecDeque::new()),
        None => {
            // The number first: a change in between is then sent twice rather than never.
            let number = app.events.last();
            let view = app.cluster.view();
            let present = view.members().map(|member| app.events.present(number, member.clone())).collect();
            Feed::after(&app, number, present)
        }
    };
    let events = stream::unfold(feed, |mut feed| async move { feed.next().await.map(|event| (event, feed)) });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// A stream's place in the events.
struct Feed {
    events: Events,
    number: u64,
    queue: VecDeque<Event>,
    stopping: CancellationToken,
}

impl Feed {
    fn after(app: &App, number: u64, queue: VecDeque<Event>) -> Self {
        Self { events: app.events.clone(), number, queue, stopping: app.stopping.clone() }
    }

    async fn next(&mut self) -> Option<Result<sse::Event, Infallible>> {
        while self.queue.is_empty() {
            let more = tokio::select! {
                biased;
                () = self.stopping.cancelled() => return None,
                more = self.events.after(self.number) => more,
            };
            for (number, event) in more {
                self.number = number;
                self.queue.push_back(event);
            }
        }
        self.queue.pop_front().map(|event| {
            let data = serde_json::to_string(&event).expect("our own types always serialize");
            let sent = sse::Event::default().event(event.kind.as_str()).data(data);
            // Of the members that are present at first only the last one has an id: a client that is cut off
            // among them has to begin again.
            let is_resumable = event.kind != EventKind::Present || self.queue.is_empty();
            Ok(if is_resumable { sent.id(event.id) } else { sent })
        })
    }
}
