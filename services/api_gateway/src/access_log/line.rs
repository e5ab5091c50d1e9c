//! A line of the access log in both formats. Pure.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;

use crate::settings::LogFormat;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What a line shows.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) time: SystemTime,
    pub(super) listener: String,
    pub(super) client: Option<IpAddr>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) protocol: String,
    pub(super) tls_version: Option<&'static str>,
    pub(super) sni: Option<Arc<str>>,
    pub(super) method: String,
    pub(super) host: Option<String>,
    pub(super) path: String,
    pub(super) status: Option<StatusCode>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) duration: Duration,
    pub(super) route: Option<String>,
    pub(super) service: Option<String>,
    pub(super) member: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) request_id: Option<String>,
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
            protocol: String::new(),
            tls_version: None,
            sni: None,
            method: String::new(),
            host: None,
            path: String::new(),
            status: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            route: None,
            service: None,
            member: None,
            reason: None,
            request_id: None,
            user_agent: None,
            referer: None,
        }
    }
}

impl Line {
    /// The line with its end.
    pub(super) fn written(&self, format: LogFormat) -> Vec<u8> {
        let mut out = match format {
            LogFormat::Json => self.json(),
            LogFormat::Combined => self.combined(),
        };
        out.push('\n');
        out.into_bytes()
    }

    fn status(&self) -> u16 {
        self.status.map_or(0, |status| status.as_u16())
    }

    /// A JSON object. What is not known is left out.
    fn json(&self) -> String {
        let mut out = String::with_capacity(512);
        let (client, peer) = (self.client.map(|ip| ip.to_string()), self.peer.map(|peer| peer.to_string()));
        let _ = write!(out, "{{\"time\":\"{}\"", rfc_3339(self.time));
        for (key, text) in [
            ("listener", Some(self.listener.as_str())),
            ("client_ip", client.as_deref()),
            ("peer", peer.as_deref()),
            ("protocol", Some(self.protocol.as_str())),
            ("tls_version", self.tls_version),
            ("sni", self.sni.as_deref()),
            ("method", Some(self.method.as_str())),
            ("host", self.host.as_deref()),
            ("path", Some(self.path.as_str())),
        ] {
            member(&mut out, key, text);
        }
        let milliseconds = self.duration.as_secs_f64() * 1000.0;
        let _ = write!(
            out,
            ",\"status\":{},\"bytes_in\":{},\"bytes_out\":{},\"duration_ms\":{milliseconds:.3}",
            self.status(),
            self.bytes_in,
            self.bytes_out
        );
        for (key, text) in [
            ("route", &self.route),
            ("service", &self.service),
            ("member", &self.member),
            ("reason", &self.reason),
            ("request_id", &self.request_id),
            ("user_agent", &self.user_agent),
            ("referer", &self.referer),
        ] {
            member(&mut out, key, text.as_deref());
        }
        out.push('}');
        out
    }

    /// `ADDRESS - - [TIME] "REQUEST" STATUS BYTES "REFERER" "USER AGENT"`.
    fn combined(&self) -> String {
        let client = self.client.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        let mut out = format!("{client} - - [{}] \"", common_time(self.time));
        escaped(&mut out, &format!("{} {} {}", self.method, self.path, self.protocol));
        let _ = write!(out, "\" {} {} \"", self.status(), self.bytes_out);
        escaped(&mut out, self.referer.as_deref().unwrap_or("-"));
        out.push_str("\" \"");
        escaped(&mut out, self.user_agent.as_deref().unwrap_or("-"));
        out.push('"');
        out
    }
}

/// `,"key":"text"`, in ASCII.
fn member(out: &mut String, key: &str, text: Option<&str>) {
    let Some(text) = text else { return };
    let _ = write!(out, ",\"{key}\":\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            ' '..='~' => out.push(letter),
            _ => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

/// Escapes as nginx does: `\xNN` for quotes, backslashes, and bytes that are no visible ASCII.
fn escaped(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                let _ = write!(out, "\\x{byte:02X}");
            }
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02X}");
            }
        }
    }
}

/// A moment in UTC, divided.
struct Moment {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millisecond: u32,
}

impl Moment {
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        // Years begin in March, so that a leap day is the last one; an era has 400 years.
        let days = seconds / 86_400 + 719_468;
        let of_era = days % 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Self {
            year: year_of_era + days / 146_097 * 400 + u64::from(month <= 2),
            month,
            day: of_year - (153 * shifted + 2) / 5 + 1,
            hour: seconds / 3_600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            millisecond: since.subsec_millis(),
        }
    }
}

/// `2026-11-29T23:46:52.123Z`.
fn rfc_3339(time: SystemTime) -> String {
    let Moment { year, month, day, hour, minute, second, millisecond } = Moment::of(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

/// `29/Nov/2026:23:46:52 +0000`.
fn common_time(time: SystemTime) -> String {
    let Moment { year, month, day, hour, minute, second, .. } = Moment::of(time);
    let name = usize::try_from(month - 1).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"Jan");
    format!("{day:02}/{name}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000")
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
            protocol: "HTTP/1.1".to_owned(),
            method: "GET".to_owned(),
            path: "/a\"b?q=1".to_owned(),
            status: Some(StatusCode::OK),
            bytes_out: 12,
            duration: Duration::from_micros(1_234),
            user_agent: Some("x\\y\u{e9}\u{1f600}\u{1}".to_owned()),
            ..Line::default()
        }
    }

    #[test]
    fn a_line_in_json_is_an_object_in_ascii_without_what_is_not_known() {
        let written = line().written(LogFormat::Json);
        assert!(written.is_ascii() && written.ends_with(b"}\n"));
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
        let written = String::from_utf8(line().written(LogFormat::Combined)).unwrap();
        assert_eq!(
            written,
            "203.0.113.7 - - [29/Nov/2026:23:46:52 +0000] \"GET /a\\x22b?q=1 HTTP/1.1\" 200 12 \"-\" \
             \"x\\x5Cy\\xC3\\xA9\\xF0\\x9F\\x98\\x80\\x01\"\n"
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_799, "2000-02-29T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(rfc_3339(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
