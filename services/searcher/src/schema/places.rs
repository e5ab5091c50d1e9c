//! Where a field is in the schema, and what words of a query mean there.

use std::borrow::Cow;
use std::ops::Bound;

use tantivy::Term;
use tantivy::columnar::NumericalValue;
use tantivy::query::{BooleanQuery, ConstScoreQuery, Query, RangeQuery, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};

use super::addresses::Address;
use super::convert::{Kind, dynamic_name_problem};
use super::{IndexSchema, Place, PlaceKind, UnknownField};
use crate::definition::{Analyzer, Dynamic, FieldDefinition, MAX_KEYWORD, Normalizer, SubField, similar};

/// The types of values that a place may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueType {
    Id,
    Seq,
    Text,
    I64,
    F64,
    Bool,
    Date,
    Ip,
    Any,
}

impl IndexSchema {
    /// Where a field is indexed. `_id` and `_seq` are fields, too. With dynamic fields, every field may exist.
    pub(crate) fn places(&self, field: &str) -> Result<Vec<Place>, UnknownField> {
        let own = |field| vec![Place { field, path: None, kind: PlaceKind::Values }];
        match field {
            "_id" => return Ok(own(self.id)),
            "_seq" => return Ok(own(self.seq)),
            _ => {}
        }
        let sub_field = self.definition.sub_field(field).map(Kind::of_sub_field);
        let kind = match sub_field.map_or_else(|| self.kind(field), Ok) {
            Ok(Kind::Dynamic) if dynamic_name_problem(field).is_some() => Kind::Stored,
            Ok(Kind::Vector(_)) => {
                return Err(UnknownField { field: field.to_owned(), similar: None, is_vector: true });
            }
            Ok(kind) => kind,
            Err(_) => Kind::Stored,
        };
        let values = || self.values_place(field);
        match kind {
            Kind::Own(own, analyzer) => {
                Ok(vec![Place { field: own, path: None, kind: PlaceKind::Text(analyzer) }])
            }
            Kind::Text(analyzer) => Ok(vec![self.text_place(field, analyzer)]),
            Kind::Keyword { .. } | Kind::I64 | Kind::F64 | Kind::Bool | Kind::Date | Kind::Ip => {
                Ok(vec![values()])
            }
            Kind::Dynamic => Ok(vec![self.text_place(field, Analyzer::Default), values()]),
            Kind::Stored | Kind::Vector(_) => {
                let known = self.definition.fields.keys().map(String::as_str).chain(["_id", "_seq"]);
                Err(UnknownField {
                    field: field.to_owned(),
                    similar: similar(field, known),
                    is_vector: false,
                })
            }
        }
    }

    /// Where text is searched if a query names no field, each with its boost: the default fields; or all declared text, and
    /// all dynamic text if there can be some. The text of a field that was declared later is in its own place for documents that
    /// were written after that, and among the dynamic text for older ones.
    pub(crate) fn default_places(&self) -> Vec<(Place, f32)> {
        let definition = &self.definition;
        if !definition.default_fields.is_empty() {
            let places = definition.default_fields.iter().flat_map(|(field, boost)| {
                let mut places = self.places(field).unwrap_or_default();
                if places.iter().any(|place| place.kind != PlaceKind::Values) {
                    places.retain(|place| place.kind != PlaceKind::Values);
                }
                places.into_iter().map(|place| (place, *boost))
            });
            return places.collect();
        }
        let is_text = |field: &FieldDefinition| matches!(field, FieldDefinition::Text { .. });
        let text = definition.fields.iter().filter(|(_, field)| is_text(field));
        let mut places: Vec<_> = text
            .flat_map(|(path, _)| self.places(path).unwrap_or_default())
            .map(|place| (place, 1.0))
            .collect();
        let has_json = || definition.fields.values().any(|field| matches!(field, FieldDefinition::Json {}));
        if definition.dynamic == Dynamic::Yes || has_json() {
            let kind = PlaceKind::Text(Analyzer::Default);
            places.push((Place { field: self.all, path: None, kind }, 1.0));
        }
        places
    }

    fn text_place(&self, path: &str, analyzer: Analyzer) -> Place {
        Place {
            field: self.text_field(analyzer),
            path: Some(path.to_owned()),
            kind: PlaceKind::Text(analyzer),
        }
    }

    fn values_place(&self, path: &str) -> Place {
        Place { field: self.values, path: Some(path.to_owned()), kind: PlaceKind::Values }
    }

    /// Finds documents that have a value for a field, or for a field in it if it is an object.
    pub(crate) fn exists_query(&self, field: &str) -> Box<dyn Query> {
        let own = TermQuery::new(self.exists_term(field), IndexRecordOption::Basic);
        // A slash is next to a dot.
        let [first, end] = ['.', '/'].map(|next| self.exists_term(&format!("{field}{next}")));
        let inner = RangeQuery::new(Bound::Included(first), Bound::Excluded(end));
        let either = BooleanQuery::union(vec![Box::new(own), Box::new(inner)]);
        Box::new(ConstScoreQuery::new(Box::new(either), 1.0))
    }

    /// The term by which documents are found that have a value for a field itself.
    pub(crate) fn exists_term(&self, field: &str) -> Term {
        Term::from_field_text(self.fields, field)
    }

    /// The name of the column of a place with values, as Tantivy's sort and aggregations take it.
    pub(crate) fn column_name(&self, place: &Place) -> String {
        let field = self.schema.get_field_name(place.field);
        match &place.path {
            Some(path) => format!("{field}.{}", stored_path(path)),
            None => field.to_owned(),
        }
    }

    /// A term of text in a place. The text was analyzed.
    pub(crate) fn text_term(&self, place: &Place, text: &str) -> Term {
        match &place.path {
            Some(path) => {
                let mut term = json_term(place.field, path);
                term.append_type_and_str(text);
                term
            }
            None => Term::from_field_text(place.field, text),
        }
    }

    /// All terms that a text may mean in a place with values: a string, a number, a boolean, as far as the place can have
    /// it. Dates are not among them, for terms of dates have no milliseconds: use [`range_bounds`](Self::range_bounds).
    pub(crate) fn value_terms(&self, place: &Place, text: &str) -> Vec<Term> {
        let types = self.value_type(place);
        let Some(path) = &place.path else {
            return match types {
                ValueType::Seq => {
                    text.parse().map(|seq| Term::from_field_u64(place.field, seq)).into_iter().collect()
                }
                _ => vec![Term::from_field_text(place.field, text)],
            };
        };
        let mut terms = Vec::new();
        let text = &*self.normalizer(path).apply(text);
        if matches!(types, ValueType::Text | ValueType::Any) && text.len() <= MAX_KEYWORD {
            terms.push(self.text_term(place, text));
        }
        if types == ValueType::Ip
            && let Some(address) = Address::parse(text)
        {
            terms.push(self.text_term(place, &address.to_term()));
        }
        if let Some(number) = number(types, text) {
            terms.push(number_term(json_term(place.field, path), number));
        }
        if matches!(types, ValueType::Bool | ValueType::Any)
            && let Ok(is_true) = text.parse::<bool>()
        {
            terms.push(bool_term(json_term(place.field, path), is_true));
        }
        terms
    }

    pub(super) fn value_type(&self, place: &Place) -> ValueType {
        let Some(path) = &place.path else {
            return if place.field == self.seq { ValueType::Seq } else { ValueType::Id };
        };
        match self.definition.fields.get(path) {
            Some(FieldDefinition::Text { .. } | FieldDefinition::Keyword { .. }) => ValueType::Text,
            Some(FieldDefinition::I64 {}) => ValueType::I64,
            Some(FieldDefinition::F64 {}) => ValueType::F64,
            Some(FieldDefinition::Bool {}) => ValueType::Bool,
            Some(FieldDefinition::Date {}) => ValueType::Date,
            Some(FieldDefinition::Ip {}) => ValueType::Ip,
            None if self.definition.sub_field(path).is_some() => ValueType::Text,
            Some(FieldDefinition::Json {} | FieldDefinition::Vector { .. }) | None => ValueType::Any,
        }
    }

    /// Whether a place has IP addresses.
    pub(crate) fn has_addresses(&self, place: &Place) -> bool {
        self.value_type(place) == ValueType::Ip
    }

    /// What is done to the keywords of a path.
    pub(super) fn normalizer(&self, path: &str) -> Normalizer {
        match (self.definition.fields.get(path), self.definition.sub_field(path)) {
            (Some(FieldDefinition::Keyword { normalizer, .. }), _)
            | (None, Some(SubField::Keyword { normalizer, .. })) => *normalizer,
            _ => Normalizer::None,
        }
    }
}

/// A term of a JSON field with its path, to which a value is to be appended.
pub(super) fn json_term(field: Field, path: &str) -> Term {
    Term::from_field_json_path(field, &stored_path(path), true)
}

/// A path as JSON fields have it. A backslash is an escape to Tantivy in some places and itself in others, so another character
/// stands for it: a private one of Unicode.
pub(super) fn stored_path(path: &str) -> Cow<'_, str> {
    if path.contains('\\') { path.replace('\\', "\u{f05c}").into() } else { path.into() }
}

/// Reads a number as the index has it: an integer where it is one.
pub(super) fn number(types: ValueType, text: &str) -> Option<NumericalValue> {
    let float = || text.parse::<f64>().ok().filter(|number| number.is_finite()).map(NumericalValue::F64);
    let number = match types {
        ValueType::F64 => float(),
        ValueType::I64 | ValueType::Any => {
            let integer = text.parse().map(NumericalValue::I64);
            integer.or_else(|_| text.parse().map(NumericalValue::U64)).ok().or_else(float)
        }
        ValueType::Id
        | ValueType::Seq
        | ValueType::Text
        | ValueType::Bool
        | ValueType::Date
        | ValueType::Ip => None,
    };
    number.map(NumericalValue::normalize)
}

pub(super) fn bool_term(mut term: Term, is_true: bool) -> Term {
    term.append_type_and_fast_value(is_true);
    term
}

pub(super) fn number_term(mut term: Term, number: NumericalValue) -> Term {
    match number {
        NumericalValue::I64(number) => term.append_type_and_fast_value(number),
        NumericalValue::U64(number) => term.append_type_and_fast_value(number),
        NumericalValue::F64(number) => term.append_type_and_fast_value(number),
    }
    term
}
