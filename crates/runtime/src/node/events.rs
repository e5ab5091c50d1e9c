//! The changes in this node's view: numbered, the latest kept, streamed with every gap reported.

mod words;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use cluster::{Change, Changes};
use plugin::Metrics;
use tokio::sync::watch;
use types::Generation;
use types::api::{Event, EventKind, Member};

/// Events that are kept for clients that resume a stream.
const KEPT: usize = 1_024;

/// The events of one node's view. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    log: Arc<Mutex<Log>>,
    last: Arc<watch::Sender<u64>>,
    generation: Generation,
}

#[derive(Debug, Default)]
struct Log {
    /// The numbers have no gap.
    kept: VecDeque<(u64, Event)>,
}

impl Events {
    pub(crate) fn new(generation: Generation, metrics: &Metrics) -> Self {
        let last = Arc::new(watch::Sender::new(0));
        let counted = Arc::clone(&last);
        metrics.observable_counter("events", "Changes seen in this node's view", move || *counted.borrow());
        Self { log: Arc::default(), last, generation }
    }

    /// Numbers and keeps every change that is worth an event, until the node's view ends.
    pub(crate) async fn record(self, mut changes: Changes) {
        while let Some(change) = changes.next().await {
            if !words::is_news(&change) {
                continue;
            }
            let number = *self.last.borrow() + 1;
            let event = self.event(number, change);
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.kept.push_back((number, event));
            if log.kept.len() > KEPT {
                log.kept.pop_front();
            }
            drop(log);
            self.last.send_replace(number);
        }
    }

    /// All events that are kept, the earliest first.
    pub(crate) fn kept(&self) -> Vec<Event> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.kept.iter().map(|(_, event)| event.clone()).collect()
    }

    /// The number of the last event.
    pub(crate) fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// A member as it is now, for the beginning of a stream that continues after event `number`.
    pub(crate) fn present(&self, number: u64, member: Member) -> Event {
        self.event(number, Change { kind: EventKind::Present, member, before: None })
    }

    /// The events after a number; waits for the next one if there is none. A gap is an event of its own.
    pub(crate) async fn after(&self, number: u64) -> Vec<(u64, Event)> {
        let mut last = self.last.subscribe();
        // `self` holds the sender, so the wait can't fail.
        let _ = last.wait_for(|last| *last > number).await;
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let first = log.kept.front().map_or(0, |(first, _)| *first);
        let gap = (first > number + 1).then(|| {
            let mut event = log.kept[0].1.clone();
            event.id = self.id(first - 1);
            event.kind = EventKind::Gap;
            event.message = format!("{} events are no longer kept", first - 1 - number);
            event.member = None;
            (first - 1, event)
        });
        gap.into_iter().chain(log.kept.iter().filter(|(at, _)| *at > number).cloned()).collect()
    }

    /// The number in an event's id, if the event is of this node's present incarnation.
    pub(crate) fn number(&self, id: &str) -> Option<u64> {
        let (generation, number) = id.split_once('.')?;
        (generation.parse() == Ok(self.generation.0)).then(|| number.parse().ok())?
    }

    fn id(&self, number: u64) -> String {
        format!("{}.{number}", self.generation)
    }

    fn event(&self, number: u64, change: Change) -> Event {
        let (is_present, message) = (change.is_present(), words::message(&change));
        let Change { kind, member, .. } = change;
        Event {
            id: self.id(number),
            at_ms: now_ms(),
            kind,
            node: member.id.clone(),
            generation: member.generation,
            message,
            member: is_present.then_some(member),
        }
    }
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use cluster::ClusterView;
    use types::api::About;

    use super::*;

    /// Each version has another address.
    fn member(version: u64) -> Member {
        Member {
            id: "a".parse().unwrap(),
            generation: Generation(5),
            version,
            http: version.to_string(),
            gossip: String::new(),
            state: None,
            about: About::default(),
            store: None,
        }
    }

    fn view(members: Vec<Member>) -> ClusterView {
        ClusterView::new("c".parse().unwrap(), "a".parse().unwrap(), members)
    }

    #[tokio::test]
    async fn a_stream_continues_where_it_stopped_and_reports_a_gap() {
        let (sender, receiver) = watch::channel(view(vec![member(1)]));
        let events = Events::new(Generation(9), &Metrics::new("test"));
        let recording = events.clone().record(Changes::new(receiver));
        tokio::pin!(recording);
        assert!(futures_util::poll!(recording.as_mut()).is_pending());
        assert_eq!(events.kept()[0].id, "9.1");
        for version in 2..=(KEPT as u64 + 3) {
            sender.send_replace(view(vec![member(version)]));
            // A task that never yields runs out of its budget, and then nothing is ever ready.
            tokio::task::yield_now().await;
            assert!(futures_util::poll!(recording.as_mut()).is_pending());
        }
        let after = events.after(events.number("9.1000").unwrap()).await;
        assert_eq!((after[0].0, after.len()), (1_001, 27));
        let after = events.after(1).await;
        assert_eq!((after[0].1.kind, after[0].0, after[1].0), (EventKind::Gap, 3, 4));
        assert_eq!(events.number("8.4"), None, "an id of an earlier incarnation");
        assert_eq!(events.number("junk"), None);
    }
}
