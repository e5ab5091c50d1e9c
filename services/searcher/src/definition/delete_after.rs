//! How long an index is kept. Pure.

use std::borrow::Cow;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use types::range::{DurationIn, TEN_YEARS_MS};

/// When an index is deleted as a whole.
///
/// In JSON: a duration after its creation such as `"30d"`, from `1s` to ten years, or `"never"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum DeleteAfter {
    #[default]
    Never,
    /// That long after its creation.
    After(DurationIn<1_000, TEN_YEARS_MS>),
}

impl DeleteAfter {
    pub(crate) fn is_never(&self) -> bool {
        *self == Self::Never
    }

    /// How old it gets; `None` if it is kept.
    pub(crate) fn age(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::After(age) => Some(age.get()),
        }
    }
}

impl From<DeleteAfter> for String {
    fn from(delete_after: DeleteAfter) -> Self {
        match delete_after {
            DeleteAfter::Never => "never".to_owned(),
            DeleteAfter::After(age) => {
                let millis = age.get().as_millis();
                let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
                let unit = units.into_iter().find(|(_, size)| millis.is_multiple_of(*size));
                let (unit, size) = unit.unwrap_or(("ms", 1));
                format!("{}{unit}", millis / size)
            }
        }
    }
}

impl TryFrom<String> for DeleteAfter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "never" => Ok(Self::Never),
            text => text.parse().map(Self::After).map_err(|error| format!("{error}, or `never`")),
        }
    }
}

impl JsonSchema for DeleteAfter {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "DeleteAfter".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_a_duration_or_never_and_is_read_as_it_was_written() {
        for (text, age) in [
            ("never", None),
            ("30d", Some(Duration::from_secs(30 * 86_400))),
            ("1s", Some(Duration::from_secs(1))),
        ] {
            let read: DeleteAfter = serde_json::from_value(json!(text)).unwrap();
            assert_eq!(read.age(), age, "{text}");
            assert_eq!(serde_json::to_value(read).unwrap(), json!(text));
        }
        for wrong in
            [json!("30"), json!(30), json!("999ms"), json!("11y"), json!(""), json!(null), json!("-1d")]
        {
            assert!(serde_json::from_value::<DeleteAfter>(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
