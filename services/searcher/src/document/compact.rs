//! Documents are kept as lines.

use std::borrow::Cow;

/// A valid JSON text without the white space between its tokens, so it is one line. Everything else stays byte for byte.
pub(crate) fn compact_json(json: &str) -> Cow<'_, str> {
    let mut compact: Option<String> = None;
    let mut is_string = false;
    let mut is_escaped = false;
    // What precedes has been copied, if anything was left out.
    let mut copied = 0;
    for (at, byte) in json.bytes().enumerate() {
        if is_string {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => is_string = false,
                _ => {}
            }
        } else if byte == b'"' {
            is_string = true;
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            let compact = compact.get_or_insert_with(|| String::with_capacity(json.len()));
            compact.push_str(&json[copied..at]);
            copied = at + 1;
        }
    }
    match compact {
        Some(mut compact) => {
            compact.push_str(&json[copied..]);
            Cow::Owned(compact)
        }
        None => Cow::Borrowed(json),
    }
}
