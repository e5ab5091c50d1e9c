//! How a route chooses among its members or addresses: by an algorithm, or by what a request has in common with earlier ones.
//!
//! A request without the cookie gets one: a random value, in the answer. So the first request of a client decides nothing that
//! the following ones do not repeat.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh::{AffinityKey, Balance, Turns};

use crate::rule::Scheme;

/// How a route chooses.
#[derive(Debug, Default)]
pub(crate) enum Choice {
    /// The cheaper of two.
    #[default]
    TwoChoices,
    /// In proportion to the weights alone.
    Shares,
    /// In turn.
    RoundRobin(Turns),
    /// The one with the fewest requests in flight.
    LeastConnections,
    /// The same one for requests that have this in common.
    Affinity(Affinity),
}

/// What requests that go to the same destination have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Affinity {
    /// The client's address, or the network of its IPv6 address.
    Client,
    /// The value of a cookie.
    Cookie(CookieName),
    /// The value of a header field.
    Header(HeaderName),
}

/// The name of a cookie: a token of RFC 9110.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CookieName(String);

/// The text is no name of a cookie.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a cookie: it has up to 64 letters, digits and `-_.!`")]
pub(crate) struct CookieNameError(String);

/// A cookie for a client that has none yet.
#[derive(Debug)]
pub(crate) struct NewCookie<'a> {
    name: &'a CookieName,
    value: String,
    is_secure: bool,
}

impl FromStr for CookieName {
    type Err = CookieNameError;
    fn from_str(text: &str) -> Result<Self, CookieNameError> {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!".contains(&byte);
        let is_name = (1..=64).contains(&text.len()) && text.bytes().all(is_fine);
        if is_name { Ok(Self(text.to_owned())) } else { Err(CookieNameError(text.to_owned())) }
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Cookie(name) => write!(f, "cookie {}", name.0),
            Self::Header(name) => write!(f, "header {name}"),
        }
    }
}

impl Choice {
    /// The word for it in settings; `None` for an affinity.
    pub(crate) fn as_str(&self) -> Option<&'static str> {
        match self {
            Self::TwoChoices => Some("two_choices"),
            Self::Shares => Some("weights"),
            Self::RoundRobin(_) => Some("round_robin"),
            Self::LeastConnections => Some("least_connections"),
            Self::Affinity(_) => None,
        }
    }

    /// How the destination of a request is chosen, and the cookie that its answer sets. `client` is the address of the client.
    pub(crate) fn of_request(
        &self,
        client: impl FnOnce() -> Option<IpAddr>,
        headers: &HeaderMap,
        scheme: Scheme,
    ) -> (Balance<'_>, Option<NewCookie<'_>>) {
        let with = |key: &[u8]| Balance::Affinity(AffinityKey::of(key));
        let balance = match self {
            Self::TwoChoices => Balance::TwoChoices,
            Self::Shares => Balance::Shares,
            Self::RoundRobin(turns) => Balance::RoundRobin(turns),
            Self::LeastConnections => Balance::LeastConnections,
            Self::Affinity(Affinity::Client) => match client() {
                Some(client) => with(&network(client)),
                None => Balance::TwoChoices,
            },
            Self::Affinity(Affinity::Header(name)) => match joined(headers, name) {
                Some(value) => with(&value),
                None => Balance::TwoChoices,
            },
            Self::Affinity(Affinity::Cookie(name)) => match cookie(headers, name) {
                Some(value) => with(value),
                None => {
                    let value = format!("{:032x}", rand::random::<u128>());
                    let balance = with(value.as_bytes());
                    return (balance, Some(NewCookie { name, value, is_secure: scheme == Scheme::Https }));
                }
            },
        };
        (balance, None)
    }
}

impl NewCookie<'_> {
    /// Adds the cookie to an answer, unless the server sets one of this name itself.
    pub(crate) fn set(&self, headers: &mut HeaderMap) {
        let is_there = |line: &HeaderValue| {
            let name = line.as_bytes().split(|byte| *byte == b'=').next();
            name.is_some_and(|name| name.trim_ascii() == self.name.0.as_bytes())
        };
        if headers.get_all(SET_COOKIE).iter().any(is_there) {
            return;
        }
        let secure = if self.is_secure { "; Secure" } else { "" };
        let line = format!("{}={}; Path=/; HttpOnly; SameSite=Lax{secure}", self.name.0, self.value);
        if let Ok(line) = HeaderValue::from_str(&line) {
            headers.append(SET_COOKIE, line);
        }
    }
}

/// An IPv4 address, or the /64 network of an IPv6 address, from which one machine can take any address.
fn network(client: IpAddr) -> Vec<u8> {
    match client.to_canonical() {
        IpAddr::V4(client) => client.octets().to_vec(),
        IpAddr::V6(client) => client.octets()[..8].to_vec(),
    }
}

/// All values of a field.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if values.is_empty() { None } else { Some(values.join(b", ".as_slice())) }
}

/// The value of the first cookie of this name that has one.
fn cookie<'a>(headers: &'a HeaderMap, name: &CookieName) -> Option<&'a [u8]> {
    let lines = headers.get_all(COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let (found, value) = pair.trim_ascii().split_at_checked(name.0.len())?;
        let value = value.strip_prefix(b"=")?;
        (found == name.0.as_bytes() && !value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        lines.collect::<Vec<(HeaderName, HeaderValue)>>().into_iter().fold(
            HeaderMap::new(),
            |mut all, (name, value)| {
                all.append(name, value);
                all
            },
        )
    }

    fn key(choice: &Choice, client: &str, lines: &[(&'static str, &'static str)]) -> Option<AffinityKey> {
        let (balance, cookie) = choice.of_request(|| client.parse().ok(), &headers(lines), Scheme::Http);
        assert!(cookie.is_none());
        match balance {
            Balance::Affinity(key) => Some(key),
            Balance::TwoChoices | Balance::Shares | Balance::RoundRobin(_) | Balance::LeastConnections => {
                None
            }
        }
    }

    #[test]
    fn requests_of_one_client_have_one_key() {
        let client = Choice::Affinity(Affinity::Client);
        let of = |address| key(&client, address, &[]);
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"), "of one network");
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("?"), None, "a request from nowhere goes anywhere");
    }

    #[test]
    fn requests_with_one_value_of_a_header_have_one_key() {
        let user = Choice::Affinity(Affinity::Header("x-user".parse().unwrap()));
        let of = |lines: &[(&'static str, &'static str)]| key(&user, "::1", lines);
        assert!(of(&[("x-user", "a")]).is_some());
        assert_ne!(of(&[("x-user", "a")]), of(&[("x-user", "b")]));
        assert_eq!(of(&[("x-user", "a"), ("x-user", "b")]), of(&[("x-user", "a, b")]));
        assert_eq!(of(&[("x-other", "a")]), None);
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let sid = Choice::Affinity(Affinity::Cookie("sid".parse().unwrap()));
        let of = |lines: &[(&'static str, &'static str)]| key(&sid, "::1", lines);
        let wanted = Some(AffinityKey::of(b"1=2"));
        for lines in [
            &[("cookie", "sid=1=2")][..],
            &[("cookie", "a=b; sid=1=2; c")],
            &[("cookie", "a=b;sid=1=2 ")],
            &[("cookie", "xsid=3; sids=4; sid; sid="), ("cookie", "sid=1=2"), ("cookie", "sid=5")],
        ] {
            assert_eq!(of(lines), wanted, "{lines:?}");
        }
    }

    #[test]
    fn a_client_without_the_cookie_gets_one_that_leads_to_the_same_destination() {
        let sid = Choice::Affinity(Affinity::Cookie("sid".parse().unwrap()));
        for (scheme, end) in [(Scheme::Http, "SameSite=Lax"), (Scheme::Https, "; Secure")] {
            let (balance, new) = sid.of_request(|| None, &headers(&[("cookie", "SID=1; sid=")]), scheme);
            let Balance::Affinity(first) = balance else { panic!("{balance:?}") };
            let mut answer = headers(&[("set-cookie", "other=sid=2")]);
            new.unwrap().set(&mut answer);
            let line = answer.get_all(SET_COOKIE).iter().nth(1).unwrap().to_str().unwrap();
            assert!(line.contains("; Path=/; HttpOnly; SameSite=Lax") && line.ends_with(end), "{line}");
            let value = line.strip_prefix("sid=").unwrap().split(';').next().unwrap();
            assert_eq!((value.len(), first), (32, AffinityKey::of(value.as_bytes())));
        }
    }

    #[test]
    fn the_servers_own_cookie_stays() {
        let sid = Choice::Affinity(Affinity::Cookie("sid".parse().unwrap()));
        let (_, new) = sid.of_request(|| None, &HeaderMap::new(), Scheme::Http);
        let mut answer = headers(&[("set-cookie", " sid=mine; Path=/app")]);
        new.unwrap().set(&mut answer);
        assert_eq!(answer.get_all(SET_COOKIE).iter().count(), 1);
    }

    #[test]
    fn a_name_of_a_cookie_is_a_token() {
        for text in ["", "a b", "a=b", "a;b", "a,b", "\u{e9}", &"a".repeat(65)] {
            assert!(text.parse::<CookieName>().is_err(), "{text}");
        }
        assert!("__Host-sid.1".parse::<CookieName>().is_ok());
    }
}
