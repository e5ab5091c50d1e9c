//! Searches over indexes in memory, of one or several shards and segments.

mod answers;
mod paging;
mod ranking;
mod vectors;

use std::sync::Arc;

use serde_json::{Value, json};
use tantivy::indexer::NoMergePolicy;
use tantivy::{IndexWriter, TantivyDocument};
use types::ShardId;
use uuid::Uuid;

use super::*;
use crate::catalog::Index;
use crate::definition::Definition;
use crate::document::Document;
use crate::schema::IndexSchema;
use crate::shard::Snapshot;

/// An index of several shards, each with several segments.
pub(crate) struct TestIndex {
    pub(super) schema: Arc<IndexSchema>,
    pub(super) shards: Vec<Snapshot>,
}

/// A document with its number in its shard.
pub(super) type Numbered = (String, u64, Value);

impl TestIndex {
    /// The documents are given by shard and segment.
    pub(super) fn new(definition: &Value, shards: &[Vec<Vec<Numbered>>]) -> Self {
        let definition: Definition = serde_json::from_value(definition.clone()).unwrap();
        let schema = Arc::new(IndexSchema::new(&definition, Arc::new(definition.clone())));
        let index = Arc::new(Index {
            name: "test".to_owned(),
            uuid: Uuid::nil(),
            created: definition,
            schema: Arc::clone(&schema),
        });
        let shards = shards.iter().map(|segments| Snapshot {
            index: Arc::clone(&index),
            searcher: searcher(&schema, segments),
            vectors: Arc::default(),
        });
        Self { shards: shards.collect(), schema }
    }

    /// The documents, with numbers in their order, dealt out to shards and segments.
    pub(super) fn dealt(definition: &Value, documents: &[Value], shards: usize, segments: usize) -> Self {
        let mut dealt = vec![vec![Vec::new(); segments]; shards];
        for (at, document) in documents.iter().enumerate() {
            let number = u64::try_from(at).unwrap();
            let (shard, place) = (at % shards, at / shards);
            dealt[shard][place % segments].push((format!("d{at}"), number, document.clone()));
        }
        Self::new(definition, &dealt)
    }

    /// Searches as members do, with everything that travels written and read.
    pub(super) fn search(&self, request: &Value) -> Value {
        self.try_search(request).unwrap()
    }

    pub(super) fn try_search(&self, request: &Value) -> Result<Value, SearchError> {
        let request = SearchRequest::from_wire(request.to_string().as_bytes())?;
        let request = SearchRequest::from_wire(&request.to_json())?;
        request.check(&self.schema)?;
        let answer = self.search_after_first_round_at(self, &request)?;
        if let [only] = self.shards.as_slice() {
            let shard = ShardId::try_from(0).unwrap();
            let found = search_alone(only, &request, shard, &Cancel::default())?;
            let alone = merge(&request, &self.schema, vec![(request.position(shard), found)])?;
            assert_eq!(serde_json::to_value(alone).unwrap(), answer, "the only shard needs no second round");
        }
        Ok(answer)
    }

    /// The same, with a first round that sees other documents.
    fn search_after_first_round_at(
        &self,
        first: &Self,
        request: &SearchRequest,
    ) -> Result<Value, SearchError> {
        let prepared = first.shards.iter().zip(0..).map(|(snapshot, number)| {
            let shard = ShardId::try_from(number).unwrap();
            let prepared = prepare(snapshot, request)?;
            Ok(travel(&prepared.with_nearest(snapshot, request, shard, &Cancel::default())?))
        });
        let plan = travel(&combine(prepared.collect::<Result<Vec<Prepared>, SearchError>>()?));
        let found = self.shards.iter().zip(0..).map(|(snapshot, number)| {
            let shard = ShardId::try_from(number).unwrap();
            Ok((
                request.position(shard),
                travel(&execute(snapshot, request, &plan, shard, &Cancel::default())?),
            ))
        });
        let found: Vec<(u32, Found)> = found.collect::<Result<_, SearchError>>()?;
        Ok(serde_json::to_value(merge(request, &self.schema, found)?).unwrap())
    }
}

fn travel<T: Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

fn searcher(schema: &IndexSchema, segments: &[Vec<Numbered>]) -> tantivy::Searcher {
    let index = schema.create(tantivy::directory::RamDirectory::create()).unwrap();
    let mut writer: IndexWriter<TantivyDocument> = index.writer_with_num_threads(1, 15_000_000).unwrap();
    writer.set_merge_policy(Box::new(NoMergePolicy));
    for documents in segments {
        for (id, seq, document) in documents {
            let source = document.to_string();
            schema.check(&source).unwrap();
            let document = Document { id, seq: *seq, term: 1, version: 1, source: &source };
            // As shards do: an earlier document with the same id is replaced.
            writer.delete_term(schema.id_term(id));
            writer.add_document(schema.convert(&document)).unwrap();
        }
        writer.commit().unwrap();
    }
    let reader = index.reader().unwrap();
    reader.searcher()
}

/// The ids of the hits of an answer.
pub(super) fn ids(answer: &Value) -> Vec<&str> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_str().unwrap()).collect()
}

pub(super) fn packages() -> (Value, Vec<Value>) {
    let definition = json!({
        "fields": {
            "name": {"type": "keyword"},
            "section": {"type": "keyword"},
            "description": {"type": "text"},
            "size": {"type": "i64"},
            "weight": {"type": "f64"},
            "free": {"type": "bool"},
            "date": {"type": "date"},
        },
        "default_fields": {"description": 1.0},
    });
    let documents = vec![
        json!({"name": "nginx", "section": "net", "description": "small, powerful http server and proxy",
            "size": 500, "weight": 1.5, "free": true, "date": "2024-01-01T00:00:00Z", "maintainer": "Alice Proxy"}),
        json!({"name": "squid", "section": "net", "description": "caching proxy for the web <www>",
            "size": 900, "weight": -2.0, "free": true, "date": "2023-05-05T10:00:00Z"}),
        json!({"name": "vim", "section": "editors", "description": "text editor with a long history",
            "size": 700, "free": true, "date": "2022-01-01T00:00:00Z"}),
        json!({"name": "emacs", "section": "editors", "description": "extensible editor; also a web browser",
            "size": 3000, "weight": 9.25, "free": true}),
        json!({"name": "doom", "section": "games", "description": "a game about a marine", "free": false}),
        json!({"name": "haproxy", "section": "net", "description": "fast and reliable load balancing reverse proxy",
            "size": 500, "weight": 1.5, "date": "2024-06-01T00:00:00Z"}),
    ];
    (definition, documents)
}
