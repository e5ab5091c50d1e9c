//! The health check of gRPC: one unary call of `grpc.health.v1.Health/Check` by HTTP/2 without TLS.
//!
//! Two messages of one field each need no library: a 5-byte prefix (compressed or not, length), then protobuf's tag and value.
//! Specification: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

const PATH: &str = "/grpc.health.v1.Health/Check";
/// The longest answer; that of a server that knows no more fields has 7 bytes.
const LONGEST_ANSWER: usize = 4 * 1024;
/// The tag of the request's field 1, a text.
const SERVICE: u8 = 0x0a;
/// The tag of the answer's field 1, a number.
const STATUS: u8 = 0x08;

/// Asks the server at the other end of a connection.
pub(super) async fn check(stream: TcpStream, service: &str, named: &str) -> Result<(), String> {
    let no_http2 = |_| "does not speak HTTP/2 without TLS".to_owned();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(no_http2)?;
    let request = Request::post(format!("http://{named}{PATH}"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, "coterie-check")
        .body(Full::new(request(service)))
        .map_err(|_| "has an address that can't be asked by HTTP".to_owned())?;
    let asking = async {
        let answer = sender.send_request(request).await.map_err(no_http2)?;
        let (head, body) = answer.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(format!("answers {}", head.status.as_u16()));
        }
        if let Some(code) = grpc_code(&head.headers) {
            return outcome(code, &[], service);
        }
        let broken = |_| "breaks off its answer".to_owned();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(broken)?;
        let code = body.trailers().and_then(grpc_code).ok_or("does not answer with gRPC")?;
        outcome(code, &body.to_bytes(), service)
    };
    tokio::select! {
        biased;
        outcome = asking => outcome,
        _ = connection => Err("closes the connection".to_owned()),
    }
}

/// `HealthCheckRequest { service }` with its prefix.
fn request(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(SERVICE);
        varint(service.len(), &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    framed.into()
}

fn varint(mut number: usize, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn grpc_code(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// What a status code of gRPC and a message say.
fn outcome(code: u32, answer: &[u8], service: &str) -> Result<(), String> {
    match code {
        0 => match status(answer) {
            Some(1) => Ok(()),
            Some(2) => Err("is not serving, as it says by gRPC".to_owned()),
            Some(3) => Err(format!("does not know the gRPC service `{service}`")),
            Some(_) => Err("does not know its own health".to_owned()),
            None => Err("does not answer with gRPC".to_owned()),
        },
        5 => Err(format!("does not know the gRPC service `{service}`")),
        12 => Err("has no gRPC health service".to_owned()),
        code => Err(format!("answers with the gRPC status {code}")),
    }
}

/// The status in a `HealthCheckResponse` with its prefix: 1 is `SERVING`. A message without the field says `UNKNOWN`, 0.
fn status(answer: &[u8]) -> Option<u8> {
    let (prefix, message) = answer.split_at_checked(5)?;
    let [0, a, b, c, d] = *prefix else { return None };
    let len = u32::from_be_bytes([a, b, c, d]);
    if u32::try_from(message.len()) != Ok(len) {
        return None;
    }
    match message {
        [] => Some(0),
        [STATUS, status, ..] if *status < 0x80 => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
