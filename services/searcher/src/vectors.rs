//! Vectors lie flat in one file of each segment, so that a search reads them one after the other.
//!
//! The file is kept by a plugin of Tantivy, which writes it with the segment and merges it with the segment. All indexes have
//! the plugin, and a segment without vectors has no file: so a field of vectors can be declared later, and costs nothing before.
//! A segment that lacks the file, or a field in it, has no vectors for it.

mod file;
mod files;
mod similar;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use tantivy::index::SegmentComponent;
use tantivy::indexer::doc_id_mapping::MappingType;
use tantivy::schema::Field;
use tantivy::space_usage::ComponentSpaceUsage;
use tantivy::{
    PluginMergeContext, PluginWriter, PluginWriterContext, SegmentPlugin, SegmentReader, TantivyError,
};

pub(crate) use self::file::{VectorField, VectorFile};
pub(crate) use self::files::VectorFiles;
pub(crate) use self::similar::Target;
use self::write::{Collected, Merging};

/// The extension of the file.
const EXTENSION: &str = "vec";

fn component() -> SegmentComponent {
    SegmentComponent::Custom(EXTENSION.to_owned())
}

fn damaged(why: &str) -> TantivyError {
    TantivyError::InternalError(format!("a file of vectors is damaged: {why}"))
}

/// Keeps the vectors of the values in a field of the schema.
pub(crate) struct VectorPlugin {
    pub(crate) field: Field,
}

/// A value of that field: a vector with the path under which it is kept.
pub(crate) fn value(path: &str, vector: &[f32]) -> Vec<u8> {
    let len = u16::try_from(path.len()).expect("names of fields are short");
    let mut value = Vec::with_capacity(2 + path.len() + 4 * vector.len());
    value.extend(len.to_le_bytes());
    value.extend(path.as_bytes());
    value.extend(vector.iter().flat_map(|number| number.to_le_bytes()));
    value
}

/// The path and the numbers in a value.
fn parts(value: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = value.split_first_chunk()?;
    let (path, numbers) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
    Some((std::str::from_utf8(path).ok()?, numbers))
}

impl SegmentPlugin for VectorPlugin {
    fn extensions(&self) -> &[&str] {
        &[EXTENSION]
    }

    fn create_writer(&self, _: &PluginWriterContext<'_>) -> tantivy::Result<Box<dyn PluginWriter>> {
        Ok(Box::new(Collected::new(self.field)))
    }

    /// Copies the vectors of the documents that are left, one after the other.
    fn merge(&self, context: PluginMergeContext<'_>) -> tantivy::Result<()> {
        match context.doc_id_mapping.mapping_type() {
            MappingType::Stacked | MappingType::StackedWithDeletes => {}
            // Only an index that is sorted, which ours are not. Tantivy does not show such a mapping to plugins.
            MappingType::Shuffled => return Err(unordered()),
        }
        Merging::open(context.readers)?.write(context.target_segment)
    }

    fn space_usage(&self, reader: &SegmentReader) -> tantivy::Result<BTreeMap<String, ComponentSpaceUsage>> {
        let bytes = VectorFile::open(reader)?.map_or(0, |file| file.bytes());
        Ok(BTreeMap::from([(EXTENSION.to_owned(), ComponentSpaceUsage::Basic(bytes.into()))]))
    }
}

fn unordered() -> TantivyError {
    TantivyError::InvalidArgument("vectors can't be kept in an index that is sorted".to_owned())
}

/// The plugin, to be registered with each index.
pub(crate) fn plugin(field: Field) -> Arc<dyn SegmentPlugin> {
    Arc::new(VectorPlugin { field })
}
