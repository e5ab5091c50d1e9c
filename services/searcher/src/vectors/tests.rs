use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;
use tantivy::directory::{OwnedBytes, RamDirectory};
use tantivy::index::SegmentComponent;
use tantivy::indexer::NoMergePolicy;
use tantivy::{Directory, Index, IndexWriter, TantivyDocument};

use super::file::VectorFile;
use super::*;
use crate::definition::Definition;
use crate::document::Document;
use crate::schema::IndexSchema;

fn schema() -> IndexSchema {
    let definition: Definition = serde_json::from_value(json!({"fields": {
        "a": {"type": "vector", "dims": 3, "similarity": "l2_norm"},
        "deep.b": {"type": "vector", "dims": 1, "similarity": "l2_norm"},
    }}))
    .unwrap();
    IndexSchema::new(&definition, Arc::new(definition.clone()))
}

struct Writing {
    schema: IndexSchema,
    index: Index,
    writer: IndexWriter<TantivyDocument>,
}

impl Writing {
    fn new() -> Self {
        let schema = schema();
        let index = schema.create(RamDirectory::create()).unwrap();
        let writer: IndexWriter<TantivyDocument> = index.writer_with_num_threads(1, 15_000_000).unwrap();
        writer.set_merge_policy(Box::new(NoMergePolicy));
        Self { schema, index, writer }
    }

    fn put(&self, id: u64, a: Option<[f32; 3]>, b: Option<f32>) {
        let mut source = json!({});
        if let Some(a) = a {
            source["a"] = json!(a);
        }
        if let Some(b) = b {
            source["deep"] = json!({"b": [b]});
        }
        let source = source.to_string();
        self.schema.check(&source).unwrap();
        let id = id.to_string();
        self.writer.delete_term(self.schema.id_term(&id));
        let document = Document { id: &id, seq: 1, term: 1, version: 1, source: &source };
        self.writer.add_document(self.schema.convert(&document)).unwrap();
    }

    /// The vectors of a field by id, as read in both ways.
    fn vectors(&self, path: &str) -> BTreeMap<String, Vec<f32>> {
        let searcher = self.index.reader().unwrap().searcher();
        let mut found = BTreeMap::new();
        for reader in searcher.segment_readers() {
            let Some(file) = VectorFile::open(reader).unwrap() else { continue };
            let Some(field) = file.field(path).unwrap() else { continue };
            let all: BTreeMap<_, _> = field.all().collect();
            let mut cursor = field.cursor();
            for doc in 0..reader.max_doc() + 70 {
                assert_eq!(cursor.vector(doc), all.get(&doc).copied());
            }
            for doc in reader.doc_ids_alive() {
                if let Some(bytes) = all.get(&doc) {
                    let store = reader.get_store_reader(1).unwrap();
                    let document: TantivyDocument = store.get(doc).unwrap();
                    let id = tantivy::schema::Value::as_str(&document.get_first(self.schema.id).unwrap());
                    let (numbers, _) = bytes.as_chunks();
                    let vector = numbers.iter().map(|number| f32::from_le_bytes(*number));
                    found.insert(id.unwrap().to_owned(), vector.collect());
                }
            }
        }
        found
    }
}

/// Documents are put with ids, of which some are repeated; then segments are committed, and in the end merged.
#[derive(Debug, Clone)]
enum Step {
    Put(u64, Option<[f32; 3]>, Option<f32>),
    Delete(u64),
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let number = || -1e6_f32..1e6;
    let a = prop::option::of(prop::array::uniform3(number()));
    prop_oneof![
        8 => (0_u64..150, a, prop::option::weighted(0.2, number())).prop_map(|(id, a, b)| Step::Put(id, a, b)),
        1 => (0_u64..150).prop_map(Step::Delete),
        1 => Just(Step::Commit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn vectors_survive_segments_deletes_and_merges(steps in prop::collection::vec(step(), 1..150)) {
        let mut writing = Writing::new();
        let (mut a, mut b) = (BTreeMap::new(), BTreeMap::new());
        for step in steps {
            match step {
                Step::Put(id, vector, number) => {
                    writing.put(id, vector, number);
                    a.remove(&id.to_string());
                    b.remove(&id.to_string());
                    a.extend(vector.map(|vector| (id.to_string(), vector.to_vec())));
                    b.extend(number.map(|number| (id.to_string(), vec![number])));
                }
                Step::Delete(id) => {
                    writing.writer.delete_term(writing.schema.id_term(&id.to_string()));
                    a.remove(&id.to_string());
                    b.remove(&id.to_string());
                }
                Step::Commit => drop(writing.writer.commit().unwrap()),
            }
        }
        writing.writer.commit().unwrap();
        prop_assert_eq!(&writing.vectors("a"), &a);
        prop_assert_eq!(&writing.vectors("deep.b"), &b);
        let ids = writing.index.searchable_segment_ids().unwrap();
        if !ids.is_empty() {
            writing.writer.merge(&ids).wait().unwrap();
        }
        prop_assert_eq!(&writing.vectors("a"), &a);
        prop_assert_eq!(&writing.vectors("deep.b"), &b);
        let files = writing.index.searchable_segment_metas().unwrap().iter().filter(|meta| {
            let path = meta.relative_path(SegmentComponent::Custom(EXTENSION.to_owned()));
            writing.index.directory().exists(&path).unwrap()
        }).count();
        prop_assert_eq!(files, usize::from(!a.is_empty() || !b.is_empty()), "a segment without vectors has no file");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_more(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in 0_usize..40) {
        let mut writing = Writing::new();
        for id in 0..5 {
            writing.put(id, Some([1.0, 2.0, 3.0]), None);
        }
        writing.writer.commit().unwrap();
        let searcher = writing.index.reader().unwrap().searcher();
        let reader = searcher.segment_reader(0);
        let mut bytes = reader.open_read(component()).unwrap().read_bytes().unwrap().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut);
        if let Ok(file) = VectorFile::of_bytes(OwnedBytes::new(bytes), reader.max_doc()) {
            let paths: Vec<String> = file.fields().map(|(path, _)| path.to_owned()).collect();
            for path in paths {
                if let Ok(Some(field)) = file.field(&path) {
                    prop_assert!(field.all().all(|(doc, vector)| doc < 5 && vector.len() == field.dims * 4));
                }
            }
        }
    }
}

#[test]
fn an_index_needs_the_plugin_to_be_written() {
    let writing = Writing::new();
    let extensions = writing.index.load_metas().unwrap().persisted_custom_extensions;
    assert_eq!(extensions, [EXTENSION]);
    drop(writing.writer);
    let without = Index::open(writing.index.directory().clone()).unwrap();
    let writer: Result<IndexWriter<TantivyDocument>, _> = without.writer_with_num_threads(1, 15_000_000);
    assert!(matches!(writer.err(), Some(TantivyError::MissingPlugin(_))));
}
