//! What is answered when the data can't be had now.

use axum::body::Body;
use http::header::ETAG;
use http::{HeaderValue, Response};
use plugin::response;
use types::{ErrorKind, Problem};

use crate::change::Unmet;
use crate::conditions::etag;
use crate::consistency::Consistency;

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Wait: the data is being opened, or closed. Nothing was done.
    #[error("the data is not open: {0}")]
    NotOpen(String),
    /// Ask again: the shard has gone to another node. Nothing was done.
    #[error("the shard has gone to another node: {0}")]
    Passed(String),
    /// Wait: so many writes wait for the object store that no more are taken. Nothing was done.
    #[error("too much waits to be written to the object store{}", because(.0.as_ref()))]
    Full(Option<String>),
    /// Look before writing again: it may still become durable.
    #[error("the write is not durable yet and may still become so: {0}")]
    Unsettled(String),
    /// Ask again later.
    #[error("the data could not be read in time: {0}")]
    Unread(String),
    /// Look at what is there now: conditions did not hold, and nothing was changed.
    #[error("{}", unmet(.0))]
    Unmet(Vec<Unmet>),
    /// Stored bytes can't be understood.
    #[error("{0}")]
    Damaged(String),
    /// So much of what is stored can't be understood that nothing is served.
    #[error("what is stored is damaged: {0}")]
    Broken(String),
}

fn because(why: Option<&String>) -> String {
    why.map(|why| format!(": {why}")).unwrap_or_default()
}

/// Of one key; the answer to a batch names them all.
fn unmet(unmet: &[Unmet]) -> String {
    match unmet {
        [Unmet { version: Some(version), .. }] => {
            format!("the condition does not hold: the key has version {version}")
        }
        [Unmet { version: None, .. }] => "the condition does not hold: the key has no value".to_owned(),
        several => format!("{} conditions do not hold", several.len()),
    }
}

impl Refusal {
    pub(crate) fn problem(&self) -> Problem {
        let detail = self.to_string();
        let unavailable = |code| Problem::new(ErrorKind::Unavailable, code, detail.clone());
        match self {
            Self::NotOpen(_) => unavailable("not-open").hint("try again in a moment"),
            Self::Passed(_) => unavailable("not-the-owner").hint("ask again; GET /v1/claims shows the owner"),
            Self::Full(_) => unavailable("too-busy").hint("try again in a moment, or raise `write_queue`"),
            Self::Unsettled(_) => unavailable("not-durable-in-time")
                .hint("read the key to see whether it was written; writing the same again does no harm, but a condition may then meet what this write itself has done"),
            Self::Unread(_) => unavailable("not-read-in-time").hint("try again in a moment"),
            Self::Unmet(_) => Problem::new(ErrorKind::Changed, "precondition-failed", detail.clone())
                .hint("nothing was changed; read the key, then decide anew"),
            Self::Damaged(_) => Problem::new(ErrorKind::Internal, "unreadable-value", detail.clone())
                .hint("put the key again, or delete it; if that does not help, the object store has damaged files: restore them from a copy"),
            Self::Broken(_) => Problem::new(ErrorKind::Internal, "damaged-data", detail.clone())
                .hint("the object store has damaged files: restore them from a copy; they are looked at again within a minute"),
        }
    }

    /// The answer to a read. One that may be old is better asked of another copy than of damaged data.
    pub(crate) fn to_reader(&self, consistency: Consistency) -> Response<Body> {
        match (self, consistency) {
            (Self::Broken(_), Consistency::Any) => response::not_processed(&self.problem()),
            _ => self.to_response(),
        }
    }

    /// The answer.
    pub(crate) fn to_response(&self) -> Response<Body> {
        match self {
            Self::NotOpen(_) | Self::Passed(_) | Self::Full(_) => response::not_processed(&self.problem()),
            Self::Unmet(unmet) => {
                let mut answer = response::problem(&self.problem());
                // Of several keys none is *the* current one.
                if let [Unmet { version: Some(version), .. }] = unmet[..]
                    && let Ok(tag) = HeaderValue::from_str(&etag(version))
                {
                    answer.headers_mut().insert(ETAG, tag);
                }
                answer
            }
            Self::Unsettled(_) | Self::Unread(_) | Self::Damaged(_) | Self::Broken(_) => {
                response::problem(&self.problem())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use types::api;

    use super::*;

    #[test]
    fn each_refusal_has_its_status_and_only_what_was_not_touched_says_so() {
        let why = || "why".to_owned();
        for (refusal, status, is_untouched) in [
            (Refusal::NotOpen(why()), 503, true),
            (Refusal::Passed(why()), 503, true),
            (Refusal::Full(None), 503, true),
            (Refusal::Unsettled(why()), 503, false),
            (Refusal::Unread(why()), 503, false),
            (Refusal::Unmet(vec![Unmet { index: 0, version: Some(7) }]), 412, false),
            (Refusal::Damaged(why()), 500, false),
            (Refusal::Broken(why()), 500, false),
        ] {
            let answer = refusal.to_response();
            assert_eq!(answer.status(), status, "{refusal}");
            assert_eq!(answer.headers().contains_key(api::NOT_PROCESSED), is_untouched, "{refusal}");
            let is_verdict = matches!(refusal, Refusal::Unmet(_));
            assert_eq!(answer.headers().get(ETAG).is_some_and(|tag| tag == "\"7\""), is_verdict, "{refusal}");
            assert!(refusal.problem().hint.is_some(), "{refusal}");
        }
        let broken = Refusal::Broken(why());
        for (consistency, goes_elsewhere) in [(Consistency::Any, true), (Consistency::Strong, false)] {
            let answer = broken.to_reader(consistency);
            assert_eq!(answer.status(), 500);
            assert_eq!(answer.headers().contains_key(api::NOT_PROCESSED), goes_elsewhere);
        }
    }
}
