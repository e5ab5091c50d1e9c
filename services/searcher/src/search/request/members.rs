//! The members of a JSON object as they were sent, and the mistakes that were found in them.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use types::did_you_mean;

use crate::query::QueryError;

/// The members of an object, in order, with values that were not parsed: numbers keep all their digits.
pub(super) struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

impl Members {
    pub(super) fn new(members: Vec<(String, Box<RawValue>)>) -> Self {
        Self(members)
    }

    /// Refuses members that are unknown or given twice.
    pub(super) fn check_names(&self, known: &[&str], mistakes: &mut Mistakes) {
        for (number, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let hint = did_you_mean(name, known.iter().copied()).map_or_else(
                    || format!("there are {}", known.join(", ")),
                    |near| format!("did you mean `{near}`?"),
                );
                mistakes.add(format!("there is no member {}", shortened(name)), Some(hint));
            } else if self.0[..number].iter().any(|(earlier, _)| earlier == name) {
                mistakes.add(format!("`{name}` is given twice"), None);
            }
        }
    }

    /// Takes a member out.
    pub(super) fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// The value of a member; `null` is the same as none.
    pub(super) fn raw(&self, name: &str) -> Option<&RawValue> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        (value.get() != "null").then_some(value)
    }

    /// Reads a member; `what` says what it must be.
    pub(super) fn read<T: DeserializeOwned>(
        &self,
        name: &str,
        what: &str,
        mistakes: &mut Mistakes,
    ) -> Option<T> {
        let raw = self.raw(name)?;
        let value = serde_json::from_str(raw.get()).ok();
        if value.is_none() {
            mistakes.add(format!("`{name}` is {what}, not {}", shortened(raw.get())), None);
        }
        value
    }
}

/// A value for a message.
pub(in crate::search) fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// All mistakes in a request.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<QueryError>);

impl Mistakes {
    pub(super) fn add(&mut self, message: String, hint: Option<String>) {
        self.0.push(QueryError { message, at: None, hint });
    }

    pub(super) fn push(&mut self, error: QueryError) {
        self.0.push(error);
    }

    /// One error for all: a single mistake keeps its position.
    pub(super) fn into_result(mut self) -> Result<(), QueryError> {
        if self.0.len() < 2 {
            return self.0.pop().map_or(Ok(()), Err);
        }
        let messages: Vec<&str> = self.0.iter().map(|mistake| mistake.message.as_str()).collect();
        let hints: Vec<&str> = self.0.iter().filter_map(|mistake| mistake.hint.as_deref()).collect();
        let hint = (!hints.is_empty()).then(|| hints.join("; "));
        Err(QueryError { message: messages.join("; "), at: None, hint })
    }
}
