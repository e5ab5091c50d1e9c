//! Parameters in the query of a request. Pure.

use http::HeaderMap;
use plugin::http::query::{QueryError, flag, parameters};
use plugin::http::{conditions, invalid};
use plugin::{axum::response::Response, shard};

use crate::shard::{Condition, Refresh};

/// The parameters of a write of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WriteParameters {
    pub(crate) refresh: Refresh,
    pub(crate) condition: Option<Condition>,
    /// Whether a patch becomes the document if there is none.
    pub(crate) upsert: bool,
}

impl WriteParameters {
    /// Parses a query whose parameters must be among these; the names beside the condition's and `refresh` are `more`.
    pub(crate) fn parse(query: &str, may_upsert: bool) -> Result<Self, QueryError> {
        let known = ["if_seq_no", "if_primary_term", "refresh", "upsert"];
        let known = if may_upsert { &known[..] } else { &known[..3] };
        let (mut parsed, mut seq, mut term) = (Self::default(), None, None);
        for (name, text) in parameters(query, known)? {
            match name {
                "if_seq_no" => seq = Some(number(name, text)?),
                "if_primary_term" => term = Some(number(name, text)?),
                "refresh" => parsed.refresh = refresh(text)?,
                _ => parsed.upsert = flag(name, text)?,
            }
        }
        parsed.condition = match (seq, term) {
            (Some(seq), Some(term)) => Some(Condition::Is { seq, term }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                let error = QueryError::new("`if_seq_no` and `if_primary_term` belong together");
                return Err(error.hint("send both, as an answer showed them in `seq` and `term`"));
            }
        };
        Ok(parsed)
    }

    /// The same, with the condition in the headers of the request.
    pub(crate) fn of(query: &str, headers: &HeaderMap, may_upsert: bool) -> Result<Self, Response> {
        let mut parsed = Self::parse(query, may_upsert).map_err(|error| error.to_response())?;
        let hint =
            "send one of `If-None-Match: *`, `If-Match: \"17\"`, and `if_seq_no` with `if_primary_term`";
        let in_headers = match conditions::of_write(headers)? {
            None => return Ok(parsed),
            Some(shard::Condition::Absent) => Condition::Absent,
            Some(shard::Condition::Version(seq)) => Condition::Unchanged { seq },
            Some(shard::Condition::Present) => {
                let detail = "`If-Match: *` of a document is not supported";
                return Err(invalid("bad-condition", detail, hint));
            }
        };
        if parsed.condition.is_some() {
            let detail = "a write has one condition, and this one has several";
            return Err(invalid("bad-condition", detail, hint));
        }
        parsed.condition = Some(in_headers);
        Ok(parsed)
    }
}

/// Reads a whole number.
pub(crate) fn number(name: &str, text: &str) -> Result<u64, QueryError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| QueryError::new(format!("`{name}` is a whole number, not `{text}`")))
}

/// Reads when a write is answered.
pub(crate) fn refresh(text: &str) -> Result<Refresh, QueryError> {
    match text {
        "true" => Ok(Refresh::Now),
        "wait" => Ok(Refresh::Wait),
        "false" => Ok(Refresh::Durable),
        _ => Err(QueryError::new(format!("`refresh` is `true`, `wait` or `false`, not `{text}`"))),
    }
}

/// The text of it, as [`refresh`] reads it.
pub(crate) fn refresh_text(refresh: Refresh) -> &'static str {
    match refresh {
        Refresh::Now => "true",
        Refresh::Wait => "wait",
        Refresh::Durable => "false",
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_write_takes_one_condition_and_a_refresh() {
        let parse = |query| WriteParameters::parse(query, false);
        assert_eq!(parse(""), Ok(WriteParameters::default()));
        let found = parse("if_primary_term=2&refresh=wait&if_seq_no=17").unwrap();
        assert_eq!(
            (found.condition, found.refresh),
            (Some(Condition::Is { seq: 17, term: 2 }), Refresh::Wait)
        );
        for refresh in [Refresh::Now, Refresh::Wait, Refresh::Durable] {
            assert_eq!(super::refresh(refresh_text(refresh)), Ok(refresh));
        }
        for (query, message) in [
            ("if_seq_no=17", "belong together"),
            ("if_primary_term=17", "belong together"),
            ("if_seq_no=-1&if_primary_term=1", "`if_seq_no` is a whole number"),
            ("if_seq_no=18446744073709551616&if_primary_term=1", "whole number"),
            ("refresh=wait_for", "`refresh` is"),
            ("refresh=true&refresh=true", "given twice"),
            ("upsert=true", "no parameter `upsert`"),
            ("refesh=true", "no parameter `refesh`"),
        ] {
            let error = parse(query).unwrap_err();
            assert!(error.to_string().contains(message), "{query}: {error}");
        }
        assert_eq!(parse("refesh=true").unwrap_err().hint.as_deref(), Some("did you mean `refresh`?"));
        assert!(WriteParameters::parse("upsert=true", true).unwrap().upsert);
    }

    #[test]
    fn conditions_in_headers_are_taken_and_two_conditions_refused() {
        let of = |query: &str, headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
            let parsed = WriteParameters::of(query, &headers.collect(), false);
            parsed.map(|parsed| parsed.condition).map_err(|refusal| refusal.status().as_u16())
        };
        let both = "if_seq_no=1&if_primary_term=1";
        assert_eq!(of("", &[]), Ok(None));
        assert_eq!(of("", &[("if-none-match", "*")]), Ok(Some(Condition::Absent)));
        assert_eq!(of("", &[("if-match", "\"17\"")]), Ok(Some(Condition::Unchanged { seq: 17 })));
        assert_eq!(of("", &[("if-match", "*")]), Err(400));
        assert_eq!(of("", &[("if-match", "\"17.1\"")]), Err(400));
        assert_eq!(of(both, &[("if-none-match", "*")]), Err(400));
    }
}
