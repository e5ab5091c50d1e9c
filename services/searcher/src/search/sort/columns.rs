//! The sort values of a segment, from its fast fields. Text is compared by its number in the segment's dictionary.

use std::cmp::Ordering;
use std::ops::Bound;

use tantivy::columnar::{Column, DynamicColumn, StrColumn};
use tantivy::{DocId, Score, SegmentReader, TantivyError};

use super::value::Number;
use super::{Cursor, SortField, SortKey, SortValue};
use crate::schema::IndexSchema;
use crate::schema::addresses::Address;
use crate::search::request::values_place;

/// A sort value within one segment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::search) enum Raw {
    Number(Number),
    /// Nanoseconds since 1970 began, UTC.
    Date(i64),
    Bool(bool),
    /// The number of a text in the segment's dictionary.
    Text(u64),
    /// A text that is not in the segment's dictionary, just below the one with this number.
    TextBefore(u64),
}

impl Raw {
    fn order(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Self::Number(left), Self::Number(right)) => left.order(right),
            (Self::Date(left), Self::Date(right)) => left.cmp(&right),
            (Self::Bool(left), Self::Bool(right)) => left.cmp(&right),
            (left, right) => match (left.text(), right.text()) {
                (Some(left), Some(right)) => left.cmp(&right),
                _ => left.rank().cmp(&right.rank()),
            },
        }
    }

    fn text(self) -> Option<(u64, bool)> {
        match self {
            Self::TextBefore(number) => Some((number, false)),
            Self::Text(number) => Some((number, true)),
            Self::Number(_) | Self::Date(_) | Self::Bool(_) => None,
        }
    }

    fn rank(self) -> u8 {
        match self {
            Self::Number(_) => 0,
            Self::Date(_) => 1,
            Self::Bool(_) => 2,
            Self::Text(_) | Self::TextBefore(_) => 3,
        }
    }
}

/// Reads the sort values of a segment's documents.
pub(in crate::search) struct SegmentKeys<'a> {
    keys: &'a [SortKey],
    sources: Vec<Source>,
}

/// Where a key's values come from. A segment that has no column lacks the values.
enum Source {
    Score,
    Seq(Column<u64>),
    Columns(Vec<DynamicColumn>),
    /// Addresses, which are indexed as text.
    Addresses(Vec<DynamicColumn>),
}

impl<'a> SegmentKeys<'a> {
    pub(in crate::search) fn open(
        keys: &'a [SortKey],
        schema: &IndexSchema,
        reader: &SegmentReader,
    ) -> Result<Self, TantivyError> {
        let source = |key: &SortKey| match &key.field {
            SortField::Score => Ok(Source::Score),
            SortField::Seq => {
                reader.fast_fields().u64(reader.schema().get_field_name(schema.seq)).map(Source::Seq)
            }
            SortField::Unmapped => Ok(Source::Columns(Vec::new())),
            SortField::Field(field) => columns(schema, reader, field),
        };
        Ok(Self { keys, sources: keys.iter().map(source).collect::<Result<_, _>>()? })
    }

    /// The number of keys.
    pub(in crate::search) fn count(&self) -> usize {
        self.keys.len()
    }

    /// The value of a document for a key.
    pub(in crate::search) fn raw(&self, key: usize, doc: DocId, score: Score) -> Option<Raw> {
        match &self.sources[key] {
            Source::Score => Some(Raw::Number(Number::Float(score.into()))),
            Source::Seq(column) => column.first(doc).map(|seq| Raw::Number(Number::Whole(seq.into()))),
            Source::Columns(columns) | Source::Addresses(columns) => {
                let is_descending = self.keys[key].is_descending;
                let values = || columns.iter().filter_map(|column| first(column, doc, is_descending));
                // A dynamic text that is a date is indexed as both.
                let has_date = columns.len() > 1 && values().any(|value| matches!(value, Raw::Date(_)));
                let values = values().filter(|value| !(has_date && matches!(value, Raw::Text(_))));
                values.reduce(|best, value| pick(best, value, is_descending))
            }
        }
    }

    /// The order of two values of a key.
    pub(in crate::search) fn order(&self, key: usize, left: Option<Raw>, right: Option<Raw>) -> Ordering {
        self.keys[key].order(left, right, Raw::order)
    }

    /// The values of a place in the order, for comparisons in this segment.
    pub(in crate::search) fn cursor(&self, cursor: &Cursor) -> Result<Vec<Option<Raw>>, TantivyError> {
        let values = cursor.values.iter().zip(&self.sources);
        values.map(|(value, source)| source.raw_of(value)).collect()
    }

    /// The values of a document, for comparisons anywhere.
    pub(in crate::search) fn values(&self, raws: &[Option<Raw>]) -> Result<Vec<SortValue>, TantivyError> {
        self.sources.iter().zip(raws).map(|(source, raw)| source.value_of(*raw)).collect()
    }
}

impl Source {
    fn texts(&self) -> Option<&StrColumn> {
        match self {
            Self::Columns(columns) | Self::Addresses(columns) => {
                columns.iter().find_map(|column| match column {
                    DynamicColumn::Str(texts) => Some(texts),
                    _ => None,
                })
            }
            Self::Score | Self::Seq(_) => None,
        }
    }

    fn raw_of(&self, value: &SortValue) -> Result<Option<Raw>, TantivyError> {
        Ok(match value {
            SortValue::Missing => None,
            SortValue::Date(nanos) => Some(Raw::Date(*nanos)),
            SortValue::Bool(flag) => Some(Raw::Bool(*flag)),
            SortValue::Text(text) => Some(self.raw_of_text(text)?),
            SortValue::Ip(address) => Some(self.raw_of_text(&address.to_term())?),
            number => number.number().map(Raw::Number),
        })
    }

    fn raw_of_text(&self, text: &str) -> Result<Raw, TantivyError> {
        let Some(texts) = self.texts() else { return Ok(Raw::TextBefore(0)) };
        let dictionary = texts.dictionary();
        if let Some(number) = dictionary.term_ord(text)? {
            return Ok(Raw::Text(number));
        }
        Ok(match dictionary.term_bounds_to_ord(Bound::Included(text), Bound::Unbounded)?.0 {
            Bound::Included(next) | Bound::Excluded(next) => Raw::TextBefore(next),
            Bound::Unbounded => Raw::TextBefore(u64::MAX),
        })
    }

    fn value_of(&self, raw: Option<Raw>) -> Result<SortValue, TantivyError> {
        Ok(match raw {
            None => SortValue::Missing,
            Some(Raw::Date(nanos)) => SortValue::Date(nanos),
            Some(Raw::Bool(flag)) => SortValue::Bool(flag),
            Some(Raw::Number(Number::Float(number))) => SortValue::F64(number),
            Some(Raw::Number(Number::Whole(number))) => match i64::try_from(number) {
                Ok(number) => SortValue::I64(number),
                Err(_) => SortValue::U64(u64::try_from(number).unwrap_or(u64::MAX)),
            },
            Some(Raw::Text(number) | Raw::TextBefore(number)) => {
                let mut text = String::new();
                let is_known = match self.texts() {
                    Some(texts) => texts.ord_to_str(number, &mut text)?,
                    None => false,
                };
                if !is_known {
                    return Err(TantivyError::InternalError("a text is missing in a fast field".to_owned()));
                }
                match self {
                    Self::Addresses(_) => {
                        Address::of_term(&text).map_or(SortValue::Text(text), SortValue::Ip)
                    }
                    _ => SortValue::Text(text),
                }
            }
        })
    }
}

fn columns(schema: &IndexSchema, reader: &SegmentReader, field: &str) -> Result<Source, TantivyError> {
    let place = values_place(schema, field, "`sort`")
        .map_err(|error| TantivyError::InvalidArgument(error.to_string()))?;
    let handles = reader.fast_fields().dynamic_column_handles(&schema.column_name(&place))?;
    let columns = handles.iter().map(|handle| Ok(handle.open()?)).collect::<Result<_, TantivyError>>()?;
    Ok(if schema.has_addresses(&place) { Source::Addresses(columns) } else { Source::Columns(columns) })
}

fn first(column: &DynamicColumn, doc: DocId, is_descending: bool) -> Option<Raw> {
    fn best<T>(values: impl Iterator<Item = T>, raw: impl Fn(T) -> Raw, is_descending: bool) -> Option<Raw> {
        values.map(raw).reduce(|best, value| pick(best, value, is_descending))
    }
    match column {
        DynamicColumn::I64(column) => best(
            column.values_for_doc(doc),
            |number| Raw::Number(Number::Whole(number.into())),
            is_descending,
        ),
        DynamicColumn::U64(column) => best(
            column.values_for_doc(doc),
            |number| Raw::Number(Number::Whole(number.into())),
            is_descending,
        ),
        DynamicColumn::F64(column) => {
            best(column.values_for_doc(doc), |number| Raw::Number(Number::Float(number)), is_descending)
        }
        DynamicColumn::Bool(column) => best(column.values_for_doc(doc), Raw::Bool, is_descending),
        DynamicColumn::DateTime(column) => {
            best(column.values_for_doc(doc), |date| Raw::Date(date.into_timestamp_nanos()), is_descending)
        }
        DynamicColumn::Str(column) => best(column.term_ords(doc), Raw::Text, is_descending),
        DynamicColumn::IpAddr(_) | DynamicColumn::Bytes(_) => None,
    }
}

fn pick(best: Raw, value: Raw, is_descending: bool) -> Raw {
    let order = value.order(&best);
    let is_better = if is_descending { order.is_gt() } else { order.is_lt() };
    if is_better { value } else { best }
}
