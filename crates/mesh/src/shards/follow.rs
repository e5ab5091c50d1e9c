//! The streams of all shards as one: follows each at its owner, and resumes it at the next owner when one ends.

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

/// A stream in which nothing happens says so this often.
pub const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long a client waits at first until every shard is followed.
const START: Duration = Duration::from_secs(10);
/// An owner that sends nothing for so long, not even a heartbeat, is asked anew.
const SILENCE: Duration = Duration::from_secs(25);
/// Pauses before a shard is followed again.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));

/// What one shard sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update<P, T> {
    /// Something happened, and the place behind it.
    Item {
        /// The place behind it.
        place: P,
        /// What happened.
        item: T,
    },
    /// Nothing for a while; what was not asked for is passed over up to this place.
    Silence(P),
    /// The last one: what comes next is not kept any more.
    Gone(Box<Problem>),
}

/// A shard's stream, or why it broke off.
pub type Source<P, T> = BoxStream<'static, Result<Update<P, T>, String>>;

/// A shard's stream that has begun at a place.
pub struct Begun<P, S> {
    /// All below it was seen.
    pub place: P,
    /// What comes after it.
    pub updates: S,
}

/// What comes of beginning the stream of a shard.
pub type Beginning<P, T> = Result<Begun<P, Source<P, T>>, NotBegun>;

/// Why a shard's stream has not begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotBegun {
    /// Begin anew, without a place: what comes after it is not kept any more.
    #[error("{0}")]
    Gone(Box<Problem>),
    /// Try again.
    #[error("{0}")]
    Later(String),
}

/// What is followed, one shard at a time.
pub trait Follow: Clone + Send + Sync + 'static {
    /// Where a follower is in the stream of a shard.
    type Place: Copy + Display + FromStr + Send + Sync + 'static;
    /// What the stream brings.
    type Item: Send + 'static;

    /// Begins the stream of a shard at its present owner, from a place or from now.
    fn begin(
        &self,
        shard: ShardId,
        from: Option<Self::Place>,
    ) -> impl Future<Output = Beginning<Self::Place, Self::Item>> + Send;
}

impl<P, T> Update<P, T> {
    /// The same with another item, or why there is none.
    pub fn try_map<U>(self, f: impl FnOnce(T) -> Result<U, String>) -> Result<Update<P, U>, String> {
        Ok(match self {
            Self::Item { place, item } => Update::Item { place, item: f(item)? },
            Self::Silence(place) => Update::Silence(place),
            Self::Gone(problem) => Update::Gone(problem),
        })
    }
}

/// Begins to follow these shards, from the places of a cursor or from now. The stream ends after the first
/// [`Update::Gone`]: all shards go on, or none does.
///
/// # Errors
///
/// A shard could not be followed within ten seconds, or what comes after its place is not kept any more.
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

/// The stream of one shard, from one owner after the other.
struct Strand<F: Follow> {
    what: F,
    shard: ShardId,
    /// All below it was sent; from now if there is none.
    from: Option<F::Place>,
    source: Option<Source<F::Place, F::Item>>,
    retries: Retries,
}

impl<F: Follow> Strand<F> {
    /// Tries until the stream has begun. Gives the place.
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

    /// What comes next, from this owner or a later one.
    async fn next(&mut self) -> Update<F::Place, F::Item> {
        loop {
            let Some(source) = &mut self.source else {
                // The client is told that the stream lives.
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
                    debug!(shard = %self.shard, why, "a shard is followed anew");
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
