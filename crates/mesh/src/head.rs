//! The heads of messages that a proxy forwards: requests, answers and trailers, in one ordered pass.
//!
//! Parse -> refuse -> strip -> route -> rewrite -> add. A listener parses and calls [`refuse()`]; a proxy then calls
//! [`strip()`], chooses a route, checks its path ([`no_dot_segments`]), rewrites it, and calls [`add()`] last. So a
//! client can neither remove nor forge the fields that the proxy adds. Answers go through `answer`, trailers of both
//! directions through [`trailers`]. All of it is pure (RFC 9110, section 7.6; RFC 9112, sections 3 and 6).

mod answer;
mod forward;
pub mod forwarded;
mod hops;
mod names;
mod own;
mod path;
mod refuse;
mod reserved;
mod strip;
pub mod websocket;

pub use answer::AnswerError;
pub(crate) use answer::{answer, is_not_processed, owner_epoch};
pub use forward::{Added, REQUEST_ID, add, request_id};
pub(crate) use hops::{MAX_HOPS, next_hop, set_hops};
pub use own::own_values;
pub use path::{DotSegments, no_dot_segments, no_literal_dots};
pub use refuse::{HeadError, asked_host, asked_host_field, is_about_all, may_be_raw, refuse};
pub use reserved::reserved;
pub(crate) use strip::without_trailers;
pub use strip::{Source, strip, strip_browser, trailers};

#[cfg(test)]
pub(crate) mod testing {
    use http::header::{HeaderMap, HeaderName};

    /// Headers parsed from lines `name: value`.
    pub(crate) fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    /// The headers as lines `name: value`, sorted.
    pub(crate) fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }
}
