//! A YAML document as a tree in which every value and every key knows where it stands.
//!
//! Plain data: `yaml` makes it, everything else reads it.

/// Where something stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
    /// How many characters belong to it; 0 where that is not known.
    pub len: u32,
}

impl Position {
    /// The start of a file.
    pub const START: Self = Self { line: 1, column: 1, len: 0 };
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stands; for an alias, where the anchor stands.
    pub at: Position,
    /// What it is.
    pub value: Value,
    /// How its text came to be.
    pub(crate) writing: Writing,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing: `~`, `null` or an empty place.
    Null,
    /// `true` or `false`; `yes` and `no` are text.
    Bool(bool),
    /// A finite number.
    Number(serde_json::Number),
    /// Text.
    String(String),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys with values, in the order of the file; a key that is given twice is here twice.
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its text.
    pub text: String,
    /// Where it stands.
    pub at: Position,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    /// With quotes, as a block, or it is not a scalar.
    Marked,
    /// Without any marks.
    Plain,
    /// Without any marks, and a variable was replaced in it: `8080` may then be text or a number.
    Replaced,
}

impl Node {
    /// The value of a key; of the first, if the key is given twice.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(found, _)| found.text == key).map(|(_, value)| value)
    }

    /// The keys and values, none if it is not a mapping.
    pub fn entries(&self) -> &[(Key, Self)] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items, none if it is not a list.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// Whether nothing is written here.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is a whole number that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self.scalar() {
            serde_json::Value::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    /// `true` or `false`, if it is one of them.
    pub fn as_bool(&self) -> Option<bool> {
        self.scalar().as_bool()
    }

    /// The same as JSON. Of a key that is given twice, the first value is taken.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Value::Mapping(entries) => {
                let mut object = serde_json::Map::new();
                for (key, value) in entries {
                    object.entry(key.text.as_str()).or_insert_with(|| value.to_json());
                }
                serde_json::Value::Object(object)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => self.scalar(),
        }
    }

    /// The node a JSON pointer (RFC 6901) leads to or, where it leads nowhere, the last one on the way.
    ///
    /// A mapping or a list that stands below a key is shown by the place of that key.
    pub fn position_of(&self, pointer: &str) -> Position {
        let mut at = self.at;
        let mut node = self;
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let (key_at, next) = match &node.value {
                Value::Mapping(entries) => {
                    let Some((key, value)) = entries.iter().find(|(key, _)| key.text == token) else {
                        return at;
                    };
                    (Some(key.at), value)
                }
                Value::Sequence(items) => {
                    let Some(item) = token.parse::<usize>().ok().and_then(|index| items.get(index)) else {
                        return at;
                    };
                    (None, item)
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return at,
            };
            at = match (&next.value, key_at) {
                (Value::Null | Value::Sequence(_) | Value::Mapping(_), Some(key_at)) => key_at,
                _ => next.at,
            };
            node = next;
        }
        at
    }

    /// The place of the key that a JSON pointer leads to or, where there is none, of the value.
    pub fn key_position_of(&self, pointer: &str) -> Position {
        let (parent, last) = pointer.rsplit_once('/').unwrap_or_default();
        let name = last.replace("~1", "/").replace("~0", "~");
        let entries = self.at_pointer(parent).map(Self::entries).unwrap_or_default();
        let key = entries.iter().find(|(key, _)| key.text == name);
        key.map_or_else(|| self.position_of(pointer), |(key, _)| key.at)
    }

    fn at_pointer(&self, pointer: &str) -> Option<&Self> {
        pointer.split('/').skip(1).try_fold(self, |node, token| {
            let token = token.replace("~1", "/").replace("~0", "~");
            match &node.value {
                Value::Sequence(items) => items.get(token.parse::<usize>().ok()?),
                _ => node.get(&token),
            }
        })
    }

    /// A scalar as JSON; text in which a variable was replaced becomes a number or a boolean if it looks like one.
    fn scalar(&self) -> serde_json::Value {
        match &self.value {
            Value::Bool(value) => (*value).into(),
            Value::Number(number) => number.clone().into(),
            Value::String(text) if self.writing == Writing::Replaced => bool_or_number(text),
            Value::String(text) => text.as_str().into(),
            Value::Null | Value::Sequence(_) | Value::Mapping(_) => serde_json::Value::Null,
        }
    }
}

/// What the text would be if it stood in the file without quotes: JSON's numbers, `true` and `false`, else text.
fn bool_or_number(text: &str) -> serde_json::Value {
    match text.parse::<serde_json::Value>() {
        Ok(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => value,
        _ => text.into(),
    }
}
