//! Refuses requests whose heads different servers could read differently (RFC 9112, sections 3 and 6).

use http::header::{EXPECT, HOST, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Version};
use types::{ErrorKind, Problem};

use super::names::is_plainly_chunked;

/// The longest method, in bytes.
const MAX_METHOD: usize = 32;
/// The number of characters of a refused value that an error shows.
const SHOWN: usize = 80;

/// Why a request is refused for its head alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Send a `Host` header.
    #[error("the request has no Host header")]
    NoHost,
    /// Send one `Host` header.
    #[error("the request has several Host headers")]
    SeveralHosts,
    /// Write `Host: name` or `Host: name:port`.
    #[error("`{0}` is no host and port")]
    BadHost(String),
    /// Send credentials in a header.
    #[error("the target of the request has a user name")]
    UserName,
    /// Request a path.
    #[error("the target `{0}` is no path")]
    NoPath(String),
    /// Percent-encode it.
    #[error("the target of the request has {character} at byte {at}, which a URI cannot hold")]
    Character {
        /// The character, as it is shown.
        character: String,
        /// Its offset from the beginning of the target, in bytes, from 0.
        at: usize,
        /// Its percent-encoded form.
        encoded: String,
    },
    /// Remove the fragment; it is meant for the client alone.
    #[error("the target of the request has a fragment: `{0}`")]
    Fragment(String),
    /// Send the body without a transfer coding, or with `chunked` alone.
    #[error("the transfer coding `{0}` is not decoded here")]
    TransferCoding(String),
    /// Send the request itself.
    #[error("tunnels are not supported")]
    Tunnel,
    /// Inspect the request at the client.
    #[error("TRACE would return the headers of the request to its sender")]
    Trace,
    /// Use a standard method.
    #[error("the method has {0} letters, and none has more than {MAX_METHOD}")]
    LongMethod(usize),
    /// Remove the header, or send `100-continue`.
    #[error("the expectation `{0}` can't be met")]
    Expectation(String),
}

/// Refuses a request that the next server could read differently.
pub fn refuse(head: &Parts) -> Result<(), HeadError> {
    if head.method == Method::CONNECT {
        return Err(HeadError::Tunnel);
    }
    if head.method == Method::TRACE {
        return Err(HeadError::Trace);
    }
    if head.method.as_str().len() > MAX_METHOD {
        return Err(HeadError::LongMethod(head.method.as_str().len()));
    }
    target(head)?;
    host(head)?;
    is_plainly_chunked(&head.headers).map_err(HeadError::TransferCoding)?;
    expectation(&head.headers)
}

/// Whether the request is about the server as a whole: `OPTIONS *`.
pub fn is_about_all(head: &Parts) -> bool {
    head.method == Method::OPTIONS && head.uri.path() == "*"
}

/// The host and port of a request: from its target if that has any, else from its `Host` header (RFC 9112, section
/// 3.2.2).
pub fn asked_host(head: &Parts) -> Option<&str> {
    let of_target = head.uri.authority().map(Authority::as_str);
    of_target.or_else(|| head.headers.get(HOST).and_then(|host| host.to_str().ok()))
}

/// The same as the value of a field, if it can be one. That of a `Host` header shares its bytes.
pub fn asked_host_field(head: &Parts) -> Option<HeaderValue> {
    match head.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => head.headers.get(HOST).filter(|host| host.to_str().is_ok()).cloned(),
    }
}

fn target(head: &Parts) -> Result<(), HeadError> {
    let uri = &head.uri;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(HeadError::UserName);
    }
    if let Some(authority) = uri.authority()
        && uri.scheme().is_some()
        && !is_host(authority.as_str().as_bytes())
    {
        return Err(HeadError::BadHost(shown(authority.as_str())));
    }
    let is_http = uri.scheme_str().is_none_or(|scheme| matches!(scheme, "http" | "https"));
    let is_authority_alone = uri.authority().is_some() && uri.scheme().is_none();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    if !is_http || is_authority_alone || !(path.starts_with(['/', '?']) || is_about_all(head)) {
        let is_of_path = is_http && !is_authority_alone;
        return Err(HeadError::NoPath(if is_of_path { shown(path) } else { shown(&uri.to_string()) }));
    }
    if path.is_ascii() && !path.as_bytes().contains(&b'"') {
        return Ok(());
    }
    match path.char_indices().find(|(_, letter)| !may_be_raw(*letter)) {
        Some((at, letter)) => Err(HeadError::character(letter, at)),
        None => Ok(()),
    }
}

/// Whether a target may have this character as it is, among those that the parser accepts in a path or a query. RFC 3986 wants
/// some more of them encoded, nginx and Envoy want none; what counts is what a browser sends (the percent-encode sets of the
/// URL Standard). It encodes a quote in both, and the parser refuses one in a query, so it is refused in a path as well. It
/// encodes a backtick in a path, where the parser refuses it, and not in a query, where it must be accepted.
pub fn may_be_raw(letter: char) -> bool {
    letter.is_ascii() && letter != '"'
}

fn host(head: &Parts) -> Result<(), HeadError> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if head.version < Version::HTTP_11 => Ok(()),
        (None, _) => Err(HeadError::NoHost),
        (Some(_), Some(_)) => Err(HeadError::SeveralHosts),
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (Some(host), None) => Err(HeadError::BadHost(shown(&String::from_utf8_lossy(host.as_bytes())))),
    }
}

/// Whether the value is `name`, `name:port`, `1.2.3.4:port` or `[::1]:port`.
fn is_host(host: &[u8]) -> bool {
    is_plain_host(host) || is_valid_host(host)
}

/// Whether it is a name of letters, digits, dots and hyphens, with a port or without: those of nearly all requests need no
/// parser.
fn is_plain_host(host: &[u8]) -> bool {
    let is_name = |bytes: &[u8]| {
        !bytes.is_empty()
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
    };
    match host.iter().position(|byte| *byte == b':') {
        None => is_name(host),
        Some(at) => {
            let (name, port) = (&host[..at], &host[at + 1..]);
            let is_number = matches!(port.len(), 1..=5) && port.iter().all(u8::is_ascii_digit);
            let number = || port.iter().fold(0, |number, digit| number * 10 + u32::from(digit & 15));
            is_name(name) && is_number && number() <= u32::from(u16::MAX)
        }
    }
}

fn is_valid_host(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    let text = authority.as_str();
    let after_host = text.strip_prefix(authority.host()).unwrap_or("?");
    let port_is_fine = match after_host.strip_prefix(':') {
        Some(port) => {
            port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
        }
        None => after_host.is_empty(),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=[]:".contains(&byte);
    !authority.host().is_empty() && port_is_fine && authority.host().bytes().all(is_name)
}

fn expectation(headers: &HeaderMap) -> Result<(), HeadError> {
    let strange = headers
        .get_all(EXPECT)
        .iter()
        .find(|value| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"100-continue"));
    match strange {
        Some(value) => Err(HeadError::Expectation(shown(&String::from_utf8_lossy(value.as_bytes())))),
        None => Ok(()),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect::<String>().escape_debug().to_string()
}

impl HeadError {
    /// The refusal of a character in a target.
    pub fn character(letter: char, at: usize) -> Self {
        let mut utf8 = [0; 4];
        let encoded = letter.encode_utf8(&mut utf8).bytes().map(|byte| format!("%{byte:02X}")).collect();
        let character = if letter.is_control() || letter.is_whitespace() {
            format!("U+{:04X}", u32::from(letter))
        } else if letter == '`' {
            "a backtick".to_owned()
        } else {
            format!("`{letter}`")
        };
        Self::Character { character, at, encoded }
    }

    /// The error as problem details, with a hint.
    pub fn to_problem(&self) -> Problem {
        let (code, status, hint) = match self {
            Self::NoHost => ("no-host", 400, "send `Host: name`, as HTTP/1.1 requires".to_owned()),
            Self::SeveralHosts => ("several-hosts", 400, "send one Host header".to_owned()),
            Self::BadHost(_) => ("bad-host", 400, "send `Host: name` or `Host: name:port`".to_owned()),
            Self::UserName => ("user-name", 400, "send credentials in an Authorization header".to_owned()),
            Self::NoPath(_) => ("bad-target", 400, "ask for a path, like `GET /`".to_owned()),
            Self::Character { encoded, .. } => ("bad-target", 400, format!("write it as `{encoded}`")),
            Self::Fragment(_) => ("bad-target", 400, "leave the fragment out, or write `#` as `%23`".to_owned()),
            Self::TransferCoding(_) => {
                ("transfer-coding", 501, "send `Transfer-Encoding: chunked` and no other one; what compresses the body is a Content-Encoding".to_owned())
            }
            Self::Tunnel => ("no-tunnels", 405, "send the request itself instead of CONNECT".to_owned()),
            Self::Trace => ("no-trace", 405, "inspect the request at the client".to_owned()),
            Self::LongMethod(_) => ("bad-method", 400, "use a method like GET, PUT or POST".to_owned()),
            Self::Expectation(_) => {
                ("bad-expectation", 417, "expect `100-continue`, or leave the header out".to_owned())
            }
        };
        let mut problem = Problem::new(ErrorKind::Invalid, code, self.to_string()).hint(hint);
        problem.status = status;
        problem
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn checked(method: &str, target: &str, lines: &[&str]) -> Result<(), u16> {
        let request = Request::builder().method(method).uri(target).body(()).unwrap();
        let (mut head, ()) = request.into_parts();
        head.headers = super::super::testing::headers(lines);
        refuse(&head).map_err(|error| error.to_problem().status)
    }

    #[test]
    fn a_request_names_one_host_and_one_path() {
        for (target, lines, expected) in [
            ("/a", &["host: x"][..], Ok(())),
            ("/a", &["host: x:80"], Ok(())),
            ("/a", &["host: x:"], Ok(())),
            ("/a", &["host: [::1]:80"], Ok(())),
            ("/a", &["host: a_b.example"], Ok(())),
            ("/a", &[], Err(400)),
            ("/a", &["host: a", "host: b"], Err(400)),
            ("/a", &["host: x, y"], Err(400)),
            ("/a", &["host: x/y"], Err(400)),
            ("/a", &["host: u@x"], Err(400)),
            ("/a", &["host: "], Err(400)),
            ("/a", &["host: x:99999"], Err(400)),
            ("/a", &["host: x:8a"], Err(400)),
            ("/a", &["host: a b/c@d"], Err(400)),
            ("http://y/a", &["host: x"], Ok(())),
            ("http://u:p@y/a", &["host: x"], Err(400)),
            ("ftp://y/a", &["host: x"], Err(400)),
            ("http://y:99999/a", &["host: x"], Err(400)),
            ("http://[::1]:80/a", &["host: x"], Ok(())),
            ("x:80", &["host: x"], Err(400)),
            ("a", &["host: x"], Err(400)),
            ("*", &["host: x"], Err(400)),
            ("/\u{e9}", &["host: x"], Err(400)),
            ("/\"", &["host: x"], Err(400)),
            ("/?`{}|\\^[]'", &["host: x"], Ok(())),
            ("/{}|\\^[]'", &["host: x"], Ok(())),
            ("/a%zz?%00;//..", &["host: x"], Ok(())),
        ] {
            assert_eq!(checked("GET", target, lines), expected, "{target} {lines:?}");
        }
        assert_eq!(checked("OPTIONS", "*", &["host: x"]), Ok(()));
        let request = Request::get("/").version(Version::HTTP_10).body(()).unwrap();
        assert_eq!(refuse(&request.into_parts().0), Ok(()), "HTTP/1.0 has no Host");
    }

    #[test]
    fn a_request_for_an_unsupported_feature_is_refused() {
        let long = "A".repeat(33);
        for (method, lines, expected) in [
            ("GET", &["host: x", "expect: 100-Continue"][..], Ok(())),
            ("GET", &["host: x", "expect: 200-ok"], Err(417)),
            ("GET", &["host: x", "expect: y 100-continue"], Err(417)),
            ("POST", &["host: x", "transfer-encoding: CHUNKED"], Ok(())),
            ("POST", &["host: x", "transfer-encoding: gzip, chunked"], Err(501)),
            ("POST", &["host: x", "transfer-encoding: chunked, chunked"], Err(501)),
            ("POST", &["host: x", "transfer-encoding: chunked", "transfer-encoding: chunked"], Err(501)),
            ("TRACE", &["host: x"], Err(405)),
            ("get", &["host: x"], Ok(())),
            (&long[..], &["host: x"], Err(400)),
        ] {
            assert_eq!(checked(method, "/", lines), expected, "{method} {lines:?}");
        }
        let connect = Request::builder().method("CONNECT").uri("x:80").body(()).unwrap();
        let error = refuse(&connect.into_parts().0).unwrap_err().to_problem();
        assert_eq!((error.status, error.code()), (405, "no-tunnels"));
    }

    #[test]
    fn a_target_that_is_no_path_is_shown_as_it_was_sent() {
        for (target, expected) in [("*", "`*`"), ("ftp://y/a", "`ftp://y/a`"), ("x:80", "`x:80`")] {
            let request = Request::get(target).header("host", "x").body(()).unwrap();
            let error = refuse(&request.into_parts().0).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        // As HTTP/2 has it.
        let mut request = Request::get("*").header("host", "x").body(()).unwrap();
        let mut parts = http::uri::Parts::default();
        (parts.scheme, parts.authority) = (Some(http::uri::Scheme::HTTP), Some("x".parse().unwrap()));
        parts.path_and_query = Some("*".parse().unwrap());
        *request.uri_mut() = http::Uri::from_parts(parts).unwrap();
        let error = refuse(&request.into_parts().0).unwrap_err();
        assert!(error.to_string().contains("target `*` is"), "{error}");
    }

    #[test]
    fn a_character_is_named_with_its_encoding() {
        let error = HeadError::character('<', 3);
        assert!(error.to_string().contains("`<` at byte 3"), "{error}");
        assert_eq!(error.to_problem().hint.as_deref(), Some("write it as `%3C`"));
        let error = HeadError::character('`', 7);
        assert!(error.to_string().contains("has a backtick at byte 7"), "{error}");
        assert_eq!(
            HeadError::character('\u{e9}', 1).to_problem().hint.as_deref(),
            Some("write it as `%C3%A9`")
        );
    }
}
