//! The stream of events of one agent.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use http::header::ACCEPT;
use types::api::Event;

use crate::call::{Client, excerpt, problem_or_unexpected};
use crate::error::ClientError;
use crate::sse::SseParser;

/// An agent sends a comment every few seconds; one that is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);

enum State {
    Unconnected,
    Open(Box<Reading>),
    Ended,
}

struct Reading {
    response: reqwest::Response,
    parser: SseParser,
    ready: VecDeque<Event>,
}

impl Client {
    /// What happens from now on, or from after the event with the id given, in this agent's view.
    ///
    /// Begins with the members that are there, unless it resumes. Ends when the agent ends it; an error is the last
    /// item. To go on after either, call again with the id of the last event seen.
    pub fn events(
        &self,
        last_event_id: Option<&str>,
    ) -> impl Stream<Item = Result<Event, ClientError>> + Send + use<> {
        let client = self.clone();
        let last = last_event_id.map(str::to_owned);
        stream::unfold(State::Unconnected, move |state| {
            let client = client.clone();
            let last = last.clone();
            async move {
                match next(&client, last.as_deref(), state).await {
                    Ok(Some((event, state))) => Some((Ok(event), state)),
                    Ok(None) => None,
                    Err(error) => Some((Err(error), State::Ended)),
                }
            }
        })
    }

    async fn open_events(&self, last_event_id: Option<&str>) -> Result<Reading, ClientError> {
        let mut request = self.get("/v1/events").header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let url = self.url("/v1/events");
        let limit = self.limit();
        let response = tokio::time::timeout(limit, request.send())
            .await
            .map_err(|_elapsed| ClientError::Timeout { url: url.clone(), limit })?
            .map_err(|error| ClientError::transport(&url, limit, &error))?;
        if !response.status().is_success() {
            return Err(problem_or_unexpected(&url, limit, response).await);
        }
        Ok(Reading { response, parser: SseParser::default(), ready: VecDeque::new() })
    }
}

async fn next(
    client: &Client,
    last: Option<&str>,
    state: State,
) -> Result<Option<(Event, State)>, ClientError> {
    let mut reading = match state {
        State::Unconnected => Box::new(client.open_events(last).await?),
        State::Open(reading) => reading,
        State::Ended => return Ok(None),
    };
    let url = client.url("/v1/events");
    loop {
        if let Some(event) = reading.ready.pop_front() {
            return Ok(Some((event, State::Open(reading))));
        }
        let chunk = tokio::time::timeout(SILENCE, reading.response.chunk())
            .await
            .map_err(|_elapsed| ClientError::Timeout { url: url.clone(), limit: SILENCE })?
            .map_err(|error| ClientError::transport(&url, SILENCE, &error))?;
        let Some(chunk) = chunk else { return Ok(None) };
        let unexpected = |excerpt: String| ClientError::Unexpected {
            url: url.clone(),
            status: reading.response.status().as_u16(),
            excerpt,
        };
        let frames = reading.parser.push(&chunk).map_err(|error| unexpected(error.to_string()))?;
        for frame in frames {
            let event = serde_json::from_str(&frame.data)
                .map_err(|error| unexpected(format!("{error}: {}", excerpt(frame.data.as_bytes()))))?;
            reading.ready.push_back(event);
        }
    }
}
