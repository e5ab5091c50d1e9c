//! The subject of a certificate as text (RFC 5280, section 4.1.2.6, written as in RFC 4514). Pure.

use std::fmt::Write;

use super::der::{SEQUENCE, element, tbs_after_serial};

const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// The identifiers of attributes that have a short name.
const NAMES: [(&[u8], &str); 12] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "STREET"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 12], "title"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];

/// The subject of a certificate in DER, the most specific part first; `None` if it can't be read. It is printable ASCII without
/// quotation marks.
pub(super) fn subject(certificate: &[u8]) -> Option<String> {
    let mut rest = tbs_after_serial(certificate)?;
    // Algorithm, issuer, validity.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (_, names, _) = element(rest).filter(|found| found.0 == SEQUENCE)?;
    let mut parts = Vec::new();
    for set in elements(names, SET)? {
        let attributes: Option<Vec<_>> = elements(set, SEQUENCE)?.into_iter().map(attribute).collect();
        parts.push(attributes?.join("+"));
    }
    parts.reverse();
    Some(parts.join(","))
}

/// The contents of consecutive elements, all with this tag.
fn elements(mut bytes: &[u8], tag: u8) -> Option<Vec<&[u8]>> {
    let mut contents = Vec::new();
    while !bytes.is_empty() {
        let (found, content, rest) = element(bytes)?;
        contents.push(Some(content).filter(|_| found == tag)?);
        bytes = rest;
    }
    Some(contents)
}

/// `CN=alice`.
fn attribute(bytes: &[u8]) -> Option<String> {
    let (_, identifier, value) = element(bytes).filter(|found| found.0 == OBJECT_IDENTIFIER)?;
    let (tag, content, _) = element(value)?;
    let name = NAMES.iter().find(|(known, _)| *known == identifier).map(|(_, name)| *name);
    let text = match tag {
        UTF8_STRING | PRINTABLE_STRING | IA5_STRING => std::str::from_utf8(content).ok(),
        _ => None,
    };
    Some(match (name, text) {
        (Some(name), Some(text)) => format!("{name}={}", escaped(text)),
        (name, _) => {
            let mut part = name.map_or_else(|| dotted(identifier), ToOwned::to_owned) + "=#";
            let len = value.len() - element(value)?.2.len();
            for byte in &value[..len] {
                // Writing into a text never fails.
                let _ = write!(part, "{byte:02x}");
            }
            part
        }
    })
}

/// A value with what has a meaning in a name, or is no printable ASCII, escaped. A quotation mark is written as its code, because
/// the name is put between such.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, byte) in text.bytes().enumerate() {
        let is_at_edge = byte == b' ' && (at == 0 || at == last) || byte == b'#' && at == 0;
        match byte {
            b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                escaped.push('\\');
                escaped.push(char::from(byte));
            }
            b' '..=b'~' if byte != b'"' && !is_at_edge => escaped.push(char::from(byte)),
            _ => {
                let _ = write!(escaped, "\\{byte:02X}");
            }
        }
    }
    escaped
}

/// An object identifier as numbers.
fn dotted(identifier: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number = 0_u64;
    for byte in identifier {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.push(first);
                number -= first * 40;
            }
            numbers.push(number);
            number = 0;
        }
    }
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_is_escaped_where_it_must_be() {
        for (text, expected) in [
            ("alice", "alice"),
            ("a,b+c;d<e>f\\g", "a\\,b\\+c\\;d\\<e\\>f\\\\g"),
            (" a b ", "\\20a b\\20"),
            ("#a#", "\\23a#"),
            ("\"", "\\22"),
            ("\u{e4}\n", "\\C3\\A4\\0A"),
            ("", ""),
            (" ", "\\20"),
        ] {
            assert_eq!(escaped(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_attribute_without_a_short_name_or_a_text_is_written_in_hexadecimal() {
        let known = [0x06, 3, 0x55, 4, 3, 0x0c, 1, b'a'];
        assert_eq!(attribute(&known).unwrap(), "CN=a");
        let other = [0x06, 3, 0x55, 4, 42, 0x0c, 1, b'a'];
        assert_eq!(attribute(&other).unwrap(), "2.5.4.42=#0c0161");
        let bitmap = [0x06, 3, 0x55, 4, 3, 0x1e, 2, 0, b'a'];
        assert_eq!(attribute(&bitmap).unwrap(), "CN=#1e020061");
        assert_eq!(dotted(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1]), "1.2.840.113549.1.9.1");
        assert_eq!(attribute(&[0x0c, 1, b'a']), None);
    }

    proptest! {
        #[test]
        fn whatever_a_certificate_is_its_subject_is_printable_or_none(
            cut in 0_usize..800,
            changes in prop::collection::vec((0_usize..600, any::<u8>()), 0..4),
        ) {
            use rustls::pki_types::CertificateDer;
            use rustls::pki_types::pem::PemObject;
            let alice = CertificateDer::from_pem_slice(include_bytes!("testdata/client.crt")).unwrap();
            let mut bytes = alice.to_vec();
            bytes.truncate(cut);
            for (at, byte) in changes {
                if let Some(changed) = bytes.get_mut(at) {
                    *changed = byte;
                }
            }
            if let Some(subject) = subject(&bytes) {
                prop_assert!(subject.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"'));
            }
        }
    }
}
