//! What a head asks for, as far as the log shows it: never credentials. Pure.
//!
//! Of a head that was not parsed, only what can't be anything else is known: a word that is no method, or no target, may be
//! a part of a body or of a header field, with credentials in it.

use http::header::{HOST, REFERER, USER_AGENT};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, Method};

/// How many characters of a method are kept.
const METHOD: usize = 32;
/// How many characters of a host are kept.
const HOST_LEN: usize = 255;

/// What a head asks for. What is not known is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: Option<String>,
    /// The host and port, without a user name and a password.
    pub host: Option<String>,
    /// Path and query, as they were sent.
    pub path: Option<String>,
    /// The version that the client wrote: `HTTP/1.1`.
    pub protocol: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `Referer`.
    pub referer: Option<String>,
}

impl Asked {
    /// Of a head that was parsed.
    pub(super) fn of_parts(head: &Parts) -> Self {
        let uri = &head.uri;
        let target = match uri.authority() {
            Some(authority) if uri.scheme().is_some() || head.method == Method::CONNECT => {
                let path = uri.path_and_query().map(PathAndQuery::as_str);
                Target { host: host_of(authority.as_str()), path: path.map(ToOwned::to_owned) }.whole()
            }
            // A host and port alone, which is no target but that of CONNECT.
            Some(_) => Target::default(),
            None => Target { host: None, path: Some(uri.to_string()) },
        };
        Self {
            method: Some(first(head.method.as_str(), METHOD)),
            host: target.host.or_else(|| host_field(&field(&head.headers, &HOST)?)),
            path: target.path.filter(|path| !path.is_empty()),
            protocol: Some(format!("{:?}", head.version)),
            user_agent: field(&head.headers, &USER_AGENT),
            referer: field(&head.headers, &REFERER),
        }
    }

    /// Of the bytes of a head, which may be only its beginning.
    pub(super) fn of_bytes(head: &[u8]) -> Self {
        let head = head.trim_ascii_start();
        let line = head.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
        let fields = &head[line.len()..];
        let is_whole = line.ends_with(b"\n");
        let mut words = line.trim_ascii_end().splitn(3, |byte| *byte == b' ');
        let (method, target, protocol) = (words.next(), words.next(), words.next());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let version = protocol.filter(|word| is_whole && is_version(word)).map(text);
        // A method is known once something follows it.
        let method = method.filter(|word| target.is_some() && Method::from_bytes(word).is_ok());
        if method.is_none() && version.is_none() {
            return Self::default();
        }
        let is_connect = method == Some(&b"CONNECT"[..]);
        let target_is_whole = protocol.is_some() || is_whole;
        let target = Target::of_text(&text(target.unwrap_or_default()), is_connect, target_is_whole);
        let of = |name: &HeaderName| raw_field(fields, name).map(text);
        Self {
            method: method.map(|method| first(&text(method), METHOD)),
            host: target.host.or_else(|| host_field(&of(&HOST)?)),
            path: target.path.filter(|path| !path.is_empty()),
            protocol: version,
            user_agent: of(&USER_AGENT),
            referer: of(&REFERER),
        }
    }
}

/// What a target names.
#[derive(Debug, Default)]
struct Target {
    host: Option<String>,
    path: Option<String>,
}

impl Target {
    /// Of its text. `is_whole` tells whether the text ends where the target does.
    fn of_text(text: &str, is_connect: bool, is_whole: bool) -> Self {
        // The fragment is neither path nor query.
        let text = text.split('#').next().unwrap_or_default();
        if text.starts_with(['/', '?']) || text == "*" {
            return Self { host: None, path: Some(text.to_owned()) };
        }
        if is_connect && is_whole {
            return Self { host: host_of(text), path: None };
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Self::default() };
        if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
            return Self::default();
        }
        match rest.find(['/', '?']) {
            Some(at) => Self { host: host_of(&rest[..at]), path: Some(rest[at..].to_owned()) }.whole(),
            None if is_whole => Self { host: host_of(rest), path: Some("/".to_owned()) }.whole(),
            // This may be a part of a password.
            None => Self::default(),
        }
    }

    /// Nothing if its host is none: a password with a slash would be a part of the path.
    fn whole(self) -> Self {
        if self.host.is_some() { self } else { Self::default() }
    }
}

/// The host and port of an authority, without a user name and a password; none if they are none.
fn host_of(authority: &str) -> Option<String> {
    let host = authority.rsplit('@').next().unwrap_or_default();
    let parsed = Authority::try_from(host).ok()?;
    let port = host.strip_prefix(parsed.host())?;
    let is_port = port.is_empty() || port[1..].bytes().all(|byte| byte.is_ascii_digit());
    is_port.then(|| first(host, HOST_LEN))
}

/// The value of `Host`, whatever it is, without a user name and a password.
fn host_field(value: &str) -> Option<String> {
    let host = value.rsplit('@').next().unwrap_or_default();
    (!host.is_empty()).then(|| first(host, HOST_LEN))
}

fn first(text: &str, count: usize) -> String {
    text.chars().take(count).collect()
}

fn is_version(word: &[u8]) -> bool {
    let number = word.strip_prefix(b"HTTP/").unwrap_or_default();
    matches!(number.len(), 1..=6) && number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

fn field(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The value of the first field with this name whose line is whole.
fn raw_field<'a>(fields: &'a [u8], name: &HeaderName) -> Option<&'a [u8]> {
    let lines = fields.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    lines.take_while(|line| !line.trim_ascii().is_empty()).find_map(|line| {
        let at = line.iter().position(|byte| *byte == b':')?;
        line[..at].eq_ignore_ascii_case(name.as_str().as_bytes()).then(|| line[at + 1..].trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    /// Method, host, path and protocol, `-` for what is not known.
    fn shown(asked: &Asked) -> [&str; 4] {
        [&asked.method, &asked.host, &asked.path, &asked.protocol].map(|word| word.as_deref().unwrap_or("-"))
    }

    #[test]
    fn the_words_of_a_line_are_known_as_far_as_they_can_be_nothing_else() {
        for (head, expected) in [
            ("POST /a?b HTTP/1.1\r\nhost: x\r\n", ["POST", "x", "/a?b", "HTTP/1.1"]),
            ("\r\nGET /a b HTTP/1.1\r\nHost:x:80\r\n\r\nhost: y\r\n", ["GET", "x:80", "/a", "-"]),
            ("GET /a#token HTTP/1.1\r\nhost: x", ["GET", "-", "/a", "HTTP/1.1"]),
            ("GET /a HTTP/1.1", ["GET", "-", "/a", "-"]),
            ("GET /a", ["GET", "-", "/a", "-"]),
            ("G{T /a HTTP/1.1\r\nhost: x\r\n", ["-", "x", "/a", "HTTP/1.1"]),
            ("GET", ["-"; 4]),
            ("OPTIONS * HTTP/1.10\r\n", ["OPTIONS", "-", "*", "HTTP/1.10"]),
            ("CONNECT u:p@x:443 HTTP/1.1\r\n", ["CONNECT", "x:443", "-", "HTTP/1.1"]),
            ("\u{16}\u{3}\u{1}", ["-"; 4]),
            ("", ["-"; 4]),
        ] {
            assert_eq!(shown(&Asked::of_bytes(head.as_bytes())), expected, "{head:?}");
        }
        let asked = Asked::of_bytes(b"GET /a\xff HTTP/1.1\r\nUser-Agent: a b \r\nreferer: c\r\nhost: x\r\n");
        assert_eq!(asked.user_agent.as_deref(), Some("a b"));
        assert_eq!((asked.referer.as_deref(), asked.host.as_deref()), (Some("c"), Some("x")));
    }

    #[test]
    fn a_user_name_and_a_password_are_never_known() {
        for line in [
            "GET http://user:secret@y/a HTTP/1.1\r\n",
            "GET http://user:sec@secret@y/a HTTP/1.1\r\n",
            "GET http://user:secret@y HTTP/1.1\r\n",
            "GET http://user:secret@y?q HTTP/1.1\r\n",
            "GET http://user:secret@y/a",
            "GET http://user:secret",
            "GET http://user:secret@",
            "GET http://user:secret/secret@y/a HTTP/1.1\r\n",
            "GET  http://user:secret@y/a HTTP/1.1\r\n",
            "GET\thttp://user:secret@y/a HTTP/1.1\r\n",
            "GET user:secret@y:80 HTTP/1.1\r\n",
            "CONNECT user:secret@y:80",
            "GET /a http://user:secret@y/a HTTP/1.1\r\n",
            "Authorization: Basic secret\r\n",
            "x-api-key: secret\r\n",
            "token=secret&a=b",
            "token secret",
            "GET /a HTTP/1.1\r\nhost: user:secret@y\r\n",
        ] {
            let asked = Asked::of_bytes(line.as_bytes());
            assert!(!format!("{asked:?}").contains("secret"), "{line:?}: {asked:?}");
        }
        for (target, host, expected) in [
            ("http://user:secret@y/a?b", "x", ["GET", "y", "/a?b", "HTTP/1.1"]),
            ("http://user:secret@y", "x", ["GET", "y", "/", "HTTP/1.1"]),
            ("http://user:secret/secret@y/a", "x", ["GET", "x", "-", "HTTP/1.1"]),
            ("user:secret@y", "x", ["GET", "x", "-", "HTTP/1.1"]),
            ("/a", "user:secret@y", ["GET", "y", "/a", "HTTP/1.1"]),
            ("*", "x, y", ["GET", "x, y", "*", "HTTP/1.1"]),
        ] {
            let request = Request::get(target).header("host", host).body(()).unwrap();
            assert_eq!(shown(&Asked::of_parts(&request.into_parts().0)), expected, "{target}");
        }
    }
}
