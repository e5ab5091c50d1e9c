//! The file of a segment's vectors.
//!
//! For each field: a bit for each document, in words of 64 bits, and the vectors of those whose bit is set, in the order of the
//! documents. Then a directory in JSON, its length, and a mark. All numbers are little-endian, vectors are 32-bit floats.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use tantivy::directory::error::OpenReadError;
use tantivy::directory::{OwnedBytes, TerminatingWrite, WritePtr};
use tantivy::index::Segment;
use tantivy::{DocId, SegmentReader, TantivyError};

use super::{component, damaged};
use crate::definition::MAX_DIMS;

/// The end of each file.
const MARK: [u8; 4] = *b"VEC1";
/// The bytes of a number.
pub(super) const NUMBER: usize = 4;
/// The documents whose bits are in a word.
const WORD: usize = 64;

/// What is in a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    /// How many documents the segment has.
    docs: u32,
    fields: BTreeMap<String, Part>,
}

/// Where the vectors of a field are.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    dims: u16,
    /// How many documents have a vector.
    count: u32,
    /// Where the bits begin. The vectors follow them.
    offset: u64,
}

/// The vectors of a segment. The file is mapped into memory, not read.
pub(crate) struct VectorFile {
    bytes: OwnedBytes,
    contents: Contents,
}

/// The vectors of one field of a segment.
#[derive(Clone, Copy)]
pub(crate) struct VectorField<'a> {
    pub(crate) dims: usize,
    docs: u32,
    bits: &'a [[u8; 8]],
    vectors: &'a [u8],
}

impl VectorFile {
    /// Opens the file of a segment, if there is one.
    pub(crate) fn open(reader: &SegmentReader) -> Result<Option<Self>, TantivyError> {
        let slice = match reader.open_read(component()) {
            Ok(slice) => slice,
            Err(OpenReadError::FileDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Self::of_bytes(slice.read_bytes()?, reader.max_doc()).map(Some)
    }

    pub(super) fn of_bytes(bytes: OwnedBytes, docs: u32) -> Result<Self, TantivyError> {
        let contents = contents(&bytes).ok_or_else(|| damaged("it has no directory"))?;
        let contents: Contents =
            serde_json::from_slice(contents).map_err(|error| damaged(&error.to_string()))?;
        if contents.docs != docs {
            return Err(damaged(&format!("it is of a segment with {} documents, not {docs}", contents.docs)));
        }
        Ok(Self { bytes, contents })
    }

    pub(super) fn bytes(&self) -> u64 {
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX)
    }

    /// The fields, with the number of dimensions.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, u16)> {
        self.contents.fields.iter().map(|(path, part)| (path.as_str(), part.dims))
    }

    /// The vectors of a field, if there are some.
    pub(crate) fn field(&self, path: &str) -> Result<Option<VectorField<'_>>, TantivyError> {
        let Some(part) = self.contents.fields.get(path) else { return Ok(None) };
        let field = self.part(*part);
        field.map(Some).ok_or_else(|| damaged(&format!("what it says about the field `{path}` can't be")))
    }

    fn part(&self, part: Part) -> Option<VectorField<'_>> {
        let Contents { docs, .. } = self.contents;
        let (dims, count) = (usize::from(part.dims), usize::try_from(part.count).ok()?);
        let rest = self.bytes.get(usize::try_from(part.offset).ok()?..)?;
        let (bits, rest) = rest.split_at_checked(words(docs) * size_of::<u64>())?;
        let (bits, _) = bits.as_chunks();
        let vectors = rest.get(..count.checked_mul(dims * NUMBER)?)?;
        let set: usize = bits.iter().map(|word| u64::from_le_bytes(*word).count_ones() as usize).sum();
        let beyond = u32::try_from(bits.len() * WORD).ok()?.checked_sub(docs)?;
        let is_within = bits.last().is_none_or(|word| u64::from_le_bytes(*word).leading_zeros() >= beyond);
        let is_good = (1..=MAX_DIMS).contains(&part.dims) && set == count && is_within;
        is_good.then_some(VectorField { dims, docs, bits, vectors })
    }
}

fn contents(bytes: &[u8]) -> Option<&[u8]> {
    let (rest, mark) = bytes.split_last_chunk()?;
    let (rest, len) = rest.split_last_chunk()?;
    let start = rest.len().checked_sub(usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    (*mark == MARK).then_some(&rest[start..])
}

/// The number of words with the bits of some documents.
fn words(docs: u32) -> usize {
    (docs as usize).div_ceil(WORD)
}

impl<'a> VectorField<'a> {
    /// The documents with a vector, in order, each with the bytes of its vector.
    pub(crate) fn all(self) -> impl Iterator<Item = (DocId, &'a [u8])> {
        let docs = (0..).zip(self.bits).flat_map(|(word, bits): (DocId, _)| {
            let mut bits = u64::from_le_bytes(*bits);
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros();
                bits &= bits.wrapping_sub(1);
                (bit < u64::BITS).then(|| word * u64::BITS + bit)
            })
        });
        docs.zip(self.vectors.chunks_exact(self.dims * NUMBER))
    }

    /// Goes to documents in their order.
    pub(crate) fn cursor(self) -> Cursor<'a> {
        Cursor { field: self, word: 0, before: 0 }
    }

    fn word(&self, at: usize) -> u64 {
        self.bits.get(at).map_or(0, |word| u64::from_le_bytes(*word))
    }
}

/// A place in the vectors of a field, which only moves forward.
pub(crate) struct Cursor<'a> {
    field: VectorField<'a>,
    word: usize,
    /// How many vectors there are before those of this word.
    before: usize,
}

impl<'a> Cursor<'a> {
    /// The vector of a document, which does not come before those that were asked for already.
    pub(crate) fn vector(&mut self, doc: DocId) -> Option<&'a [u8]> {
        if doc >= self.field.docs {
            return None;
        }
        let word = doc as usize / WORD;
        while self.word < word {
            self.before += self.field.word(self.word).count_ones() as usize;
            self.word += 1;
        }
        let (bits, bit) = (self.field.word(word), 1_u64 << (doc % u64::BITS));
        if bits & bit == 0 {
            return None;
        }
        let at = self.before + (bits & (bit - 1)).count_ones() as usize;
        let bytes = self.field.dims * NUMBER;
        self.field.vectors.get(at * bytes..(at + 1) * bytes)
    }
}

/// The documents that have a vector.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn set(&mut self, doc: DocId) {
        let word = doc as usize / WORD;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (doc % u64::BITS);
    }

    pub(super) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<u64>()
    }
}

/// Writes a file.
pub(super) struct VectorFileWriter {
    out: WritePtr,
    offset: u64,
    contents: Contents,
}

impl VectorFileWriter {
    pub(super) fn create(segment: &Segment, docs: u32) -> Result<Self, TantivyError> {
        let out = segment.open_write(component())?;
        Ok(Self { out, offset: 0, contents: Contents { docs, fields: BTreeMap::new() } })
    }

    /// Begins a field. The vectors of the documents with a bit have to follow.
    pub(super) fn field(&mut self, path: &str, dims: u16, bits: &Bits) -> io::Result<()> {
        let part = Part { dims, count: bits.count(), offset: self.offset };
        self.contents.fields.insert(path.to_owned(), part);
        let missing = words(self.contents.docs).saturating_sub(bits.0.len());
        for word in bits.0.iter().copied().chain(std::iter::repeat_n(0, missing)) {
            self.write(&word.to_le_bytes())?;
        }
        Ok(())
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.out.write_all(bytes)
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        let contents = serde_json::to_vec(&self.contents)?;
        self.out.write_all(&contents)?;
        let len = u32::try_from(contents.len()).map_err(io::Error::other)?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&MARK)?;
        self.out.terminate()
    }
}
