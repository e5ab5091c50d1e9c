//! Removes fields from a head that are not meant for the next server, or that this sender may not send.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, ORIGIN, TE, TRAILER};

use super::names::{elements, is_alias, is_hop_by_hop, is_managed, is_own, is_protected, may_trail};

/// The sender of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A proxy that may name the client it forwards for, or a node of the cluster.
    Trusted,
    /// Any other sender.
    Untrusted,
}

/// Removes from a request's head the fields of its connection, the fields that only a trusted proxy may send, and names
/// that could be mistaken for either. `TE: trailers` stays.
pub fn strip(headers: &mut HeaderMap, source: Source) {
    let forbidden = |name: &HeaderName| match source {
        Source::Trusted => false,
        Source::Untrusted => is_managed(name),
    };
    strip_if(headers, forbidden);
}

/// The same for an answer: an untrusted sender may send every field except those reserved for nodes of the cluster.
pub(super) fn strip_answer(headers: &mut HeaderMap, source: Source) {
    let forbidden = |name: &HeaderName| match source {
        Source::Trusted => false,
        Source::Untrusted => is_own(name),
    };
    strip_if(headers, forbidden);
}

fn strip_if(headers: &mut HeaderMap, forbidden: impl Fn(&HeaderName) -> bool) {
    let mut doomed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_hop_by_hop(name) || forbidden(name) || is_alias(name))
        .cloned()
        .collect();
    // Fast path: most messages have none of these fields.
    if doomed.is_empty() {
        return;
    }
    // Both options are no names of fields, and nearly all messages have no other ones.
    let is_name = |option: &&str| !matches!(*option, "keep-alive" | "close");
    let named = elements(headers, &CONNECTION).filter(is_name);
    let named = named.filter_map(|name| name.parse::<HeaderName>().ok());
    doomed.extend(named.filter(|name| !is_protected(name)));
    let takes_trailers = doomed.contains(&TE)
        && elements(headers, &TE).any(|element| {
            element.split(';').next().is_some_and(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
        });
    for name in doomed {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes the fields in which a browser describes the page behind a request. The listener's guard has checked them,
/// and the next server, which is reached under another name, would misread them.
pub fn strip_browser(headers: &mut HeaderMap) {
    headers.remove(ORIGIN);
    for name in ["sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "sec-fetch-user"] {
        headers.remove(name);
    }
}

/// Removes fields that may not be in trailers.
pub fn trailers(trailers: &mut HeaderMap) {
    let doomed: Vec<HeaderName> = trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
    for name in doomed {
        trailers.remove(name);
    }
}

/// Removes the announcement of trailers that are not forwarded.
pub(crate) fn without_trailers(headers: &mut HeaderMap) {
    headers.remove(TRAILER);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{headers, lines};
    use super::*;

    fn stripped(before: &[&str], source: Source) -> Vec<String> {
        let mut headers = headers(before);
        strip(&mut headers, source);
        lines(&headers)
    }

    #[test]
    fn fields_of_one_connection_are_removed() {
        let before = [
            "connection: close, X-Private",
            "connection: x-other ,,",
            "x-private: 1",
            "x-other: 1",
            "keep-alive: timeout=5",
            "proxy-authorization: secret",
            "proxy-connection: keep-alive",
            "te: gzip",
            "transfer-encoding: chunked",
            "upgrade: h2c",
            "http2-settings: AAM",
            "trailer: checksum",
            "accept: */*",
        ];
        assert_eq!(stripped(&before, Source::Untrusted), ["accept: */*", "trailer: checksum"]);
        assert_eq!(
            stripped(&["te: gzip, Trailers;q=1", "connection: te"], Source::Untrusted),
            ["te: trailers"]
        );
    }

    #[test]
    fn connection_cannot_remove_protected_fields() {
        let kept = [
            "authorization: a",
            "content-length: 5",
            "content-type: t",
            "cookie: c",
            "coterie-hops: 1",
            "host: h",
            "traceparent: t",
            "x-forwarded-for: 1",
            "x-request-id: i",
        ];
        let named: Vec<_> = kept.iter().map(|line| line.split_once(':').unwrap().0).collect();
        let connection = format!("connection: {}", named.join(", "));
        let mut before = kept.to_vec();
        before.push(&connection);
        assert_eq!(stripped(&before, Source::Trusted), kept);
    }

    #[test]
    fn an_untrusted_sender_cannot_send_the_fields_of_a_proxy() {
        let claims = [
            "forwarded: for=1.2.3.4",
            "x-forwarded-client-cert: Hash=00",
            "x-forwarded-for: 9.9.9.9",
            "x-forwarded-host: evil.example",
            "x-forwarded-port: 1",
            "x-forwarded-prefix: //evil.example",
            "x-forwarded-proto: https",
            "x-real-ip: 9.9.9.9",
            "x-request-id: mine",
            "coterie-epoch: 99",
            "coterie-hops: 3",
        ];
        assert!(stripped(&claims, Source::Untrusted).is_empty());
        assert_eq!(stripped(&claims, Source::Trusted).len(), claims.len());
        let aliases = ["x_forwarded_for: 1", "x.forwarded.for: 1", "transfer_encoding: chunked", "x_mine: 1"];
        for source in [Source::Untrusted, Source::Trusted] {
            assert_eq!(stripped(&aliases, source), ["x_mine: 1"]);
        }
    }

    #[test]
    fn trailers_carry_no_field_that_belongs_in_a_head() {
        let mut message = headers(&[
            "checksum: 1",
            "x-forwarded-for: 9.9.9.9",
            "content-length: 3",
            "host: h",
            "grpc-status: 0",
        ]);
        trailers(&mut message);
        assert_eq!(lines(&message), ["checksum: 1", "grpc-status: 0"]);
    }

    #[test]
    fn the_fields_of_a_browser_about_its_page_are_removed() {
        let mut message = headers(&["origin: http://a", "sec-fetch-site: same-origin", "accept: */*"]);
        strip_browser(&mut message);
        assert_eq!(lines(&message), ["accept: */*"]);
    }
}
