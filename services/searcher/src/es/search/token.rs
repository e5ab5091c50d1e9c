//! The ids of scrolls and points in time, which hold all that is known of them. Pure.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::es::error::EsError;

/// The longest id that is read.
const MAX_TOKEN: usize = 2 << 20;

/// What the id of a scroll or of a point in time holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum Token {
    Scroll {
        indexes: Vec<Uuid>,
        /// The members of the search, as JSON text.
        request: String,
        now: i64,
        /// The place of the last hit in the order, as JSON text.
        after: Option<String>,
    },
    PointInTime {
        indexes: Vec<Uuid>,
    },
}

impl Token {
    pub(super) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("texts and numbers are JSON"))
    }

    /// Reads an id. Nothing in it is trusted.
    pub(super) fn decode(text: &str) -> Result<Self, EsError> {
        let missing =
            || EsError::new(404, "search_context_missing_exception", "no search context found for this id");
        if text.len() > MAX_TOKEN {
            return Err(missing());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| missing())?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| missing())?;
        let (Self::Scroll { indexes, .. } | Self::PointInTime { indexes }) = &token;
        let distinct: BTreeSet<_> = indexes.iter().collect();
        let is_list = |text: &String| serde_json::from_str::<Vec<IgnoredAny>>(text).is_ok();
        let has_place = match &token {
            Self::Scroll { after, .. } => after.as_ref().is_none_or(is_list),
            Self::PointInTime { .. } => true,
        };
        if has_place && distinct.len() == indexes.len() { Ok(token) } else { Err(missing()) }
    }
}

/// Whether a text is a duration such as `1m`, which a scroll or a point in time is kept alive for.
pub(super) fn keep_alive(text: &str) -> Result<(), EsError> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0);
    match unit.map(|at| &text[at..]) {
        Some("nanos" | "micros" | "ms" | "s" | "m" | "h" | "d") => Ok(()),
        _ => Err(EsError::illegal(format!(
            "failed to parse [{text}] as a time value: give a number with ms, s, m, h or d"
        ))),
    }
}
