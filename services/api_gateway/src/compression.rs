//! Compression of answers: which coding a client accepts, which answers are compressed, and what that changes in their heads.
//!
//! Pure, but for the body. `Accept-Encoding` is read as in RFC 9110, section 12.5.3.

mod body;
mod encoder;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, RANGE, VARY,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body::Body;
use tracing::debug;

use crate::route_body::RouteBody;
pub(crate) use body::CompressedBody;
pub(crate) use encoder::{EncodeError, Encoder};

/// The shortest body that is compressed, in bytes: a shorter one fits into one packet either way.
const SHORTEST: u64 = 1024;

/// Fields with a checksum of the body as it was sent.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Types other than `text/…` and those that end in `+json` or `+xml` whose bodies become shorter.
const COMPRESSIBLE: [&str; 24] = [
    "application/json",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/xml",
    "application/xml-dtd",
    "application/ndjson",
    "application/x-ndjson",
    "application/jsonlines",
    "application/wasm",
    "application/graphql",
    "application/yaml",
    "application/x-yaml",
    "application/toml",
    "application/sql",
    "application/rtf",
    "application/x-www-form-urlencoded",
    "application/vnd.ms-fontobject",
    "application/openmetrics-text",
    "font/ttf",
    "font/otf",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];

/// A coding of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    /// All, the preferred one first.
    const ALL: [Self; 2] = [Self::Zstd, Self::Gzip];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Whether a client means it by this name.
    fn is(self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.as_str())
            || (self == Self::Gzip && name.eq_ignore_ascii_case("x-gzip"))
    }
}

/// What a request says about the coding of its answer.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    /// The coding that its client likes best, if it likes one at least as much as none.
    coding: Option<Coding>,
    /// Whether the request is one whose answer can be compressed.
    is_possible: bool,
    if_none_match: Option<HeaderValue>,
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It never depends on what a client accepts.
    Unchanged,
    /// It is not compressed, but the answer to another request would be.
    Varies,
    Compressed(Coding),
}

impl Offer {
    /// What a request's head says.
    pub(crate) fn of(head: &Parts) -> Self {
        let is_possible = head.method != Method::HEAD
            // An answer without a length ends with its connection there, so nobody could tell a whole one from one that was cut.
            && head.version >= Version::HTTP_11
            && !head.headers.contains_key(RANGE)
            && !has_no_transform(&head.headers);
        let if_none_match = head.headers.get(IF_NONE_MATCH).cloned();
        Self { coding: accepted(&head.headers), is_possible, if_none_match }
    }

    /// Compresses an answer, or says in its head that it may come in another form.
    pub(crate) fn apply(&self, answer: Response<RouteBody>) -> Response<RouteBody> {
        let (mut head, body) = answer.into_parts();
        let len = length(&head.headers).or_else(|| body.size_hint().exact());
        match self.verdict(head.status, &head.headers, len) {
            Verdict::Unchanged => Response::from_parts(head, body),
            Verdict::Varies => {
                vary(&mut head.headers);
                if head.status == StatusCode::NOT_MODIFIED && self.knows_weakly(&head.headers) {
                    weaken(&mut head.headers);
                }
                Response::from_parts(head, body)
            }
            Verdict::Compressed(coding) => {
                vary(&mut head.headers);
                // Of the body itself: its head may say otherwise.
                match Encoder::new(coding, body.size_hint().exact()) {
                    Ok(encoder) => {
                        head.headers.remove(CONTENT_LENGTH);
                        head.headers.remove(ACCEPT_RANGES);
                        head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
                        weaken(&mut head.headers);
                        Response::from_parts(head, body.compressed(encoder))
                    }
                    Err(error) => {
                        debug!(%error, "an answer is sent as it is");
                        Response::from_parts(head, body)
                    }
                }
            }
        }
    }

    fn verdict(&self, status: StatusCode, headers: &HeaderMap, len: Option<u64>) -> Verdict {
        if status == StatusCode::NOT_MODIFIED {
            // Most of these do not say what they are about.
            let may_be = is_compressible(headers) || !headers.contains_key(CONTENT_TYPE);
            return if may_be { Verdict::Varies } else { Verdict::Unchanged };
        }
        let has_body = !status.is_informational()
            && status != StatusCode::NO_CONTENT
            && status != StatusCode::RESET_CONTENT;
        let is_coded = headers.get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity");
        let may_change = !has_no_transform(headers) && !DIGESTS.iter().any(|name| headers.contains_key(name));
        if !has_body || is_coded || !may_change || !is_compressible(headers) {
            return Verdict::Unchanged;
        }
        if status == StatusCode::PARTIAL_CONTENT || headers.contains_key(CONTENT_RANGE) {
            return Verdict::Varies;
        }
        if len.is_some_and(|len| len < SHORTEST) {
            return Verdict::Unchanged;
        }
        match self.coding.filter(|_| self.is_possible) {
            Some(coding) => Verdict::Compressed(coding),
            None => Verdict::Varies,
        }
    }

    /// Whether the client has the answer in compressed form: it knows the weak form of its entity tag.
    fn knows_weakly(&self, headers: &HeaderMap) -> bool {
        let (Some(known), Some(tag)) = (&self.if_none_match, headers.get(ETAG)) else { return false };
        let (Ok(known), Ok(tag)) = (known.to_str(), tag.to_str()) else { return false };
        let weak = format!("W/{tag}");
        known.split(',').any(|known| known.trim() == weak)
    }
}

/// The length that an answer has, or would have if it were no answer to HEAD.
fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The elements of a list in all fields of a name.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

fn has_no_transform(headers: &HeaderMap) -> bool {
    elements(headers, &CACHE_CONTROL).any(|directive| directive.eq_ignore_ascii_case("no-transform"))
}

/// The coding that a client likes best; none if it likes no coding better.
fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let (mut named, mut any, mut identity) = ([None; Coding::ALL.len()], None, None);
    for element in elements(headers, &ACCEPT_ENCODING) {
        let (name, parameters) = element.split_once(';').unwrap_or((element, ""));
        let (name, Some(quality)) = (name.trim(), quality(parameters)) else { continue };
        if name == "*" {
            any = Some(quality);
        } else if name.eq_ignore_ascii_case("identity") {
            identity = Some(quality);
        } else if let Some(at) = Coding::ALL.iter().position(|coding| coding.is(name)) {
            named[at] = Some(quality);
        }
    }
    let mut best = None;
    for (coding, quality) in Coding::ALL.into_iter().zip(named) {
        let quality = quality.or(any).unwrap_or(0);
        if quality > 0 && best.is_none_or(|(_, other)| quality > other) {
            best = Some((coding, quality));
        }
    }
    best.filter(|(_, quality)| *quality >= identity.unwrap_or(0)).map(|(coding, _)| coding)
}

/// The weight of a coding in thousandths: `q=0.5`; 1 unless given. `None` if it is malformed.
fn quality(parameters: &str) -> Option<u32> {
    let Some(text) = parameters.split(';').map(str::trim).find_map(weight) else { return Some(1000) };
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    let is_fine = digits.len() <= 3 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let thousandths = format!("{digits:0<3}").parse::<u32>().ok().filter(|_| is_fine)?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

fn weight(parameter: &str) -> Option<&str> {
    let (name, value) = parameter.split_once('=')?;
    name.trim().eq_ignore_ascii_case("q").then_some(value.trim())
}

/// Whether bodies of this type become shorter. An event stream has a type of its own, as some clients read it as it is.
fn is_compressible(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_grpc = media.starts_with("application/grpc");
    let is_text = media.starts_with("text/") && media != "text/event-stream";
    let is_structured = media.ends_with("+json") || media.ends_with("+xml");
    !is_grpc && (is_text || is_structured || COMPRESSIBLE.contains(&media.as_str()))
}

/// Says to caches that the answer depends on what the client accepts.
fn vary(headers: &mut HeaderMap) {
    let is_said =
        elements(headers, &VARY).any(|name| name == "*" || name.eq_ignore_ascii_case("accept-encoding"));
    if !is_said {
        headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// Makes a strong entity tag weak: the bytes are not those that it stands for.
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else { return };
    let weak = [b"W/", tag.as_bytes()].concat();
    if let Ok(weak) = HeaderValue::from_bytes(&weak) {
        headers.insert(ETAG, weak);
    }
}

#[cfg(test)]
mod tests;
