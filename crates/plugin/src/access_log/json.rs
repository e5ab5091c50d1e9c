//! Writes one JSON object in ASCII, member by member, without allocating. Pure.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

/// An object that is being written. [`end`](Self::end) completes it.
#[derive(Debug)]
pub struct JsonLine<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> JsonLine<'a> {
    /// An empty object, appended to `out`.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, is_empty: true }
    }

    /// A text; what is not known is left out.
    pub fn text(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.key(key);
            self.out.push(b'"');
            escape(self.out, value);
            self.out.push(b'"');
        }
        self
    }

    /// A value whose text needs no escapes; what is not known is left out.
    pub fn plain(&mut self, key: &str, value: Option<impl Display>) -> &mut Self {
        if let Some(value) = value {
            self.key(key);
            let _ = write!(self.out, "\"{value}\"");
        }
        self
    }

    /// A number.
    pub fn number(&mut self, key: &str, value: impl Into<u64>) -> &mut Self {
        self.key(key);
        let _ = write!(self.out, "{}", value.into());
        self
    }

    /// A duration in milliseconds, with three digits after the point; what is not known is left out.
    pub fn milliseconds(&mut self, key: &str, value: Option<Duration>) -> &mut Self {
        if let Some(value) = value {
            self.key(key);
            let micros = value.as_micros();
            let _ = write!(self.out, "{}.{:03}", micros / 1000, micros % 1000);
        }
        self
    }

    /// Completes the object.
    pub fn end(&mut self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &str) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

/// Everything outside of 0x20 to 0x7e is escaped, so that no line can pretend to be two, or move a terminal's cursor.
fn escape(out: &mut Vec<u8>, mut text: &str) {
    loop {
        let plain =
            text.bytes().position(|byte| !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\'));
        let (before, rest) = text.split_at(plain.unwrap_or(text.len()));
        out.extend_from_slice(before.as_bytes());
        let Some(letter) = rest.chars().next() else { return };
        match letter {
            '"' | '\\' => out.extend([b'\\', letter as u8]),
            _ => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
        text = &rest[letter.len_utf8()..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(value: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut line = JsonLine::begin(&mut out);
        line.text("none", None).text("text", Some(value)).number("n", 7_u32);
        line.milliseconds("ms", Some(Duration::from_micros(1_030))).plain("ip", Some("::1")).end();
        out
    }

    proptest! {
        #[test]
        fn any_text_is_written_in_ascii_on_one_line(text: String) {
            let out = object(&text);
            prop_assert!(out.iter().all(|byte| matches!(byte, b' '..=b'~')));
            let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(read, serde_json::json!({"text": text, "n": 7, "ms": 1.03, "ip": "::1"}));
        }
    }

    #[test]
    fn an_empty_object_is_one() {
        let mut out = Vec::new();
        JsonLine::begin(&mut out).end();
        assert_eq!(out, b"{}");
    }
}
