//! A part of a whole, written like `80%`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// 1% to 100%.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(u8);

impl Percent {
    /// A part that is checked at compile time.
    pub(crate) const fn of<const P: u8>() -> Self {
        const { assert!(1 <= P && P <= 100, "the part is out of range") };
        Self(P)
    }

    pub(crate) fn get(self) -> u32 {
        u32::from(self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        let number = text.strip_suffix('%')?.trim_end();
        // `+5` and `05` are no numbers here, as in the schema.
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
        let number = number.parse().ok().filter(|number| is_number && (1..=100).contains(number))?;
        Some(Self(number))
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}%", self.0))
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Part;
        impl Visitor<'_> for Part {
            type Value = Percent;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a part from `1%` to `100%`")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Percent, E> {
                Percent::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Part)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "title": "a part from 1% to 100%", "pattern": "^(100|[1-9][0-9]?) *%$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_number_from_1_to_100_and_a_percent_sign() {
        for (text, expected) in [
            ("1%", Some(1)),
            ("100%", Some(100)),
            ("50 %", Some(50)),
            ("0%", None),
            ("101%", None),
            ("05%", None),
            ("+5%", None),
            ("-5%", None),
            ("50", None),
            ("%", None),
            ("1.5%", None),
        ] {
            assert_eq!(Percent::parse(text).map(Percent::get), expected, "{text}");
        }
        let error = serde_json::from_str::<Percent>("50").unwrap_err().to_string();
        assert!(error.contains("`1%` to `100%`"), "{error}");
        assert_eq!(serde_json::to_string(&Percent::of::<50>()).unwrap(), "\"50%\"");
    }
}
