//! Validated identifiers. `FromStr` is the only way into each of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum IdError {
    /// Give it at least one character.
    #[error("{what} is empty")]
    Empty { what: &'static str },
    /// Shorten it.
    #[error("{what} `{text}` has {len} characters, at most {max} are allowed")]
    TooLong { what: &'static str, text: String, len: usize, max: usize },
    /// Replace the character.
    #[error("{what} `{text}` has the character {bad:?} at position {at}; {allowed}")]
    BadCharacter { what: &'static str, text: String, bad: char, at: usize, allowed: &'static str },
    /// Choose another name.
    #[error("{what} `{text}` is reserved: {why}")]
    Reserved { what: &'static str, text: &'static str, why: &'static str },
    /// Give a whole number in range.
    #[error("{what} `{text}` is not a whole number from 0 to {max}")]
    NotANumber { what: &'static str, text: String, max: u64 },
}

const NAME_RULE: &str = "letters, digits, `-`, `_` and `.` are allowed, the first is a letter or a digit";

fn check_name(what: &'static str, text: &str, max: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty { what });
    }
    let bad = text.chars().enumerate().find(|&(at, c)| {
        let fits = c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '-' | '_' | '.'));
        !fits
    });
    if let Some((at, bad)) = bad {
        return Err(IdError::BadCharacter { what, text: clip(text), bad, at: at + 1, allowed: NAME_RULE });
    }
    if text.len() > max {
        return Err(IdError::TooLong { what, text: clip(text), len: text.len(), max });
    }
    Ok(())
}

/// Keeps error messages readable when the input is not.
pub(crate) fn clip(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// The longest one, in bytes.
            pub const MAX_LEN: usize = $max;

            /// The text of it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check_name($what, text, Self::MAX_LEN)?;
                Ok(Self(text.to_owned()))
            }
        }

        id_conversions!($name);
    };
}

macro_rules! id_conversions {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_id!(
    /// The name of a node, unique in its cluster. Short, because gossip carries every id in every message.
    NodeId,
    "node id",
    48
);

name_id!(
    /// The name of a cluster. Gossip from another cluster is refused.
    ClusterId,
    "cluster name",
    48
);

/// The role name of a node without a service: no service and no service type may have it.
pub(crate) const STANDBY: &str = "standby";

fn check_reserved(what: &'static str, text: &str) -> Result<(), IdError> {
    if text == STANDBY {
        let why = "it stands for a node without a service";
        return Err(IdError::Reserved { what, text: STANDBY, why });
    }
    Ok(())
}

/// The name of a service: its identity in roles, claims, data folders, routes and URLs.
///
/// Kept as it is written. Two services of a cluster differ in more than `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct ServiceName(String);

impl ServiceName {
    /// The longest one, in bytes.
    pub const MAX_LEN: usize = 40;

    /// The text of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The service type of this name, which the service has unless its spec has another; `None` if it is not a valid type
    /// name.
    pub fn default_type(&self) -> Option<ServiceType> {
        self.0.parse().ok()
    }

    /// The name in words, with the type where that differs from it: `storage`, `sessions (storage)`.
    pub fn with_type(&self, service_type: &ServiceType) -> String {
        if self.is_named_after(service_type) { self.0.clone() } else { format!("{self} ({service_type})") }
    }

    /// Whether the service has its type's name.
    pub fn is_named_after(&self, service_type: &ServiceType) -> bool {
        self.0 == service_type.0
    }

    /// Whether the two differ in nothing but `-` and `_`.
    pub fn is_similar(&self, other: &Self) -> bool {
        let letters = |name: &Self| name.0.replace('-', "_");
        self.0.len() == other.0.len() && letters(self) == letters(other)
    }

    /// The same name, in the spelling of the service type of that name if there is one: `api-gateway` is `api_gateway`.
    #[must_use]
    pub fn normalized(self, is_type: impl FnOnce(&ServiceType) -> bool) -> Self {
        match self.default_type() {
            Some(service_type) if is_type(&service_type) => service_type.into(),
            _ => self,
        }
    }
}

impl FromStr for ServiceName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        const WHAT: &str = "service name";
        if text.is_empty() {
            return Err(IdError::Empty { what: WHAT });
        }
        let bad = text.chars().enumerate().find(|&(at, c)| {
            let fits = c.is_ascii_lowercase() || c.is_ascii_digit() || (at > 0 && matches!(c, '_' | '-'));
            !fits
        });
        if let Some((at, bad)) = bad {
            let allowed =
                "lower-case letters, digits, `-` and `_` are allowed, the first is a letter or a digit";
            return Err(IdError::BadCharacter { what: WHAT, text: clip(text), bad, at: at + 1, allowed });
        }
        if text.len() > Self::MAX_LEN {
            let (len, max) = (text.len(), Self::MAX_LEN);
            return Err(IdError::TooLong { what: WHAT, text: clip(text), len, max });
        }
        check_reserved(WHAT, text)?;
        Ok(Self(text.to_owned()))
    }
}

id_conversions!(ServiceName);

impl From<ServiceType> for ServiceName {
    /// The service that is named after its type.
    fn from(service_type: ServiceType) -> Self {
        Self(service_type.0)
    }
}

/// The name of a service type: a plugin's name. It selects the plugin of a service, independently of the service's name.
///
/// Written in snake case; kebab case is accepted (`api-gateway` is `api_gateway`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct ServiceType(String);

impl ServiceType {
    /// The longest one, in bytes.
    pub const MAX_LEN: usize = 32;

    /// The text of it, in snake case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceType {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        const WHAT: &str = "service type";
        if text.is_empty() {
            return Err(IdError::Empty { what: WHAT });
        }
        let bad = text.chars().enumerate().find(|&(at, c)| {
            let fits = c.is_ascii_lowercase() || (at > 0 && (c.is_ascii_digit() || matches!(c, '_' | '-')));
            !fits
        });
        if let Some((at, bad)) = bad {
            let allowed = "lower-case letters, digits and `_` are allowed, the first is a letter";
            return Err(IdError::BadCharacter { what: WHAT, text: clip(text), bad, at: at + 1, allowed });
        }
        if text.len() > Self::MAX_LEN {
            return Err(IdError::TooLong {
                what: WHAT,
                text: clip(text),
                len: text.len(),
                max: Self::MAX_LEN,
            });
        }
        check_reserved(WHAT, text)?;
        Ok(Self(text.replace('-', "_")))
    }
}

id_conversions!(ServiceType);

/// The number of a shard, counted from 0.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(try_from = "u32", into = "u32")]
#[schema(value_type = u32)]
pub struct ShardId(u32);

impl ShardId {
    /// The highest shard number.
    pub const MAX: u32 = 65_535;

    /// The number of it.
    pub fn as_u32(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for ShardId {
    type Error = IdError;
    fn try_from(number: u32) -> Result<Self, IdError> {
        if number > Self::MAX {
            return Err(IdError::NotANumber {
                what: "shard",
                text: number.to_string(),
                max: u64::from(Self::MAX),
            });
        }
        Ok(Self(number))
    }
}

impl From<ShardId> for u32 {
    fn from(shard: ShardId) -> Self {
        shard.0
    }
}

impl FromStr for ShardId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse::<u32>()
            .ok()
            .and_then(|number| Self::try_from(number).ok())
            .ok_or_else(|| IdError::NotANumber { what: "shard", text: clip(text), max: u64::from(Self::MAX) })
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            utoipa::ToSchema,
        )]
        #[serde(transparent)]
        #[schema(value_type = u64)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_id!(
    /// Distinguishes the incarnations of a node: Unix milliseconds at its start, never lower than the last.
    Generation
);

number_id!(
    /// The number of a claim: the node that took the shard last has the highest, and owns it.
    Epoch
);

/// The identity of an object store, made once; two nodes of one cluster must have the same.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct StoreId(pub Uuid);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kebab_case_service_type_is_the_snake_case_one() {
        assert_eq!("api-gateway".parse::<ServiceType>().unwrap().as_str(), "api_gateway");
    }

    #[test]
    fn a_service_name_is_kept_as_written_unless_it_is_a_types() {
        let is_type = |found: &ServiceType| found.as_str() == "api_gateway";
        for (written, expected) in [
            ("api-gateway", "api_gateway"),
            ("api_gateway", "api_gateway"),
            ("my-api", "my-api"),
            ("2nd", "2nd"),
        ] {
            let name: ServiceName = written.parse().unwrap();
            assert_eq!(name.to_string(), written);
            assert_eq!(name.normalized(is_type).as_str(), expected);
        }
        assert_eq!("2nd".parse::<ServiceName>().unwrap().default_type(), None, "no type begins with a digit");
    }

    #[test]
    fn names_that_differ_in_hyphens_and_underscores_alone_are_similar() {
        for (one, other, is_similar) in
            [("a-b", "a_b", true), ("a-b", "a-b", true), ("a-b", "ab", false), ("a-b", "a-c", false)]
        {
            let (one, other): (ServiceName, ServiceName) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(one.is_similar(&other), is_similar, "{one} {other}");
        }
    }

    #[test]
    fn a_service_name_that_breaks_a_rule_is_refused() {
        for (text, expected) in [
            ("", "service name is empty"),
            ("standby", "service name `standby` is reserved: it stands for a node without a service"),
            ("Sessions", "service name `Sessions` has the character 'S' at position 1"),
            ("-a", "has the character '-' at position 1"),
            ("a.b", "has the character '.' at position 2"),
            ("a/b", "has the character '/' at position 2"),
            (&"a".repeat(41), "has 41 characters, at most 40 are allowed"),
        ] {
            let error = text.parse::<ServiceName>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!("standby".parse::<ServiceType>().is_err());
    }

    #[test]
    fn a_bad_name_is_refused_with_the_mistake_and_its_place() {
        let error = "node 1".parse::<NodeId>().unwrap_err().to_string();
        assert!(error.contains("' ' at position 5"), "{error}");
        assert_eq!("".parse::<NodeId>(), Err(IdError::Empty { what: "node id" }));
        assert!(matches!("a".repeat(49).parse::<NodeId>(), Err(IdError::TooLong { len: 49, .. })));
        assert!(matches!("API".parse::<ServiceType>(), Err(IdError::BadCharacter { bad: 'A', at: 1, .. })));
    }

    #[test]
    fn a_shard_beyond_the_limit_is_refused_from_text_number_and_json() {
        assert!("65536".parse::<ShardId>().is_err());
        assert!(ShardId::try_from(65_536).is_err());
        assert!(serde_json::from_str::<ShardId>("65536").is_err());
        assert_eq!("7".parse::<ShardId>().unwrap().as_u32(), 7);
        assert!("-1".parse::<ShardId>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics_and_a_text_that_parses_prints_the_same(text in ".{0,60}") {
            if let Ok(id) = text.parse::<NodeId>() {
                proptest::prop_assert_eq!(id.to_string(), text.clone());
            }
            if let Ok(service) = text.parse::<ServiceName>() {
                proptest::prop_assert_eq!(service.to_string(), text.clone());
            }
            if let Ok(service) = text.parse::<ServiceType>() {
                proptest::prop_assert_eq!(service.to_string().parse::<ServiceType>().unwrap(), service);
            }
        }
    }
}
