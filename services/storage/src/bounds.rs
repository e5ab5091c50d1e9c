//! What those who read slowly may hold of this node's memory: each a little, and all of them together a fixed amount.
//!
//! An answer that is not small takes room before it is made and gives it back when it was sent. It is sent in slices,
//! so whoever stops to read holds what is left of it here, and not in the connection. That is taken away when somebody
//! else waits for the room; the answer breaks off then, and can be asked for again.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Response};
use plugin::response;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use types::{ErrorKind, Problem};

use crate::meters::Meters;
use crate::settings::Settings;

/// What is sent at once, and the most that a connection holds of a stream. What is not larger needs no room.
pub(crate) const SLICE: usize = 32 * 1024;
/// What the large answers of one sort hold at once, in bytes.
const ROOM: usize = 32 * 1024 * 1024;
/// How long it is waited for room: shorter than whoever asks for all shards waits for one of them.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Whoever has read nothing for so long loses its room to whoever waits for it.
const STALLED: Duration = Duration::from_secs(2);
/// How often who waits looks again.
const LOOK: Duration = Duration::from_millis(50);

/// The bounds of a node.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    watches: Arc<Semaphore>,
    max_watches: usize,
    meters: Meters,
    /// Large values that were asked for by their keys.
    pub(crate) values: Outbox,
    /// Large events of watches.
    pub(crate) events: Outbox,
    /// Listings of one shard.
    pub(crate) pages: Outbox,
    /// Listings of all shards. They ask for those of one, which therefore never wait for them.
    pub(crate) gathered: Outbox,
}

impl Bounds {
    pub(crate) fn new(settings: &Settings, meters: &Meters) -> Self {
        Self {
            watches: Arc::new(Semaphore::new(settings.max_watches.as_usize())),
            max_watches: settings.max_watches.as_usize(),
            meters: meters.clone(),
            values: Outbox::new(ROOM, &meters.cut),
            events: Outbox::new(ROOM, &meters.cut),
            pages: Outbox::new(ROOM, &meters.cut),
            gathered: Outbox::new(ROOM, &meters.cut),
        }
    }

    /// Lets another watch begin, if there are not too many.
    pub(crate) fn watch(&self) -> Result<Watching, Response<Body>> {
        let Ok(permit) = Arc::clone(&self.watches).try_acquire_owned() else {
            self.meters.refused_watches.inc();
            let detail = format!("this node has {} watches, as many as it takes", self.max_watches);
            let problem = Problem::new(ErrorKind::Unavailable, "too-many-watches", detail)
                .hint("try again in a moment, watch through another member, or raise `max_watches`");
            return Err(later(response::not_processed(&problem)));
        };
        Ok(Watching { _counted: Counted::new(&self.meters.watches), _permit: permit })
    }
}

/// A watch that was let in, as long as it lives.
#[derive(Debug)]
pub(crate) struct Watching {
    _counted: Counted,
    _permit: OwnedSemaphorePermit,
}

/// Counts one as long as it lives.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Refuses what found no room.
pub(crate) fn no_room() -> Response<Body> {
    let detail = format!("large answers on their way left no room for this one within {PATIENCE:?}");
    let problem = Problem::new(ErrorKind::Unavailable, "too-busy", detail);
    later(response::not_processed(
        &problem.hint("try again in a moment; a listing may ask for less with `limit` or `bytes`"),
    ))
}

fn later(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    answer
}

/// Room for large answers of one sort. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    room: Arc<Semaphore>,
    size: u32,
    cut: Counter,
    parcels: Mutex<Parcels>,
}

/// The answers on their way, and when it was last looked who of them stands still.
#[derive(Debug, Default)]
struct Parcels {
    all: Vec<Weak<Parcel>>,
    looked: Option<Instant>,
}

/// Room that was taken.
#[derive(Debug)]
pub(crate) struct Room {
    outbox: Outbox,
    permit: OwnedSemaphorePermit,
}

/// An answer on its way.
#[derive(Debug)]
struct Parcel(Mutex<Held>);

#[derive(Debug)]
struct Held {
    /// Nothing if it was taken away.
    left: Option<(Bytes, OwnedSemaphorePermit)>,
    read: Instant,
}

/// It was taken away from whoever did not read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer was not read for {STALLED:?}, and others waited")]
pub(crate) struct Stalled;

impl Outbox {
    pub(crate) fn new(most: usize, cut: &Counter) -> Self {
        let size = u32::try_from(most).unwrap_or(u32::MAX);
        let (room, cut) = (Arc::new(Semaphore::new(most)), cut.clone());
        Self(Arc::new(Shared { room, size, cut, parcels: Mutex::default() }))
    }

    fn cost(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.0.size)
    }

    /// Takes room for so many bytes if it is there now.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Room> {
        let permit = Arc::clone(&self.0.room).try_acquire_many_owned(self.cost(bytes)).ok()?;
        Some(Room { outbox: self.clone(), permit })
    }

    /// Waits for room for so many bytes, and takes it from whoever does not read. Nothing if there is none in time.
    ///
    /// It stands in no queue: a stream of a reader that stands still is not polled, and would hold up all behind it.
    pub(crate) async fn take(&self, bytes: usize) -> Option<Room> {
        self.take_until(bytes, Instant::now() + PATIENCE).await
    }

    /// The same until then.
    pub(crate) async fn take_until(&self, bytes: usize, deadline: Instant) -> Option<Room> {
        loop {
            if let Some(room) = self.try_take(bytes) {
                return Some(room);
            }
            if Instant::now() >= deadline {
                return None;
            }
            sleep(LOOK).await;
            self.cut_stalled();
        }
    }

    fn cut_stalled(&self) {
        let mut parcels = self.parcels();
        // One look serves all who wait.
        if parcels.looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        parcels.looked = Some(Instant::now());
        parcels.all.retain(|parcel| {
            parcel.upgrade().is_some_and(|parcel| {
                let mut held = parcel.held();
                if held.read.elapsed() >= STALLED && held.left.take().is_some() {
                    self.0.cut.inc();
                }
                held.left.is_some()
            })
        });
    }

    fn parcels(&self) -> MutexGuard<'_, Parcels> {
        self.0.parcels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Takes more, so that it is room for so many bytes, if it is there now: whoever holds room does not wait.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        let held = self.permit.num_permits();
        let wanted = usize::try_from(self.outbox.cost(bytes)).unwrap_or(usize::MAX);
        if wanted <= held {
            return true;
        }
        let more = self.outbox.try_take(wanted - held);
        more.map(|more| self.permit.merge(more.permit)).is_some()
    }

    /// Sends what the room was taken for.
    pub(crate) fn send(mut self, bytes: Bytes) -> Sending {
        let spare = self.permit.num_permits().saturating_sub(bytes.len());
        drop(self.permit.split(spare));
        let held = Held { left: Some((bytes, self.permit)), read: Instant::now() };
        let parcel = Arc::new(Parcel(Mutex::new(held)));
        let mut parcels = self.outbox.parcels();
        parcels.all.retain(|parcel| parcel.strong_count() > 0);
        parcels.all.push(Arc::downgrade(&parcel));
        drop(parcels);
        Sending(parcel)
    }

    /// The same as a body.
    pub(crate) fn body(self, bytes: Bytes) -> Body {
        let sending = (self.send(bytes), Window::default());
        let slices = stream::try_unfold(sending, |(sending, window)| async move {
            let Some(slice) = sending.next()? else { return Ok::<_, Stalled>(None) };
            Ok(Some((window.admit(slice).await, (sending, window))))
        });
        Body::from_stream(slices)
    }
}

/// The rest of an answer.
#[derive(Debug)]
pub(crate) struct Sending(Arc<Parcel>);

impl Sending {
    /// The next slice; nothing at the end.
    pub(crate) fn next(&self) -> Result<Option<Bytes>, Stalled> {
        let mut held = self.0.held();
        held.read = Instant::now();
        let Some((bytes, _)) = &mut held.left else { return Err(Stalled) };
        if bytes.is_empty() {
            return Ok(None);
        }
        let slice = bytes.split_to(bytes.len().min(SLICE));
        // A part of the whole would keep the whole.
        Ok(Some(Bytes::copy_from_slice(&slice)))
    }
}

impl Parcel {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection was given of one stream and has not sent yet: at most a slice, so that a stream waits here and not
/// there.
#[derive(Debug, Clone)]
pub(crate) struct Window(Arc<Semaphore>);

impl Default for Window {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SLICE)))
    }
}

impl Window {
    /// Waits until the connection may be given these as well.
    pub(crate) async fn admit(&self, bytes: Bytes) -> Bytes {
        let cost = u32::try_from(bytes.len().min(SLICE)).expect("a slice is small");
        let permit = Arc::clone(&self.0).acquire_many_owned(cost).await.expect("it is never closed");
        Bytes::from_owner(Unsent { bytes, _permit: permit })
    }
}

struct Unsent {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

#[cfg(test)]
mod tests;
