//! A YAML document as a tree. Every value and every key has its position in the file.
//!
//! Plain data: `yaml` builds it, everything else reads it.

/// A position in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
    /// How many characters it covers; 0 if that is not known.
    pub len: u32,
}

impl Position {
    /// The start of a file.
    pub const START: Self = Self { line: 1, column: 1, len: 0 };
}

/// A value and its position.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its position; for an alias, the position of the anchor.
    pub at: Position,
    /// The value.
    pub value: Value,
    /// How it was written.
    pub(crate) writing: Writing,
}

/// The value of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `~`, `null` or nothing at all.
    Null,
    /// `true` or `false`; `yes` and `no` are text.
    Bool(bool),
    /// A finite number.
    Number(serde_json::Number),
    /// Text.
    String(String),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys with values, in the order of the file. A duplicate key is here twice.
    Mapping(Vec<(Key, Node)>),
}

/// A key of a mapping and its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its text.
    pub text: String,
    /// Its position.
    pub at: Position,
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writing {
    /// With quotes or as a block, or it is not a scalar.
    Marked,
    /// Without quotes.
    Plain,
    /// Without quotes, and a variable in it was replaced: `8080` may then be text or a number.
    Replaced,
}

impl Node {
    /// The value of a key; the first one if the key is given twice.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(found, _)| found.text == key).map(|(_, value)| value)
    }

    /// The keys and values; empty if it is not a mapping.
    pub fn entries(&self) -> &[(Key, Self)] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items; empty if it is not a list.
    pub fn items(&self) -> &[Self] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// Whether it is null or absent.
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

    /// Converts it to JSON. If a key is given twice, its first value counts.
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

    /// The position of the node at a JSON pointer (RFC 6901), or of the last existing node on the way to it.
    ///
    /// For a mapping or a list below a key, this is the position of the key.
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

    /// The position of the key at a JSON pointer; if there is no such key, the position of the value.
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

/// The value that the text would be in a file without quotes: a number as in JSON, `true` or `false`, else text.
fn bool_or_number(text: &str) -> serde_json::Value {
    match text.parse::<serde_json::Value>() {
        Ok(value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_))) => value,
        _ => text.into(),
    }
}
