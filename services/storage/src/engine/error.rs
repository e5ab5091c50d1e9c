//! Why the engine did not do what was requested. Independent of HTTP.

use plugin::Health;
use plugin::shard::NotOpen;
use types::ReasonCode;
use types::reason::{CLAIM_PASSED, DAMAGED_DATA};

use crate::data::change::Unmet;

/// The data is being opened, or is closed permanently.
const DATA_NOT_OPEN: ReasonCode = ReasonCode::new("data-not-open");

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// Wait: the data is being opened or closed. Nothing was done.
    #[error("the data is not open: {0}")]
    NotOpen(String),
    /// Ask again: another node owns the shard now. Nothing was done.
    #[error("the shard has gone to another node: {0}")]
    Passed(String),
    /// Wait: the queue of writes is full. Nothing was done.
    #[error("too much waits to be written to the object store{}", because(.0.as_ref()))]
    Full(Option<String>),
    /// Read the key before writing again: the write may still become durable.
    #[error("the write is not durable yet and may still become so: {0}")]
    Unsettled(String),
    /// Try again later.
    #[error("the data could not be read in time: {0}")]
    Unread(String),
    /// Read the keys again: conditions did not hold, and nothing was changed.
    #[error("{}", unmet(.0))]
    Unmet(Vec<Unmet>),
    /// Put the key again, or restore the data: stored bytes can't be decoded.
    #[error("{0}")]
    Damaged(String),
    /// Restore the data: so much of it is damaged that nothing is served.
    #[error("what is stored is damaged: {0}")]
    Broken(String),
}

impl EngineError {
    /// The health of a shard whose data is not open.
    pub(crate) fn to_health(&self) -> Health {
        let code = match self {
            Self::Passed(_) => CLAIM_PASSED,
            Self::Damaged(_) | Self::Broken(_) => DAMAGED_DATA,
            Self::NotOpen(_) | Self::Full(_) | Self::Unsettled(_) | Self::Unread(_) | Self::Unmet(_) => {
                DATA_NOT_OPEN
            }
        };
        Health::degraded(code, self.to_string())
    }
}

fn because(why: Option<&String>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

/// Words for one condition; the answer to a batch lists them all.
fn unmet(unmet: &[Unmet]) -> String {
    match unmet {
        [Unmet { version: Some(version), .. }] => {
            format!("the condition does not hold: the key has version {version}")
        }
        [Unmet { version: None, .. }] => "the condition does not hold: the key has no value".to_owned(),
        several => format!("{} conditions do not hold", several.len()),
    }
}

impl From<NotOpen> for EngineError {
    fn from(why: NotOpen) -> Self {
        match why {
            NotOpen::Opening(_) | NotOpen::Ended => Self::NotOpen(why.to_string()),
            NotOpen::Damaged(what) => Self::Broken(what),
            NotOpen::Passed(why) => Self::Passed(why),
        }
    }
}
