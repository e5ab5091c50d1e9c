//! The event stream of one agent.

use futures_util::Stream;
use futures_util::stream;
use types::SseParser;
use types::api::Event;

use crate::call::Client;
use crate::error::ClientError;
use crate::frames::Frames;

enum State {
    Unconnected,
    Open(Box<Frames>),
    Ended,
}

impl Client {
    /// The events in this agent's view from now on, or after the event with the given id.
    ///
    /// Begins with the present members, unless it resumes. Ends when the agent ends it; an error is the last item. To
    /// continue after either, call again with the id of the last event received.
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
}

async fn next(
    client: &Client,
    last: Option<&str>,
    state: State,
) -> Result<Option<(Event, State)>, ClientError> {
    let mut frames = match state {
        State::Unconnected => {
            Box::new(Frames::open(client, "/v1/events", last, SseParser::DEFAULT_LIMIT).await?)
        }
        State::Open(frames) => frames,
        State::Ended => return Ok(None),
    };
    let Some(frame) = frames.next().await? else { return Ok(None) };
    let event = frames.data(&frame)?;
    Ok(Some((event, State::Open(frames))))
}
