//! Why a phase is what it is: a code for programs and a text for people.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{IdError, clip};
use crate::problem::Problem;

/// The claim on the shard is another node's now.
pub const CLAIM_PASSED: ReasonCode = ReasonCode::new("claim-passed");
/// Stored data can't be understood.
pub const DAMAGED_DATA: ReasonCode = ReasonCode::new("damaged-data");
/// The role could not be started, and the error has no code of its own.
pub const NOT_STARTED: ReasonCode = ReasonCode::new("not-started");
/// A replica lacks what its owner wrote a while ago.
pub const REPLICA_BEHIND: ReasonCode = ReasonCode::new("replica-behind");
/// The object store does not answer, or refuses.
pub const STORE_UNAVAILABLE: ReasonCode = ReasonCode::new("store-unavailable");

/// Names a reason for programs: at most 40 lower-case letters, digits and `-`, the first a letter. Never changes once
/// released.
///
/// A service declares one constant for each of its reasons. A code that breaks the rule does not compile:
///
/// ```
/// # use types::ReasonCode;
/// const DISK_FULL: ReasonCode = ReasonCode::new("disk-full");
/// ```
/// ```compile_fail
/// # use types::ReasonCode;
/// const DISK_FULL: ReasonCode = ReasonCode::new("Disk full");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct ReasonCode(Cow<'static, str>);

const ALLOWED: &str = "lower-case letters, digits and `-` are allowed, the first is a letter";

impl ReasonCode {
    /// The longest one, in bytes.
    pub const MAX_LEN: usize = 40;

    /// A code of this program.
    ///
    /// # Panics
    /// If the code breaks the rule: in a constant that is an error of the compiler.
    #[must_use]
    pub const fn new(code: &'static str) -> Self {
        let bytes = code.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= Self::MAX_LEN, "a reason's code has 1 to 40 characters");
        let mut at = 0;
        while at < bytes.len() {
            assert!(is_allowed(at, bytes[at]), "a reason's code is in kebab case: `disk-full`");
            at += 1;
        }
        Self(Cow::Borrowed(code))
    }

    /// The text of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const fn is_allowed(at: usize, byte: u8) -> bool {
    byte.is_ascii_lowercase() || (at > 0 && (byte.is_ascii_digit() || byte == b'-'))
}

impl FromStr for ReasonCode {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let what = "reason code";
        if text.is_empty() {
            return Err(IdError::Empty { what });
        }
        let is_bad = |&(at, c): &(usize, char)| !u8::try_from(c).is_ok_and(|byte| is_allowed(at, byte));
        if let Some((at, bad)) = text.chars().enumerate().find(is_bad) {
            return Err(IdError::BadCharacter { what, text: clip(text), bad, at: at + 1, allowed: ALLOWED });
        }
        if text.len() > Self::MAX_LEN {
            return Err(IdError::TooLong { what, text: clip(text), len: text.len(), max: Self::MAX_LEN });
        }
        Ok(Self(Cow::Owned(text.to_owned())))
    }
}

impl TryFrom<String> for ReasonCode {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<ReasonCode> for String {
    fn from(code: ReasonCode) -> Self {
        code.0.into_owned()
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Why a phase is what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// For programs: the same for every occurrence.
    pub code: ReasonCode,
    /// For people: what happened, this time.
    pub text: String,
}

impl Reason {
    /// A reason with a code and a text.
    pub fn new(code: ReasonCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// An error as a reason: its code stays the same.
impl From<&Problem> for Reason {
    fn from(problem: &Problem) -> Self {
        Self::new(problem.code().parse().unwrap_or(NOT_STARTED), problem.detail.clone())
    }
}

/// Without the code.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// A gossiped code; none if another version writes codes in a way that this one does not understand. The rest of the
/// member's state is shown all the same.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ReasonCode>, D::Error> {
    let code = serde_json::Value::deserialize(deserializer)?;
    Ok(code.as_str().and_then(|code| code.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::ErrorKind;

    #[test]
    fn a_code_is_short_and_in_kebab_case() {
        let longest = "a".repeat(ReasonCode::MAX_LEN);
        for code in ["a", "replica-behind", "http2-refused", longest.as_str()] {
            assert_eq!(code.parse::<ReasonCode>().unwrap().as_str(), code);
        }
        let too_long = format!("{longest}a");
        for text in ["", "-a", "2a", "Replica", "replica behind", "replica_behind", "ä", too_long.as_str()] {
            assert!(text.parse::<ReasonCode>().is_err(), "{text}");
        }
        assert_eq!("replica-behind".parse(), Ok(REPLICA_BEHIND));
    }

    #[test]
    fn an_error_keeps_its_code_as_a_reason() {
        let problem = Problem::new(ErrorKind::Invalid, "bad-settings", "no such key");
        assert_eq!(Reason::from(&problem), Reason::new(ReasonCode::new("bad-settings"), "no such key"));
        let strange = Problem { type_uri: "about:blank".to_owned(), ..problem };
        assert_eq!(Reason::from(&strange).code, NOT_STARTED);
    }
}
