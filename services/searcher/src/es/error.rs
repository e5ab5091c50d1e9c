//! Errors in Elasticsearch's form.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::catalog::NameError;
use crate::http::{Reason, Refusal, RefusalKind};

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EsError {
    pub(crate) status: u16,
    kind: Cow<'static, str>,
    reason: String,
    /// More members of the error, such as `index`.
    more: Map<String, Value>,
    /// Whether nothing was done and another member may do it.
    pub(crate) is_untouched: bool,
}

impl EsError {
    pub(crate) fn new(status: u16, kind: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        Self { status, kind: kind.into(), reason: reason.into(), more: Map::new(), is_untouched: false }
    }

    /// The request must be changed.
    pub(crate) fn illegal(reason: impl Into<String>) -> Self {
        Self::new(400, "illegal_argument_exception", reason)
    }

    /// The body can't be parsed.
    pub(crate) fn parsing(reason: impl Into<String>) -> Self {
        Self::new(400, "parsing_exception", reason)
    }

    /// The request lacks something.
    pub(crate) fn invalid(problems: &[String]) -> Self {
        let numbered = problems.iter().enumerate().map(|(at, problem)| format!(" {}: {problem};", at + 1));
        let reason = format!("Validation Failed:{}", numbered.collect::<String>());
        Self::new(400, "action_request_validation_exception", reason)
    }

    /// This is a part of Elasticsearch's API that is not supported.
    pub(crate) fn unsupported(what: &str) -> Self {
        Self::illegal(format!("[{what}] is not supported"))
    }

    pub(crate) fn no_such_index(name: &str) -> Self {
        Self::new(404, "index_not_found_exception", format!("no such index [{name}]")).of_index(name)
    }

    pub(crate) fn bad_name(name: &str, error: &NameError) -> Self {
        let reason = format!("Invalid index name [{name}], {error}");
        Self::new(400, "invalid_index_name_exception", reason).of_index(name)
    }

    #[must_use]
    pub(crate) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Adds which index it is about.
    #[must_use]
    pub(crate) fn of_index(mut self, name: &str) -> Self {
        self.more.insert("index".to_owned(), json!(name));
        self
    }

    /// Adds the line that it is about.
    #[must_use]
    pub(crate) fn at_line(self, number: usize) -> Self {
        Self { reason: format!("line [{number}]: {}", self.reason), ..self }
    }

    /// The error of one item or document.
    pub(crate) fn cause(&self) -> Value {
        let mut cause = self.more.clone();
        cause.insert("type".to_owned(), json!(self.kind));
        cause.insert("reason".to_owned(), json!(self.reason));
        Value::Object(cause)
    }

    /// The whole answer.
    pub(crate) fn to_json(&self) -> Value {
        let mut error = self.cause();
        error["root_cause"] = json!([self.cause()]);
        json!({ "error": error, "status": self.status })
    }
}

impl From<Refusal> for EsError {
    fn from(refusal: Refusal) -> Self {
        let is_untouched = refusal.kind == RefusalKind::Elsewhere;
        let hint = refusal.problem.hint.clone().map(|hint| format!("; {hint}")).unwrap_or_default();
        let Reason { status, code, detail } = Reason::of(&refusal.problem);
        Self { is_untouched, ..Self::new(status, kind(&code, status), format!("{detail}{hint}")) }
    }
}

impl From<&Reason> for EsError {
    fn from(reason: &Reason) -> Self {
        let Reason { status, code, detail } = reason;
        Self::new(*status, kind(code, *status), detail.clone())
    }
}

/// Elasticsearch's name for an error.
fn kind(code: &str, status: u16) -> &'static str {
    match code {
        "no-such-index" => "index_not_found_exception",
        "index-exists" => "resource_already_exists_exception",
        "bad-index-name" => "invalid_index_name_exception",
        "bad-document" | "document-too-large" => "document_parsing_exception",
        "no-such-document" => "document_missing_exception",
        "no-such-alias" => "aliases_not_found_exception",
        "name-taken" | "bad-alias-name" => "invalid_alias_name_exception",
        "version-conflict" => "version_conflict_engine_exception",
        "bad-search" => "search_phase_execution_exception",
        _ => match status {
            413 => "content_too_long_exception",
            429 => "es_rejected_execution_exception",
            503 => "unavailable_shards_exception",
            504 => "timeout_exception",
            507 => "cluster_block_exception",
            400..500 => "illegal_argument_exception",
            _ => "exception",
        },
    }
}

#[cfg(test)]
mod tests {
    use types::{ErrorKind, Problem};

    use super::*;

    #[test]
    fn an_error_names_its_type_its_reason_and_its_status() {
        let error = EsError::no_such_index("a").to_json();
        let cause = json!({"type": "index_not_found_exception", "reason": "no such index [a]", "index": "a"});
        assert_eq!(error["error"]["root_cause"], json!([cause]));
        assert_eq!((&error["status"], &error["error"]["type"]), (&json!(404), &cause["type"]));
        let invalid = EsError::invalid(&["index is missing".to_owned(), "id is missing".to_owned()]);
        assert_eq!(invalid.cause()["reason"], "Validation Failed: 1: index is missing; 2: id is missing;");
    }

    #[test]
    fn refusals_keep_their_status_and_get_elasticsearchs_types() {
        for (problem_kind, code, status, kind) in [
            (ErrorKind::TooManyRequests, "too-far-behind", 429, "es_rejected_execution_exception"),
            (ErrorKind::Unavailable, "shard-missing", 503, "unavailable_shards_exception"),
            (ErrorKind::TooLarge, "body-too-large", 413, "content_too_long_exception"),
            (ErrorKind::Invalid, "bad-document", 400, "document_parsing_exception"),
            (ErrorKind::Conflict, "version-conflict", 409, "version_conflict_engine_exception"),
            (ErrorKind::Internal, "damaged-data", 500, "exception"),
        ] {
            let problem = Problem::new(problem_kind, code, "why").hint("do this");
            let error = EsError::from(Refusal::plain(problem.clone()));
            assert_eq!((error.status, &*error.kind), (status, kind));
            assert_eq!(error.reason, "why; do this");
            assert!(!error.is_untouched && EsError::from(Refusal::elsewhere(problem)).is_untouched);
        }
    }
}
