use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use plugin::TaskFailure;
use plugin::shard::ReadLevel;
use store::faults::{Faults, Mode, Op, When};
use store::object_store::memory::InMemory;
use store::{ObjectStore, Store};
use tantivy::Term;
use tantivy::collector::DocSetCollector;
use tantivy::query::TermQuery;
use tantivy::schema::{IndexRecordOption, TantivyDocument, Value as _};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::*;
use crate::catalog::Indexes;
use crate::definition::Definition;
use crate::schema::IndexSchema;
use serde_json::value::RawValue;

mod damage;
mod history;
mod merges;
mod owner;
mod replica;
mod takeover;
mod torture;
mod trouble;
mod vectors;

/// A store, a catalog, and folders.
pub(crate) struct World {
    store: Store,
    faults: Faults,
    folders: tempfile::TempDir,
    indexes: watch::Sender<Arc<Indexes>>,
    limits: Limits,
}

/// A shard that runs.
pub(crate) struct Running {
    shard: Shard,
    cx: Context,
    failures: mpsc::UnboundedReceiver<TaskFailure>,
}

/// Quick refreshes, and room for everything.
const LIMITS: Limits = Limits {
    refresh: Duration::from_millis(20),
    max_behind: (8 * 1024 * 1024, 1_000),
    visible: VISIBLE,
    heap: 15_000_000,
    disk: 1 << 30,
};

/// An index with one declared text field.
fn index(name: &str) -> Arc<Index> {
    let definition = serde_json::json!({ "fields": { "body": { "type": "text" } } });
    let created: Definition = serde_json::from_value(definition).unwrap();
    let schema = Arc::new(IndexSchema::new(&created, Arc::new(created.clone())));
    Arc::new(Index { name: name.to_owned(), uuid: Uuid::now_v7(), created, schema })
}

impl World {
    async fn new() -> Self {
        let faults = Faults::new(Arc::new(InMemory::new()));
        let url = "memory:///".parse().unwrap();
        let objects: Arc<dyn ObjectStore> = faults.objects();
        let store = Store::over(objects, url, &"test".parse().unwrap()).await.unwrap();
        let indexes = [index("one"), index("two")];
        let indexes = watch::Sender::new(Arc::new(Indexes::new(1, indexes)));
        Self { store, faults, folders: tempfile::tempdir().unwrap(), indexes, limits: LIMITS }
    }

    fn index(&self, name: &str) -> Arc<Index> {
        Arc::clone(self.indexes.borrow().named(name).unwrap())
    }

    fn catalog(&self) -> Catalog {
        Catalog::watching(self.indexes.subscribe())
    }

    /// The folder of a node.
    fn folder(&self, node: &str) -> PathBuf {
        self.folders.path().join(node)
    }

    async fn claim(&self, node: &str) -> (Context, mpsc::UnboundedReceiver<TaskFailure>) {
        let (mut cx, failures) = Context::for_owner_test("search/0".parse().unwrap(), &self.store).await;
        cx.cache_dir = self.folder(node);
        (cx, failures)
    }

    async fn run(&self, (cx, failures): (Context, mpsc::UnboundedReceiver<TaskFailure>)) -> Running {
        let shard = Shard::start(&cx, self.catalog(), self.limits).await.unwrap();
        Running { shard, cx, failures }
    }

    /// A new owner.
    async fn owner(&self, node: &str) -> Running {
        self.run(self.claim(node).await).await
    }

    async fn replica(&self, node: &str) -> Running {
        let (mut cx, failures) = Context::for_replica_test("search/0".parse().unwrap(), &self.store);
        cx.cache_dir = self.folder(node);
        cx.objects_poll = Duration::from_millis(10);
        self.run((cx, failures)).await
    }

    /// The shard's objects on the store.
    fn objects(&self) -> Arc<dyn ObjectStore> {
        self.store.data(&"search/0".parse::<types::Role>().unwrap().shard_ref().unwrap())
    }

    fn manifests(&self) -> store::Log<manifest::Manifest> {
        self.store
            .logs(&"search/0".parse::<types::Role>().unwrap().shard_ref().unwrap())
            .of_shard(manifest::LOG)
    }
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// A document with a body.
fn body(text: &str) -> String {
    serde_json::json!({ "body": text }).to_string()
}

fn put(index: &Arc<Index>, id: &str, text: &str) -> Write {
    let change = Change::Put(raw(&body(text)));
    Write { index: Arc::clone(index), id: id.to_owned(), change, condition: None }
}

fn delete(index: &Arc<Index>, id: &str) -> Write {
    Write { index: Arc::clone(index), id: id.to_owned(), change: Change::Delete, condition: None }
}

fn merge(index: &Arc<Index>, id: &str, patch: &str) -> Write {
    let change = Change::Merge { patch: raw(patch), upsert: None, detect_noop: true };
    Write { index: Arc::clone(index), id: id.to_owned(), change, condition: None }
}

impl Running {
    async fn write(&self, write: Write) -> Result<Result<Written, Refused>, ShardError> {
        let results = self.shard.write(vec![write], Refresh::Durable).await?;
        Ok(results.into_iter().next().unwrap())
    }

    async fn put(&self, index: &Arc<Index>, id: &str, text: &str) -> Written {
        self.write(put(index, id, text)).await.unwrap().unwrap()
    }

    async fn get(&self, index: &Arc<Index>, id: &str) -> Option<FoundDocument> {
        self.shard.get(index, id, ReadLevel::Strong).await.unwrap().value
    }

    /// The body of a document.
    async fn body(&self, index: &Arc<Index>, id: &str) -> Option<String> {
        let found = self.get(index, id).await?;
        let value: serde_json::Value = serde_json::from_str(found.source.get()).unwrap();
        Some(value["body"].as_str().unwrap().to_owned())
    }

    /// The ids of all documents with a word in their body.
    async fn search(&self, index: &Arc<Index>, word: &str, level: ReadLevel) -> Vec<String> {
        let snapshot = self.shard.snapshot(index, level).await.unwrap().value;
        let place = index.schema.places("body").unwrap().remove(0);
        assert_eq!(place.path, None);
        let query = TermQuery::new(Term::from_field_text(place.field, word), IndexRecordOption::Basic);
        let found = snapshot.searcher.search(&query, &DocSetCollector).unwrap();
        let id = |address| {
            let document: TantivyDocument = snapshot.searcher.doc(address).unwrap();
            document.get_first(index.schema.id).unwrap().as_str().unwrap().to_owned()
        };
        let mut ids: Vec<String> = found.into_iter().map(id).collect();
        ids.sort();
        ids
    }

    /// How many documents searches find.
    async fn count(&self, index: &Arc<Index>) -> u64 {
        self.shard.snapshot(index, ReadLevel::Strong).await.unwrap().value.searcher.num_docs()
    }

    fn epoch(&self) -> u64 {
        let Duty::Primary(claim) = &self.cx.duty else { panic!("a replica has no epoch") };
        claim.epoch().0
    }

    /// Stops it as an agent does.
    async fn stop(mut self) {
        self.shard.stop().await;
        self.cx.tasks.wait().await;
        assert_eq!(self.failures.try_recv().ok(), None, "no task failed");
    }

    /// Ends it in the middle of what it does. Blocking work runs to its end, as a write that is in flight may.
    async fn kill(self) {
        self.cx.tasks.abort();
        self.cx.tasks.wait().await;
    }
}

/// Sets a fault of the disk of a running owner, or ends it.
fn set_fault(running: &Running, fault: &str, is_set: bool) {
    let local = local(running);
    let path = indexer::lock(&local).folder().path().join(fault);
    if is_set { std::fs::write(path, "").unwrap() } else { std::fs::remove_file(path).unwrap() }
}

/// The local indexes of a running owner.
fn local(running: &Running) -> indexer::Local {
    let Role::Owner { kept, .. } = &running.shard.0.role else { panic!("it is a replica") };
    kept.get().unwrap().local.upgrade().unwrap()
}

/// Waits for a condition to become true.
async fn until(mut condition: impl AsyncFnMut() -> bool) {
    for _ in 0..4_000 {
        if condition().await {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("it never became true");
}
