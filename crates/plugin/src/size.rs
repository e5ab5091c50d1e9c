//! A number of bytes, written as a number or with a unit: `10MiB`.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// The largest size: 1 TiB.
const MAX: u64 = 1 << 40;
/// Units, largest first.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// A number of bytes from 0 to 1 TiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(u64);

/// The text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a size from 0 to 1024GiB is wanted, like `10MiB`")]
pub struct SizeError;

impl Size {
    /// A size, if it is in the range.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes <= MAX).then_some(Self(bytes))
    }

    /// The number of bytes.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim_start();
        let scale = match UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) {
            Some((_, scale)) => *scale,
            None if unit.is_empty() => 1,
            None => return Err(SizeError),
        };
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
        bytes.and_then(Self::new).ok_or(SizeError)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        let binary = UNITS.iter().filter(|(name, _)| name.len() != 2);
        let largest = binary.into_iter().find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale));
        let (unit, scale) = largest.copied().unwrap_or(("B", 1));
        f.pad(&format!("{}{unit}", bytes / scale))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size from 0 to 1024GiB (like `10MiB`)")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Size, E> {
        Size::new(bytes).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Unsigned(bytes), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        text.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "title": "a size from 0 to 1024GiB" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit_or_is_a_number_of_bytes() {
        for (text, bytes, shown) in [
            ("0", 0, "0B"),
            ("512", 512, "512B"),
            ("10MiB", 10 << 20, "10MiB"),
            ("10 mib", 10 << 20, "10MiB"),
            ("1kB", 1_000, "1000B"),
            ("2048", 2_048, "2KiB"),
            ("1024GiB", 1 << 40, "1024GiB"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.get(), size.to_string().as_str()), (bytes, shown), "{text}");
            assert_eq!(shown.parse(), Ok(size));
            assert_eq!(serde_json::from_value::<Size>(serde_json::json!(text)).unwrap(), size);
        }
        for text in ["", "MiB", "-1", "1.5MiB", "1XB", "1025GiB", "99999999999999999999"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError), "{text}");
        }
        assert!(serde_json::from_value::<Size>(serde_json::json!(u64::MAX)).is_err());
        assert_eq!(serde_json::from_value::<Size>(serde_json::json!(7)).unwrap().get(), 7);
    }
}
