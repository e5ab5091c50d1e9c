//! The engine's errors as answers.

use axum::response::Response;
use plugin::http::conditions::set_etag;
use plugin::http::{BodyError, not_processed, problem};
use plugin::shard::ReadLevel;
use types::{ErrorKind, Problem};

use crate::engine::{Engine, EngineError};

impl EngineError {
    /// As problem details.
    pub(crate) fn problem(&self) -> Problem {
        let detail = self.to_string();
        let unavailable = |code| Problem::new(ErrorKind::Unavailable, code, detail.clone());
        match self {
            Self::NotOpen(_) => unavailable("not-open").hint("try again in a moment"),
            Self::Passed(_) => unavailable("not-the-owner").hint("ask again; GET /v1/claims shows the owner"),
            Self::Full(_) => unavailable("too-busy").hint("try again in a moment, or raise `write_queue`"),
            Self::Unsettled(_) => unavailable("not-durable-in-time")
                .hint("read the key to see whether it was written; repeating the write does no harm, but its condition may then fail because of the first write"),
            Self::Unread(_) => unavailable("not-read-in-time").hint("try again in a moment"),
            Self::Unmet(_) => Problem::new(ErrorKind::Changed, "precondition-failed", detail.clone())
                .hint("nothing was changed; read the key, then decide again"),
            Self::Damaged(_) => Problem::new(ErrorKind::Internal, "unreadable-value", detail.clone())
                .hint("put the key again, or delete it; if that does not help, the object store has damaged files: restore them from a copy"),
            Self::Broken(_) => Problem::new(ErrorKind::Internal, "damaged-data", detail.clone())
                .hint("the object store has damaged files: restore them from a copy; they are looked at again within a minute"),
        }
    }

    /// The answer to a read. If it accepts stale data, a replica answers it better than damaged data does.
    pub(crate) fn to_reader(&self, level: ReadLevel) -> Response {
        match (self, level) {
            (Self::Broken(_), ReadLevel::Any) => not_processed(&self.problem()),
            _ => self.to_response(),
        }
    }

    /// The answer.
    pub(crate) fn to_response(&self) -> Response {
        match self {
            Self::NotOpen(_) | Self::Passed(_) | Self::Full(_) => not_processed(&self.problem()),
            Self::Unmet(unmet) => {
                let mut answer = problem(&self.problem());
                // With several keys, none of their versions is *the* current one.
                if let [only] = &unmet[..]
                    && let Some(version) = only.version
                {
                    set_etag(answer.headers_mut(), version);
                }
                answer
            }
            Self::Unsettled(_) | Self::Unread(_) | Self::Damaged(_) | Self::Broken(_) => {
                problem(&self.problem())
            }
        }
    }
}

/// The answer to a body that can't be read.
pub(crate) fn bad_body(engine: &Engine, error: &BodyError) -> Response {
    match error {
        // The engine knows why the queue is full.
        BodyError::Full(_) => engine.full().to_response(),
        BodyError::TooLarge { .. } => {
            let refusal = Problem::new(ErrorKind::TooLarge, "value-too-large", error.to_string());
            problem(&refusal.hint("cut it into several keys, or send fewer lines or operations at once"))
        }
        _ => error.to_response(),
    }
}

#[cfg(test)]
mod tests {
    use http::header::ETAG;
    use types::api;

    use super::*;
    use crate::data::change::Unmet;

    #[test]
    fn each_error_has_its_status_and_only_untouched_requests_are_marked_as_not_processed() {
        let why = || "why".to_owned();
        for (error, status, is_untouched) in [
            (EngineError::NotOpen(why()), 503, true),
            (EngineError::Passed(why()), 503, true),
            (EngineError::Full(None), 503, true),
            (EngineError::Unsettled(why()), 503, false),
            (EngineError::Unread(why()), 503, false),
            (EngineError::Unmet(vec![Unmet { index: 0, version: Some(7) }]), 412, false),
            (EngineError::Damaged(why()), 500, false),
            (EngineError::Broken(why()), 500, false),
        ] {
            let answer = error.to_response();
            assert_eq!(answer.status(), status, "{error}");
            assert_eq!(answer.headers().contains_key(api::NOT_PROCESSED), is_untouched, "{error}");
            let is_unmet = matches!(error, EngineError::Unmet(_));
            assert_eq!(answer.headers().get(ETAG).is_some_and(|tag| tag == "\"7\""), is_unmet, "{error}");
            assert!(error.problem().hint.is_some(), "{error}");
        }
        let broken = EngineError::Broken(why());
        for (level, goes_elsewhere) in [(ReadLevel::Any, true), (ReadLevel::Strong, false)] {
            let answer = broken.to_reader(level);
            assert_eq!(answer.status(), 500);
            assert_eq!(answer.headers().contains_key(api::NOT_PROCESSED), goes_elsewhere);
        }
    }
}
