//! Reads a document once, from its text, and hands over each value with the path of its field. No tree is built.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{DocumentError, MAX_DEPTH, MAX_PATH, printable, vector};

/// A value that is neither an object, a list nor `null`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar<'a> {
    Text(Cow<'a, str>),
    I64(i64),
    /// Above the largest `i64`.
    U64(u64),
    F64(f64),
    Bool(bool),
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) if text.len() > 60 => {
                let start = printable(&text[..text.floor_char_boundary(50)]);
                write!(f, "the string `{start}…` of {} bytes", text.len())
            }
            Self::Text(text) => write!(f, "the string `{}`", printable(text)),
            Self::I64(number) => write!(f, "the number {number}"),
            Self::U64(number) => write!(f, "the number {number}"),
            Self::F64(number) => write!(f, "the number {number:?}"),
            Self::Bool(is_true) => write!(f, "{is_true}"),
        }
    }
}

/// How a document is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// What a document must not have is an error.
    Strict,
    /// Everything that JSON allows is read. For documents that were checked when they were written.
    Lenient,
}

/// Gets the values of a document.
pub(crate) trait Sink<'a> {
    /// A value, with the dotted path of its field; values of lists come one by one.
    fn scalar(&mut self, path: &str, scalar: Scalar<'a>) -> Result<(), DocumentError>;

    /// How many numbers a vector at this path has. `None` if lists there are lists of values.
    fn dims(&self, path: &str) -> Option<usize>;

    /// A vector, or what is wrong with the list that is in its place.
    fn vector(&mut self, path: &str, vector: Result<Vec<f32>, String>) -> Result<(), DocumentError>;
}

/// Gets values only.
struct Values<F>(F);

impl<'a, F: FnMut(&str, Scalar<'a>) -> Result<(), DocumentError>> Sink<'a> for Values<F> {
    fn scalar(&mut self, path: &str, scalar: Scalar<'a>) -> Result<(), DocumentError> {
        self.0(path, scalar)
    }

    fn dims(&self, _: &str) -> Option<usize> {
        None
    }

    fn vector(&mut self, _: &str, _: Result<Vec<f32>, String>) -> Result<(), DocumentError> {
        Ok(())
    }
}

/// Reads a JSON object. `sink` gets each value with the dotted path of its field; values of lists come one by one.
pub(crate) fn read<'a>(
    source: &'a str,
    reading: Reading,
    sink: impl FnMut(&str, Scalar<'a>) -> Result<(), DocumentError>,
) -> Result<(), DocumentError> {
    read_into(source, reading, Values(sink))
}

/// Reads a JSON object.
pub(crate) fn read_into<'a>(
    source: &'a str,
    reading: Reading,
    sink: impl Sink<'a>,
) -> Result<(), DocumentError> {
    let mut walk = Walk { sink, reading, path: String::new(), keys: 0, depth: 0, error: None };
    let mut json = serde_json::Deserializer::from_str(source);
    let read = Node(&mut walk).deserialize(&mut json).and_then(|()| json.end());
    match (read, walk.error) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(error)) => Err(error),
        (Err(error), None) => Err(DocumentError::Json(error.to_string())),
    }
}

struct Walk<S> {
    sink: S,
    reading: Reading,
    /// The path of the present field.
    path: String,
    /// How many keys are in the path.
    keys: usize,
    depth: usize,
    /// Why reading was ended; the deserializer's own error has no room for it.
    error: Option<DocumentError>,
}

impl<'a, S: Sink<'a>> Walk<S> {
    fn end<T, E: serde::de::Error>(&mut self, error: DocumentError) -> Result<T, E> {
        self.error = Some(error);
        Err(E::custom("the document is refused"))
    }

    fn scalar<E: serde::de::Error>(&mut self, scalar: Scalar<'a>) -> Result<(), E> {
        if self.depth == 0 {
            return self.end(DocumentError::NoObject { found: scalar.to_string() });
        }
        match self.sink.scalar(&self.path, scalar) {
            Ok(()) => Ok(()),
            Err(error) => self.end(error),
        }
    }

    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.depth += 1;
        if self.depth > MAX_DEPTH && self.reading == Reading::Strict {
            let path = self.path.clone();
            return self.end(DocumentError::TooDeep { path });
        }
        Ok(())
    }
}

/// Reads one JSON value.
struct Node<'w, S>(&'w mut Walk<S>);

impl<'a, S: Sink<'a>> DeserializeSeed<'a> for Node<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a, S: Sink<'a>> Visitor<'a> for Node<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: serde::de::Error>(self, is_true: bool) -> Result<(), E> {
        self.0.scalar(Scalar::Bool(is_true))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.0.scalar(Scalar::I64(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.0.scalar(i64::try_from(number).map_or(Scalar::U64(number), Scalar::I64))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        self.0.scalar(Scalar::F64(number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.0.scalar(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'a str) -> Result<(), E> {
        self.0.scalar(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        if self.0.depth == 0 {
            return self.0.end(DocumentError::NoObject { found: "null".to_owned() });
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut items: A) -> Result<(), A::Error> {
        let walk = self.0;
        if walk.depth == 0 {
            return walk.end(DocumentError::NoObject { found: "a list".to_owned() });
        }
        if let Some(dims) = walk.sink.dims(&walk.path) {
            let vector = vector::read(items, dims)?;
            return match walk.sink.vector(&walk.path, vector) {
                Ok(()) => Ok(()),
                Err(error) => walk.end(error),
            };
        }
        walk.enter()?;
        while items.next_element_seed(Node(walk))?.is_some() {}
        walk.depth -= 1;
        Ok(())
    }

    fn visit_map<A: MapAccess<'a>>(self, mut entries: A) -> Result<(), A::Error> {
        let walk = self.0;
        walk.enter()?;
        let mut seen = BTreeSet::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            let length = walk.path.len();
            if walk.keys > 0 {
                walk.path.push('.');
            }
            walk.path.push_str(&key);
            walk.keys += 1;
            if walk.path.len() > MAX_PATH && walk.reading == Reading::Strict {
                let path = format!("{}…", &walk.path[..walk.path.floor_char_boundary(60)]);
                let problem = format!("the name has more than {MAX_PATH} bytes");
                return walk.end(DocumentError::FieldName { path, problem });
            }
            if walk.reading == Reading::Strict && !seen.insert(key) {
                let path = walk.path.clone();
                return walk.end(DocumentError::DuplicateKey { path });
            }
            entries.next_value_seed(Node(walk))?;
            walk.path.truncate(length);
            walk.keys -= 1;
        }
        walk.depth -= 1;
        Ok(())
    }
}

/// Reads the name of a field, without a copy unless it has escapes.
struct Key;

impl<'a> DeserializeSeed<'a> for Key {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Cow<'a, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Key {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, name: &'a str) -> Result<Cow<'a, str>, E> {
        Ok(Cow::Borrowed(name))
    }
}
