//! The streams of all shards merged into one: follows each at its owner, and resumes it at the next owner when it ends.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{BoxStream, select_all};
use futures_util::{Stream, StreamExt, stream};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;
use types::{Backoff, Problem, Retries, ShardId};

use super::Cursor;
use super::error::missing;

/// How often an idle stream sends a heartbeat.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a client waits until every shard is followed.
const START: Duration = Duration::from_secs(10);
/// After this long without data, not even a heartbeat, the stream is begun again.
const SILENCE: Duration = Duration::from_secs(25);
/// The pauses before a shard is followed again.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));

/// An update of one shard's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<P, T> {
    /// An item, and the position after it.
    Item {
        /// The position after it.
        place: P,
        /// The item.
        item: T,
    },
    /// No item for a while. The client may resume from this position; the stream skips what the client did not request.
    Silence(P),
    /// The last update: the following items are no longer kept.
    Gone(Box<Problem>),
}

/// A shard's stream; an error states why it broke off.
pub type Source<P, T> = BoxStream<'static, Result<Update<P, T>, String>>;

/// A shard's stream that has begun at a position.
pub struct Begun<P, S> {
    /// All items before it were sent.
    pub place: P,
    /// The updates after it.
    pub updates: S,
}

/// The result of beginning the stream of a shard.
pub type Beginning<P, T> = Result<Begun<P, Source<P, T>>, NotBegun>;

/// Why a shard's stream has not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotBegun {
    /// Begin again, without a position: the items after it are no longer kept.
    #[error("{0}")]
    Gone(Box<Problem>),
    /// Try again.
    #[error("{0}")]
    Later(String),
}

/// How the stream of one shard is begun.
pub trait Follow: Clone + Send + Sync + 'static {
    /// A position in the stream of a shard.
    type Place: Copy + Display + FromStr + Send + Sync + 'static;
    /// An item of the stream.
    type Item: Send + 'static;

    /// Begins the stream of a shard at its present owner, from a position or from now.
    fn begin(
        &self,
        shard: ShardId,
        from: Option<Self::Place>,
    ) -> impl Future<Output = Beginning<Self::Place, Self::Item>> + Send;
}

impl<P, T> Update<P, T> {
    /// Converts the item; an error states why that failed.
    pub fn try_map<U>(self, f: impl FnOnce(T) -> Result<U, String>) -> Result<Update<P, U>, String> {
        Ok(match self {
            Self::Item { place, item } => Update::Item { place, item: f(item)? },
            Self::Silence(place) => Update::Silence(place),
            Self::Gone(problem) => Update::Gone(problem),
        })
    }
}

/// Begins to follow these shards, from the positions of a cursor or from now. The stream ends after the first
/// [`Update::Gone`]: all shards continue, or none does.
///
/// # Errors
///
/// A shard could not be followed within ten seconds, or the items after its position are no longer kept.
pub async fn follow<F: Follow>(
    what: F,
    shards: &[ShardId],
    from: Option<&Cursor<F::Place>>,
) -> Result<
    (Cursor<F::Place>, impl Stream<Item = (ShardId, Update<F::Place, F::Item>)> + Send + use<F>),
    Box<Problem>,
> {
    let deadline = Instant::now() + START;
    let begun = join_all(shards.iter().map(|&shard| {
        let from = from.and_then(|cursor| cursor.place(shard));
        let mut strand = Strand { what: what.clone(), shard, from, source: None, retries: BACKOFF.retries() };
        async move {
            let begun = timeout_at(deadline, strand.begin()).await;
            match begun.unwrap_or_else(|_| Err(late(shard))) {
                Ok(place) => Ok((shard, place, strand)),
                Err(problem) => Err(problem),
            }
        }
    }))
    .await;
    let begun = begun.into_iter().collect::<Result<Vec<_>, _>>()?;
    let cursor = Cursor::new(begun.iter().map(|(shard, place, _)| (*shard, *place)));
    let strands = begun.into_iter().map(|(shard, _, strand)| {
        let updates = stream::unfold(strand, |mut strand| async move {
            let update = strand.next().await;
            Some((update, strand))
        });
        updates.map(move |update| (shard, update)).boxed()
    });
    let merged = stream::unfold(Some(select_all(strands)), |strands| async move {
        let mut strands = strands?;
        let update = strands.next().await?;
        let is_last = matches!(update.1, Update::Gone(_));
        Some((update, (!is_last).then_some(strands)))
    });
    Ok((cursor, merged))
}

/// The stream of one shard, across its successive owners.
struct Strand<F: Follow> {
    what: F,
    shard: ShardId,
    /// All items before it were sent; `None` to begin from now.
    from: Option<F::Place>,
    source: Option<Source<F::Place, F::Item>>,
    retries: Retries,
}

impl<F: Follow> Strand<F> {
    /// Retries until the stream has begun. Returns the position.
    async fn begin(&mut self) -> Result<F::Place, Box<Problem>> {
        loop {
            match self.what.begin(self.shard, self.from).await {
                Ok(Begun { place, updates }) => {
                    self.from = Some(place);
                    self.source = Some(updates);
                    return Ok(place);
                }
                Err(NotBegun::Gone(problem)) => return Err(problem),
                Err(NotBegun::Later(why)) => {
                    debug!(shard = %self.shard, why, "a shard is not followed yet");
                    self.rest().await;
                }
            }
        }
    }

    /// The next update, from this owner or a later one.
    async fn next(&mut self) -> Update<F::Place, F::Item> {
        loop {
            let Some(source) = &mut self.source else {
                // The client gets a heartbeat meanwhile.
                let begun = timeout(HEARTBEAT, self.begin()).await;
                match (begun, self.from) {
                    (Ok(Ok(_)), _) => continue,
                    (Ok(Err(problem)), _) => return Update::Gone(problem),
                    (Err(_), Some(place)) => return Update::Silence(place),
                    (Err(_), None) => continue,
                }
            };
            match timeout(SILENCE, source.next()).await {
                Ok(Some(Ok(update))) => {
                    self.retries.reset();
                    match &update {
                        Update::Item { place, .. } | Update::Silence(place) => self.from = Some(*place),
                        Update::Gone(_) => {}
                    }
                    return update;
                }
                ended => {
                    let why = match ended {
                        Ok(Some(Err(why))) => why,
                        Ok(_) => "its owner ended it".to_owned(),
                        Err(_) => format!("its owner was silent for {SILENCE:?}"),
                    };
                    debug!(shard = %self.shard, why, "following a shard again");
                    self.source = None;
                    self.rest().await;
                }
            }
        }
    }

    async fn rest(&mut self) {
        sleep(self.retries.failed(rand::random())).await;
    }
}

fn late(shard: ShardId) -> Box<Problem> {
    Box::new(missing(format!("shard {shard} could not be followed within {START:?}")))
}

#[cfg(test)]
mod tests;
