//! The deadline of a request, handed on from hop to hop in the header `Coterie-Deadline-Ms`.
//!
//! The header has the milliseconds that are left, not a time, since clocks differ. A listener removes it from requests of
//! clients that are not trusted. It covers the whole exchange: an answer whose body goes on beyond it is cut.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use tokio::time::{Instant, sleep_until};
use types::api;

const DEADLINE_MS: HeaderName = HeaderName::from_static(api::DEADLINE_MS);

/// Longer deadlines are no deadlines.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// When a request must have been answered, with the whole body of its answer. Put it in the extensions of a request that is
/// given to a [`Mesh`](crate::Mesh); of it and the request's header, the earlier one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub Instant);

impl Deadline {
    /// The deadline of a request, from its extensions and its header, which is removed. A malformed header is ignored.
    pub(crate) fn take(parts: &mut Parts) -> Option<Self> {
        let given = parts.extensions.get::<Self>().copied();
        let left = parts.headers.remove(&DEADLINE_MS).as_ref().and_then(left);
        let header = left.map(|left| Self(Instant::now() + left));
        given.into_iter().chain(header).min()
    }

    /// The time left; `None` if the deadline has passed.
    pub(crate) fn left(self, now: Instant) -> Option<Duration> {
        let left = self.0.saturating_duration_since(now);
        (left >= Duration::from_millis(1)).then_some(left)
    }

    /// Waits for a deadline; forever without one.
    pub(crate) async fn passed(deadline: Option<Self>) {
        match deadline {
            Some(Self(at)) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Writes the time that is left into the head of a request.
pub(crate) fn hand_on(headers: &mut HeaderMap, left: Duration) {
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    headers.insert(DEADLINE_MS, HeaderValue::from(millis));
}

fn left(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number that does not fit is far away.
    let millis = is_number.then(|| text.parse().unwrap_or(u64::MAX))?;
    Some(Duration::from_millis(millis)).filter(|left| *left <= LONGEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn parts(header: Option<&[u8]>) -> Parts {
        let mut request = http::Request::new(());
        if let Some(value) = header {
            request.headers_mut().insert(DEADLINE_MS, HeaderValue::from_bytes(value).unwrap());
        }
        request.into_parts().0
    }

    #[tokio::test(start_paused = true)]
    async fn the_header_has_the_milliseconds_that_are_left() {
        let now = Instant::now();
        let left = |text: &str| {
            let mut parts = parts(Some(text.as_bytes()));
            let deadline = Deadline::take(&mut parts);
            assert!(parts.headers.is_empty(), "it is written anew if it is handed on");
            deadline.map(|deadline| deadline.0 - now)
        };
        for (text, expected) in [
            ("1500", Some(1_500 * MS)),
            ("0", Some(Duration::ZERO)),
            ("86400000", Some(LONGEST)),
            ("86400001", None),
            ("99999999999999999999999", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1s", None),
            (" 1", None),
        ] {
            assert_eq!(left(text), expected, "{text:?}");
        }
        assert_eq!(Deadline::take(&mut parts(None)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_header_and_extension_counts() {
        let now = Instant::now();
        for (header, extension, expected) in [("10", 20, 10), ("20", 10, 10)] {
            let mut parts = parts(Some(header.as_bytes()));
            parts.extensions.insert(Deadline(now + MS * extension));
            assert_eq!(Deadline::take(&mut parts), Some(Deadline(now + MS * expected)));
        }
    }

    #[test]
    fn the_time_left_shrinks_and_then_is_over() {
        let now = Instant::now();
        let deadline = Deadline(now + 100 * MS);
        assert_eq!(deadline.left(now + 30 * MS), Some(70 * MS));
        assert_eq!(deadline.left(now + 100 * MS), None);
        assert_eq!(deadline.left(now + 200 * MS), None);
        let mut headers = HeaderMap::new();
        hand_on(&mut headers, deadline.left(now + 30 * MS).unwrap());
        assert_eq!(headers[DEADLINE_MS], "70");
    }

    proptest! {
        #[test]
        fn no_header_extends_a_deadline_or_panics(value in prop::collection::vec(0x20_u8..0x7f, 0..30)) {
            let before = Instant::now();
            if let Some(Deadline(at)) = Deadline::take(&mut parts(Some(&value))) {
                prop_assert!(at >= before && at <= Instant::now() + LONGEST);
            }
        }
    }
}
