//! Reads the fields of a mapping with their types, and reports values of the wrong type.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::{Check, found, shown};
use crate::mistake::Mistake;
use crate::render::quoted;
use crate::suggest;
use crate::tree::{Key, Node, Position, Value, Writing};

/// The fields of a mapping whose keys have all been checked.
pub(super) struct Fields<'n> {
    node: &'n Node,
}

/// A key and its value.
#[derive(Clone, Copy)]
pub(super) struct Field<'n> {
    pub(super) key: &'n Key,
    pub(super) value: &'n Node,
}

impl<'n> Fields<'n> {
    /// The field with this key; the first, if the key is given twice.
    pub(super) fn get(&self, key: &str) -> Option<Field<'n>> {
        let mut entries = self.node.entries().iter();
        let (key, value) = entries.find(|(found, _)| found.text == key)?;
        Some(Field { key, value })
    }

    /// The position of the mapping.
    pub(super) fn at(&self) -> Position {
        self.node.at
    }
}

impl Field<'_> {
    /// The position at which a mistake in the value is shown.
    pub(super) fn at(&self) -> Position {
        shown(self.key, self.value)
    }
}

impl Check<'_> {
    /// The fields of a mapping; a key that is not in `keys` is a mistake. An absent value has no fields.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, what: &str, keys: &[&str]) -> Option<Fields<'n>> {
        self.checked_fields(node, what, keys, |_| false)
    }

    /// Like [`fields`](Self::fields), but keys that begin with `prefix` are ignored.
    pub(super) fn fields_beside<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        keys: &[&str],
        prefix: &str,
    ) -> Option<Fields<'n>> {
        self.checked_fields(node, what, keys, |key| key.starts_with(prefix))
    }

    fn checked_fields<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        keys: &[&str],
        is_ignored: impl Fn(&str) -> bool,
    ) -> Option<Fields<'n>> {
        if !matches!(node.value, Value::Mapping(_) | Value::Null) {
            let message = format!("{what} is a mapping, found {}", found(node));
            let hint = format!("keys: {}", keys.join(", "));
            self.report(Mistake::new(node.at, message).hint(hint));
            return None;
        }
        let is_unknown = |key: &str| !keys.contains(&key) && !is_ignored(key);
        for (key, _) in node.entries().iter().filter(|(key, _)| is_unknown(&key.text)) {
            let message = format!("unknown key {} in {what}", quoted(&key.text));
            let mistake = Mistake::new(key.at, message);
            self.report(mistake.hint(suggest::hint(&key.text, "known keys", keys)));
        }
        Some(Fields { node })
    }

    /// A text. A number is a mistake, because its original form is lost (`1.0`, `0x10`).
    pub(super) fn text<'n>(&mut self, field: Field<'n>) -> Option<&'n str> {
        let text = field.value.as_str();
        if text.is_none() {
            let mut mistake = self.unlike(field, "text");
            if let Value::Number(_) | Value::Bool(_) = field.value.value {
                mistake = mistake.hint("put it in quotes to make it text");
            }
            self.report(mistake);
        }
        text
    }

    /// A text that is parsed as `T`.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, field: Field<'_>) -> Option<T> {
        let text = self.text(field)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.report(Mistake::new(field.value.at, error.to_string()));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn switch(&mut self, field: Field<'_>) -> Option<bool> {
        if let Some(value) = field.value.as_bool() {
            return Some(value);
        }
        let mistake = self.unlike(field, "`true` or `false`");
        let meant = field.value.as_str().and_then(|text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        });
        self.report(match meant {
            Some(meant) => mistake.hint(format!("write `{meant}`, without quotes")),
            None => mistake,
        });
        None
    }

    /// A whole number in a range.
    pub(super) fn number(&mut self, field: Field<'_>, range: RangeInclusive<u32>) -> Option<u32> {
        let number = field.value.as_u64().and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let wanted = format!("a whole number from {} to {}", range.start(), range.end());
            let mut mistake = self.unlike(field, &wanted);
            let meant = field.value.as_str().and_then(|text| text.replace('_', "").parse().ok());
            if let Some(meant) = meant.filter(|meant: &u32| range.contains(meant)) {
                mistake = mistake.hint(match field.value.writing {
                    Writing::Plain => format!("write `{meant}`: leading zeros and `_` make it text"),
                    Writing::Marked | Writing::Replaced => {
                        format!("leave the quotes out to make it a number: `{meant}`")
                    }
                });
            }
            self.report(mistake);
        }
        number
    }

    /// The items of a list.
    pub(super) fn list<'n>(&mut self, field: Field<'n>) -> Option<&'n [Node]> {
        match &field.value.value {
            Value::Sequence(items) => Some(items),
            Value::Null => Some(&[]),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Mapping(_) => {
                let mut mistake = self.unlike(field, "a list");
                if let Value::Mapping(_) = field.value.value {
                    mistake = mistake.hint("begin each item with `- `");
                }
                self.report(mistake);
                None
            }
        }
    }

    /// The entries of a mapping with any keys.
    pub(super) fn entries<'n>(&mut self, field: Field<'n>) -> Option<&'n [(Key, Node)]> {
        match &field.value.value {
            Value::Mapping(entries) => Some(entries),
            Value::Null => Some(&[]),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Sequence(_) => {
                let mistake = self.unlike(field, "a mapping");
                self.report(mistake);
                None
            }
        }
    }

    /// The mistake of a value with the wrong type.
    pub(super) fn unlike(&self, field: Field<'_>, wanted: &str) -> Mistake {
        let message = format!("`{}` wants {wanted}, found {}", field.key.text, found(field.value));
        Mistake::new(field.at(), message)
    }
}
