//! Reads the list of numbers that a vector is.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Scalar, printable};

/// Reads a list of `dims` numbers; or what is wrong with it, when all of it has been read.
pub(super) fn read<'a, A: SeqAccess<'a>>(
    mut items: A,
    dims: usize,
) -> Result<Result<Vec<f32>, String>, A::Error> {
    let mut vector = Vec::new();
    let mut problem = None;
    loop {
        let at = vector.len();
        let number = match items.next_element_seed(Number) {
            Ok(None) => break,
            Ok(Some(number)) => number,
            // Such as `NaN`, or a number that no type holds: what follows can't be read.
            Err(error) => return Ok(Err(format!("number {at} of the list can't be read: {error}"))),
        };
        if problem.is_some() {
            continue;
        }
        match number {
            _ if at == dims => problem = Some(format!("{dims} numbers are wanted, found more")),
            Ok(number) => vector.push(number),
            Err(found) => problem = Some(format!("number {at} of the list is {found}")),
        }
    }
    Ok(match problem {
        Some(problem) => Err(problem),
        None if vector.len() < dims => Err(format!("{dims} numbers are wanted, found {}", vector.len())),
        None => Ok(vector),
    })
}

/// Reads a number; or what was found instead.
struct Number;

impl<'a> DeserializeSeed<'a> for Number {
    type Value = Result<f32, String>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Number {
    type Value = Result<f32, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_bool<E>(self, is_true: bool) -> Result<Self::Value, E> {
        Ok(Err(is_true.to_string()))
    }

    #[expect(clippy::cast_precision_loss, reason = "vectors have 32-bit floating-point numbers")]
    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Ok(number as f32))
    }

    #[expect(clippy::cast_precision_loss, reason = "vectors have 32-bit floating-point numbers")]
    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Ok(number as f32))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "what is beyond the range becomes infinite, and is refused"
    )]
    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        let single = number as f32;
        let refused = || format!("{number:?}, which is beyond the range of 32-bit floating-point numbers");
        Ok(if single.is_finite() { Ok(single) } else { Err(refused()) })
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Err(printable(&Scalar::Text(text.into()).to_string())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Err("null".to_owned()))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Err("a list".to_owned()))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Err("an object".to_owned()))
    }
}
