//! WebSocket handshakes (RFC 6455, section 4): which request is one, how it is sent on, and what proves that a server
//! accepted it. Over HTTP/2 the same handshake is an extended CONNECT (RFC 8441). Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{Method, StatusCode, Version, response};
use rand::RngExt;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use types::{ErrorKind, Problem};

use super::names::elements;

/// What a server appends to the key of a handshake before it hashes it.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The number of random bytes in a key.
const KEY: usize = 16;
/// The number of characters of a refused value that an error shows.
const SHOWN: usize = 80;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// The version that everyone speaks.
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// Why a request that asks to become a WebSocket is not a valid handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Use GET.
    #[error("a WebSocket handshake has the method GET and not {0}")]
    Method(String),
    /// Send no body.
    #[error("a WebSocket handshake has no body")]
    Body,
    /// Speak version 13.
    #[error("the request asks for WebSocket version `{0}`, and only 13 is supported")]
    Version(String),
    /// Send one `Sec-WebSocket-Key` with 16 bytes in Base64.
    #[error("a WebSocket handshake has one Sec-WebSocket-Key of 16 bytes in Base64")]
    Key,
}

/// Whether a request is a WebSocket handshake: an HTTP/1.1 request whose `Connection` has `upgrade` and whose `Upgrade` is
/// `websocket` alone. Every other `Upgrade` is an offer that a server may ignore (RFC 9110, section 7.8), so such a request
/// is an ordinary one.
///
/// A request that asks to become a WebSocket in a malformed way is an error, as RFC 6455 (section 4.2.2) has it, and no
/// ordinary request: its client speaks another protocol after it, so its connection can't be used for anything else. And a
/// server behind a proxy might be more lenient than the proxy, which would then take the bytes of a WebSocket for requests.
pub fn handshake(head: &Parts) -> Result<bool, HandshakeError> {
    if !asks(head) {
        return Ok(false);
    }
    if head.method != Method::GET {
        return Err(HandshakeError::Method(shown(head.method.as_str())));
    }
    let is_zero = |length: &HeaderValue| length.as_bytes() == b"0";
    if head.headers.contains_key(TRANSFER_ENCODING)
        || !head.headers.get_all(CONTENT_LENGTH).iter().all(is_zero)
    {
        return Err(HandshakeError::Body);
    }
    let mut versions = head.headers.get_all(SEC_WEBSOCKET_VERSION).iter();
    if !(versions.next() == Some(&VERSION) && versions.next().is_none()) {
        let versions: Vec<_> = elements(&head.headers, &SEC_WEBSOCKET_VERSION).collect();
        return Err(HandshakeError::Version(shown(&versions.join(", "))));
    }
    let mut keys = head.headers.get_all(SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key) => Ok(true),
        _ => Err(HandshakeError::Key),
    }
}

/// Whether the client may speak the WebSocket protocol after the request.
fn asks(head: &Parts) -> bool {
    let mut upgrades = elements(&head.headers, &UPGRADE);
    // HTTP/2 has neither field: there, `of_extended_connect` has written them.
    upgrades.next().is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"))
        && upgrades.next().is_none()
        && head.version >= Version::HTTP_11
        && elements(&head.headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

fn is_key(key: &HeaderValue) -> bool {
    STANDARD.decode(key.as_bytes()).is_ok_and(|key| key.len() == KEY)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect::<String>().escape_debug().to_string()
}

/// A random key.
fn new_key() -> HeaderValue {
    let key = STANDARD.encode(rand::rng().random::<[u8; KEY]>());
    HeaderValue::from_str(&key).expect("Base64 fits into a header")
}

/// The value of `Sec-WebSocket-Accept` with which a server answers a key.
pub fn accepts(key: &str) -> String {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(GUID);
    STANDARD.encode(hash.finish())
}

/// Makes an extended CONNECT of HTTP/2 look like the handshake that it stands for, with a key of our own.
pub fn of_extended_connect(head: &mut Parts) {
    head.method = Method::GET;
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, WEBSOCKET);
    head.headers.insert(SEC_WEBSOCKET_KEY, new_key());
}

/// Makes the answer 101 to a handshake the one of HTTP/2: 200, without the fields that HTTP/2 does not have.
pub fn to_extended_connect(head: &mut response::Parts) {
    head.status = StatusCode::OK;
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT] {
        head.headers.remove(name);
    }
}

/// Adds the fields to the answer 101 that are for one connection only.
pub fn switch(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
}

/// Turns a request into a handshake. Returns the key, which is the client's if it sent one.
pub(crate) fn ask(headers: &mut HeaderMap) -> HeaderValue {
    switch(headers);
    headers.remove(CONTENT_LENGTH);
    headers.insert(SEC_WEBSOCKET_VERSION, VERSION);
    headers.entry(SEC_WEBSOCKET_KEY).or_insert_with(new_key).clone()
}

/// The same head for HTTP/2: the pseudo header says the rest.
pub(crate) fn without_connection(headers: &mut HeaderMap) {
    for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY] {
        headers.remove(name);
    }
}

/// Whether the answer 101 of a server accepts the handshake with this key; if not, why.
pub(crate) fn is_accepted(headers: &HeaderMap, key: &HeaderValue) -> Result<(), String> {
    let upgrades: Vec<_> = elements(headers, &UPGRADE).collect();
    if !matches!(upgrades[..], [upgrade] if upgrade.eq_ignore_ascii_case("websocket")) {
        return Err(format!("it switched to `{}` instead of `websocket`", shown(&upgrades.join(", "))));
    }
    let mut accepted = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
    match (accepted.next(), accepted.next()) {
        (Some(accept), None)
            if key.to_str().is_ok_and(|key| accepts(key).as_bytes() == accept.as_bytes()) =>
        {
            Ok(())
        }
        (None, _) => Err("it has no Sec-WebSocket-Accept".to_owned()),
        _ => Err("its Sec-WebSocket-Accept does not belong to the key".to_owned()),
    }
}

impl HandshakeError {
    /// The error as problem details, with a hint.
    pub fn to_problem(&self) -> Problem {
        let (code, status, hint) = match self {
            Self::Version(_) => ("websocket-version", 426, "send `Sec-WebSocket-Version: 13`"),
            Self::Method(_) | Self::Body | Self::Key => (
                "bad-handshake",
                400,
                "see RFC 6455, section 4.1; a request that is no handshake has no `Upgrade: websocket`",
            ),
        };
        let mut problem = Problem::new(ErrorKind::Invalid, code, self.to_string()).hint(hint);
        problem.status = status;
        problem
    }

    /// The fields of the refusal (RFC 6455, section 4.4; RFC 9110, section 15.5.22).
    pub fn fields(&self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::Version(_) => vec![(UPGRADE, WEBSOCKET), (SEC_WEBSOCKET_VERSION, VERSION)],
            Self::Method(_) | Self::Body | Self::Key => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::super::testing::headers;
    use super::*;

    /// The key of RFC 6455, section 1.3.
    const SAMPLE: &str = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
    const FINE: [&str; 4] =
        ["connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13", SAMPLE];

    fn parts(method: &str, version: Version, lines: &[&str]) -> Parts {
        let mut head =
            Request::builder().method(method).version(version).uri("/").body(()).unwrap().into_parts().0;
        head.headers = headers(lines);
        head
    }

    fn asked(lines: &[&str]) -> Result<bool, u16> {
        let found = handshake(&parts("GET", Version::HTTP_11, lines));
        found.map_err(|error| error.to_problem().status)
    }

    /// The lines of a valid handshake, of which some are replaced or added.
    fn but(changes: &[&str]) -> Result<bool, u16> {
        let name = |line: &str| line.split_once(':').unwrap().0.to_owned();
        let stays = |line: &&&str| changes.iter().all(|change| name(change) != name(line));
        let lines: Vec<_> = FINE.iter().filter(stays).chain(changes).copied().collect();
        asked(&lines.into_iter().filter(|line| !line.ends_with(": -")).collect::<Vec<_>>())
    }

    #[test]
    fn only_a_complete_handshake_is_one_and_a_broken_one_is_refused() {
        for (changes, expected) in [
            (&[][..], Ok(true)),
            (&["connection: keep-alive, UPGRADE"], Ok(true)),
            (&["upgrade: WebSocket"], Ok(true)),
            (&["content-length: 0"], Ok(true)),
            (&["origin: http://a", "sec-websocket-protocol: a, b"], Ok(true)),
            // Offers that a server may ignore.
            (&["upgrade: h2c"], Ok(false)),
            (&["upgrade: foo"], Ok(false)),
            (&["upgrade: websocket, h2c"], Ok(false)),
            (&["upgrade: websocket", "upgrade: h2c"], Ok(false)),
            (&["upgrade: websocket/13"], Ok(false)),
            (&["upgrade: -"], Ok(false)),
            (&["connection: -"], Ok(false)),
            (&["connection: close"], Ok(false)),
            // Broken ones.
            (&["content-length: 5"], Err(400)),
            (&["content-length: 0", "content-length: 5"], Err(400)),
            (&["transfer-encoding: chunked"], Err(400)),
            (&["sec-websocket-version: -"], Err(426)),
            (&["sec-websocket-version: 8"], Err(426)),
            (&["sec-websocket-version: 13, 8"], Err(426)),
            (&["sec-websocket-version: 13", "sec-websocket-version: 13"], Err(426)),
            (&["sec-websocket-key: -"], Err(400)),
            (&["sec-websocket-key: "], Err(400)),
            (&["sec-websocket-key: dGhlIHNhbXBsZQ=="], Err(400)),
            (&["sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ"], Err(400)),
            (&["sec-websocket-key: !!!!!!!!!!!!!!!!!!!!!!=="], Err(400)),
            (&[SAMPLE, SAMPLE], Err(400)),
        ] {
            assert_eq!(but(changes), expected, "{changes:?}");
        }
        for (method, version, expected) in [
            ("POST", Version::HTTP_11, Err(HandshakeError::Method("POST".to_owned()))),
            ("HEAD", Version::HTTP_11, Err(HandshakeError::Method("HEAD".to_owned()))),
            // RFC 9110, section 7.8: HTTP/1.0 has no upgrades.
            ("GET", Version::HTTP_10, Ok(false)),
            ("GET", Version::HTTP_2, Ok(true)),
        ] {
            assert_eq!(handshake(&parts(method, version, &FINE)), expected, "{method} {version:?}");
        }
    }

    #[test]
    fn a_refusal_of_a_version_names_the_one_that_is_spoken() {
        let error = HandshakeError::Version("8".to_owned());
        assert_eq!(
            error.fields().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["upgrade", "sec-websocket-version"]
        );
        assert_eq!(error.to_problem().code(), "websocket-version");
        assert!(HandshakeError::Key.fields().is_empty());
    }

    #[test]
    fn a_server_must_prove_that_it_read_the_handshake() {
        let mut request = headers(&[SAMPLE, "content-length: 0"]);
        let key = ask(&mut request);
        assert_eq!(accepts(key.to_str().unwrap()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(request.len(), 4, "{request:?}");
        for (lines, expected) in [
            (&["upgrade: WebSocket", "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="][..], true),
            (&["upgrade: websocket", "sec-websocket-accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo="], false),
            (&["upgrade: websocket"], false),
            (&["upgrade: h2c", "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="], false),
            (&["sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="], false),
            (&["upgrade: websocket, foo", "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="], false),
        ] {
            assert_eq!(is_accepted(&headers(lines), &key).is_ok(), expected, "{lines:?}");
        }
        let mut other = HeaderMap::new();
        let own = ask(&mut other);
        assert!(is_key(&own) && own != key);
    }

    #[test]
    fn an_extended_connect_becomes_a_handshake_with_a_key_of_its_own() {
        let mut head =
            parts("CONNECT", Version::HTTP_2, &["sec-websocket-version: 13", SAMPLE, "origin: http://a"]);
        of_extended_connect(&mut head);
        assert_eq!(handshake(&head), Ok(true));
        assert_ne!(head.headers[SEC_WEBSOCKET_KEY], "dGhlIHNhbXBsZSBub25jZQ==");
        let mut head = parts("CONNECT", Version::HTTP_2, &[]);
        of_extended_connect(&mut head);
        assert!(matches!(handshake(&head), Err(HandshakeError::Version(_))));
        let answer = http::Response::builder()
            .status(101)
            .header("upgrade", "websocket")
            .header("connection", "upgrade")
            .header("sec-websocket-accept", "x")
            .header("sec-websocket-protocol", "a");
        let (mut head, ()) = answer.body(()).unwrap().into_parts();
        to_extended_connect(&mut head);
        assert_eq!((head.status, head.headers.len()), (StatusCode::OK, 1));
    }
}
