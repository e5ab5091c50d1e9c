//! The line of a request in both formats. Pure.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::reason::Reason;
use super::{JsonLine, LogFormat, common_time, rfc_3339};
use crate::http::trace::TraceId;
use http::StatusCode;

/// What a line shows.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) time: SystemTime,
    pub(super) listener: String,
    pub(super) client: Option<IpAddr>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) protocol: Option<String>,
    pub(super) tls_version: Option<&'static str>,
    pub(super) sni: Option<Arc<str>>,
    pub(super) method: Option<String>,
    pub(super) host: Option<String>,
    pub(super) path: Option<String>,
    pub(super) status: Option<StatusCode>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) duration: Duration,
    pub(super) queued: Option<Duration>,
    pub(super) connect: Option<Duration>,
    /// The time to the head of the answer.
    pub(super) first_byte: Option<Duration>,
    pub(super) route: Option<String>,
    pub(super) service: Option<String>,
    pub(super) member: Option<String>,
    pub(super) upstream_status: Option<StatusCode>,
    /// 0 if it was not sent anywhere.
    pub(super) attempts: u32,
    pub(super) retry_reason: Option<&'static str>,
    pub(super) reason: Option<Reason>,
    pub(super) request_id: Option<String>,
    pub(super) trace_id: Option<TraceId>,
    pub(super) user_agent: Option<String>,
    pub(super) referer: Option<String>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            time: UNIX_EPOCH,
            listener: String::new(),
            client: None,
            peer: None,
            protocol: None,
            tls_version: None,
            sni: None,
            method: None,
            host: None,
            path: None,
            status: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            queued: None,
            connect: None,
            first_byte: None,
            route: None,
            service: None,
            member: None,
            upstream_status: None,
            attempts: 0,
            retry_reason: None,
            reason: None,
            request_id: None,
            trace_id: None,
            user_agent: None,
            referer: None,
        }
    }
}

impl Line {
    /// Writes the line without its end.
    pub(super) fn write(&self, format: LogFormat, out: &mut Vec<u8>) {
        match format {
            LogFormat::Json => self.json(out),
            LogFormat::Combined => self.combined(out),
        }
    }

    fn status(&self) -> u16 {
        self.status.map_or(0, |status| status.as_u16())
    }

    /// A JSON object. What is not known is left out.
    fn json(&self, out: &mut Vec<u8>) {
        let mut line = JsonLine::begin(out);
        line.plain("time", Some(rfc_3339(self.time)))
            .text("listener", Some(&self.listener))
            .plain("client_ip", self.client)
            .plain("peer", self.peer)
            .text("protocol", self.protocol.as_deref())
            .text("tls_version", self.tls_version)
            .text("sni", self.sni.as_deref())
            .text("method", self.method.as_deref())
            .text("host", self.host.as_deref())
            .text("path", self.path.as_deref())
            .number("status", self.status())
            .number("bytes_in", self.bytes_in)
            .number("bytes_out", self.bytes_out)
            .milliseconds("duration_ms", Some(self.duration))
            .milliseconds("queue_ms", self.queued)
            .milliseconds("connect_ms", self.connect)
            .milliseconds("upstream_ms", self.first_byte)
            .text("route", self.route.as_deref())
            .text("service", self.service.as_deref())
            .text("member", self.member.as_deref());
        if let Some(status) = self.upstream_status {
            line.number("upstream_status", status.as_u16());
        }
        if self.attempts > 0 {
            line.number("attempts", self.attempts);
        }
        line.text("retry_reason", self.retry_reason)
            .text("reason", self.reason.as_deref())
            .text("request_id", self.request_id.as_deref())
            .text("trace_id", self.trace_id.as_ref().map(TraceId::as_str))
            .text("user_agent", self.user_agent.as_deref())
            .text("referer", self.referer.as_deref())
            .end();
    }

    /// `ADDRESS - - [TIME] "REQUEST" STATUS BYTES "REFERER" "USER AGENT"`.
    fn combined(&self, out: &mut Vec<u8>) {
        let _ = match self.client {
            Some(client) => write!(out, "{client}"),
            None => write!(out, "-"),
        };
        let _ = write!(out, " - - [{}] \"", common_time(self.time));
        let words = [&self.method, &self.path, &self.protocol];
        if words == [&None; 3] {
            out.push(b'-');
        }
        for (at, word) in words.into_iter().flatten().enumerate() {
            if at > 0 {
                out.push(b' ');
            }
            escape(out, word);
        }
        let _ = write!(out, "\" {} {} \"", self.status(), self.bytes_out);
        escape(out, self.referer.as_deref().unwrap_or("-"));
        out.extend_from_slice(b"\" \"");
        escape(out, self.user_agent.as_deref().unwrap_or("-"));
        out.push(b'"');
    }
}

/// Escapes as nginx does: `\xNN` for quotes, backslashes, and bytes that are no visible ASCII.
fn escape(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            b' '..=b'~' => out.push(byte),
            _ => {
                let _ = write!(out, "\\x{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            time: UNIX_EPOCH + Duration::from_millis(1_795_996_012_123),
            listener: "web".to_owned(),
            client: "203.0.113.7".parse().ok(),
            peer: "10.0.0.1:4711".parse().ok(),
            protocol: Some("HTTP/1.1".to_owned()),
            method: Some("GET".to_owned()),
            path: Some("/a\"b?q=1".to_owned()),
            status: Some(StatusCode::OK),
            bytes_out: 12,
            duration: Duration::from_micros(1_234),
            user_agent: Some("x\\y\u{e9}\u{1f600}\u{1}".to_owned()),
            ..Line::default()
        }
    }

    fn written(format: LogFormat) -> Vec<u8> {
        let mut out = Vec::new();
        line().write(format, &mut out);
        out
    }

    #[test]
    fn a_line_in_json_is_an_object_in_ascii_without_what_is_not_known() {
        let written = written(LogFormat::Json);
        assert!(written.is_ascii() && written.ends_with(b"}"));
        let object: serde_json::Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(
            object,
            serde_json::json!({
                "time": "2026-11-29T23:46:52.123Z", "listener": "web", "client_ip": "203.0.113.7",
                "peer": "10.0.0.1:4711", "protocol": "HTTP/1.1", "method": "GET", "path": "/a\"b?q=1", "status": 200,
                "bytes_in": 0, "bytes_out": 12, "duration_ms": 1.234, "user_agent": "x\\y\u{e9}\u{1f600}\u{1}",
            })
        );
    }

    #[test]
    fn a_combined_line_is_escaped_as_by_nginx() {
        let written = String::from_utf8(written(LogFormat::Combined)).unwrap();
        assert_eq!(
            written,
            "203.0.113.7 - - [29/Nov/2026:23:46:52 +0000] \"GET /a\\x22b?q=1 HTTP/1.1\" 200 12 \"-\" \
             \"x\\x5Cy\\xC3\\xA9\\xF0\\x9F\\x98\\x80\\x01\""
        );
    }

    #[test]
    fn what_is_not_known_of_a_request_line_is_left_out() {
        for (method, path, expected) in
            [(Some("GET"), Some("/a"), "\"GET /a\""), (Some("GET"), None, "\"GET\""), (None, None, "\"-\"")]
        {
            let (method, path) = (method.map(ToOwned::to_owned), path.map(ToOwned::to_owned));
            let line = Line { method, path, protocol: None, ..line() };
            let mut out = Vec::new();
            line.write(LogFormat::Combined, &mut out);
            let combined = String::from_utf8(out).unwrap();
            assert!(combined.contains(&format!("] {expected} 200 ")), "{combined}");
            let mut out = Vec::new();
            line.write(LogFormat::Json, &mut out);
            let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
            assert!(object.get("protocol").is_none(), "{object}");
        }
    }
}
