//! The lines of a `_bulk` request: an action, and for most actions a document. Pure.
//!
//! What is wrong with the actions refuses the whole request. What is wrong with a document refuses only its item.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use types::ErrorKind;

use super::super::error::EsError;
use super::super::parameters::condition;
use super::super::unique;
use crate::document::MAX_DOCUMENT;
use crate::http::{MAX_LINES, Reason, one_line};
use crate::shard::{Change, Condition};

/// What is done with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Index,
    Create,
    Update,
    Delete,
}

impl Action {
    const ALL: [(&'static str, Self); 4] = [
        ("index", Self::Index),
        ("create", Self::Create),
        ("update", Self::Update),
        ("delete", Self::Delete),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, action)| *action == self).map_or("", |(name, _)| name)
    }
}

/// An item of a request.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) action: Action,
    pub(crate) index: String,
    pub(crate) id: Option<String>,
    pub(crate) condition: Option<Condition>,
    /// The change, or why its document is refused.
    pub(crate) change: Result<Change, Reason>,
}

/// Reads the items of a body. `index` is the one in the path, for actions that name none.
pub(crate) fn decode(body: &[u8], index: Option<&str>) -> Result<Vec<Entry>, EsError> {
    if body.trim_ascii().is_empty() {
        return Err(EsError::new(400, "parse_exception", "request body is required"));
    }
    let Some(body) = body.strip_suffix(b"\n") else {
        let reason = "The bulk request must be terminated by a newline [\\n]";
        return Err(EsError::illegal(reason));
    };
    let mut lines = body.split(|byte| *byte == b'\n').enumerate();
    let (mut entries, mut problems) = (Vec::new(), Vec::new());
    while let Some((number, line)) = lines.next() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if entries.len() == MAX_LINES {
            let reason = format!("there are more than {MAX_LINES} items: send them in several requests");
            return Err(EsError::new(413, "content_too_long_exception", reason));
        }
        let (action, meta) = action(number + 1, line)?;
        let meta = Meta::of(number + 1, &meta)?;
        let change = match action {
            Action::Delete => Ok(Change::Delete),
            Action::Index | Action::Create | Action::Update => {
                let Some((number, source)) = lines.next() else {
                    let reason = format!("line {}: the action has no document after it", number + 1);
                    return Err(EsError::illegal(reason));
                };
                match action {
                    Action::Update => update(source).map_err(|error| error.at_line(number + 1))?,
                    Action::Index | Action::Create | Action::Delete => document(source).map(Change::Put),
                }
            }
        };
        let Some(index) = meta.index.as_deref().or(index) else {
            problems.push("index is missing".to_owned());
            continue;
        };
        if meta.id.is_none() && matches!(action, Action::Update | Action::Delete) {
            problems.push("id is missing".to_owned());
        }
        let condition = match (action, meta.condition) {
            (Action::Create, Some(_)) => {
                problems.push("create operations do not support compare and set".to_owned());
                None
            }
            (Action::Create, None) => Some(Condition::Absent),
            (Action::Index | Action::Update | Action::Delete, condition) => condition,
        };
        entries.push(Entry { action, index: index.to_owned(), id: meta.id, condition, change });
    }
    if problems.is_empty() { Ok(entries) } else { Err(EsError::invalid(&problems)) }
}

/// Reads an action line: an object with the action as its only member.
fn action(number: usize, line: &[u8]) -> Result<(Action, Map<String, Value>), EsError> {
    let bad = |what: &str| EsError::illegal(format!("Malformed action/metadata line [{number}], {what}"));
    let members: BTreeMap<String, Value> =
        unique::read(line).map_err(|error| bad(&format!("expected an object: {error}")))?;
    let mut members = members.into_iter();
    let (Some((name, meta)), None) = (members.next(), members.next()) else {
        return Err(bad("expected one action"));
    };
    let Some((_, action)) = Action::ALL.into_iter().find(|(known, _)| *known == name) else {
        return Err(bad(&format!(
            "expected field [create], [delete], [index] or [update] but found [{name}]"
        )));
    };
    match meta {
        Value::Object(meta) => Ok((action, meta)),
        _ => Err(bad(&format!("expected an object after [{name}]"))),
    }
}

/// The members of an action.
#[derive(Debug, Default)]
struct Meta {
    index: Option<String>,
    id: Option<String>,
    condition: Option<Condition>,
}

impl Meta {
    fn of(number: usize, members: &Map<String, Value>) -> Result<Self, EsError> {
        let bad = |what: String| EsError::illegal(format!("Action/metadata line [{number}] {what}"));
        let (mut meta, mut seq, mut term) = (Self::default(), None, None);
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            let text = || match value {
                Value::String(text) => Ok(text.clone()),
                Value::Number(number) => Ok(number.to_string()),
                _ => Err(bad(format!("has no text in [{name}]"))),
            };
            let count = || value.as_u64().ok_or_else(|| bad(format!("has no whole number in [{name}]")));
            match name.as_str() {
                "_index" => meta.index = Some(text()?),
                "_id" => {
                    let id = text()?;
                    if id.is_empty() {
                        return Err(bad("has an empty [_id]: leave it out to generate one".to_owned()));
                    }
                    meta.id = Some(id);
                }
                "if_seq_no" => seq = Some(count()?),
                "if_primary_term" => term = Some(count()?),
                // Updates are made under the queue of writes, so there is nothing to repeat.
                "retry_on_conflict" => drop(count()?),
                "require_alias" | "require_data_stream" if *value == Value::Bool(false) => {}
                "routing"
                | "version"
                | "version_type"
                | "pipeline"
                | "require_alias"
                | "require_data_stream"
                | "dynamic_templates"
                | "_source" => {
                    return Err(bad(format!("contains a parameter that is not supported [{name}]")));
                }
                _ => return Err(bad(format!("contains an unknown parameter [{name}]"))),
            }
        }
        meta.condition = condition(seq, term)?;
        Ok(meta)
    }
}

/// A document as one line.
pub(crate) fn document(source: &[u8]) -> Result<Box<RawValue>, Reason> {
    let refused = |kind: ErrorKind, code: &str, detail: String| Reason {
        status: kind.status(),
        code: code.to_owned(),
        detail,
    };
    let bad = |detail: String| refused(ErrorKind::Invalid, "bad-document", detail);
    if source.len() > MAX_DOCUMENT {
        let detail = format!("the document has {} bytes; at most {MAX_DOCUMENT} are allowed", source.len());
        return Err(refused(ErrorKind::TooLarge, "document-too-large", detail));
    }
    let text = std::str::from_utf8(source).map_err(|error| bad(format!("it is no UTF-8: {error}")))?;
    if text.trim_ascii_start().as_bytes().first() != Some(&b'{') {
        return Err(bad("a document is a JSON object".to_owned()));
    }
    one_line(text).map_err(|error| bad(format!("failed to parse: {error}")))
}

/// Reads the body of an update: the change, or why its document is refused.
pub(crate) fn update(body: &[u8]) -> Result<Result<Change, Reason>, EsError> {
    let members = unique::members(body).map_err(|error| EsError::parsing(format!("no update: {error}")))?;
    let (mut doc, mut upsert, mut is_doc_upsert, mut detect_noop) = (None, None, false, true);
    for (name, value) in members {
        let flag = || {
            let flag = value.get().parse::<bool>();
            flag.map_err(|_| EsError::parsing(format!("[{name}] is true or false, not {}", value.get())))
        };
        match name.as_str() {
            "doc" => doc = Some(value),
            "upsert" => upsert = Some(value),
            "doc_as_upsert" => is_doc_upsert = flag()?,
            "detect_noop" => detect_noop = flag()?,
            "_source" if value.get() == "false" => {}
            "script" | "scripted_upsert" | "_source" => return Err(EsError::unsupported(&name)),
            _ => return Err(EsError::parsing(format!("[UpdateRequest] unknown field [{name}]"))),
        }
    }
    let Some(doc) = doc else {
        return Err(EsError::invalid(&["script or doc is missing".to_owned()]));
    };
    let change = || {
        let patch = document(doc.get().as_bytes())?;
        let upsert = match upsert {
            Some(upsert) => Some(document(upsert.get().as_bytes())?),
            None => is_doc_upsert.then(|| patch.clone()),
        };
        Ok(Change::Merge { patch, upsert, detect_noop })
    };
    Ok(change())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn actions_come_with_their_documents_in_order() {
        let body = r#"{"index":{"_index":"a","_id":"1"}}
{ "n" : 1.50 }

{"delete":{"_id":7}}
{"create":{}}
{"n":2}
{"update":{"_id":"2","if_seq_no":3,"if_primary_term":1,"retry_on_conflict":3}}
{"doc":{"n":3},"doc_as_upsert":true}
{"index":{}}
[]
"#;
        let entries = decode(body.as_bytes(), Some("b")).unwrap();
        let shown: Vec<_> = entries
            .iter()
            .map(|entry| (entry.action.name(), entry.index.as_str(), entry.id.as_deref(), entry.condition))
            .collect();
        assert_eq!(
            shown,
            [
                ("index", "a", Some("1"), None),
                ("delete", "b", Some("7"), None),
                ("create", "b", None, Some(Condition::Absent)),
                ("update", "b", Some("2"), Some(Condition::Is { seq: 3, term: 1 })),
                ("index", "b", None, None),
            ]
        );
        let Ok(Change::Put(source)) = &entries[0].change else { panic!("{:?}", entries[0]) };
        assert_eq!(source.get(), "{\"n\":1.50}");
        assert!(matches!(&entries[3].change, Ok(Change::Merge { upsert: Some(_), detect_noop: true, .. })));
        assert!(matches!(&entries[4].change, Err(reason) if reason.status == 400));
    }

    #[test]
    fn a_request_of_the_wrong_shape_is_refused_whole() {
        for (body, words) in [
            ("", "request body is required"),
            ("\n\n", "request body is required"),
            ("{\"index\":{}}\n{}", "terminated by a newline"),
            ("{\"index\":{}}\n", "no document after it"),
            ("{\"index\":{}}\n{}\n{\"create\":{}}\n", "no document after it"),
            ("{}\n", "expected one action"),
            ("{\"index\":{},\"create\":{}}\n{}\n", "expected one action"),
            ("{\"index\":{},\"index\":{}}\n{}\n", "duplicate field 'index'"),
            ("{\"index\":{\"_id\":\"1\",\"_id\":\"2\"}}\n{}\n", "duplicate field '_id'"),
            ("{\"put\":{}}\n{}\n", "but found [put]"),
            ("{\"index\":7}\n{}\n", "expected an object after [index]"),
            ("x\n{}\n", "line [1]"),
            ("{\"index\":{\"_index\":{}}}\n{}\n", "no text in [_index]"),
            ("{\"index\":{\"_id\":\"\"}}\n{}\n", "empty [_id]"),
            ("{\"index\":{\"routing\":\"a\"}}\n{}\n", "not supported [routing]"),
            ("{\"index\":{\"_type\":\"a\"}}\n{}\n", "unknown parameter [_type]"),
            ("{\"index\":{\"_index\":\"a\",\"if_seq_no\":1}}\n{}\n", "primary term"),
            ("{\"index\":{\"_id\":\"1\"}}\n{}\n", "Validation Failed: 1: index is missing;"),
            ("{\"delete\":{\"_index\":\"a\"}}\n", "id is missing"),
            (
                "{\"update\":{\"_index\":\"a\",\"_id\":\"1\"}}\n{\"script\":\"x\"}\n",
                "[script] is not supported",
            ),
            ("{\"update\":{\"_index\":\"a\",\"_id\":\"1\"}}\n{\"dok\":{}}\n", "unknown field [dok]"),
            ("{\"update\":{\"_index\":\"a\",\"_id\":\"1\"}}\n{}\n", "script or doc is missing"),
        ] {
            let error = decode(body.as_bytes(), None).unwrap_err();
            assert_eq!(error.status, 400);
            let shown = error.to_json().to_string();
            assert!(shown.contains(words), "{body}: {shown}");
        }
        let many = "{\"delete\":{\"_index\":\"a\",\"_id\":\"1\"}}\n".repeat(MAX_LINES + 1);
        assert_eq!(decode(many.as_bytes(), None).unwrap_err().status, 413);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_decoded_without_a_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(entries) = decode(&body, Some("a")) {
                let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
                prop_assert!(entries.len() <= lines.count());
            }
        }

        #[test]
        fn near_misses_are_refused_or_decoded_without_a_panic(
            lines in prop::collection::vec(
                prop_oneof![
                    Just("{\"index\":{\"_id\":\"1\"}}"), Just("{\"delete\":{\"_id\":\"1\"}}"), Just("{}"), Just(""),
                    Just("{\"update\":{\"_id\":\"1\"}}"), Just("{\"doc\":{}}"), Just("{\"doc\":[]}"), Just("["),
                    Just("{\"create\":null}"), Just("{\"index\":{\"_id\":[]}}"), Just("\u{feff}"),
                ],
                0..12,
            ),
        ) {
            let _ = decode(format!("{}\n", lines.join("\n")).as_bytes(), Some("a"));
        }

        #[test]
        fn items_keep_their_order(items in prop::collection::vec((0..4_usize, any::<u16>(), "[a-z\"\\\\\n é]{0,6}"), 1..40)) {
            let mut body = String::new();
            for (action, id, text) in &items {
                let (name, _) = Action::ALL[*action];
                let document = serde_json::json!({ "t": text });
                let meta = serde_json::json!({ name: { "_id": id.to_string() } });
                body.push_str(&format!("{meta}\n"));
                match name {
                    "delete" => {}
                    "update" => body.push_str(&format!("{}\n", serde_json::json!({ "doc": document }))),
                    _ => body.push_str(&format!("{document}\n")),
                }
            }
            let entries = decode(body.as_bytes(), Some("a")).unwrap();
            let found: Vec<_> = entries.iter().map(|entry| (entry.action, entry.id.clone().unwrap())).collect();
            let wanted: Vec<_> = items.iter().map(|(action, id, _)| (Action::ALL[*action].1, id.to_string())).collect();
            prop_assert_eq!(found, wanted);
            for (entry, (_, _, text)) in entries.iter().zip(&items) {
                if let Ok(Change::Put(source)) = &entry.change {
                    let found: Value = serde_json::from_str(source.get()).unwrap();
                    prop_assert_eq!(found["t"].as_str(), Some(text.as_str()));
                }
            }
        }
    }
}
