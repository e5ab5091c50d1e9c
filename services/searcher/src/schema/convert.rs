//! A document becomes what Tantivy indexes.

mod gathering;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use tantivy::schema::Field;
use tantivy::schema::document::{ReferenceValue, ReferenceValueLeaf as Leaf, Value as TantivyValue};
use tantivy::{DateTime, TantivyDocument};

use super::IndexSchema;
use super::addresses::Address;
use super::dates::{Moment, rfc3339};
use super::places::stored_path;
use crate::definition::{
    Analyzer, Dynamic, FieldDefinition, MAX_KEYWORD, Normalizer, RESERVED, Similarity, SubField,
    path_problem, similar,
};
use crate::document::{Document, DocumentError, MAX_PATH, Reading, Scalar};
use crate::vectors;

/// How values of a path are indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text in a field of its own.
    Own(Field, Analyzer),
    /// Text in `_text`.
    Text(Analyzer),
    Keyword {
        ignore_above: Option<u32>,
        normalizer: Normalizer,
    },
    I64,
    F64,
    Bool,
    Date,
    Vector(Similarity),
    Ip,
    /// By the type of each value.
    Dynamic,
    /// Not at all.
    Stored,
}

impl Kind {
    pub(super) fn of_sub_field(field: &SubField) -> Self {
        match field {
            SubField::Text { analyzer } => Self::Text(*analyzer),
            SubField::Keyword { ignore_above, normalizer } => {
                Self::Keyword { ignore_above: *ignore_above, normalizer: *normalizer }
            }
        }
    }
}

/// A value as it is indexed.
#[derive(Debug, Clone, PartialEq)]
enum Indexed<'a> {
    Own(Field, Cow<'a, str>),
    Text(Analyzer, Cow<'a, str>),
    /// Dynamic text: analyzed, for queries without a field name, and as a keyword.
    Dynamic(Cow<'a, str>),
    Keyword(Cow<'a, str>),
    I64(i64),
    U64(u64),
    F64(f64),
    Bool(bool),
    Date(DateTime),
    Vector(Vec<f32>),
    /// Only stored, but there.
    Ignored,
}

/// The values of a document.
#[derive(Debug, Default)]
pub(super) struct Leaves<'a> {
    paths: Vec<String>,
    /// Which paths are not declared.
    dynamic: Vec<usize>,
    /// In the order of the document, each with the index of its path.
    values: Vec<(usize, Indexed<'a>)>,
}

impl Leaves<'_> {
    /// The paths that are not declared.
    pub(super) fn into_dynamic(mut self) -> Vec<String> {
        self.dynamic.iter().map(|index| std::mem::take(&mut self.paths[*index])).collect()
    }
}

impl IndexSchema {
    /// Whether a field is indexed though it is not declared.
    pub(crate) fn is_dynamic(&self, path: &str) -> bool {
        !self.definition.fields.contains_key(path)
            && self.definition.sub_field(path).is_none()
            && self.kind(path) == Ok(Kind::Dynamic)
    }

    /// How values of a path are indexed.
    pub(super) fn kind(&self, path: &str) -> Result<Kind, DocumentError> {
        let definition = &self.definition;
        if let Some(field) = definition.fields.get(path) {
            return Ok(match field {
                FieldDefinition::Text { analyzer, .. } => match self.own.get(path) {
                    Some(own) => Kind::Own(*own, *analyzer),
                    None => Kind::Text(*analyzer),
                },
                FieldDefinition::Keyword { ignore_above, normalizer, .. } => {
                    Kind::Keyword { ignore_above: *ignore_above, normalizer: *normalizer }
                }
                FieldDefinition::I64 {} => Kind::I64,
                FieldDefinition::F64 {} => Kind::F64,
                FieldDefinition::Bool {} => Kind::Bool,
                FieldDefinition::Date {} => Kind::Date,
                FieldDefinition::Ip {} => Kind::Ip,
                FieldDefinition::Json {} => Kind::Dynamic,
                FieldDefinition::Vector { similarity, .. } => Kind::Vector(*similarity),
            });
        }
        match (definition.declared_above(path), definition.dynamic) {
            (Some((_, FieldDefinition::Json {})), _) => Ok(Kind::Dynamic),
            (Some((above, field)), _) => Err(DocumentError::Value {
                path: above.to_owned(),
                wanted: wanted(field),
                found: "an object".to_owned(),
            }),
            (None, Dynamic::Yes) => Ok(Kind::Dynamic),
            (None, Dynamic::No) => Ok(Kind::Stored),
            (None, Dynamic::Strict) => Err(DocumentError::UnknownField {
                path: path.to_owned(),
                similar: similar(path, definition.fields.keys().map(String::as_str)),
            }),
        }
    }

    pub(super) fn converted(&self, document: &Document<'_>) -> TantivyDocument {
        let mut converted = TantivyDocument::new();
        converted.add_text(self.id, document.id);
        converted.add_u64(self.seq, document.seq);
        converted.add_u64(self.term, document.term);
        converted.add_u64(self.version, document.version);
        converted.add_text(self.source, document.source);
        // A document that was checked is JSON.
        let leaves = self.leaves(document.source, Reading::Lenient).unwrap_or_default();
        let stored_paths: Vec<_> = leaves.paths.iter().map(|path| stored_path(path)).collect();
        let mut present = BTreeSet::new();
        let mut values = Vec::new();
        let mut texts: BTreeMap<Analyzer, Vec<_>> = BTreeMap::new();
        for (index, value) in &leaves.values {
            let path = leaves.paths[*index].as_str();
            present.insert(path);
            let path = &*stored_paths[*index];
            match value {
                Indexed::Own(field, text) => converted.add_text(*field, text),
                Indexed::Text(analyzer, text) => {
                    texts.entry(*analyzer).or_default().push((path, Leaf::Str(text)));
                }
                Indexed::Dynamic(text) => {
                    texts.entry(Analyzer::Default).or_default().push((path, Leaf::Str(text)));
                    converted.add_text(self.all, text);
                    // One value each: columns of two types would be counted twice.
                    match rfc3339(text).and_then(Moment::of_millis) {
                        Some(moment) => values.push((path, Leaf::Date(moment.first()))),
                        None if text.len() <= MAX_KEYWORD => values.push((path, Leaf::Str(text))),
                        None => {}
                    }
                }
                Indexed::Keyword(text) => values.push((path, Leaf::Str(text))),
                Indexed::I64(number) => values.push((path, Leaf::I64(*number))),
                Indexed::U64(number) => values.push((path, Leaf::U64(*number))),
                Indexed::F64(number) => values.push((path, Leaf::F64(*number))),
                Indexed::Bool(is_true) => values.push((path, Leaf::Bool(*is_true))),
                Indexed::Date(date) => values.push((path, Leaf::Date(*date))),
                Indexed::Vector(vector) => {
                    converted.add_custom(self.vectors, &vectors::value(&leaves.paths[*index], vector));
                }
                Indexed::Ignored => {}
            }
        }
        if !values.is_empty() {
            converted.add_field_value(self.values, Node::Object(&values));
        }
        for (analyzer, texts) in &texts {
            converted.add_field_value(self.text_field(*analyzer), Node::Object(texts));
        }
        for path in present {
            converted.add_text(self.fields, path);
        }
        converted
    }
}

/// An object for a JSON field of Tantivy, flat: its keys are whole paths, which the field takes apart. Tantivy's columns end at
/// 20 nested objects.
#[derive(Debug, Clone)]
enum Node<'a> {
    Object(&'a [(&'a str, Leaf<'a>)]),
    Leaf(Leaf<'a>),
}

impl<'a> TantivyValue<'a> for Node<'a> {
    type ArrayIter = std::iter::Empty<Self>;
    type ObjectIter = Entries<'a>;

    fn as_value(&self) -> ReferenceValue<'a, Self> {
        match self {
            Self::Object(entries) => ReferenceValue::Object(Entries(entries.iter())),
            Self::Leaf(leaf) => ReferenceValue::Leaf(leaf.clone()),
        }
    }
}

struct Entries<'a>(std::slice::Iter<'a, (&'a str, Leaf<'a>)>);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, Node<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(path, leaf)| (*path, Node::Leaf(leaf.clone())))
    }
}

/// Why a field that is not declared can't be indexed, or `None` if it can.
pub(super) fn dynamic_name_problem(path: &str) -> Option<String> {
    let top = path.split_once('.').map_or(path, |(top, _)| top);
    if RESERVED.contains(&top) {
        return Some(format!("`{top}` is the index's own name"));
    }
    path_problem(path, MAX_PATH)
}

/// A value as one of the field's type, if it can be converted as Elasticsearch does.
fn coerced(kind: Kind, scalar: Scalar<'_>) -> Scalar<'_> {
    let text = |text: String| Scalar::Text(Cow::Owned(text));
    match (kind, scalar) {
        (Kind::Own(..) | Kind::Text(_) | Kind::Keyword { .. }, scalar) => match scalar {
            Scalar::I64(number) => text(number.to_string()),
            Scalar::U64(number) => text(number.to_string()),
            Scalar::F64(number) => text(format!("{number:?}")),
            Scalar::Bool(is_true) => text(is_true.to_string()),
            scalar @ Scalar::Text(_) => scalar,
        },
        (Kind::I64, Scalar::Text(text)) => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => Scalar::I64(number),
            (Err(_), Ok(number)) => whole(number),
            (Err(_), Err(_)) => Scalar::Text(text),
        },
        (Kind::I64, Scalar::F64(number)) => whole(number),
        (Kind::F64, Scalar::Text(text)) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Scalar::F64(number),
            _ => Scalar::Text(text),
        },
        (Kind::Bool, Scalar::Text(text)) => match &*text {
            "true" => Scalar::Bool(true),
            "false" | "" => Scalar::Bool(false),
            _ => Scalar::Text(text),
        },
        (_, scalar) => scalar,
    }
}

/// A number without its fraction, if it is an integer then.
fn whole<'a>(number: f64) -> Scalar<'a> {
    // The largest ones below 2^63; a float can't be nearer to it.
    const LIMIT: f64 = 9_223_372_036_854_774_784.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is within the range, and the fraction is left out"
    )]
    if number.abs() <= LIMIT { Scalar::I64(number as i64) } else { Scalar::F64(number) }
}

/// A value as it is indexed; or what is wanted instead, and what was found.
fn indexed(kind: Kind, scalar: Scalar<'_>) -> Result<Indexed<'_>, (&'static str, String)> {
    let wanted = match (kind, scalar) {
        (Kind::Own(field, _), Scalar::Text(text)) => return Ok(Indexed::Own(field, text)),
        (Kind::Text(analyzer), Scalar::Text(text)) => return Ok(Indexed::Text(analyzer, text)),
        (Kind::Keyword { ignore_above, normalizer }, Scalar::Text(text)) => {
            let is_ignored = ignore_above.is_some_and(|limit| text.len() > limit as usize);
            return match text.len() {
                _ if is_ignored => Ok(Indexed::Ignored),
                0..=MAX_KEYWORD => Ok(Indexed::Keyword(match normalizer {
                    Normalizer::None => text,
                    Normalizer::Lowercase => Cow::Owned(normalizer.apply(&text).into_owned()),
                })),
                _ => Err(("a string of at most 32766 bytes", Scalar::Text(text).to_string())),
            };
        }
        (Kind::I64, Scalar::I64(number)) => return Ok(Indexed::I64(number)),
        (Kind::F64, Scalar::F64(number)) => return Ok(Indexed::F64(number)),
        #[expect(clippy::cast_precision_loss, reason = "the field's type is what the user declared")]
        (Kind::F64, Scalar::I64(number)) => return Ok(Indexed::F64(number as f64)),
        #[expect(clippy::cast_precision_loss, reason = "the field's type is what the user declared")]
        (Kind::F64, Scalar::U64(number)) => return Ok(Indexed::F64(number as f64)),
        (Kind::Bool, Scalar::Bool(is_true)) => return Ok(Indexed::Bool(is_true)),
        (Kind::Date, scalar) => {
            let moment = match &scalar {
                Scalar::Text(text) => Moment::of_text(text),
                Scalar::I64(millis) => Moment::of_millis(*millis),
                Scalar::U64(_) | Scalar::F64(_) | Scalar::Bool(_) => None,
            };
            return match moment {
                Some(moment) => Ok(Indexed::Date(moment.first())),
                None => Err((WANTED_DATE, scalar.to_string())),
            };
        }
        (Kind::Ip, Scalar::Text(text)) => {
            return match Address::parse(&text) {
                Some(address) => Ok(Indexed::Keyword(address.to_term().into())),
                None => Err((WANTED_IP, Scalar::Text(text).to_string())),
            };
        }
        (Kind::Dynamic, Scalar::Text(text)) => return Ok(Indexed::Dynamic(text)),
        (Kind::Dynamic, Scalar::I64(number)) => return Ok(Indexed::I64(number)),
        (Kind::Dynamic, Scalar::U64(number)) => return Ok(Indexed::U64(number)),
        (Kind::Dynamic, Scalar::F64(number)) => return Ok(Indexed::F64(number)),
        (Kind::Dynamic, Scalar::Bool(is_true)) => return Ok(Indexed::Bool(is_true)),
        (Kind::Stored, _) => return Ok(Indexed::Ignored),
        (Kind::Own(..) | Kind::Text(_) | Kind::Keyword { .. }, scalar) => (WANTED_TEXT, scalar),
        (Kind::I64, scalar) => (WANTED_I64, scalar),
        (Kind::F64, scalar) => (WANTED_F64, scalar),
        (Kind::Bool, scalar) => (WANTED_BOOL, scalar),
        (Kind::Vector(_), scalar) => (WANTED_VECTOR, scalar),
        (Kind::Ip, scalar) => (WANTED_IP, scalar),
    };
    Err((wanted.0, wanted.1.to_string()))
}

const WANTED_TEXT: &str = "a string";
const WANTED_I64: &str = "an integer from -9223372036854775808 to 9223372036854775807";
const WANTED_F64: &str = "a number";
const WANTED_BOOL: &str = "true or false";
const WANTED_VECTOR: &str = "a list of numbers";
const WANTED_IP: &str = "an IP address, such as 10.0.0.1 or 2001:db8::1";
const WANTED_DATE: &str =
    "a date from 1677-09-22 to 2262-04-10 (RFC 3339, YYYY-MM-DD, or milliseconds since 1970)";

fn wanted(field: &FieldDefinition) -> &'static str {
    match field {
        FieldDefinition::Text { .. } | FieldDefinition::Keyword { .. } => WANTED_TEXT,
        FieldDefinition::I64 {} => WANTED_I64,
        FieldDefinition::F64 {} => WANTED_F64,
        FieldDefinition::Bool {} => WANTED_BOOL,
        FieldDefinition::Date {} => WANTED_DATE,
        FieldDefinition::Ip {} => WANTED_IP,
        FieldDefinition::Json {} => "an object",
        FieldDefinition::Vector { .. } => WANTED_VECTOR,
    }
}
