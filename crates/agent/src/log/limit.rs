//! Logs a repeated condition once a second, with the number of lines that were left out.
//!
//! A condition is a place in the code together with its message and fields, except durations and port numbers, which
//! differ each time. Different warnings of one place are limited as well: a few at once, then one a second. Other events
//! may repeat in normal operation, so the same event is logged a few times at once before lines are left out.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// The interval at which a condition is logged.
const PAUSE: Duration = Duration::from_secs(1);
/// How many different warnings of one place in the code are logged at once.
const BURST: f64 = 10.0;
/// How many equal lines that are not warnings are logged at once: a role may change back and forth.
const REPEATS: f64 = 5.0;
/// How many conditions are remembered. Beyond that the oldest one is forgotten.
const REMEMBERED: usize = 512;

/// A format that leaves lines out.
#[derive(Debug)]
pub(super) struct Limited<F> {
    inner: F,
    is_json: bool,
    limits: Mutex<Limits>,
}

impl<F> Limited<F> {
    /// For lines of text.
    pub(super) fn text(inner: F) -> Self {
        Self { inner, is_json: false, limits: Mutex::default() }
    }

    /// For lines that are JSON objects: the number of lines left out is added to the object.
    pub(super) fn json(inner: F) -> Self {
        Self { inner, is_json: true, limits: Mutex::default() }
    }
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        if level > Level::INFO {
            return self.inner.format_event(context, writer, event);
        }
        let place = hash(&event.metadata().callsite());
        let condition = condition(context, event, place);
        let place = (level <= Level::WARN).then_some(place);
        let admitted = {
            let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
            limits.admit(condition, place, Instant::now())
        };
        match admitted {
            // An empty line is not written.
            None => Ok(()),
            Some(0) => self.inner.format_event(context, writer, event),
            Some(left_out) => {
                let mut line = String::new();
                self.inner.format_event(context, Writer::new(&mut line), event)?;
                let line = line.trim_end();
                match line.strip_suffix('}').filter(|_| self.is_json) {
                    Some(object) => writeln!(writer, "{object},\"left_out\":{left_out}}}"),
                    None => writeln!(writer, "{line} left_out={left_out}"),
                }
            }
        }
    }
}

/// The hash of an event's place, content and spans.
fn condition<S, N>(context: &FmtContext<'_, S, N>, event: &Event<'_>, place: u64) -> u64
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let mut content = Content(DefaultHasher::new());
    place.hash(&mut content.0);
    event.record(&mut content);
    for span in context.event_scope().into_iter().flatten() {
        if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
            fields.fields.hash(&mut content.0);
        }
    }
    content.0.finish()
}

/// Hashes what distinguishes events.
struct Content(DefaultHasher);

impl Visit for Content {
    fn record_str(&mut self, field: &Field, value: &str) {
        field.name().hash(&mut self.0);
        without_durations_and_ports(value).hash(&mut self.0);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// A text without the numbers that are durations or ports.
fn without_durations_and_ports(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(start);
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
        let (digits, after) = number.split_at(end);
        let unit = after.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        let is_time = matches!(unit, "ns" | "us" | "µs" | "ms" | "s");
        let is_port = before.ends_with(':') && digits.len() >= 4;
        out.push_str(before);
        out.push_str(if is_time || is_port { "#" } else { digits });
        rest = if is_time { &after[unit.len()..] } else { after };
    }
    out + rest
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What was logged recently.
#[derive(Debug, Default)]
struct Limits {
    conditions: BTreeMap<u64, Condition>,
    places: BTreeMap<u64, Bucket>,
    repeats: BTreeMap<u64, Bucket>,
}

#[derive(Debug)]
struct Condition {
    last: Instant,
    left_out: u64,
}

/// A token bucket: a line takes a token, and one token is added each second.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
    left_out: u64,
}

impl Bucket {
    fn new(now: Instant, tokens: f64) -> Self {
        Self { tokens, at: now, left_out: 0 }
    }

    /// Takes a token, and returns how many lines were left out since the last one; `None` if there is no token.
    fn take(&mut self, now: Instant, most: f64) -> Option<u64> {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() / PAUSE.as_secs_f64();
        self.tokens = (self.tokens + earned).min(most);
        self.at = now;
        if self.tokens < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Forgets the oldest entry if there are too many.
fn bound<T>(entries: &mut BTreeMap<u64, T>, at: impl Fn(&T) -> Instant) {
    if entries.len() > REMEMBERED {
        let oldest = entries.iter().min_by_key(|(_, entry)| at(entry)).map(|(key, _)| *key);
        oldest.map(|key| entries.remove(&key));
    }
}

impl Limits {
    /// Returns how many similar lines were left out before this one; `None` if this one is left out. `place` is given for
    /// warnings only.
    fn admit(&mut self, condition: u64, place: Option<u64>, now: Instant) -> Option<u64> {
        let Some(place) = place else {
            let bucket = self.repeats.entry(condition).or_insert_with(|| Bucket::new(now, REPEATS));
            let admitted = bucket.take(now, REPEATS);
            bound(&mut self.repeats, |bucket| bucket.at);
            return admitted;
        };
        if let Some(known) = self.conditions.get_mut(&condition)
            && now.saturating_duration_since(known.last) < PAUSE
        {
            known.left_out += 1;
            return None;
        }
        let bucket = self.places.entry(place).or_insert_with(|| Bucket::new(now, BURST));
        let mut left_out = bucket.take(now, BURST)?;
        if let Some(before) = self.conditions.insert(condition, Condition { last: now, left_out: 0 }) {
            left_out += before.left_out;
        }
        bound(&mut self.conditions, |condition| condition.last);
        Some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing_subscriber::fmt::format::{Format, JsonFields};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_condition_is_logged_once_a_second_with_the_number_of_lines_left_out() {
        let mut limits = Limits::default();
        let start = Instant::now();
        let admitted: Vec<_> =
            (0..41).filter_map(|n| limits.admit(1, Some(9), start + 50 * n * MS)).collect();
        assert_eq!(admitted, [0, 19, 19]);
        assert_eq!(limits.admit(2, Some(9), start + 2_000 * MS), Some(0), "another condition");
    }

    #[test]
    fn one_place_may_log_a_few_warnings_at_once_and_then_one_a_second() {
        let mut limits = Limits::default();
        let start = Instant::now();
        let at_once = (0..100).filter(|n| limits.admit(*n, Some(9), start).is_some()).count();
        assert_eq!(at_once, 10);
        let later = start + 1_000 * MS;
        assert_eq!(limits.admit(200, Some(9), later), Some(90));
        assert_eq!(limits.admit(201, Some(9), later), None);
        let unbounded = (300..400).filter(|n| limits.admit(*n, None, start).is_some()).count();
        assert_eq!(unbounded, 100, "different events that are not warnings are all logged");
        for condition in 1_000..10_000 {
            limits.admit(condition, None, start);
            limits.admit(condition, Some(condition), start);
        }
        assert_eq!((limits.conditions.len(), limits.repeats.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn a_repeated_event_is_logged_a_few_times_before_lines_are_left_out() {
        let mut limits = Limits::default();
        let start = Instant::now();
        let at_once = (0..100).filter(|_| limits.admit(1, None, start).is_some()).count();
        assert_eq!(at_once, 5);
        assert_eq!(limits.admit(1, None, start + 1_000 * MS), Some(95));
    }

    #[test]
    fn durations_and_ports_do_not_distinguish_conditions() {
        for (one, other, is_same) in [
            ("no answer after 261.0ns", "no answer after 2s", true),
            ("127.0.0.1:53211: refused", "127.0.0.1:53212: refused", true),
            ("storage/0: 12ms (20s)", "storage/0: 13ms (21s)", true),
            ("storage/0", "storage/1", false),
            ("node-1", "node-2", false),
            ("os error 24", "os error 25", false),
            ("5 shards", "6 shards", false),
            ("12ms", "", false),
        ] {
            assert_eq!(
                without_durations_and_ports(one) == without_durations_and_ports(other),
                is_same,
                "{one} | {other}"
            );
        }
    }

    #[derive(Debug, Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Repeats a warning until it was logged for the second time.
    fn warn_until_twice(lines: &Lines) {
        let deadline = Instant::now() + 30 * PAUSE;
        while lines.text().lines().count() < 2 && Instant::now() < deadline {
            tracing::warn!(error = "Too many open files", "could not accept a connection");
            std::thread::yield_now();
        }
    }

    #[test]
    fn lines_in_text_and_json_show_how_many_were_left_out() {
        let (text, json) = (Lines::default(), Lines::default());
        let (to_text, to_json) = (text.clone(), json.clone());
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || to_text.clone())
            .event_format(Limited::text(Format::default().without_time()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            warn_until_twice(&text);
        });
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || to_json.clone())
            .fmt_fields(JsonFields::new())
            .event_format(Limited::json(Format::default().json()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            warn_until_twice(&json);
        });
        let text = text.text();
        let (first, second) = text.split_once('\n').unwrap();
        assert!(!first.contains("left_out") && second.contains(" left_out="), "{text}");
        let lines = json.text();
        let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert!(last["left_out"].as_u64().unwrap() > 0, "{lines}");
    }
}
