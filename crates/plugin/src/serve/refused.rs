//! Finds out, from its bytes, what is wrong with a request that the parser refused. Pure.

use http::{StatusCode, Uri};
use httparse::{EMPTY_HEADER, Error, Request, Status};
use mesh::head::{HeadError, may_be_raw};
use types::{ErrorKind, Problem};

use super::ServeLimits;

/// How many characters of a refused text are shown.
const SHOWN: usize = 80;
/// The longest target that the parser accepts, in bytes.
const MAX_TARGET: usize = 65_534;
/// How many header fields are checked.
const FIELDS: usize = 256;

/// The problem with a head that the parser refused with this status. Each explanation is first checked against the bytes,
/// which may be only part of the head.
pub(super) fn problem(head: &[u8], status: StatusCode, limits: &ServeLimits) -> Problem {
    let head = head.trim_ascii_start();
    if head.starts_with(&[0x16, 0x03]) {
        return invalid("tls", 400, "this looks like TLS, and the listener speaks plain HTTP")
            .hint("use http:// instead of https://");
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let target_len = line.split(|byte| *byte == b' ').nth(1).map_or(0, <[u8]>::len);
    // The parser stops where its buffer is full, which may be in the middle of the target.
    let is_cut =
        status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE && !head.contains(&b'\n') && target_len > 0;
    if status == StatusCode::URI_TOO_LONG || is_cut || target_len > MAX_TARGET.min(limits.head_size) {
        let detail = format!("the target of the request has more than {} bytes", limits.head_size);
        return invalid("target-too-long", 414, detail).hint("send long values in a body");
    }
    if status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE {
        return too_large(limits);
    }
    let mut fields = [EMPTY_HEADER; FIELDS];
    let mut request = Request::new(&mut fields);
    let parsed = request.parse(head);
    let method = request.method.map(ToOwned::to_owned);
    let is_cut = !head.contains(&b'\n');
    let problem = match parsed {
        // The parser takes the end of the line for a part of the target, or of the version.
        Err(Error::Token | Error::NewLine) if method.is_some() && !is_cut && !has_version(line) => {
            version(line)
        }
        Err(Error::Version) => version(line),
        Err(Error::Token) if method.is_none() => Some(
            invalid("bad-method", 400, format!("`{}` does not begin with a method", shown(line)))
                .hint("send a request like `GET / HTTP/1.1`"),
        ),
        Err(Error::Token) => target(line),
        Err(Error::HeaderName | Error::HeaderValue | Error::NewLine) => field(head),
        Err(Error::TooManyHeaders) => Some(too_large(limits)),
        Ok(Status::Complete(_) | Status::Partial) => target(line).or_else(|| framing(&request)),
        Err(_) => None,
    };
    problem.unwrap_or_else(|| {
        invalid("malformed-request", 400, "the head of the request is not one of HTTP/1.1")
            .hint("see RFC 9112; the request line or a header field is malformed")
    })
}

/// The problem with a head that did not arrive in time.
pub(super) fn slow_head(limits: &ServeLimits) -> Problem {
    let detail = format!("the head of the request did not come within {:?}", limits.head_timeout);
    invalid("slow-head", 408, detail).hint("send the head of a request without pausing")
}

/// The problem with a client that speaks HTTP/2 on its own initiative.
pub(super) fn http_2() -> Problem {
    invalid("http-version", 505, "the listener speaks HTTP/1.1 and not HTTP/2").hint("use HTTP/1.1")
}

/// The problem with a client that speaks HTTP/1 to a listener for HTTP/2 alone.
pub(super) fn http_1() -> Problem {
    invalid("http-version", 505, "the listener speaks HTTP/2 and not HTTP/1.1").hint("use HTTP/2")
}

/// The problem with a client that sends plain HTTP to a listener with TLS.
pub(super) fn plain_http() -> Problem {
    invalid("plain-http", 400, "this looks like plain HTTP, and the listener speaks TLS")
        .hint("use https:// instead of http://")
}

fn invalid(code: &str, status: u16, detail: impl Into<String>) -> Problem {
    let mut problem = Problem::new(ErrorKind::Invalid, code, detail);
    problem.status = status;
    problem
}

pub(super) fn too_large(limits: &ServeLimits) -> Problem {
    let ServeLimits { fields, head_size, .. } = limits;
    let detail =
        format!("the head of the request is too large: it may have {fields} fields and {head_size} bytes");
    invalid("head-too-large", 431, detail)
        .hint("send fewer or smaller header fields; often it is the cookies")
}

/// Whether the third word of a request line is a version that the parser knows.
fn has_version(line: &[u8]) -> bool {
    let version = line.trim_ascii_end().split(|byte| *byte == b' ').nth(2);
    version.is_some_and(|version| [&b"HTTP/1.0"[..], b"HTTP/1.1"].contains(&version))
}

fn version(line: &[u8]) -> Option<Problem> {
    let mut words = line.trim_ascii_end().split(|byte| *byte == b' ').skip(2);
    let version = words.next().unwrap_or_default();
    let text = shown(version);
    let is_version = text.strip_prefix("HTTP/").is_some_and(|number| {
        let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
        [major, minor].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    });
    if is_version {
        let detail = format!("the listener speaks HTTP/1.1 and not {text}");
        return Some(invalid("http-version", 505, detail).hint("use HTTP/1.1"));
    }
    let hint = if words.next().is_some() || !text.starts_with("HTTP") && !version.is_empty() {
        "send `METHOD TARGET HTTP/1.1`; a space in the target is written `%20`"
    } else {
        "send `METHOD TARGET HTTP/1.1`"
    };
    let detail = format!("`{}` is not a request line", shown(line));
    Some(invalid("bad-request-line", 400, detail).hint(hint))
}

/// The first character of the target that makes it no URI.
fn target(line: &[u8]) -> Option<Problem> {
    let target = line.split(|byte| *byte == b' ').nth(1)?;
    let is_fine = |bytes: &[u8]| bytes.iter().all(|byte| (0x21..0x7f).contains(byte));
    if is_fine(target) && Uri::try_from(target).is_ok() {
        return None;
    }
    let text = String::from_utf8_lossy(target);
    let bad = text.char_indices().find(|(at, letter)| {
        // A query may contain other characters than a path.
        let alone = if text[..*at].contains('?') { format!("/?{letter}") } else { format!("/{letter}") };
        !may_be_raw(*letter) || !is_fine(alone.as_bytes()) || Uri::try_from(alone).is_err()
    });
    Some(match bad {
        Some((at, letter)) => HeadError::character(letter, at).to_problem(),
        None => HeadError::NoPath(shown(target)).to_problem(),
    })
}

/// The first header field that is malformed.
fn field(head: &[u8]) -> Option<Problem> {
    let bad = head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return None;
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Some((line, "is folded into several lines, which is not allowed"));
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Some((line, "has no colon"));
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.ends_with(b" ") || name.ends_with(b"\t") {
            return Some((line, "has a space before its colon"));
        }
        if http::HeaderName::from_bytes(name).is_err() {
            return Some((line, "has an invalid name"));
        }
        let is_bad = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
        value.iter().any(is_bad).then_some((line, "has a control character in its value"))
    });
    bad.map(|(line, why)| {
        invalid("bad-header", 400, format!("the header field `{}` {why}", shown(line)))
            .hint("send it like `Name: value`, in one line")
    })
}

/// The problem with the length or the transfer coding.
fn framing(request: &Request<'_, '_>) -> Option<Problem> {
    let values = |name: &'static str| {
        request
            .headers
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| String::from_utf8_lossy(field.value).into_owned())
    };
    let codings: Vec<_> = values("transfer-encoding").collect();
    if !codings.is_empty() {
        if request.version == Some(0) {
            return Some(
                invalid("transfer-coding", 400, "HTTP/1.0 has no Transfer-Encoding")
                    .hint("send it with HTTP/1.1, or say the length"),
            );
        }
        return Some(
            HeadError::TransferCoding(codings.join(", ").chars().take(SHOWN).collect()).to_problem(),
        );
    }
    let lengths: Vec<_> = values("content-length").collect();
    let is_number =
        |length: &String| length.parse::<u64>().is_ok() && length.bytes().all(|byte| byte.is_ascii_digit());
    let is_one = lengths.iter().all(is_number) && lengths.windows(2).all(|pair| pair[0] == pair[1]);
    if lengths.is_empty() || is_one {
        return None;
    }
    let detail = format!("`{}` is not the length of a body", shown(lengths.join(", ").as_bytes()));
    Some(invalid("bad-length", 400, detail).hint("send one Content-Length, in digits"))
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.trim_ascii());
    text.chars().take(SHOWN).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(head: &str, status: u16) -> (u16, String, String) {
        let status = StatusCode::from_u16(status).unwrap();
        let problem = problem(head.as_bytes(), status, &ServeLimits::default());
        (problem.status, problem.code().to_owned(), problem.to_string() + " | " + &problem.hint.unwrap())
    }

    #[test]
    fn a_head_is_refused_for_what_is_wrong_with_it() {
        for (head, status, code, words) in [
            ("GET /u/a<b> HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad-target", "`<` at byte 4"),
            ("GET /u/a<b> HTTP/1.1\r\nHost: h\r\n\r\n", 400, "bad-target", "`%3C`"),
            ("GET /u/?q=>x HTTP/1.1\r\n\r\n", 400, "bad-target", "`>` at byte 6"),
            ("GET /u/?q=\"x\" HTTP/1.1\r\n\r\n", 400, "bad-target", "`\"` at byte 6"),
            ("GET /a/\"b\"/?q=\"x\" HTTP/1.1\r\n\r\n", 400, "bad-target", "`\"` at byte 3"),
            ("GET /u/?q=`<` HTTP/1.1\r\n\r\n", 400, "bad-target", "`<` at byte 7"),
            ("GET /u/a`b HTTP/1.1\r\n\r\n", 400, "bad-target", "has a backtick at byte 4"),
            ("GET /\u{7f} HTTP/1.1\r\n\r\n", 400, "bad-target", "U+007F"),
            ("GET /u/ HTTP/1.2\r\nHost: h\r\n\r\n", 505, "http-version", "not HTTP/1.2"),
            ("GET /u/ HTTP/2.0\r\n\r\n", 505, "http-version", "not HTTP/2.0"),
            ("GET /a b HTTP/1.1\r\n\r\n", 400, "bad-request-line", "%20"),
            ("GET /a http/1.1\r\n\r\n", 400, "bad-request-line", "not a request line"),
            ("GET /u/ HTTP/1.10\r\nHost: h\r\n\r\n", 505, "http-version", "not HTTP/1.10"),
            ("GET /a\r\n\r\n", 400, "bad-request-line", "METHOD TARGET HTTP/1.1"),
            ("G{T /a HTTP/1.1\r\n\r\n", 400, "bad-method", "G{T"),
            ("GET /a HTTP/1.1\r\nHost h\r\n\r\n", 400, "bad-header", "no colon"),
            ("GET /a HTTP/1.1\r\nHost : h\r\n\r\n", 400, "bad-header", "space before"),
            ("GET /a HTTP/1.1\r\na: b\r\n c\r\n\r\n", 400, "bad-header", "folded"),
            ("GET /a HTTP/1.1\r\na: b\0c\r\n\r\n", 400, "bad-header", "control character"),
            ("POST /a HTTP/1.1\r\nContent-Length: 6, 6\r\n\r\n", 400, "bad-length", "`6, 6`"),
            (
                "POST /a HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                400,
                "bad-length",
                "`5, 6`",
            ),
            ("POST /a HTTP/1.1\r\nContent-Length: +5\r\n\r\n", 400, "bad-length", "`+5`"),
            ("POST /a HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", 501, "transfer-coding", "xchunked"),
            ("POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "transfer-coding", "HTTP/1.0"),
            ("\u{16}\u{3}\u{1}", 400, "tls", "http://"),
            ("", 400, "malformed-request", "HTTP/1.1"),
        ] {
            let found = refusal(head, 400);
            assert_eq!((found.0, &found.1[..]), (status, code), "{head:?}: {found:?}");
            assert!(found.2.contains(words), "{head:?}: {found:?}");
        }
    }

    #[test]
    fn a_target_or_head_that_is_too_large_is_named() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert_eq!(refusal(&many, 431).1, "head-too-large");
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(40_000));
        assert_eq!(refusal(&long, 431), refusal(&long, 414));
        assert_eq!(refusal(&long, 414).0, 414);
        assert_eq!(refusal(&long[..32_768], 431), refusal(&long, 414));
        let large = format!("GET / HTTP/1.1\r\ncookie: {}", "a".repeat(40_000));
        let found = refusal(&large, 431);
        assert!(found.2.contains("100 fields and 32768 bytes"), "{found:?}");
    }
}
