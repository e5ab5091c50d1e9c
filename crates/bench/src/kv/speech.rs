//! The ways to ask a store for a key: ours, and the three of etcd.
//!
//! Pure: numbers and values in, requests out, answers judged. All of etcd's ways are asked for what ours promises: a
//! write that is durable when it is answered, a read that sees every answered write (the default of its v3 API,
//! `quorum=true` of its v2 API).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::wire::{Answer, Protocol};

/// A way to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Speech {
    Ours,
    /// etcd's v3 API as its own clients speak it.
    Grpc,
    /// etcd's v3 API over the gateway that turns JSON into gRPC.
    Json,
    /// etcd's v2 API: plain HTTP, another tree of keys in the same log.
    V2,
}

impl fmt::Display for Speech {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ours => "ours",
            Self::Grpc => "v3 gRPC",
            Self::Json => "v3 JSON",
            Self::V2 => "v2",
        })
    }
}

/// A value of a given length. Its text is letters, which all of the ways carry as they are; in base64 other letters
/// stand for as many bytes.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    plain: String,
    base64: String,
}

impl Value {
    pub(crate) fn of_length(length: usize) -> Self {
        let letters = |count| ('a'..='z').cycle().take(count).collect::<String>();
        // Four letters are three bytes; the rest is told by the padding.
        let rest = ["", "AA==", "AAA="][length % 3];
        Self { plain: letters(length), base64: letters(length / 3 * 4) + rest }
    }

    fn len(&self) -> usize {
        self.plain.len()
    }
}

/// Twelve letters, which are valid base64 too.
fn name(key: usize) -> String {
    format!("key{key:09}")
}

impl Speech {
    pub(crate) const OF_ETCD: [Self; 3] = [Self::Grpc, Self::Json, Self::V2];

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Ours | Self::Json | Self::V2 => Protocol::Http1,
            Self::Grpc => Protocol::Http2,
        }
    }

    pub(crate) fn put(self, host: &str, key: usize, value: &Value) -> http::Result<Request<Full<Bytes>>> {
        let name = name(key);
        match self {
            Self::Ours => {
                request(Method::PUT, format!("/svc/storage/kv/{name}"), host, None, value.plain.clone())
            }
            Self::V2 => {
                let form = Some("application/x-www-form-urlencoded");
                request(Method::PUT, format!("/v2/keys/{name}"), host, form, format!("value={}", value.plain))
            }
            Self::Json => {
                let body = format!(r#"{{"key":"{name}","value":"{}"}}"#, value.base64);
                request(Method::POST, "/v3/kv/put".to_owned(), host, Some("application/json"), body)
            }
            Self::Grpc => grpc(host, "Put", &[name.as_bytes(), value.plain.as_bytes()]),
        }
    }

    pub(crate) fn get(self, host: &str, key: usize) -> http::Result<Request<Full<Bytes>>> {
        let name = name(key);
        match self {
            Self::Ours => request(Method::GET, format!("/svc/storage/kv/{name}"), host, None, String::new()),
            Self::V2 => {
                request(Method::GET, format!("/v2/keys/{name}?quorum=true"), host, None, String::new())
            }
            Self::Json => {
                let body = format!(r#"{{"key":"{name}"}}"#);
                request(Method::POST, "/v3/kv/range".to_owned(), host, Some("application/json"), body)
            }
            Self::Grpc => grpc(host, "Range", &[name.as_bytes()]),
        }
    }

    /// Whether a write was done.
    pub(crate) fn is_put(self, answer: &Answer) -> bool {
        match self {
            Self::Ours | Self::Json => answer.status == StatusCode::OK,
            Self::V2 => matches!(answer.status, StatusCode::OK | StatusCode::CREATED),
            Self::Grpc => is_sound(answer) && !answer.body.is_empty(),
        }
    }

    /// Whether an answer brings a value of this length.
    pub(crate) fn is_got(self, answer: &Answer, value: &Value) -> bool {
        let length = answer.body.len();
        match self {
            Self::Ours => answer.status == StatusCode::OK && length == value.len(),
            Self::V2 => answer.status == StatusCode::OK && length > value.len(),
            Self::Json => answer.status == StatusCode::OK && length > value.base64.len(),
            Self::Grpc => is_sound(answer) && length > value.len(),
        }
    }
}

fn is_sound(answer: &Answer) -> bool {
    let status = answer.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    answer.status == StatusCode::OK && status.is_some_and(|status| status == "0")
}

fn request(
    method: Method,
    path: String,
    host: &str,
    content_type: Option<&str>,
    body: String,
) -> http::Result<Request<Full<Bytes>>> {
    let mut request = Request::builder().method(method).uri(path).header(HOST, host);
    if let Some(content_type) = content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    request.body(Full::new(body.into()))
}

/// A call of `etcdserverpb.KV` whose message has these fields from number 1 on, all of them bytes.
fn grpc(host: &str, call: &str, fields: &[&[u8]]) -> http::Result<Request<Full<Bytes>>> {
    let mut message = BytesMut::new();
    for (number, field) in (1_u8..).zip(fields) {
        // The field's number, and that a length follows: https://protobuf.dev/programming-guides/encoding.
        message.put_u8(number << 3 | 2);
        varint(&mut message, field.len());
        message.extend_from_slice(field);
    }
    let mut body = BytesMut::with_capacity(message.len() + 5);
    // Not compressed.
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.extend_from_slice(&message);
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{host}/etcdserverpb.KV/{call}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(body.freeze()))
}

/// Seven bits a byte, the lowest first.
fn varint(into: &mut BytesMut, mut number: usize) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            return into.put_u8(low);
        }
        into.put_u8(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_its_length_in_every_writing() {
        for length in [1, 2, 3, 99, 100, 101, 1_024] {
            let value = Value::of_length(length);
            let padding = value.base64.bytes().filter(|byte| *byte == b'=').count();
            assert_eq!(value.len(), length);
            assert_eq!(value.base64.len() % 4, 0);
            assert_eq!(value.base64.len() / 4 * 3 - padding, length);
        }
        assert_eq!(name(7).len() % 4, 0, "a key is base64 without padding");
    }

    #[test]
    fn a_long_length_takes_several_bytes() {
        let bytes = |number| {
            let mut into = BytesMut::new();
            varint(&mut into, number);
            into.to_vec()
        };
        assert_eq!(bytes(0), [0]);
        assert_eq!(bytes(127), [0x7f]);
        assert_eq!(bytes(300), [0xac, 0x02], "the example of the protobuf documentation");
    }

    #[test]
    fn a_grpc_answer_counts_only_with_the_status_zero() {
        let answer = |status: Option<&'static str>| Answer {
            status: StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: Bytes::from_static(b"0123456789"),
            trailers: status.map(|status| {
                http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())])
            }),
        };
        assert!(Speech::Grpc.is_put(&answer(Some("0"))));
        assert!(!Speech::Grpc.is_put(&answer(Some("14"))));
        assert!(!Speech::Grpc.is_put(&answer(None)));
        assert!(!Speech::Grpc.is_got(&answer(Some("0")), &Value::of_length(100)), "no value in it");
    }
}
