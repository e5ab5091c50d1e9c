//! The head of an answer that is forwarded to the client.

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{StatusCode, Version, response};
use types::{Epoch, api};

use super::names::{elements, is_plainly_chunked};
use super::strip::{Source, strip_answer};

const EPOCH: HeaderName = HeaderName::from_static(api::EPOCH);
const NOT_PROCESSED: HeaderName = HeaderName::from_static(api::NOT_PROCESSED);

/// Why an answer can't be forwarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The server must send the body without a transfer coding, or with `Transfer-Encoding: chunked` alone.
    #[error("its body has the transfer coding `{0}`, and only `chunked` is decoded")]
    TransferCoding(String),
    /// The server must send one length.
    #[error("it states two lengths of its body: `{0}`")]
    Lengths(String),
}

/// Checks and rewrites the head of an answer so that it can be forwarded.
pub(crate) fn answer(head: &mut response::Parts, source: Source) -> Result<(), AnswerError> {
    if is_plainly_chunked(&head.headers).map_err(AnswerError::TransferCoding)? {
        // The coding frames the body, so the length is wrong or an attack (RFC 9112, section 6.3).
        head.headers.remove(CONTENT_LENGTH);
        head.headers.remove(TRANSFER_ENCODING);
    } else {
        one_length(&mut head.headers)?;
    }
    strip_answer(&mut head.headers, source);
    head.version = Version::HTTP_11;
    Ok(())
}

/// Reduces repeated equal lengths to one: `6, 6` is `6` (RFC 9110, section 8.6).
fn one_length(headers: &mut HeaderMap) -> Result<(), AnswerError> {
    let is_plain = {
        let mut values = headers.get_all(CONTENT_LENGTH).iter();
        let is_number = |value: &HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
        values.next().is_none_or(is_number) && values.next().is_none()
    };
    if is_plain {
        return Ok(());
    }
    let mut lengths: Vec<u64> = elements(headers, &CONTENT_LENGTH)
        .map(|length| length.parse().ok())
        .collect::<Option<_>>()
        .unwrap_or_default();
    lengths.dedup();
    let [length] = lengths[..] else {
        let lengths: Vec<_> = elements(headers, &CONTENT_LENGTH).collect();
        return Err(AnswerError::Lengths(lengths.join(", ")));
    };
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(())
}

/// Whether the answer states that the request was not acted on.
pub(crate) fn is_not_processed<B>(response: &http::Response<B>) -> bool {
    matches!(response.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::MISDIRECTED_REQUEST)
        && response.headers().contains_key(NOT_PROCESSED)
}

/// The epoch of a shard's owner, from the answer of a node that does not own it.
pub(crate) fn owner_epoch(headers: &HeaderMap) -> Option<Epoch> {
    headers.get(EPOCH)?.to_str().ok()?.parse().ok().map(Epoch)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{headers, lines};
    use super::*;

    fn passed(before: &[&str], source: Source) -> Result<Vec<String>, AnswerError> {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.headers = headers(before);
        answer(&mut head, source)?;
        Ok(lines(&head.headers))
    }

    #[test]
    fn an_answer_with_ambiguous_framing_is_repaired_or_refused() {
        for (before, after) in [
            (&["content-length: 3"][..], Some(&["content-length: 3"][..])),
            (&["transfer-encoding: chunked"], Some(&[])),
            (&["content-length: 3", "transfer-encoding: Chunked"], Some(&[])),
            (&["content-length: 6, 6"], Some(&["content-length: 6"])),
            (&["content-length: 6", "content-length: 6"], Some(&["content-length: 6"])),
            (&["content-length: 6, 7"], None),
            (&["content-length: 6, x"], None),
            (&["transfer-encoding: gzip, chunked"], None),
            (&["transfer-encoding: chunked, chunked"], None),
            (&["transfer-encoding: chunked", "transfer-encoding: chunked"], None),
            (&["transfer-encoding: xchunked"], None),
            (&["transfer-encoding: identity"], None),
        ] {
            let passed = passed(before, Source::Untrusted).ok();
            let after = after.map(|lines| lines.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(passed, after, "{before:?}");
        }
    }

    #[test]
    fn only_a_node_of_the_cluster_may_send_coterie_headers() {
        let said =
            ["connection: set-cookie", "coterie-not-processed: 1", "coterie_epoch: 4", "set-cookie: a=b"];
        assert_eq!(passed(&said, Source::Untrusted).unwrap(), ["set-cookie: a=b"]);
        assert_eq!(
            passed(&said, Source::Trusted).unwrap(),
            ["coterie-not-processed: 1", "set-cookie: a=b"],
            "an alias is always removed"
        );
    }
}
