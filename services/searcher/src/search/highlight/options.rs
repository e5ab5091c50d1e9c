//! How highlights are asked for.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use types::did_you_mean;

use crate::query::QueryError;
use crate::search::request::shortened;

const PRE: &str = "<em>";
const POST: &str = "</em>";
const FRAGMENT_SIZE: usize = 150;
const FRAGMENTS: usize = 3;
const MEMBERS: [&str; 6] = ["fields", "pre", "post", "escape", "fragment_size", "number_of_fragments"];

/// How highlights are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HighlightOptions {
    /// All fields with text if empty.
    pub(crate) fields: Vec<String>,
    pub(crate) pre: String,
    pub(crate) post: String,
    /// Whether text is escaped for HTML; if `pre` is a tag unless given.
    pub(crate) escape: Option<bool>,
    /// The length of a fragment in characters, about.
    pub(crate) fragment_size: usize,
    /// How many fragments of a field there are at most; 0 is the whole text.
    pub(crate) number_of_fragments: usize,
}

impl Default for HighlightOptions {
    fn default() -> Self {
        Self {
            fields: Vec::new(),
            pre: PRE.to_owned(),
            post: POST.to_owned(),
            escape: None,
            fragment_size: FRAGMENT_SIZE,
            number_of_fragments: FRAGMENTS,
        }
    }
}

impl HighlightOptions {
    /// Reads `highlight`: `true`, `false` or an object.
    pub(in crate::search) fn read(raw: &RawValue) -> Result<Option<Self>, QueryError> {
        let members = match serde_json::from_str(raw.get()) {
            Ok(Value::Bool(false)) => return Ok(None),
            Ok(Value::Bool(true)) => return Ok(Some(Self::default())),
            Ok(Value::Object(members)) => members,
            _ => {
                return Err(mistake(
                    format!("it is true, false or an object, not {}", shortened(raw.get())),
                    None,
                ));
            }
        };
        if let Some(unknown) = members.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            let near = did_you_mean(unknown, MEMBERS).map(|near| format!("did you mean `{near}`?"));
            let hint = near.unwrap_or_else(|| format!("there are {}", MEMBERS.join(", ")));
            return Err(mistake(format!("there is no member {}", shortened(unknown)), Some(hint)));
        }
        let mut options = Self::default();
        if let Some(fields) = members.get("fields") {
            let fields = serde_json::from_value(fields.clone());
            options.fields = fields.map_err(|_| mistake("`fields` is a list of fields".to_owned(), None))?;
        }
        for (name, mark) in [("pre", &mut options.pre), ("post", &mut options.post)] {
            if let Some(value) = members.get(name) {
                let text = value.as_str().filter(|text| text.len() <= 1_000);
                *mark = text.ok_or_else(|| mistake(format!("`{name}` is a short text"), None))?.to_owned();
            }
        }
        if let Some(escape) = members.get("escape").filter(|escape| !escape.is_null()) {
            let flag = escape.as_bool();
            options.escape = Some(flag.ok_or_else(|| mistake("`escape` is true or false".to_owned(), None))?);
        }
        options.fragment_size = number(&members, "fragment_size", 10, 10_000, options.fragment_size)?;
        options.number_of_fragments =
            number(&members, "number_of_fragments", 0, 100, options.number_of_fragments)?;
        Ok(Some(options))
    }

    pub(in crate::search) fn to_json(&self) -> Value {
        json!({
            "fields": self.fields,
            "pre": self.pre,
            "post": self.post,
            "escape": self.escape,
            "fragment_size": self.fragment_size,
            "number_of_fragments": self.number_of_fragments,
        })
    }

    /// Whether fragments are HTML, so that the text in them is escaped.
    pub(super) fn is_html(&self) -> bool {
        self.escape.unwrap_or_else(|| self.pre.trim_start().starts_with('<'))
    }
}

fn number(
    members: &Map<String, Value>,
    name: &str,
    least: usize,
    most: usize,
    default: usize,
) -> Result<usize, QueryError> {
    let Some(value) = members.get(name) else { return Ok(default) };
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| mistake(format!("`{name}` is a whole number from {least} to {most}"), None))
}

fn mistake(mut message: String, hint: Option<String>) -> QueryError {
    message.insert_str(0, "`highlight`: ");
    QueryError { message, at: None, hint }
}
