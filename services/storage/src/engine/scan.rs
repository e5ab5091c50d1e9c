//! Lists one page of a shard's database.

use std::ops::Range;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use plugin::http::query::percent_encode;
use slatedb::DbReadOps;
use slatedb::config::{DurabilityLevel, ScanOptions};
use tokio::time::Instant;

use crate::data::page::{Listed, Page};
use crate::data::record::{Record, RecordError};
use crate::engine::EngineError;
use plugin::shard::{Listed as _, ScanRange};

/// Larger values are returned as text only if base64 is not shorter.
const LARGE: usize = 1024 * 1024;
/// How long a listing reads before it returns what it has.
const TIME: Duration = Duration::from_secs(3);

/// A page of the database. Of values that are not listed, which may be large, only one is held at a time.
pub(crate) async fn page(
    db: &(impl DbReadOps + Sync),
    keys: Range<Bytes>,
    range: &ScanRange,
) -> Result<Result<Page, EngineError>, slatedb::Error> {
    let options = ScanOptions {
        durability_filter: DurabilityLevel::Remote,
        read_ahead_bytes: 256 * 1024,
        max_fetch_tasks: 2,
        ..ScanOptions::default()
    };
    let enough = Instant::now() + TIME;
    let mut found = db.scan_with_options(keys, &options).await?;
    let (mut listed, mut bytes) = (Vec::<Listed>::new(), 0);
    while let Some(row) = found.next().await? {
        // The first key is always returned, so that the next request makes progress.
        if let Some(last) = listed.last()
            && (listed.len() >= range.limit || bytes > range.bytes || Instant::now() > enough)
        {
            let next = Some(last.key.clone());
            return Ok(Ok(Page { keys: listed, next }));
        }
        let key = percent_encode(&row.key[1..]);
        match entry(key.clone(), row.seq, &row.value, range.values) {
            Ok(entry) => {
                bytes += entry.size();
                listed.push(entry);
            }
            Err(error) => return Ok(Err(EngineError::Damaged(format!("{key}: {error}")))),
        }
    }
    Ok(Ok(Page { keys: listed, next: None }))
}

fn entry(key: String, version: u64, stored: &Bytes, with_value: bool) -> Result<Listed, RecordError> {
    let record = if with_value { Record::decode(stored)? } else { Record::skim(stored)? };
    let content_type = String::from_utf8_lossy(&record.content_type()).into_owned();
    let size = u64::try_from(record.value().len()).unwrap_or(u64::MAX);
    let text = text(record.value()).filter(|_| with_value).map(str::to_owned);
    let value_base64 = (with_value && text.is_none()).then(|| STANDARD.encode(record.value()));
    let expires_ms = record.expires_ms().map(Into::into);
    Ok(Listed { key, size, version, content_type, expires_ms, value: text, value_base64 })
}

/// The value as text, if JSON can show it without making it much longer; a large value only if base64 would not be
/// shorter.
pub(crate) fn text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let takes_two = |byte: &&u8| matches!(byte, b'"' | b'\\' | b'\n' | b'\r' | b'\t');
    if value.len() > LARGE && value.iter().filter(takes_two).count() > value.len() / 3 {
        return None;
    }
    let is_plain = |byte: u8| byte >= b' ' || matches!(byte, b'\n' | b'\r' | b'\t');
    text.bytes().all(is_plain).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_as_text_if_it_is_text() {
        assert_eq!(text("a\"ü\n\t\\".as_bytes()), Some("a\"ü\n\t\\"));
        assert_eq!(text(b""), Some(""));
        assert_eq!(text(b"a\0"), None);
        assert_eq!(text(&[0xff]), None);
        let lines = "a\n".repeat(LARGE);
        assert_eq!(text(lines.as_bytes()), None, "base64 is shorter");
        assert_eq!(text(&lines.as_bytes()[..LARGE]), Some(&lines[..LARGE]));
        assert!(text("a line\n".repeat(LARGE).as_bytes()).is_some());
    }
}
