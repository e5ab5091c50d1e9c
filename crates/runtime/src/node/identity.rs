//! What a node keeps in its data folder: its id, its generation, and the last command of an operator.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use types::api::NumberedSpec;
use types::{ClusterId, Generation, Holder, NodeId, ServiceName};

/// Why a data folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// End that agent or choose another `--data-dir`.
    #[error("data folder {path} is in use by another agent{holder}")]
    InUse {
        /// The folder.
        path: PathBuf,
        /// ` (pid 4711)`, or nothing.
        holder: String,
    },
    /// Make it writable, or choose another `--data-dir`.
    #[error("data folder: {path} can't be {doing}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// `created`, `read`, `written`.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// Repair or remove the file.
    #[error(
        "data folder: {path} is damaged ({source}); repair it, or remove it so that the node starts afresh"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Leave `--node-id` out or choose another `--data-dir`.
    #[error("data folder {path} belongs to node `{owner}`, not to `{wanted}`")]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// The node that it belongs to.
        owner: NodeId,
        /// The node that was to use it.
        wanted: NodeId,
    },
    /// Choose another `--data-dir`, or the cluster that it belongs to.
    #[error("data folder {path} belongs to cluster `{owner}`, not to `{wanted}`")]
    OtherCluster {
        /// The folder.
        path: PathBuf,
        /// The cluster of the node that it belongs to.
        owner: ClusterId,
        /// The cluster that the node was to join.
        wanted: ClusterId,
    },
}

/// A node's data folder, locked until this is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Unlocked when dropped.
    _lock: File,
}

/// A node's id and generation, and those of its generations that it remembers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) id: NodeId,
    pub(crate) generation: Generation,
    /// The first generation that this folder records: an earlier one may be another node's of the same name.
    #[serde(default)]
    pub(crate) born: Option<Generation>,
    /// The cluster that it belongs to. The roles, specs and generations in the folder are of this cluster alone.
    #[serde(default)]
    pub(crate) cluster: Option<ClusterId>,
    /// Its generations, the present one last: another node of the same name, in another cluster on the same store, may have
    /// generations between them.
    #[serde(default, rename = "lives")]
    pub(crate) generations: Vec<Generation>,
    /// Its generations before this one are not listed: there were too many, or an older version did not record them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listed_from: Option<Generation>,
}

impl Identity {
    /// Whether a claim is of this node, in this incarnation or an earlier one.
    pub(crate) fn is_mine(&self, holder: &Holder) -> bool {
        let generation = holder.generation;
        let is_listed = generation == self.generation || self.generations.contains(&generation);
        let born = self.born.unwrap_or(self.generation);
        let is_unlisted = self.listed_from.is_some_and(|from| (born..from).contains(&generation));
        holder.node == self.id && (is_listed || is_unlisted)
    }

    /// The next incarnation of the same node.
    fn restarted(mut self, now_ms: u64, cluster: Option<ClusterId>) -> Self {
        if self.generations.is_empty() {
            self.generations.push(self.generation);
            self.listed_from = Some(self.generation);
        }
        let generation = Generation(now_ms.max(self.generation.0.saturating_add(1)));
        let born = self.born.or(Some(self.generation));
        self.generations.push(generation);
        if self.generations.len() > LISTED_GENERATIONS {
            self.generations.remove(0);
            self.listed_from = self.generations.first().copied();
        }
        Self { generation, born, cluster, ..self }
    }
}

/// How many generations of a node are listed.
const LISTED_GENERATIONS: usize = 256;

/// The last command of an operator to a node.
pub(crate) use types::KeptRole;

const LOCK: &str = "lock";
const NODE: &str = "node.json";
const ROLE: &str = KeptRole::FILE;
const FAILED_INCARNATIONS: &str = "failed-lives.json";
const CACHE: &str = "cache";

impl DataDir {
    /// Makes the folder if need be, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        std::fs::create_dir_all(path).map_err(|source| io_error(path, "created", source))?;
        let lock_path = path.join(LOCK);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(|source| io_error(&lock_path, "created", source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Only to name the holder; without it the message is still true.
                let _ = lock.read_to_string(&mut pid);
                let holder =
                    if pid.trim().is_empty() { String::new() } else { format!(" (pid {})", pid.trim()) };
                return Err(DataDirError::InUse { path: path.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(io_error(&lock_path, "locked", source)),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(|source| io_error(&lock_path, "written", source))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder for caches of services; the first service that needs it creates it.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path.join(CACHE)
    }

    /// The node's identity in a new incarnation: the id as kept or wanted or else generated, with a generation above the last
    /// one. The incarnation begins once its identity is written.
    pub(crate) fn next_incarnation(
        &self,
        cluster: &ClusterId,
        wanted: Option<NodeId>,
        now_ms: u64,
        generate: impl FnOnce() -> NodeId,
    ) -> Result<Identity, DataDirError> {
        let kept: Option<Identity> = self.read(NODE)?;
        if let Some(owner) = kept.as_ref().and_then(|kept| kept.cluster.as_ref())
            && owner != cluster
        {
            let (path, owner, wanted) = (self.path.clone(), owner.clone(), cluster.clone());
            return Err(DataDirError::OtherCluster { path, owner, wanted });
        }
        if kept.is_none() {
            // A new node has had no command yet, whatever an earlier one has left here.
            self.forget()?;
        }
        let cluster = Some(cluster.clone());
        let identity = match (kept, wanted) {
            (Some(kept), Some(wanted)) if kept.id != wanted => {
                return Err(DataDirError::Foreign { path: self.path.clone(), owner: kept.id, wanted });
            }
            (Some(kept), _) => kept.restarted(now_ms, cluster),
            (None, wanted) => {
                let (id, generation) = (wanted.unwrap_or_else(generate), Generation(now_ms));
                let (born, generations) = (Some(generation), vec![generation]);
                Identity { id, generation, born, cluster, generations, listed_from: None }
            }
        };
        Ok(identity)
    }

    /// Writes the identity of this incarnation, so that the next one gets a higher generation. Waits for the disk.
    pub(crate) fn keep_identity(&self, identity: &Identity) -> Result<(), DataDirError> {
        self.write(NODE, identity)
    }

    /// The last command of an operator to this node.
    pub(crate) fn kept_role(&self) -> Result<Option<KeptRole>, DataDirError> {
        self.read(ROLE)
    }

    /// Writes the command of an operator to this node.
    pub(crate) fn keep(&self, role: &KeptRole) -> Result<(), DataDirError> {
        self.write(ROLE, role)
    }

    /// Deletes the last command of an operator to this node.
    pub(crate) fn forget(&self) -> Result<(), DataDirError> {
        let path = self.path.join(ROLE);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(&path, "removed", error)),
            _ => Ok(()),
        }
    }

    /// The spec of a service as it was last read from the store.
    pub(crate) fn spec(&self, service: &ServiceName) -> Result<Option<NumberedSpec>, DataDirError> {
        self.read(&format!("spec-{service}.json"))
    }

    /// Writes the spec of a service, for starts while the store does not answer.
    pub(crate) fn keep_spec(&self, service: &ServiceName, spec: &NumberedSpec) -> Result<(), DataDirError> {
        self.write(&format!("spec-{service}.json"), spec)
    }

    /// How many incarnations in a row crashed soon after they had begun to run a shard; 0 if the file can't be read.
    pub(crate) fn failed_incarnations(&self) -> u32 {
        self.read(FAILED_INCARNATIONS).ok().flatten().unwrap_or(0)
    }

    /// Writes that number.
    pub(crate) fn keep_failed_incarnations(&self, number: u32) -> Result<(), DataDirError> {
        self.write(FAILED_INCARNATIONS, &number)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DataDirError> {
        let path = self.path.join(name);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error(&path, "read", source)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| DataDirError::Damaged { path, source })
    }

    /// Written to another file and renamed, so that a crash leaves the old or the new content, never a part of it.
    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        let beside = self.path.join(format!("{name}.new"));
        let text = serde_json::to_vec_pretty(value).expect("our own types always serialize");
        let written = File::create(&beside)
            .and_then(|mut file| {
                file.write_all(&text)?;
                file.sync_all()
            })
            .and_then(|()| std::fs::rename(&beside, &path))
            .and_then(|()| File::open(&self.path)?.sync_all());
        written.map_err(|source| io_error(&path, "written", source))
    }
}

fn io_error(path: &Path, doing: &'static str, source: io::Error) -> DataDirError {
    DataDirError::Io { path: path.to_owned(), doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> NodeId {
        text.parse().unwrap()
    }

    fn shop() -> ClusterId {
        "shop".parse().unwrap()
    }

    fn begin_incarnation(
        data: &DataDir,
        cluster: &ClusterId,
        now_ms: u64,
        generated: &str,
    ) -> Result<Identity, DataDirError> {
        let identity = data.next_incarnation(cluster, None, now_ms, || id(generated))?;
        data.keep_identity(&identity)?;
        Ok(identity)
    }

    #[test]
    fn a_node_keeps_its_name_and_never_has_the_same_generation_twice() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let first = begin_incarnation(&data, &shop(), 1_000, "fancy-fox").unwrap();
        assert_eq!((&first.id, first.generation), (&id("fancy-fox"), Generation(1_000)));
        assert_eq!(first.cluster, Some(shop()));
        let second = begin_incarnation(&data, &shop(), 500, "other").unwrap();
        assert_eq!((&second.id, second.generation), (&first.id, Generation(1_001)), "the clock jumped back");
        for (holder, is_mine) in [
            (claim("fancy-fox", 1_000), true),
            (claim("fancy-fox", 1_001), true),
            (claim("fancy-fox", 999), false),
            (claim("fancy-fox", 1_002), false),
            (claim("other", 1_000), false),
        ] {
            assert_eq!(second.is_mine(&holder), is_mine, "{holder:?}");
        }
        let error = data.next_incarnation(&shop(), Some(id("thief")), 2_000, || id("other")).unwrap_err();
        assert!(error.to_string().contains("belongs to node `fancy-fox`"), "{error}");
    }

    fn claim(node: &str, generation: u64) -> Holder {
        Holder { node: id(node), generation: Generation(generation), epoch: types::Epoch(1) }
    }

    fn begin(folder: &Path, now_ms: u64) -> Identity {
        begin_incarnation(&DataDir::open(folder).unwrap(), &shop(), now_ms, "a").unwrap()
    }

    #[test]
    fn a_claim_of_another_node_of_the_same_name_is_not_mine() {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path(), 1_000);
        let me = begin(folder.path(), 2_000);
        for (generation, is_mine) in [(1_000, true), (1_500, false), (2_000, true), (2_001, false)] {
            assert_eq!(me.is_mine(&claim("a", generation)), is_mine, "{generation}");
        }
    }

    #[test]
    fn claims_of_generations_that_an_older_version_did_not_list_are_mine_too() {
        let folder = tempfile::tempdir().unwrap();
        let old = r#"{"id": "a", "generation": 2000, "born": 1000}"#;
        std::fs::write(folder.path().join(NODE), old).unwrap();
        let me = begin(folder.path(), 3_000);
        for (generation, is_mine) in
            [(999, false), (1_000, true), (1_500, true), (2_000, true), (2_500, false), (3_000, true)]
        {
            assert_eq!(me.is_mine(&claim("a", generation)), is_mine, "{generation}");
        }
    }

    #[test]
    fn a_limited_number_of_generations_is_listed_and_none_is_forgotten() {
        let mut me = Identity {
            id: id("a"),
            generation: Generation(1_000),
            born: Some(Generation(1_000)),
            cluster: Some(shop()),
            generations: vec![Generation(1_000)],
            listed_from: None,
        };
        for generation in 101..600 {
            me = me.restarted(generation * 10, Some(shop()));
        }
        assert_eq!(me.generations.len(), LISTED_GENERATIONS);
        for (generation, is_mine) in
            [(999, false), (1_000, true), (1_010, true), (5_980, true), (5_985, false)]
        {
            assert_eq!(me.is_mine(&claim("a", generation)), is_mine, "{generation}");
        }
    }

    #[test]
    fn a_folder_of_another_cluster_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let first = begin_incarnation(&data, &shop(), 1_000, "a").unwrap();
        data.keep(&KeptRole { role: "storage/2".parse().unwrap(), drained: false }).unwrap();
        let bank = "bank".parse().unwrap();
        let error = begin_incarnation(&data, &bank, 2_000, "b").unwrap_err().to_string();
        assert!(error.ends_with("belongs to cluster `shop`, not to `bank`"), "{error}");
        assert_eq!(data.read::<Identity>(NODE).unwrap().unwrap(), first);
        assert!(data.kept_role().unwrap().is_some());

        // The file of an earlier version names no cluster; from now on it does.
        data.write(NODE, &serde_json::json!({ "id": "a", "generation": 1_000 })).unwrap();
        begin_incarnation(&data, &bank, 2_000, "b").unwrap();
        assert!(begin_incarnation(&data, &shop(), 3_000, "b").is_err());
        // Without an identity, the node has had no command.
        std::fs::remove_file(folder.path().join(NODE)).unwrap();
        begin_incarnation(&data, &shop(), 3_000, "b").unwrap();
        assert_eq!(data.kept_role().unwrap(), None);
    }

    #[test]
    fn a_folder_in_use_is_refused_and_free_again_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let error = DataDir::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
        drop(data);
        DataDir::open(folder.path()).unwrap();
    }

    #[test]
    fn the_last_command_is_kept_until_it_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        assert_eq!(data.kept_role().unwrap(), None);
        let kept = KeptRole { role: "storage/2".parse().unwrap(), drained: true };
        data.keep(&kept).unwrap();
        assert_eq!(data.kept_role().unwrap(), Some(kept));
        data.forget().unwrap();
        data.forget().unwrap();
        assert_eq!(data.kept_role().unwrap(), None);
    }

    #[test]
    fn a_damaged_file_is_reported_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        std::fs::write(folder.path().join(NODE), "{ half").unwrap();
        let error = data.next_incarnation(&shop(), None, 1, || id("x")).unwrap_err();
        assert!(error.to_string().contains("node.json is damaged"), "{error}");
        assert_eq!(std::fs::read_to_string(folder.path().join(NODE)).unwrap(), "{ half");
    }
}
