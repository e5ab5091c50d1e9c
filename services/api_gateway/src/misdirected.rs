//! Requests for one host on a connection that was opened for another (421, RFC 9110, section 15.5.20).
//!
//! A client with HTTP/2 may send requests for several hosts over one connection if its certificate covers them. One that sends
//! a request for a host beyond that is told to open another connection, if this gateway has a certificate for that host. Clients
//! that can't get a better certificate are left alone: those that ask for no name or for an unknown one, as with an address
//! in the URL, and all where one certificate is there for everything.

use plugin::TlsSession;
use types::{ErrorKind, Problem};

/// Whether a request for `host`, in lower case and without a port, belongs on another connection. `has_certificate` says whether
/// there is a certificate for a host.
pub(crate) fn is_misdirected(
    host: &str,
    session: &TlsSession,
    has_certificate: impl Fn(&str) -> bool,
) -> bool {
    let (Some(asked), Some(certificate)) = (&session.server_name, &session.certificate) else { return false };
    asked.trim_end_matches('.') != host && !certificate.cover(host) && has_certificate(host)
}

/// The answer to such a request. Nothing was done, so that its client may send it again (and browsers do).
pub(crate) fn problem(host: &str, session: &TlsSession) -> Problem {
    let opened_for = session.server_name.as_deref().unwrap_or_default();
    let detail =
        format!("the connection was opened for {opened_for}, whose certificate does not cover {host}");
    let mut problem = Problem::new(ErrorKind::Invalid, "misdirected-request", detail)
        .hint(format!("open another connection, with {host} as its server name (SNI)"));
    problem.status = 421;
    problem
}

#[cfg(test)]
mod tests {
    use plugin::CertificateNames;

    use super::*;

    fn session(asked: Option<&str>, names: Option<&[&str]>) -> TlsSession {
        let names = names.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        TlsSession {
            version: "TLSv1.3",
            server_name: asked.map(Into::into),
            certificate: names.map(CertificateNames::from),
            client: None,
        }
    }

    #[test]
    fn only_a_request_for_a_host_with_a_certificate_of_its_own_is_misdirected() {
        let shop: Option<&[&str]> = Some(&["shop.example", "www.shop.example"]);
        let wild: Option<&[&str]> = Some(&["*.wild.example"]);
        for (asked, names, host, expected, why) in [
            (Some("shop.example"), shop, "shop.example", false, "the host of the connection"),
            (Some("shop.example."), shop, "shop.example", false, "the same with a dot"),
            (Some("shop.example"), shop, "www.shop.example", false, "its certificate covers it"),
            (Some("shop.example"), shop, "a.wild.example", true, "another certificate covers it"),
            (Some("a.wild.example"), wild, "shop.example", true, "the other way round"),
            (Some("a.wild.example"), wild, "b.wild.example", false, "the wildcard covers both"),
            (Some("a.wild.example"), wild, "c.b.wild.example", false, "no certificate covers it"),
            (Some("shop.example"), shop, "unknown.example", false, "no certificate covers it"),
            (Some("shop.example"), shop, "127.0.0.1", false, "no certificate covers an address"),
            (None, None, "a.wild.example", false, "the client asked for no name"),
            (Some("alias.internal"), None, "a.wild.example", false, "the name selected no certificate"),
            (None, None, "shop.example", false, "the default certificate covers it"),
        ] {
            let has = |host: &str| {
                ["shop.example", "www.shop.example"].contains(&host)
                    || host.split_once('.').is_some_and(|(_, below)| below == "wild.example")
            };
            assert_eq!(
                is_misdirected(host, &session(asked, names), has),
                expected,
                "{asked:?} {host}: {why}"
            );
        }
    }

    #[test]
    fn the_problem_names_both_hosts() {
        let problem = problem("b.example", &session(Some("a.example"), Some(&["a.example"])));
        assert_eq!((problem.status, problem.code()), (421, "misdirected-request"));
        let text = format!("{problem:?}");
        assert!(text.contains("a.example") && text.contains("b.example"), "{text}");
    }
}
