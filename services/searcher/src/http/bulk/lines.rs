//! The lines of a bulk request: each is a document, and has an answer of its own. Pure.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use types::ErrorKind;

use crate::definition::Definition;
use crate::document::MAX_DOCUMENT;
use crate::document::compact::compact_json;
use crate::document::id::{IdError, document_id};
use crate::http::path::DocumentId;
use crate::http::refusal::Reason;

/// The largest number of documents in a request.
pub(crate) const MAX_LINES: usize = 50_000;

/// A document to write.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The number of the line, from 1.
    pub(crate) number: usize,
    pub(crate) id: DocumentId,
    /// The document, without white space between its tokens.
    pub(crate) source: Box<RawValue>,
}

/// A line that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedLine {
    pub(crate) number: usize,
    pub(crate) id: Option<String>,
    pub(crate) reason: Reason,
}

/// There are more lines than are taken at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are more than {MAX_LINES} lines")]
pub(crate) struct TooManyLines;

/// What a body has: documents with their ids, and lines that have none.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) documents: Vec<Line>,
    pub(crate) refused: Vec<RefusedLine>,
}

/// Finds the document and the id in each line, without empty ones. Whether a document fits the index is not checked here.
pub(crate) fn split(body: &[u8], definition: &Definition) -> Result<Lines, TooManyLines> {
    let mut lines = Lines::default();
    // Some programs begin a file with a byte order mark.
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    for (index, text) in body.split(|byte| *byte == b'\n').enumerate() {
        let text = text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        if lines.documents.len() + lines.refused.len() == MAX_LINES {
            return Err(TooManyLines);
        }
        let number = index + 1;
        match document(text, definition) {
            Ok((id, source)) => lines.documents.push(Line { number, id, source }),
            Err(reason) => lines.refused.push(RefusedLine { number, id: None, reason }),
        }
    }
    Ok(lines)
}

/// Whether a body has a document, so that an index may be created for it.
pub(super) fn has_document(body: &[u8]) -> bool {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    body.split(|byte| *byte == b'\n').take(MAX_LINES).any(is_object)
}

/// Whether a text is a JSON object.
pub(crate) fn is_object(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    text.first() == Some(&b'{') && serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

fn document(line: &[u8], definition: &Definition) -> Result<(DocumentId, Box<RawValue>), Reason> {
    let bad = |detail: String| refused(ErrorKind::Invalid, "bad-document", detail);
    if line.len() > MAX_DOCUMENT {
        let detail = format!("the document has {} bytes; at most {MAX_DOCUMENT} are allowed", line.len());
        return Err(refused(ErrorKind::TooLarge, "document-too-large", detail));
    }
    let text = std::str::from_utf8(line).map_err(|error| bad(format!("the line is no UTF-8: {error}")))?;
    let id = document_id(definition, text, None).map_err(|error| match &error {
        IdError::Document(document) => bad(document.to_string()),
        IdError::Empty | IdError::TooLong { .. } | IdError::Differs { .. } | IdError::NoId { .. } => {
            refused(ErrorKind::Invalid, "bad-id", error.to_string())
        }
    })?;
    let id = DocumentId::new(id).map_err(|error| refused(ErrorKind::Invalid, "bad-id", error.to_string()))?;
    Ok((id, one_line(text).map_err(|error| bad(format!("the document is no JSON: {error}")))?))
}

/// A JSON text as one line: without the white space between its tokens, and otherwise as it is.
pub(crate) fn one_line(text: &str) -> Result<Box<RawValue>, serde_json::Error> {
    let text = text.trim_matches([' ', '\t', '\n', '\r']);
    match compact_json(text) {
        Cow::Borrowed(text) => RawValue::from_string(text.to_owned()),
        Cow::Owned(compact) => {
            // Without its white space, a text that is no JSON may become some.
            serde_json::from_str::<IgnoredAny>(text)?;
            RawValue::from_string(compact)
        }
    }
}

fn refused(kind: ErrorKind, code: &str, detail: String) -> Reason {
    Reason { status: kind.status(), code: code.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_id() -> Definition {
        Definition { id: Some("name".to_owned()), ..Definition::default() }
    }

    #[test]
    fn each_line_is_a_document_with_the_id_in_it_and_empty_ones_are_skipped() {
        let body = "\u{feff}{\"name\":\"a\"}\r\n\n  \n{ \"name\" : \"b c\", \"n\":[1, 2.50] }";
        let lines = split(body.as_bytes(), &with_id()).unwrap();
        assert!(lines.refused.is_empty(), "{:?}", lines.refused);
        let found: Vec<_> =
            lines.documents.iter().map(|line| (line.number, line.id.as_str(), line.source.get())).collect();
        assert_eq!(found[0], (1, "a", "{\"name\":\"a\"}"));
        assert_eq!((found[1].0, found[1].1), (4, "b c"));
        assert!(!found[1].2.contains(['\n', '\r']) && found[1].2.contains("2.50"), "{}", found[1].2);
        assert!(split(b"", &with_id()).unwrap().documents.is_empty());
    }

    #[test]
    fn a_line_is_json_before_its_white_space_is_removed() {
        for wrong in ["{\"a\":1 2}", "{\"a\":tr ue}", "{\"a\":1.\t5}", " { \"a\" : \"b } "] {
            assert!(one_line(wrong).is_err(), "{wrong}");
        }
        assert_eq!(one_line(" {\"a b\":1}\r").unwrap().get(), "{\"a b\":1}");
        assert_eq!(one_line("{ \"a\" : 1.50 }").unwrap().get(), "{\"a\":1.50}");
    }

    #[test]
    fn a_document_without_an_id_gets_one_of_its_own() {
        let lines = split(b"{}\n{}", &Definition::default()).unwrap().documents;
        assert_ne!(lines[0].id, lines[1].id);
    }

    #[test]
    fn a_bad_line_is_refused_with_its_number_and_the_others_are_not() {
        let long = format!("{{\"name\":\"{}\"}}", "i".repeat(600));
        let nested = format!("{{\"name\":\"a\",\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        for (line, code) in [
            (&b"{"[..], "bad-document"),
            (b"[]", "bad-document"),
            (b"7", "bad-document"),
            (b"null", "bad-document"),
            (b"{\"name\":\"a\"} x", "bad-document"),
            (b"{\"name\":\"\xff\"}", "bad-document"),
            (b"{\"name\":\"a\x01\"}", "bad-document"),
            (b"{\"name\":\"\"}", "bad-id"),
            (long.as_bytes(), "bad-id"),
            (nested.as_bytes(), "bad-document"),
        ] {
            let body = [b"{\"name\":\"1\"}\n\n", line, b"\n{\"name\":\"2\"}"].concat();
            let lines = split(&body, &with_id()).unwrap();
            let shown = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
            assert_eq!(lines.documents.len(), 2, "{shown}");
            let [refused] = &lines.refused[..] else { panic!("{shown}: {:?}", lines.refused) };
            assert_eq!((refused.number, refused.reason.code.as_str()), (3, code), "{shown}");
            assert_eq!(refused.reason.status, 400, "{shown}");
        }
    }

    #[test]
    fn a_document_or_a_request_that_is_too_large_is_refused() {
        let large = format!("{{\"name\":\"a\",\"x\":\"{}\"}}\n{{\"name\":\"b\"}}", "x".repeat(MAX_DOCUMENT));
        let lines = split(large.as_bytes(), &with_id()).unwrap();
        assert_eq!((lines.documents.len(), lines.refused[0].reason.status), (1, 413));
        assert_eq!(lines.refused[0].reason.code, "document-too-large");
        let most = "{}\n".repeat(MAX_LINES);
        assert_eq!(split(most.as_bytes(), &Definition::default()).unwrap().documents.len(), MAX_LINES);
        let many = "{\n".repeat(MAX_LINES + 1);
        assert_eq!(split(many.as_bytes(), &Definition::default()).err(), Some(TooManyLines));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let lines = split(&body, &with_id()).unwrap();
            let full = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
            prop_assert!(lines.documents.len() + lines.refused.len() <= full.count());
        }

        #[test]
        fn every_line_has_exactly_one_outcome_in_order(
            lines in prop::collection::vec(prop_oneof![Just("{}"), Just("{"), Just(""), Just("[1]")], 0..40),
        ) {
            let found = split(lines.join("\n").as_bytes(), &Definition::default()).unwrap();
            let mut numbers: Vec<_> = found.documents.iter().map(|line| line.number)
                .chain(found.refused.iter().map(|line| line.number)).collect();
            prop_assert!(found.documents.is_sorted_by_key(|line| line.number));
            numbers.sort_unstable();
            let wanted: Vec<_> = lines.iter().enumerate().filter(|(_, line)| !line.is_empty())
                .map(|(index, _)| index + 1).collect();
            prop_assert_eq!(numbers, wanted);
        }
    }
}
