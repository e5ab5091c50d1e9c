//! The APIs that clients call: ours, directly and through the gateway, and the three of etcd.
//!
//! Pure: builds requests and checks answers. Each of etcd's APIs is used with the guarantees of ours: a write that is
//! durable when it is answered, a read that sees every answered write (the default of its v3 API, `quorum=true` of its
//! v2 API), and a read of the node's own state (`serializable` in v3, the default in v2).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::wire::{Answer, Protocol};

/// An API that clients call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientApi {
    /// Ours, called at the owner of the shard.
    Ours,
    /// Ours, called through the gateway.
    Gateway,
    /// etcd's v3 API over gRPC, as its own clients use it.
    Grpc,
    /// etcd's v3 API over its JSON gateway.
    Json,
    /// etcd's v2 API over plain HTTP; it has its own key space in the same log.
    V2,
}

impl fmt::Display for ClientApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ours => "ours",
            Self::Gateway => "our gateway",
            Self::Grpc => "v3 gRPC",
            Self::Json => "v3 JSON",
            Self::V2 => "v2",
        })
    }
}

/// The guarantee of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// It sees every write that was answered before.
    Strong,
    /// It sees the state of the answering node, which need not check that no other node is ahead.
    Primary,
}

/// A value of a given length in bytes. Its text is letters, which every API carries unchanged; its base64 text decodes
/// to other bytes of the same length.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    plain: String,
    base64: String,
}

impl Value {
    pub(crate) fn of_length(length: usize) -> Self {
        let letters = |count| ('a'..='z').cycle().take(count).collect::<String>();
        // Four letters decode to three bytes; the padding encodes the rest.
        let rest = ["", "AA==", "AAA="][length % 3];
        Self { plain: letters(length), base64: letters(length / 3 * 4) + rest }
    }

    /// A line of `ctl kv import`.
    pub(crate) fn line(&self, key: usize) -> String {
        format!("{{\"key\":\"{}\",\"value\":\"{}\"}}\n", name(key), self.plain)
    }

    fn len(&self) -> usize {
        self.plain.len()
    }
}

/// Twelve characters that are valid base64 as well.
fn name(key: usize) -> String {
    format!("key{key:09}")
}

impl ClientApi {
    pub(crate) const OF_ETCD: [Self; 3] = [Self::Grpc, Self::Json, Self::V2];

    /// Whether this is an API of etcd.
    pub(crate) fn is_etcd(self) -> bool {
        Self::OF_ETCD.contains(&self)
    }

    /// The first API with the same key space. A key's name in gRPC is base64 in JSON, so these two do not share keys.
    pub(crate) fn tree(self) -> Self {
        match self {
            Self::Ours | Self::Gateway => Self::Ours,
            Self::Grpc | Self::Json | Self::V2 => self,
        }
    }

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Ours | Self::Gateway | Self::Json | Self::V2 => Protocol::Http1,
            Self::Grpc => Protocol::Http2,
        }
    }

    pub(crate) fn put(self, host: &str, key: usize, value: &Value) -> http::Result<Request<Full<Bytes>>> {
        let name = name(key);
        match self {
            Self::Ours | Self::Gateway => {
                request(Method::PUT, format!("{}{name}", self.folder()), host, None, value.plain.clone())
            }
            Self::V2 => {
                let (path, body) = (format!("{}{name}", self.folder()), format!("value={}", value.plain));
                request(Method::PUT, path, host, Some("application/x-www-form-urlencoded"), body)
            }
            Self::Json => {
                let body = format!(r#"{{"key":"{name}","value":"{}"}}"#, value.base64);
                request(Method::POST, "/v3/kv/put".to_owned(), host, Some("application/json"), body)
            }
            Self::Grpc => grpc(host, "Put", &[name.as_bytes(), value.plain.as_bytes()], &[]),
        }
    }

    pub(crate) fn get(self, host: &str, key: usize, reads: Reads) -> http::Result<Request<Full<Bytes>>> {
        let name = name(key);
        match self {
            Self::Ours | Self::Gateway | Self::V2 => {
                let query = match (self, reads) {
                    (Self::V2, Reads::Strong) => "?quorum=true",
                    (Self::V2, Reads::Primary) | (_, Reads::Strong) => "",
                    (_, Reads::Primary) => "?consistency=primary",
                };
                let path = format!("{}{name}{query}", self.folder());
                request(Method::GET, path, host, None, String::new())
            }
            Self::Json => {
                let serializable = match reads {
                    Reads::Strong => "",
                    Reads::Primary => r#","serializable":true"#,
                };
                let body = format!(r#"{{"key":"{name}"{serializable}}}"#);
                request(Method::POST, "/v3/kv/range".to_owned(), host, Some("application/json"), body)
            }
            Self::Grpc => {
                let serializable: &[u8] = match reads {
                    Reads::Strong => &[],
                    Reads::Primary => &SERIALIZABLE,
                };
                grpc(host, "Range", &[name.as_bytes()], serializable)
            }
        }
    }

    /// The path prefix of keys, for APIs with the key in the path.
    fn folder(self) -> &'static str {
        match self {
            Self::Ours => "/svc/storage/kv/",
            Self::Gateway => "/storage/kv/",
            Self::V2 => "/v2/keys/",
            Self::Grpc | Self::Json => "",
        }
    }

    /// Whether the answer confirms a write.
    pub(crate) fn is_put(self, answer: &Answer) -> bool {
        match self {
            Self::Ours | Self::Gateway | Self::Json => answer.status == StatusCode::OK,
            Self::V2 => matches!(answer.status, StatusCode::OK | StatusCode::CREATED),
            Self::Grpc => is_success(answer) && !answer.body.is_empty(),
        }
    }

    /// Whether the answer contains a value of this length.
    pub(crate) fn is_got(self, answer: &Answer, value: &Value) -> bool {
        let length = answer.body.len();
        match self {
            Self::Ours | Self::Gateway => answer.status == StatusCode::OK && length == value.len(),
            Self::V2 => answer.status == StatusCode::OK && length > value.len(),
            Self::Json => answer.status == StatusCode::OK && length > value.base64.len(),
            Self::Grpc => is_success(answer) && length > value.len(),
        }
    }
}

fn is_success(answer: &Answer) -> bool {
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

/// Field 7 of a `RangeRequest`, a bool: true.
const SERIALIZABLE: [u8; 2] = [7 << 3, 1];

/// A call of `etcdserverpb.KV`. `fields` become the message's fields from number 1 on, all of type bytes; `others` are
/// appended as they are.
fn grpc(host: &str, call: &str, fields: &[&[u8]], others: &[u8]) -> http::Result<Request<Full<Bytes>>> {
    let mut message = BytesMut::new();
    for (number, field) in (1_u8..).zip(fields) {
        // The field's number, with the wire type of a length: https://protobuf.dev/programming-guides/encoding.
        message.put_u8(number << 3 | 2);
        varint(&mut message, field.len());
        message.extend_from_slice(field);
    }
    message.extend_from_slice(others);
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

/// Encodes a number with seven bits per byte, the lowest first.
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
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn a_value_has_its_length_in_every_encoding() {
        for length in [1, 2, 3, 99, 100, 101, 1_024] {
            let value = Value::of_length(length);
            let padding = value.base64.bytes().filter(|byte| *byte == b'=').count();
            assert_eq!(value.len(), length);
            assert_eq!(value.base64.len() % 4, 0);
            assert_eq!(value.base64.len() / 4 * 3 - padding, length);
        }
        assert_eq!(name(7).len() % 4, 0, "a key is base64 without padding");
    }

    /// The path and body of a read request.
    async fn sent(api: ClientApi, reads: Reads) -> String {
        let (head, body) = api.get("host", 7, reads).unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        format!("{} {}", head.uri.path_and_query().unwrap(), body.escape_ascii())
    }

    #[tokio::test]
    async fn a_read_requests_its_guarantee_in_every_api() {
        let each = [
            (
                ClientApi::Ours,
                "/svc/storage/kv/key000000007 ",
                "/svc/storage/kv/key000000007?consistency=primary ",
            ),
            (
                ClientApi::Gateway,
                "/storage/kv/key000000007 ",
                "/storage/kv/key000000007?consistency=primary ",
            ),
            (ClientApi::V2, "/v2/keys/key000000007?quorum=true ", "/v2/keys/key000000007 "),
            (
                ClientApi::Json,
                r#"/v3/kv/range {\"key\":\"key000000007\"}"#,
                r#"/v3/kv/range {\"key\":\"key000000007\",\"serializable\":true}"#,
            ),
            (
                ClientApi::Grpc,
                r"/etcdserverpb.KV/Range \x00\x00\x00\x00\x0e\n\x0ckey000000007",
                r"/etcdserverpb.KV/Range \x00\x00\x00\x00\x10\n\x0ckey0000000078\x01",
            ),
        ];
        for (api, strong, primary) in each {
            assert_eq!(sent(api, Reads::Strong).await, strong);
            assert_eq!(sent(api, Reads::Primary).await, primary);
        }
    }

    #[test]
    fn a_line_of_an_import_is_json() {
        let line = Value::of_length(3).line(7);
        assert_eq!(line, "{\"key\":\"key000000007\",\"value\":\"abc\"}\n");
    }

    #[test]
    fn a_large_number_takes_several_bytes() {
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
    fn a_grpc_answer_is_valid_only_with_status_zero() {
        let answer = |status: Option<&'static str>| Answer {
            status: StatusCode::OK,
            headers: http::HeaderMap::new(),
            body: Bytes::from_static(b"0123456789"),
            trailers: status.map(|status| {
                http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())])
            }),
        };
        assert!(ClientApi::Grpc.is_put(&answer(Some("0"))));
        assert!(!ClientApi::Grpc.is_put(&answer(Some("14"))));
        assert!(!ClientApi::Grpc.is_put(&answer(None)));
        assert!(!ClientApi::Grpc.is_got(&answer(Some("0")), &Value::of_length(100)), "no value in it");
    }
}
