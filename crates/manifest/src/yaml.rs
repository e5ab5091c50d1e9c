//! Parses YAML text into a tree with positions, and writes values as YAML.
//!
//! The only file that uses the YAML library, so that it can be replaced (docs/adr/0001-yaml.org).

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::Serialize;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, MessageFormatter, Options, Spanned, UserMessageFormatter};

use crate::mistake::Mistake;
use crate::render::lines;
use crate::tree::{Key, Node, Position, Value, Writing};

/// The longest text that is read, in bytes.
pub const MAX_LEN: usize = 1024 * 1024;
/// How deep lists and mappings may be nested.
const MAX_DEPTH: usize = 48;
/// How many lists, mappings, keys and scalars there may be.
const MAX_NODES: usize = 50_000;
/// How many parts aliases may repeat: nested lists of aliases could otherwise grow exponentially ("billion laughs").
const MAX_REPEATED: usize = 5_000;
const TOO_LARGE: &str = "the file is too large or too deep";

/// Reads one YAML document. Each number that is not finite is a mistake, and is replaced by its text. The first syntax
/// error is returned as an error. The meaning of the document is not checked, so a duplicate key is in the tree twice.
pub fn parse_tree(source: &str) -> Result<(Node, Vec<Mistake>), Mistake> {
    if source.len() > MAX_LEN {
        let message = format!("the file has {} bytes, at most {MAX_LEN} are allowed", source.len());
        return Err(Mistake::new(Position::START, message));
    }
    serde_saphyr::from_str_with_options::<Spanned<Raw>>(source, options())
        .map(|raw| {
            let mut mistakes = Vec::new();
            (node(raw, source, &mut mistakes), mistakes)
        })
        .map_err(|error| syntax(&error, source))
}

/// Writes a value as YAML.
pub fn to_yaml(value: &impl Serialize) -> Result<String, WriteError> {
    serde_saphyr::to_string(value).map_err(|error| WriteError(error.to_string()))
}

/// The value can't be expressed in YAML: it has mappings as keys, or its `Serialize` failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot be written as YAML: {0}")]
pub struct WriteError(String);

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_aliases: MAX_REPEATED,
            max_anchors: MAX_REPEATED,
            max_recorded_anchor_events: 4 * MAX_NODES,
            max_recorded_anchor_bytes: 4 * MAX_LEN,
            max_total_scalar_bytes: MAX_LEN,
            max_merge_keys: MAX_REPEATED,
            max_documents: 2,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPEATED },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

fn syntax(error: &Error, source: &str) -> Mistake {
    let at = error.location().map_or(Position::START, |at| position(at, 0));
    let innermost = match error {
        Error::AliasError { error, .. } => error,
        other => other,
    };
    let message = match innermost {
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => TOO_LARGE.to_owned(),
        Error::MultipleDocuments { .. } => "a second document begins here, one is allowed".to_owned(),
        Error::UnknownAnchor { .. } => "this alias has no anchor before it".to_owned(),
        Error::RecursiveReferencesRequireWeakTypes { .. } => "this alias is inside its own anchor".to_owned(),
        Error::UnsupportedTag { .. } => "tags are not allowed".to_owned(),
        Error::Unexpected { .. } | Error::NullIntoString { .. } => {
            "a key is a single piece of text".to_owned()
        }
        other => match UserMessageFormatter.format_message(other) {
            message if message == "recursion limit exceeded" => TOO_LARGE.to_owned(),
            message => match message.strip_prefix("unexpected character: ") {
                Some(c) => format!("unexpected character {}", c.replace('\'', "`")),
                None => message.into_owned(),
            },
        },
    };
    let hint = syntax_hint(&message, at, source);
    let mistake = Mistake::new(at, message);
    match hint {
        Some(hint) => mistake.hint(hint),
        None => mistake,
    }
}

/// Hints for the most common syntax errors.
fn syntax_hint(message: &str, at: Position, source: &str) -> Option<&'static str> {
    let index = usize::try_from(at.line).ok()?.checked_sub(1)?;
    let line = lines(source).nth(index).unwrap_or_default();
    if message == TOO_LARGE {
        return Some("at most 1 MiB, 50000 values, 48 levels and 5000 values repeated by aliases are read");
    }
    if line.trim_start_matches(' ').starts_with('\t') {
        return Some("indent with spaces, YAML does not allow tabs");
    }
    if message.starts_with("unexpected character") {
        return Some("put the text in quotes");
    }
    if message.contains("flow") && line.contains("${") {
        return Some("put quotes around `${…}` inside `{ }` and `[ ]`");
    }
    if message.contains("mapping values are not allowed") {
        return Some("check the indentation, or put quotes around text with `: ` in it");
    }
    None
}

fn node(raw: Spanned<Raw>, source: &str, mistakes: &mut Vec<Mistake>) -> Node {
    let Spanned { value, defined, .. } = raw;
    let mut at = position(defined, 0);
    let mut writing = Writing::Marked;
    let value = match value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => Value::Bool(value),
        Raw::Number(number) => Value::Number(number),
        Raw::NotFinite(number) => {
            let text = match (number.is_nan(), number > 0.0) {
                (true, _) => ".nan",
                (false, true) => ".inf",
                (false, false) => "-.inf",
            };
            let mistake = Mistake::new(at, format!("`{text}` is not a finite number"));
            mistakes.push(mistake.hint("write a number, or put it in quotes to make it text"));
            Value::String(text.to_owned())
        }
        Raw::String(text) => {
            if !text.contains('\n') && is_plain(defined, source) {
                writing = Writing::Plain;
            }
            Value::String(text)
        }
        Raw::Sequence(items) => {
            Value::Sequence(items.into_iter().map(|item| node(item, source, mistakes)).collect())
        }
        Raw::Mapping(entries) => {
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(key, value)| {
                    let at = position(key.defined, key.value.0.chars().count());
                    let text = key.value.0;
                    (Key { text, at }, node(value, source, mistakes))
                })
                .collect();
            Value::Mapping(entries)
        }
    };
    match &value {
        Value::Mapping(entries) => {
            if let Some((key, _)) = entries.first().filter(|(key, _)| key.at.line == at.line) {
                at = key.at;
            }
        }
        Value::Sequence(_) => at.len = 1,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    Node { at, value, writing }
}

fn position(at: Location, len: usize) -> Position {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let len = number(at.span().len()).max(u32::try_from(len).unwrap_or(u32::MAX));
    Position { line: number(at.line()).max(1), column: number(at.column()).max(1), len }
}

fn is_plain(at: Location, source: &str) -> bool {
    let start = at.span().byte_offset().and_then(|start| usize::try_from(start).ok());
    let first = start.and_then(|start| source.as_bytes().get(start));
    first.is_some_and(|first| !matches!(first, b'"' | b'\''))
}

/// A node before it is known how it was written.
enum Raw {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    /// `.inf` or `.nan`.
    NotFinite(f64),
    String(String),
    Sequence(Vec<Spanned<Self>>),
    Mapping(Vec<(Spanned<RawKey>, Spanned<Self>)>),
}

/// The text of a key, even if it looks like another value: `8080` is a valid key.
struct RawKey(String);

impl<'de> Deserialize<'de> for RawKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(serde_json::Number::from_f64(value).map_or(Raw::NotFinite(value), Raw::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Mapping(entries))
    }
}
