//! Numbers and durations from outside, each with a range: the parser refuses any value outside it.
//!
//! The range is part of the type, so it is the same in the parser, in the message of a refusal, and in a JSON Schema.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// 365 days in milliseconds: the longest duration by default.
pub const YEAR_MS: u64 = 365 * 86_400_000;

/// Ten years in milliseconds, of 365.25 days each.
pub const TEN_YEARS_MS: u64 = 315_576_000_000;

/// How durations are written: numbers with units. The range is checked separately.
const DURATION_PATTERN: &str = r"^\s*(0|[0-9]+\s*[A-Za-zµ]+(\s*[0-9]+\s*[A-Za-zµ]+)*)\s*$";

/// A duration of `MIN` to `MAX` milliseconds, written like `500ms`, `10s` or `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationIn<const MIN: u64, const MAX: u64 = YEAR_MS>(Duration);

/// A whole number of `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NumberIn<const MIN: u64, const MAX: u64>(u64);

/// The text is not an allowed value; the message states which are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} is wanted{example}")]
pub struct RangeError {
    wanted: String,
    example: String,
}

impl<const MIN: u64, const MAX: u64> DurationIn<MIN, MAX> {
    /// A duration whose range is checked at compile time.
    pub const fn of_millis<const MS: u64>() -> Self {
        const { assert!(MIN <= MS && MS <= MAX, "the duration is out of range") };
        Self(Duration::from_millis(MS))
    }

    /// A duration, if it is in the range.
    pub fn new(duration: Duration) -> Option<Self> {
        let range = Duration::from_millis(MIN)..=Duration::from_millis(MAX);
        range.contains(&duration).then_some(Self(duration))
    }

    /// The duration.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// What is allowed, in words.
    pub fn range() -> String {
        format!("a duration from {} to {}", Span(MIN), Span(MAX))
    }

    fn example() -> &'static str {
        let known = [("10s", 10_000), ("1m", 60_000), ("1h", 3_600_000), ("500ms", 500)];
        known.into_iter().find(|(_, ms)| (MIN..=MAX).contains(ms)).map_or("1d", |(text, _)| text)
    }
}

impl<const MIN: u64, const MAX: u64> NumberIn<MIN, MAX> {
    /// A number whose range is checked at compile time.
    pub const fn of<const NUMBER: u64>() -> Self {
        const { assert!(MIN <= NUMBER && NUMBER <= MAX, "the number is out of range") };
        Self(NUMBER)
    }

    /// A number, if it is in the range.
    pub fn new(number: u64) -> Option<Self> {
        (MIN..=MAX).contains(&number).then_some(Self(number))
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as a `usize`; `usize::MAX` if it is larger.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// The number as a `u32`; `u32::MAX` if it is larger.
    pub fn as_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// What is allowed, in words.
    pub fn range() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for DurationIn<MIN, MAX> {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let parsed = humantime::parse_duration(text).ok().and_then(Self::new);
        parsed.ok_or_else(|| RangeError {
            wanted: Self::range(),
            example: format!(", like `{}`", Self::example()),
        })
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for NumberIn<MIN, MAX> {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = is_number.then(|| text.parse().ok()).flatten().and_then(Self::new);
        parsed.ok_or_else(|| RangeError { wanted: Self::range(), example: String::new() })
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for DurationIn<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl<const MIN: u64, const MAX: u64> fmt::Display for NumberIn<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Milliseconds in the largest unit that divides them.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(ms) = *self;
        match ms {
            0 => f.write_str("0s"),
            _ => {
                let years = ("y", 31_557_600_000);
                let units =
                    [years, ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
                let largest = units.into_iter().find(|(_, size)| ms.is_multiple_of(*size));
                let (unit, size) = largest.unwrap_or(("ms", 1));
                write!(f, "{}{unit}", ms / size)
            }
        }
    }
}

/// As text.
impl<const MIN: u64, const MAX: u64> Serialize for DurationIn<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for NumberIn<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for DurationIn<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(DurationVisitor::<MIN, MAX>)
    }
}

struct DurationVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for DurationVisitor<MIN, MAX> {
    type Value = DurationIn<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (like `{}`)", Self::Value::range(), Self::Value::example())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for NumberIn<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(NumberVisitor::<MIN, MAX>)
    }
}

struct NumberVisitor<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Visitor<'_> for NumberVisitor<MIN, MAX> {
    type Value = NumberIn<MIN, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::Value::range())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        NumberIn::new(number).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        let found = u64::try_from(number).ok().and_then(NumberIn::new);
        found.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

/// Parses a value from text, as all values of a query are.
pub fn from_text<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err = RangeError>,
    D: Deserializer<'de>,
{
    struct Text<T>(PhantomData<T>);
    impl<T: FromStr<Err = RangeError>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(|error| E::custom(format!("{error}, not `{text}`")))
        }
    }
    deserializer.deserialize_str(Text(PhantomData)).map(Some)
}

impl<const MIN: u64, const MAX: u64> JsonSchema for DurationIn<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        Self::range().into()
    }

    /// No keyword of JSON Schema limits a duration, so the title states the range.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": DURATION_PATTERN, "title": Self::range() })
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for NumberIn<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        Self::range().into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX, "title": Self::range() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Wait = DurationIn<0>;
    type Some = DurationIn<1_000, 5_400_000>;
    type Count = NumberIn<1, 10>;

    #[test]
    fn a_duration_out_of_its_range_is_refused_with_the_range() {
        for text in ["0s", "0", "1ns", "10s", "1h 30m", "365d", "31536000s"] {
            assert!(text.parse::<Wait>().is_ok(), "{text}");
        }
        for text in
            ["", "10", "-1s", "soon", "365d 1ns", "18446744073709551615s", "99999999999999999999y", "1e9s"]
        {
            let error = text.parse::<Wait>().unwrap_err().to_string();
            assert_eq!(error, "a duration from 0s to 365d is wanted, like `10s`", "{text}");
        }
        assert_eq!(
            "999ms".parse::<Some>().unwrap_err().to_string(),
            "a duration from 1s to 90m is wanted, like `10s`"
        );
        let long = "1s".parse::<DurationIn<60_000>>().unwrap_err().to_string();
        assert_eq!(long, "a duration from 1m to 365d is wanted, like `1m`");
        assert_eq!(Wait::of_millis::<10_000>().get(), Duration::from_secs(10));
        assert_eq!(serde_json::to_value(Wait::of_millis::<90_000>()).unwrap(), json!("1m 30s"));
        let error = serde_json::from_value::<Wait>(json!(10)).unwrap_err().to_string();
        assert_eq!(error, "invalid type: integer `10`, expected a duration from 0s to 365d (like `10s`)");
    }

    #[test]
    fn a_number_out_of_its_range_is_refused_with_the_range() {
        assert_eq!(serde_json::from_value::<Count>(json!(10)).unwrap().get(), 10);
        assert_eq!("7".parse::<Count>().unwrap().as_usize(), 7);
        assert_eq!(serde_json::to_value(Count::of::<7>()).unwrap(), json!(7));
        for number in [json!(0), json!(11), json!(-1), json!(u64::MAX), json!(1e300), json!(1.5), json!("7")]
        {
            let error = serde_json::from_value::<Count>(number.clone()).unwrap_err().to_string();
            assert!(error.ends_with("expected a whole number from 1 to 10"), "{number}: {error}");
        }
        for text in ["", "+1", "-1", "0", "11", "18446744073709551616", "1.0", " 1"] {
            let error = text.parse::<Count>().unwrap_err().to_string();
            assert_eq!(error, "a whole number from 1 to 10 is wanted", "{text}");
        }
    }

    #[test]
    fn the_schema_has_the_range() {
        let schema = schemars::schema_for!(Count).to_value();
        assert_eq!((&schema["minimum"], &schema["maximum"]), (&json!(1), &json!(10)));
        let schema = schemars::schema_for!(Some).to_value();
        assert_eq!(schema["title"], "a duration from 1s to 90m");
    }
}
