//! The value of a document for a sort key.

use std::cmp::Ordering;

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::schema::addresses::Address;

/// The value of a document for a sort key. Between members floating-point numbers travel as their bits, since a decimal
/// number that is one unit off in its last place is another position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum SortValue {
    Missing,
    I64(i64),
    U64(u64),
    #[serde(with = "bits")]
    F64(f64),
    /// Nanoseconds since 1970 began, UTC.
    Date(i64),
    Bool(bool),
    Text(String),
    Ip(Address),
}

impl SortValue {
    pub(super) fn known(&self) -> Option<&Self> {
        (*self != Self::Missing).then_some(self)
    }

    /// The order of two values that are not missing: numbers, dates, booleans, text.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Date(left), Self::Date(right)) => left.cmp(right),
            (Self::Bool(left), Self::Bool(right)) => left.cmp(right),
            (Self::Text(left), Self::Text(right)) => left.cmp(right),
            (Self::Ip(left), Self::Ip(right)) => left.cmp(right),
            // Documents that are older than the declaration of their field have other texts there.
            (Self::Ip(left), Self::Text(right)) => left.to_term().as_str().cmp(right),
            (Self::Text(left), Self::Ip(right)) => left.as_str().cmp(&right.to_term()),
            (left, right) => match (left.number(), right.number()) {
                (Some(left), Some(right)) => left.order(right),
                _ => left.rank().cmp(&right.rank()),
            },
        }
    }

    pub(super) fn number(&self) -> Option<Number> {
        match *self {
            Self::I64(number) => Some(Number::Whole(number.into())),
            Self::U64(number) => Some(Number::Whole(number.into())),
            Self::F64(number) => Some(Number::Float(number)),
            Self::Missing | Self::Date(_) | Self::Bool(_) | Self::Text(_) | Self::Ip(_) => None,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::I64(_) | Self::U64(_) | Self::F64(_) => 0,
            Self::Date(_) => 1,
            Self::Bool(_) => 2,
            Self::Text(_) | Self::Ip(_) => 3,
            Self::Missing => 4,
        }
    }

    /// Missing is `null`; a date is an object with the member `date`, and an address one with `ip`, so that they are not taken for
    /// text.
    pub(in crate::search) fn to_json(&self) -> Value {
        match self {
            Self::Missing => Value::Null,
            Self::I64(number) => json!(number),
            Self::U64(number) => json!(number),
            Self::F64(number) => json!(number),
            Self::Bool(flag) => json!(flag),
            Self::Text(text) => json!(text),
            Self::Ip(address) => json!({ "ip": address.to_string() }),
            Self::Date(nanos) => {
                let date = DateTime::from_timestamp_nanos(*nanos);
                json!({ "date": date.to_rfc3339_opts(SecondsFormat::AutoSi, true) })
            }
        }
    }

    /// Reads what [`to_json`](Self::to_json) wrote. Numbers are read from their text, which is exact.
    pub(super) fn read(raw: &RawValue) -> Option<Self> {
        let text = raw.get();
        match serde_json::from_str(text).ok()? {
            Value::Null => Some(Self::Missing),
            Value::Bool(flag) => Some(Self::Bool(flag)),
            Value::String(text) => Some(Self::Text(text)),
            Value::Number(_) => {
                let whole = text.parse().map(Self::I64).or_else(|_| text.parse().map(Self::U64));
                whole
                    .ok()
                    .or_else(|| text.parse().ok().filter(|number: &f64| number.is_finite()).map(Self::F64))
            }
            Value::Object(members) if members.len() == 1 => {
                if let Some(address) = members.get("ip") {
                    return Address::parse(address.as_str()?).map(Self::Ip);
                }
                let date = DateTime::parse_from_rfc3339(members.get("date")?.as_str()?).ok()?;
                date.timestamp_nanos_opt().map(Self::Date)
            }
            Value::Object(_) | Value::Array(_) => None,
        }
    }
}

/// A number of any type, compared exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::search) enum Number {
    Whole(i128),
    Float(f64),
}

impl Number {
    pub(super) fn order(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Whole(left), Self::Whole(right)) => left.cmp(&right),
            (Self::Float(left), Self::Float(right)) => {
                left.partial_cmp(&right).unwrap_or_else(|| left.total_cmp(&right))
            }
            (Self::Whole(left), Self::Float(right)) => whole_and_float(left, right),
            (Self::Float(left), Self::Whole(right)) => whole_and_float(right, left).reverse(),
        }
    }
}

/// Compares without rounding the whole number, which is a 64-bit one.
fn whole_and_float(whole: i128, float: f64) -> Ordering {
    const BEYOND: f64 = 1e30;
    if float.is_nan() || float > BEYOND {
        return Ordering::Less;
    }
    if float < -BEYOND {
        return Ordering::Greater;
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and far from the limits of i128")]
    let floor = float.floor() as i128;
    let is_between = float > float.floor();
    whole.cmp(&floor).then(if is_between { Ordering::Less } else { Ordering::Equal })
}

/// A floating-point number as its bits.
mod bits {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        number.to_bits().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}
