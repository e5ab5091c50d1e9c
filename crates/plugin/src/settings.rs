//! Settings of a service type: typed, with defaults, and closed to unknown keys.

mod files;
mod words;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use files::{absolute_path, resolve_path};

/// How many mistakes in one service's settings are reported at most.
const MOST: usize = 50;

/// All mistakes in settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct SettingsError {
    /// At least one.
    pub mistakes: Vec<SettingsMistake>,
}

/// One mistake in settings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SettingsMistake {
    /// Where: a JSON pointer (RFC 6901), empty for the settings as a whole.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the key is wrong, not its value.
    #[serde(default, skip_serializing_if = "is_false")]
    pub at_key: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(value: &bool) -> bool {
    !value
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
        Self { pointer: pointer.into(), message: message.into(), hint: None, at_key: false }
    }

    /// Adds a hint on what to write instead.
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

/// Reads settings into their type; `null` and an empty mapping are the defaults.
///
/// The type should deny unknown fields and have a default for each field. All mistakes are found: after each mistake, the
/// rest of the settings is read again without it.
pub fn parse_settings<T: DeserializeOwned>(settings: &Value) -> Result<T, SettingsError> {
    let (parsed, mistakes, _) = parse(settings);
    match parsed {
        Some(parsed) if mistakes.is_empty() => Ok(parsed),
        _ => Err(SettingsError { mistakes }),
    }
}

/// Reads settings, and checks with `check` what their type alone can't express. Its mistakes are reported together with
/// those of parts that can't be read. What `check` gets was read without such parts.
pub fn check_settings<T: DeserializeOwned, U>(
    settings: &Value,
    check: impl FnOnce(T) -> Result<U, SettingsError>,
) -> Result<U, SettingsError> {
    let (parsed, mut mistakes, left) = parse(settings);
    let Some(parsed) = parsed else { return Err(SettingsError { mistakes }) };
    match check(parsed) {
        Ok(checked) if mistakes.is_empty() => return Ok(checked),
        Ok(_) => {}
        Err(error) if mistakes.is_empty() => return Err(error),
        Err(error) => {
            let own: Vec<_> = (error.mistakes.into_iter())
                .map(|found| SettingsMistake { pointer: left.original(&found.pointer), ..found })
                // A list may only be wrong because items were left out.
                .filter(|found| !mistakes.iter().any(|known| overlaps(&known.pointer, &found.pointer)))
                .collect();
            mistakes.extend(own);
            mistakes.truncate(MOST);
        }
    }
    Err(SettingsError { mistakes })
}

/// Whether one of two pointers is at or below the other.
fn overlaps(one: &str, other: &str) -> bool {
    let is_below = |below: &str, above: &str| {
        below.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    is_below(one, other) || is_below(other, one)
}

/// The settings of a service type without settings: anything but an empty mapping is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// The JSON Schema of settings (draft 2020-12), with a description and a range for each.
pub fn settings_schema<T: schemars::JsonSchema>() -> Value {
    let form = schemars::generate::SchemaSettings::draft2020_12().with(|form| {
        // It becomes part of the manifest's schema.
        form.inline_subschemas = true;
        form.meta_schema = None;
    });
    form.into_generator().into_root_schema_for::<T>().to_value()
}

/// The settings as far as they can be read, with defaults for the rest; the mistakes; and what they were read from.
fn parse<T: DeserializeOwned>(settings: &Value) -> (Option<T>, Vec<SettingsMistake>, Left) {
    // Serde would take a list for the values of a mapping, in order.
    let mut left = Left::new(settings);
    if settings.is_array() {
        return (None, vec![SettingsMistake::new("", "a mapping is wanted, found a list")], left);
    }
    let mut mistakes: Vec<SettingsMistake> = Vec::new();
    while mistakes.len() < MOST {
        let error = match serde_path_to_error::deserialize::<_, T>(&left.settings) {
            Ok(parsed) => return (Some(parsed), mistakes, left),
            Err(error) => error,
        };
        let path = pointer_of(error.path());
        let problem = words::of(&error.into_inner().to_string());
        let pointer = match &problem.unknown {
            Some(key) if !path.ends_with(&below("", key)) => below(&path, key),
            _ => path,
        };
        let original = left.original(&pointer);
        let is_echo = problem.missing.as_ref().is_some_and(|key| {
            let meant = format!("did you mean `{key}`?");
            mistakes.iter().any(|mistake| {
                let is_beside =
                    mistake.pointer.rsplit_once('/').is_some_and(|(parent, _)| parent == original);
                // The key was left out for its own mistake, or is present but misspelled.
                is_beside
                    && (mistake.pointer == below(&original, key) || mistake.hint.as_ref() == Some(&meant))
            })
        });
        if !is_echo {
            let at_key = problem.unknown.is_some();
            mistakes.push(SettingsMistake {
                pointer: original,
                message: problem.message,
                hint: problem.hint,
                at_key,
            });
        }
        if !left.leave_out(&pointer) {
            break;
        }
    }
    (None, mistakes, left)
}

/// The pointer to a key in the mapping at a pointer.
fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// What is left of settings after parts have been left out.
struct Left {
    settings: Value,
    /// Items of lists that were left out: the original pointer of the list, and the item's original index.
    items: Vec<(String, usize)>,
}

impl Left {
    fn new(settings: &Value) -> Self {
        let is_nothing = settings.is_null();
        let settings = if is_nothing { Value::Object(serde_json::Map::new()) } else { settings.clone() };
        Self { settings, items: Vec::new() }
    }

    /// The original pointer of a place.
    fn original(&self, pointer: &str) -> String {
        let mut original = String::new();
        for token in pointer.split('/').skip(1) {
            let mut gone: Vec<usize> =
                self.items.iter().filter(|(list, _)| *list == original).map(|(_, index)| *index).collect();
            gone.sort_unstable();
            match token.parse::<usize>() {
                Ok(index) if !gone.is_empty() => {
                    let index = gone.iter().fold(index, |index, gone| index + usize::from(*gone <= index));
                    original.push_str(&format!("/{index}"));
                }
                _ => original.push_str(&format!("/{token}")),
            }
        }
        original
    }

    /// Leaves out what is at a pointer. Returns whether it did: the root can't be left out.
    fn leave_out(&mut self, pointer: &str) -> bool {
        let Some((parent, last)) = pointer.rsplit_once('/') else { return false };
        let list = self.original(parent);
        let item = self.original(pointer).rsplit_once('/').and_then(|(_, index)| index.parse().ok());
        let key = last.replace("~1", "/").replace("~0", "~");
        match self.settings.pointer_mut(parent) {
            Some(Value::Object(entries)) => entries.remove(&key).is_some(),
            Some(Value::Array(items)) => {
                let index = key.parse::<usize>().ok().filter(|index| *index < items.len());
                if let (Some(index), Some(item)) = (index, item) {
                    items.remove(index);
                    self.items.push((list, item));
                }
                index.is_some()
            }
            _ => false,
        }
    }
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(below("", key)),
            Segment::Enum { variant } => Some(below("", variant)),
            Segment::Unknown => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        list: Vec<u8>,
        name: String,
        inner: Vec<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only its absence is looked at")]
        prefix: String,
    }

    fn found(settings: &Value) -> Vec<String> {
        let error = parse_settings::<Sample>(settings).unwrap_err();
        let one = |mistake: SettingsMistake| match (&mistake.hint, mistake.at_key) {
            (Some(hint), true) => format!("key {mistake} ({hint})"),
            (Some(hint), false) => format!("{mistake} ({hint})"),
            (None, _) => mistake.to_string(),
        };
        error.mistakes.into_iter().map(one).collect()
    }

    #[test]
    fn every_mistake_is_reported_at_its_place_and_in_plain_words() {
        let settings = json!({
            "list": [1, "x"],
            "lost": 1,
            "nam": 2,
            "name": 3,
            "inner": [{"prefx": "/"}, {"prefix": 7}],
        });
        assert_eq!(
            found(&settings),
            [
                "key /inner/0/prefx: unknown key `prefx` (did you mean `prefix`?)",
                "/inner/1/prefix: text is wanted, found the number 7",
                "/list/1: a whole number from 0 to 255 is wanted, found the text `x`",
                "key /lost: unknown key `lost` (did you mean `list`?)",
                "key /nam: unknown key `nam` (did you mean `name`?)",
                "/name: text is wanted, found the number 3",
            ]
        );
        assert_eq!(found(&json!({"inner": [{}]})), ["/inner/0: missing key `prefix`"]);
        assert_eq!(found(&json!([])), ["a mapping is wanted, found a list"]);
        assert_eq!(found(&json!({"list": [300, 1, -1]})).len(), 2);
    }

    #[test]
    fn mistakes_found_by_the_check_are_reported_with_those_of_unreadable_parts() {
        let check = |_: Sample| -> Result<(), _> {
            let places = ["/name", "/list", "/inner/0/prefix"];
            let mistakes = places.map(|place| SettingsMistake::new(place, "odd")).to_vec();
            Err(SettingsError { mistakes })
        };
        let places = |settings: Value| -> Vec<String> {
            let error = check_settings(&settings, check).unwrap_err();
            error.mistakes.into_iter().map(|mistake| mistake.pointer).collect()
        };
        assert_eq!(places(json!({})), ["/name", "/list", "/inner/0/prefix"]);
        assert_eq!(places(json!({"name": 7, "lost": 1})), ["/lost", "/name", "/list", "/inner/0/prefix"]);
        assert_eq!(places(json!({"list": [300]})), ["/list/0", "/name", "/inner/0/prefix"]);
        assert_eq!(
            places(json!({"inner": [{"prefx": 1}]})),
            ["/inner/0/prefx", "/name", "/list", "/inner/1/prefix"]
        );
        assert_eq!(
            places(json!({"inner": [1, {"prefix": ""}]})),
            ["/inner/0", "/name", "/list", "/inner/1/prefix"]
        );
    }

    #[test]
    fn null_means_the_defaults() {
        let parsed = parse_settings::<Sample>(&Value::Null).unwrap();
        assert!(parsed.list.is_empty() && parsed.name.is_empty() && parsed.inner.is_empty());
    }
}
