//! The operations in a shard's log. A record of the log has the operations of one request, or of several that were made
//! durable together: lines of JSON, compressed with zstd.
//!
//! ```text
//! {"first":17}
//! {"index":"0192…","id":"nginx","version":1,"source":{"title":"nginx"}}
//! {"index":"0192…","id":"apache2"}
//! ```

use std::io::{self, Read};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

/// The longest source of a document, in bytes. Even if it can't be compressed, its record is below [`store::MAX_RECORD`].
pub(crate) const MAX_SOURCE: usize = 15 * 1024 * 1024;
/// A record has several operations only if they have at most this many bytes before they are compressed.
const FULL: usize = 8 * 1024 * 1024;
/// The longest record after it is decompressed, in bytes. A longer one is damaged.
const MAX_DECOMPRESSED: u64 = 64 * 1024 * 1024;
/// The fastest level: the log is read once at most.
const LEVEL: i32 = 1;

/// What is done to one id of an index. Only whole documents: updates are resolved before they are logged.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    /// The id of the index; its name may be given to another index later.
    pub(crate) index: Uuid,
    pub(crate) id: Arc<str>,
    /// How often the id was written since it last had no document, including this one.
    pub(crate) version: u64,
    /// The document, or `None` if it is deleted.
    pub(crate) source: Option<Arc<RawValue>>,
}

/// The first operation's sequence number in the shard, and the operations in order.
#[derive(Debug, Clone)]
pub(crate) struct Operations {
    pub(crate) first: u64,
    pub(crate) operations: Vec<Operation>,
}

/// A record can't be understood: it is damaged, or was written by a newer version.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("it can't be decompressed: {0}")]
    Zstd(#[from] io::Error),
    #[error("it has more than {MAX_DECOMPRESSED} bytes when it is decompressed")]
    TooLong,
    #[error("line {line} is no operation: {cause}")]
    Line { line: usize, cause: String },
}

/// The first line of a record.
#[derive(Serialize, Deserialize)]
struct FirstLine {
    first: u64,
}

/// A line of a record.
#[derive(Serialize, Deserialize)]
struct Line<S> {
    index: Uuid,
    id: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    version: u64,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    source: Option<S>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(version: &u64) -> bool {
    *version == 0
}

fn none<S>() -> Option<S> {
    None
}

impl Operation {
    /// About how many bytes it needs, in memory and in a record.
    pub(crate) fn size(&self) -> usize {
        let fixed = 128;
        fixed + self.id.len() + self.source.as_ref().map_or(0, |source| source.get().len())
    }
}

impl Operations {
    /// Splits operations into records, so that each is short enough for the log.
    pub(crate) fn split(first: u64, operations: Vec<Operation>) -> Vec<Self> {
        let mut records = Vec::new();
        let (mut next, mut bytes) = (Self { first, operations: Vec::new() }, 0);
        for operation in operations {
            let size = operation.size();
            if bytes + size > FULL && !next.operations.is_empty() {
                let after = Self { first: next.end(), operations: Vec::new() };
                records.push(std::mem::replace(&mut next, after));
                bytes = 0;
            }
            bytes += size;
            next.operations.push(operation);
        }
        if !next.operations.is_empty() {
            records.push(next);
        }
        records
    }

    /// The number of the operation after the last one.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::try_from(self.operations.len()).unwrap_or(u64::MAX)
    }

    /// As a record of the log.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let size = self.operations.iter().map(Operation::size).sum();
        let mut lines = Vec::with_capacity(size);
        push_line(&mut lines, &FirstLine { first: self.first });
        for Operation { index, id, version, source } in &self.operations {
            let (id, source) = (id.to_string(), source.as_deref());
            push_line(&mut lines, &Line { index: *index, id, version: *version, source });
        }
        zstd::bulk::compress(&lines, LEVEL).expect("compression in memory does not fail")
    }

    /// Reads a record of the log.
    pub(crate) fn decode(record: &[u8]) -> Result<Self, RecordError> {
        let mut text = Vec::new();
        let mut decoder = zstd::Decoder::new(record)?.take(MAX_DECOMPRESSED + 1);
        decoder.read_to_end(&mut text)?;
        if u64::try_from(text.len()).is_ok_and(|len| len > MAX_DECOMPRESSED) {
            return Err(RecordError::TooLong);
        }
        let cut = || RecordError::Line {
            line: text.split(|byte| *byte == b'\n').count(),
            cause: "it is cut off".to_owned(),
        };
        let lines = text.strip_suffix(b"\n").ok_or_else(cut)?;
        let mut lines = lines.split(|byte| *byte == b'\n').enumerate();
        let (_, first) = lines.next().ok_or_else(cut)?;
        let FirstLine { first } = parse(0, first)?;
        let mut operations = Vec::new();
        for (at, line) in lines {
            let Line { index, id, version, source } = parse::<Line<Box<RawValue>>>(at, line)?;
            operations.push(Operation { index, id: id.into(), version, source: source.map(Arc::from) });
        }
        Ok(Self { first, operations })
    }
}

/// A document in one line: line breaks in valid JSON are outside of its texts, and mean nothing.
pub(crate) fn in_one_line(source: Box<RawValue>) -> Arc<RawValue> {
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !source.get().as_bytes().iter().any(is_break) {
        return Arc::from(source);
    }
    let line = source.get().replace(['\n', '\r'], " ");
    Arc::from(RawValue::from_string(line).expect("it was JSON, and white space stays white space"))
}

fn push_line(lines: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *lines, line).expect("numbers, texts and JSON are always JSON");
    lines.push(b'\n');
}

fn parse<'a, T: Deserialize<'a>>(at: usize, line: &'a [u8]) -> Result<T, RecordError> {
    serde_json::from_slice(line).map_err(|error| RecordError::Line { line: at + 1, cause: error.to_string() })
}

#[cfg(test)]
mod tests;
