//! JSON in which an object has a key twice is refused, as Elasticsearch does: which of them counts would be a guess. Pure.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Reads a whole JSON text.
pub(super) fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, serde_json::Error> {
    check(json)?;
    serde_json::from_slice(json)
}

/// Reads the members of an object. What is in them is not checked.
pub(super) fn members(json: &[u8]) -> Result<BTreeMap<String, Box<RawValue>>, serde_json::Error> {
    serde_json::from_slice::<Members>(json).map(|Members(members)| members)
}

fn check(json: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice::<Unique>(json).map(|Unique| ())
}

fn twice<E: Error>(key: &str) -> E {
    let key: String = key.chars().take(60).collect();
    E::custom(format!("duplicate field '{key}'"))
}

struct Members(BTreeMap<String, Box<RawValue>>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self(BTreeMap::new()))
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Self, A::Error> {
        while let Some(key) = members.next_key::<String>()? {
            match self.0.entry(key) {
                Entry::Occupied(entry) => return Err(twice(entry.key())),
                Entry::Vacant(entry) => entry.insert(members.next_value()?),
            };
        }
        Ok(self)
    }
}

struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self, A::Error> {
        while elements.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = members.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(twice(&key));
            }
            keys.insert(key);
            members.next_value::<Self>()?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_object_has_a_key_twice() {
        for json in ["{}", "[]", "1", "\"a\"", "null", r#"{"a":{"b":1},"b":[{"b":true},{"b":1.5}]}"#] {
            assert!(check(json.as_bytes()).is_ok(), "{json}");
        }
        for json in [r#"{"a":1,"a":1}"#, r#"{"a":[{"b":1,"c":2,"b":3}]}"#, r#"{"a":1,"\u0061":1}"#] {
            let error = check(json.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with("duplicate field '"), "{json}: {error}");
        }
    }

    #[test]
    fn members_are_read_as_they_are_written() {
        let read = members(br#"{"a": {"b": 1, "b": 2}, "c": [ ]}"#).unwrap();
        let texts: Vec<_> = read.iter().map(|(key, value)| (key.as_str(), value.get())).collect();
        assert_eq!(texts, [("a", r#"{"b": 1, "b": 2}"#), ("c", "[ ]")]);
        for (json, wrong) in
            [(r#"{"a":1,"a":2}"#, "duplicate field 'a'"), ("[]", "a JSON object"), ("{", "EOF")]
        {
            let error = members(json.as_bytes()).err().unwrap().to_string();
            assert!(error.contains(wrong), "{json}: {error}");
        }
    }
}
