//! A stream of server-sent events from one agent, frame by frame.

use std::collections::VecDeque;
use std::time::Duration;

use http::header::ACCEPT;
use types::{Frame, SseParser};

use crate::call::{Client, excerpt, problem_or_unexpected};
use crate::error::ClientError;

/// An agent sends a comment every few seconds; one that is silent for this long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// An open stream.
#[derive(Debug)]
pub(crate) struct Frames {
    url: String,
    response: reqwest::Response,
    parser: SseParser,
    ready: VecDeque<Frame>,
}

impl Frames {
    /// Opens the stream at a path, after the event with the given id. One event may have at most `limit_of_event`
    /// bytes.
    pub(crate) async fn open(
        client: &Client,
        path: &str,
        last_event_id: Option<&str>,
        limit_of_event: usize,
    ) -> Result<Self, ClientError> {
        let mut request = client.get(path).header(ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let (url, limit) = (client.url(path), client.limit());
        let response = tokio::time::timeout(limit, request.send())
            .await
            .map_err(|_elapsed| ClientError::Timeout { url: url.clone(), limit })?
            .map_err(|error| ClientError::transport(&url, limit, &error))?;
        if !response.status().is_success() {
            return Err(problem_or_unexpected(&url, limit, response).await);
        }
        Ok(Self { url, response, parser: SseParser::new(limit_of_event), ready: VecDeque::new() })
    }

    /// The next frame; `None` when the agent has ended the stream. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ClientError> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            let chunk = tokio::time::timeout(SILENCE, self.response.chunk())
                .await
                .map_err(|_elapsed| ClientError::Timeout { url: self.url.clone(), limit: SILENCE })?
                .map_err(|error| ClientError::transport(&self.url, SILENCE, &error))?;
            let Some(chunk) = chunk else { return Ok(None) };
            let frames = self.parser.push(&chunk).map_err(|error| self.unexpected(error.to_string()))?;
            self.ready.extend(frames);
        }
    }

    /// Whether frames have arrived that [`Frames::next`] has not returned yet.
    pub(crate) fn has_more(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The last event id received, with an event or alone.
    pub(crate) fn last_event_id(&self) -> Option<&str> {
        self.parser.last_event_id()
    }

    /// Parses the data of a frame.
    pub(crate) fn data<T: serde::de::DeserializeOwned>(&self, frame: &Frame) -> Result<T, ClientError> {
        serde_json::from_str(&frame.data)
            .map_err(|error| self.unexpected(format!("{error}: {}", excerpt(frame.data.as_bytes()))))
    }

    pub(crate) fn unexpected(&self, excerpt: String) -> ClientError {
        ClientError::Unexpected { url: self.url.clone(), status: self.response.status().as_u16(), excerpt }
    }
}
