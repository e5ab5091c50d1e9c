//! How fast a cluster gossips: a name instead of knobs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How fast a cluster gossips. Every node of a cluster has the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// All nodes on one machine: a crash is seen in about a second.
    Local,
    /// One network of low delay.
    #[default]
    Lan,
    /// Several networks, high delay.
    Wan,
}

/// No such profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("profile `{0}` does not exist; there are local, lan and wan")]
pub struct ProfileError(String);

impl Profile {
    /// All profiles, the fastest first.
    pub const ALL: [Self; 3] = [Self::Local, Self::Lan, Self::Wan];

    /// The profile in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Lan => "lan",
            Self::Wan => "wan",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Profile {
    type Err = ProfileError;
    fn from_str(text: &str) -> Result<Self, ProfileError> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.as_str() == text)
            .ok_or_else(|| ProfileError(text.to_owned()))
    }
}
