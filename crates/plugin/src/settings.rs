//! Settings of a service type: closed, typed, defaulted.

use serde::de::DeserializeOwned;

/// What is wrong with settings: all of it at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct SettingsError {
    /// At least one.
    pub mistakes: Vec<SettingsMistake>,
}

/// One thing that is wrong with settings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SettingsMistake {
    /// Where: a JSON pointer (RFC 6901), empty for the settings as a whole.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl std::fmt::Display for SettingsMistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.pointer.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.pointer, self.message)
        }
    }
}

impl SettingsMistake {
    /// A mistake at a place.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into(), hint: None }
    }

    /// The same with a word on what to write instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<SettingsMistake> for SettingsError {
    fn from(mistake: SettingsMistake) -> Self {
        Self { mistakes: vec![mistake] }
    }
}

/// Reads settings into their type; `null` and nothing at all are the defaults.
///
/// The type should deny unknown fields. An error points to the place.
pub fn parse_settings<T: DeserializeOwned>(settings: &serde_json::Value) -> Result<T, SettingsError> {
    let empty = serde_json::Value::Object(serde_json::Map::new());
    let settings = if settings.is_null() { &empty } else { settings };
    serde_path_to_error::deserialize(settings).map_err(|error| {
        let pointer = pointer_of(error.path());
        let message = error.into_inner().to_string();
        let hint = guess(&message).map(|guess| format!("did you mean `{guess}`?"));
        SettingsMistake { pointer, message, hint }.into()
    })
}

/// The name that was probably meant, if the message is serde's on an unknown field: it quotes the wrong name first and
/// then the right ones.
fn guess(message: &str) -> Option<&str> {
    message.strip_prefix("unknown field ")?;
    let mut quoted = message.split('`').skip(1).step_by(2);
    let wrong = quoted.next()?;
    quoted
        .map(|right| (strsim::damerau_levenshtein(wrong, right), right))
        .filter(|(distance, right)| *distance <= 1 + right.len() / 4)
        .min()
        .map(|(_, right)| right)
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { variant } => Some(format!("/{variant}")),
            Segment::Unknown => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        list: Vec<u8>,
    }

    #[test]
    fn a_mistake_points_to_its_place() {
        let error = parse_settings::<Sample>(&serde_json::json!({"list": [1, "x"]})).unwrap_err();
        assert_eq!(error.mistakes[0].pointer, "/list/1");
        let error = parse_settings::<Sample>(&serde_json::json!({"lost": 1})).unwrap_err();
        assert!(error.to_string().contains("unknown field `lost`"), "{error}");
        assert_eq!(error.mistakes[0].hint.as_deref(), Some("did you mean `list`?"));
        let error = parse_settings::<Sample>(&serde_json::json!({"nothing_like_it": 1})).unwrap_err();
        assert_eq!(error.mistakes[0].hint, None);
    }

    #[test]
    fn nothing_at_all_is_the_defaults() {
        assert!(parse_settings::<Sample>(&serde_json::Value::Null).unwrap().list.is_empty());
    }
}
