//! Decodes the bytes of a file that a person wrote.

use crate::mistake::{Mistake, Mistakes};
use crate::tree::Position;

/// Decodes a file as UTF-8. If it is not UTF-8, the mistake has the position of the first invalid byte.
///
/// `file_name` is for messages only.
pub fn text(file_name: &str, bytes: Vec<u8>) -> Result<String, Mistakes> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let bytes = error.into_bytes();
        let mistake = match utf_16(&bytes) {
            Some(name) => Mistake::new(Position::START, format!("the file is {name}, not UTF-8"))
                .hint(format!("save it as UTF-8: `iconv -f UTF-16 -t UTF-8 {file_name} > utf8.yaml`")),
            None => {
                let at = place(&bytes[..valid]);
                let byte = bytes.get(valid).copied().unwrap_or_default();
                Mistake::new(at, format!("the byte 0x{byte:02X} is not UTF-8: is the file Latin-1?"))
                    .hint(format!("save it as UTF-8: `iconv -f LATIN1 -t UTF-8 {file_name} > utf8.yaml`"))
            }
        };
        let shown = if utf_16(&bytes).is_some() { String::new() } else { lossy(&bytes) };
        Mistakes::new(file_name, shown, vec![mistake])
    })
}

/// The name of the encoding, if the bytes begin with its byte order mark.
fn utf_16(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xFF, 0xFE, ..] => Some("UTF-16 (little endian)"),
        [0xFE, 0xFF, ..] => Some("UTF-16 (big endian)"),
        _ => None,
    }
}

/// The text with a replacement character for each invalid byte, so that columns do not shift.
fn lossy(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// The position after this text.
fn place(before: &[u8]) -> Position {
    let before = String::from_utf8_lossy(before);
    let before = before.strip_prefix('\u{feff}').unwrap_or(&before);
    let (mut line, mut column) = (1, 1);
    let mut chars = before.chars().peekable();
    while let Some(c) = chars.next() {
        let is_end = c == '\n' || (c == '\r' && chars.peek() != Some(&'\n'));
        if is_end {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    Position { line, column, len: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(bytes: &[u8]) -> String {
        text("a.yaml", bytes.to_vec()).unwrap_err().to_string()
    }

    #[test]
    fn a_byte_of_another_encoding_is_shown_at_its_position() {
        assert_eq!(
            mistake(b"cluster: y\n# f\xFCr\nnodes: []\n"),
            "\
error: the byte 0xFC is not UTF-8: is the file Latin-1?
 --> a.yaml:2:4
  |
2 | # f\u{FFFD}r
  |    ^
  = help: save it as UTF-8: `iconv -f LATIN1 -t UTF-8 a.yaml > utf8.yaml`

1 mistake in a.yaml"
        );
        let utf16: Vec<u8> = "\u{feff}a: 1".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(mistake(&utf16).contains("the file is UTF-16 (little endian), not UTF-8"));
    }

    #[test]
    fn utf_8_is_read_with_and_without_a_byte_order_mark() {
        for source in ["", "cluster: größe", "\u{feff}cluster: y"] {
            assert_eq!(text("a.yaml", source.as_bytes().to_vec()).unwrap(), source);
        }
    }
}
