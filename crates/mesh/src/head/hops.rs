//! Counts how often a request was forwarded: `CDN-Loop` (RFC 8586), which every proxy keeps and appends itself to.
//!
//! Any client may send such entries; the only harm is that its own request is refused.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::names::elements;

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// This proxy's entry.
const ENTRY: &str = "coterie";

/// The largest number of times a request may be forwarded.
pub(crate) const MAX_HOPS: usize = 4;

/// The number of the next hop; `None` if the request was forwarded too often already.
pub(crate) fn next_hop(headers: &HeaderMap) -> Option<usize> {
    let is_ours =
        |entry: &&str| entry.split_once(';').map_or(*entry, |(id, _)| id.trim()).eq_ignore_ascii_case(ENTRY);
    let hops = elements(headers, &CDN_LOOP).filter(is_ours).count();
    (hops < MAX_HOPS).then_some(hops + 1)
}

/// Appends this proxy's hop.
pub(crate) fn set_hops(headers: &mut HeaderMap) {
    headers.append(CDN_LOOP, HeaderValue::from_static(ENTRY));
}

#[cfg(test)]
mod tests {
    use super::super::testing::headers;
    use super::*;

    #[test]
    fn hops_are_counted_up_to_a_limit() {
        for (before, after) in [
            (&[][..], Some(1)),
            (&["cdn-loop: other"], Some(1)),
            (&["cdn-loop: coterie"], Some(2)),
            (&["cdn-loop: other, Coterie; v=1", "cdn-loop: coterie,coterie"], Some(4)),
            (&["cdn-loop: coterie, coterie, coterie, coterie"], None),
        ] {
            assert_eq!(next_hop(&headers(before)), after, "{before:?}");
        }
        let mut message = headers(&["cdn-loop: other"]);
        for hops in 1..=4 {
            assert_eq!(next_hop(&message), Some(hops));
            set_hops(&mut message);
        }
        assert_eq!(next_hop(&message), None);
    }
}
