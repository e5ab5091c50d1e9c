//! Writes the vectors of new segments and of merged ones.

use std::any::Any;
use std::collections::BTreeMap;

use tantivy::index::Segment;
use tantivy::indexer::DocIdMapping;
use tantivy::schema::document::ErasedDocument;
use tantivy::schema::{Field, Schema, Value};
use tantivy::{DocId, PluginWriter, SegmentReader, TantivyDocument, TantivyError};

use super::file::{Bits, NUMBER, VectorFile, VectorFileWriter};
use super::{damaged, parts, unordered};

/// The vectors of a segment that is being made.
pub(super) struct Collected {
    field: Field,
    docs: u32,
    fields: BTreeMap<String, CollectedField>,
}

struct CollectedField {
    dims: u16,
    bits: Bits,
    vectors: Vec<u8>,
}

impl Collected {
    pub(super) fn new(field: Field) -> Self {
        Self { field, docs: 0, fields: BTreeMap::new() }
    }

    fn add(&mut self, doc: DocId, value: &[u8]) -> Option<()> {
        let (path, numbers) = parts(value)?;
        let dims = u16::try_from(numbers.len() / NUMBER).ok().filter(|dims| *dims > 0)?;
        let field = match self.fields.get_mut(path) {
            Some(field) => field,
            None => self.fields.entry(path.to_owned()).or_insert_with(|| CollectedField {
                dims,
                bits: Bits::default(),
                vectors: Vec::new(),
            }),
        };
        // Never another one: `dims` of a field can't change.
        if field.dims == dims {
            field.bits.set(doc);
            field.vectors.extend_from_slice(numbers);
        }
        Some(())
    }
}

impl PluginWriter for Collected {
    fn add_document(&mut self, doc: DocId, document: &dyn ErasedDocument, _: &Schema) -> tantivy::Result<()> {
        self.docs = doc + 1;
        let Some(document) = document.as_any().downcast_ref::<TantivyDocument>() else { return Ok(()) };
        for value in document.get_all(self.field) {
            if let Some(bytes) = value.as_custom() {
                let added = self.add(doc, bytes);
                added.ok_or_else(|| TantivyError::InternalError("a value is no vector".to_owned()))?;
            }
        }
        Ok(())
    }

    fn serialize(self: Box<Self>, segment: &Segment, mapping: Option<&DocIdMapping>) -> tantivy::Result<()> {
        if self.fields.is_empty() {
            return Ok(());
        }
        if mapping.is_some() {
            return Err(unordered());
        }
        let mut file = VectorFileWriter::create(segment, self.docs)?;
        for (path, field) in &self.fields {
            file.field(path, field.dims, &field.bits)?;
            file.write(&field.vectors)?;
        }
        Ok(file.finish()?)
    }

    fn mem_usage(&self) -> usize {
        self.fields.values().map(|field| field.bits.bytes() + field.vectors.capacity()).sum()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Segments whose vectors are merged. Nothing is held in memory but a bit for each document.
pub(super) struct Merging<'a> {
    segments: Vec<(&'a SegmentReader, Option<VectorFile>)>,
}

impl<'a> Merging<'a> {
    pub(super) fn open(readers: &'a [SegmentReader]) -> tantivy::Result<Self> {
        let opened = readers.iter().map(|reader| Ok((reader, VectorFile::open(reader)?)));
        Ok(Self { segments: opened.collect::<tantivy::Result<_>>()? })
    }

    pub(super) fn write(&self, target: &Segment) -> tantivy::Result<()> {
        let files = self.segments.iter().filter_map(|(_, file)| file.as_ref());
        let fields: BTreeMap<&str, u16> = files.flat_map(VectorFile::fields).collect();
        let mut left = Vec::new();
        for (path, dims) in fields {
            let mut bits = Bits::default();
            self.each(path, dims, |doc, _| {
                bits.set(doc);
                Ok(())
            })?;
            if bits.count() > 0 {
                left.push((path, dims, bits));
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        let docs = self.segments.iter().map(|(reader, _)| reader.num_docs()).sum();
        let mut file = VectorFileWriter::create(target, docs)?;
        for (path, dims, bits) in left {
            file.field(path, dims, &bits)?;
            self.each(path, dims, |_, vector| Ok(file.write(vector)?))?;
        }
        Ok(file.finish()?)
    }

    /// The vectors of the documents that are left, with the numbers of these after the merge.
    fn each(
        &self,
        path: &str,
        dims: u16,
        mut each: impl FnMut(DocId, &[u8]) -> tantivy::Result<()>,
    ) -> tantivy::Result<()> {
        let mut first = 0;
        for (reader, file) in &self.segments {
            let field = file.as_ref().map(|file| file.field(path)).transpose()?.flatten();
            if let Some(field) = field {
                if field.dims != usize::from(dims) {
                    return Err(damaged("segments have vectors of different lengths for one field"));
                }
                let mut vectors = field.cursor();
                for (doc, old) in (first..).zip(reader.doc_ids_alive()) {
                    if let Some(vector) = vectors.vector(old) {
                        each(doc, vector)?;
                    }
                }
            }
            first += reader.num_docs();
        }
        Ok(())
    }
}
