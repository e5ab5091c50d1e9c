//! Takes out of a head what is not for the next server, or not for this sender to say.

use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, ORIGIN, TE, TRAILER};

use super::names::{elements, is_alias, is_hop_by_hop, is_managed, is_own, is_protected, may_trail};

/// Who sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A proxy that may say for whom it asks, or a node of the cluster.
    Trusted,
    /// Anybody.
    Stranger,
}

/// Takes out of a request's head what belongs to its connection, what only a trusted proxy may say, and names that
/// could be taken for such fields. `TE: trailers` stays.
pub fn strip(headers: &mut HeaderMap, source: Source) {
    let forbidden = |name: &HeaderName| match source {
        Source::Trusted => false,
        Source::Stranger => is_managed(name),
    };
    strip_if(headers, forbidden);
}

/// The same for an answer: a stranger may say everything but what a node of the cluster says.
pub(super) fn strip_answer(headers: &mut HeaderMap, source: Source) {
    let forbidden = |name: &HeaderName| match source {
        Source::Trusted => false,
        Source::Stranger => is_own(name),
    };
    strip_if(headers, forbidden);
}

fn strip_if(headers: &mut HeaderMap, forbidden: impl Fn(&HeaderName) -> bool) {
    let mut doomed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_hop_by_hop(name) || forbidden(name) || is_alias(name))
        .cloned()
        .collect();
    // Most messages have none of them.
    if doomed.is_empty() {
        return;
    }
    let named = elements(headers, &CONNECTION).filter_map(|name| name.parse::<HeaderName>().ok());
    doomed.extend(named.filter(|name| !is_protected(name)));
    let takes_trailers = elements(headers, &TE).any(|element| {
        element.split(';').next().is_some_and(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
    });
    for name in doomed {
        headers.remove(name);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes out what a browser says of the page behind a request. The guard of a listener has judged it, and the next
/// one, which is reached under another name, would misread it.
pub fn strip_browser(headers: &mut HeaderMap) {
    headers.remove(ORIGIN);
    for name in ["sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "sec-fetch-user"] {
        headers.remove(name);
    }
}

/// Takes out of trailers what may not stand there.
pub fn trailers(trailers: &mut HeaderMap) {
    let doomed: Vec<HeaderName> = trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
    for name in doomed {
        trailers.remove(name);
    }
}

/// Takes out the announcement of trailers that are not passed on.
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
    fn what_belongs_to_one_connection_is_taken_out() {
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
        assert_eq!(stripped(&before, Source::Stranger), ["accept: */*", "trailer: checksum"]);
        assert_eq!(
            stripped(&["te: gzip, Trailers;q=1", "connection: te"], Source::Stranger),
            ["te: trailers"]
        );
    }

    #[test]
    fn connection_takes_nothing_away_that_others_rely_on() {
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
    fn a_stranger_says_nothing_that_only_proxies_say() {
        let claims = [
            "forwarded: for=1.2.3.4",
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
        assert!(stripped(&claims, Source::Stranger).is_empty());
        assert_eq!(stripped(&claims, Source::Trusted).len(), claims.len());
        let aliases = ["x_forwarded_for: 1", "x.forwarded.for: 1", "transfer_encoding: chunked", "x_mine: 1"];
        for source in [Source::Stranger, Source::Trusted] {
            assert_eq!(stripped(&aliases, source), ["x_mine: 1"]);
        }
    }

    #[test]
    fn trailers_carry_nothing_that_belongs_into_a_head() {
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
    fn what_a_browser_says_of_its_page_is_taken_out() {
        let mut message = headers(&["origin: http://a", "sec-fetch-site: same-origin", "accept: */*"]);
        strip_browser(&mut message);
        assert_eq!(lines(&message), ["accept: */*"]);
    }
}
