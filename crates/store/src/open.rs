//! Opens the store of a cluster: connects, tests, and makes or reads its identity.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use serde::{Deserialize, Serialize};
use types::api::StoreInfo;
use types::{ClusterId, ErrorKind, ServiceName, ShardRef, StoreId};
use uuid::Uuid;

use crate::claims::Claims;
use crate::connect::{Environment, connect};
use crate::error::{Fault, StoreError};
use crate::mount_guard::MountGuard;
use crate::objects::{Created, Objects};
use crate::probe::{self, Depth, RACERS, Refusal};
use crate::role_logs::RoleLogs;
use crate::specs::Specs;
use crate::url::{Place, StoreUrl};

/// The store of a cluster, opened and tested. A clone is the same store.
#[derive(Clone)]
pub struct Store {
    objects: Objects,
    info: Arc<StoreInfo>,
    /// The URL of this node's API.
    http: Option<Arc<str>>,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It lacks a guarantee that Coterie needs; use another.
    #[error("the store {url} cannot hold a cluster: {reason}")]
    Unfit {
        /// The store.
        url: StoreUrl,
        /// What it did wrong.
        reason: String,
    },
    /// Its client could not be made; correct the environment.
    #[error("the store {url} cannot be opened: {reason}")]
    Settings {
        /// The store.
        url: StoreUrl,
        /// What is missing or wrong.
        reason: String,
    },
    /// Its identity exists but cannot be read; it is left unchanged.
    #[error("`{object}` in {url} is damaged: {reason}")]
    Damaged {
        /// The store.
        url: StoreUrl,
        /// The object, relative to the store.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It failed or did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    /// What a caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unfit { .. } | Self::Settings { .. } => ErrorKind::Invalid,
            Self::Damaged { .. } => ErrorKind::Internal,
            Self::Store(error) => error.kind(),
        }
    }

    /// Whether a later attempt may succeed: the store is unreachable, its disk is full, or no descriptor is left.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) => {
                matches!(
                    error.fault(),
                    Fault::Unreachable | Fault::Timeout | Fault::Full | Fault::NoDescriptors
                )
            }
            Self::Unfit { .. } | Self::Settings { .. } | Self::Damaged { .. } => false,
        }
    }

    /// What an operator can do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unfit { .. } => Some(
                "use a store that lets one creator win: a folder, Amazon S3, Cloudflare R2, MinIO, \
                 Google Cloud Storage or Azure Blob Storage"
                    .to_owned(),
            ),
            Self::Settings { .. } => Some(
                "credentials and endpoints come from the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, \
                 AWS_REGION, AWS_ENDPOINT; GOOGLE_SERVICE_ACCOUNT; AZURE_STORAGE_ACCOUNT_NAME, \
                 AZURE_STORAGE_ACCOUNT_KEY"
                    .to_owned(),
            ),
            Self::Damaged { object, .. } => Some(format!(
                "restore `{object}` from a backup; the id in it is the one that the cluster's members show"
            )),
            Self::Store(error) => error.hint(),
        }
    }
}

/// `store.json`: its id shows two nodes that they use the same store.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Identity {
    id: StoreId,
    /// The version of Coterie that made and tested it.
    made_by: String,
    /// Unix milliseconds, on the clock of the node that made it; for display only.
    made_at_ms: u64,
    test: TestResult,
}

/// The result of the full test.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct TestResult {
    /// Always `fit`: an unfit store gets no identity.
    verdict: String,
    /// How many creators raced for one object.
    creators: usize,
}

impl Store {
    /// Opens the store at `url`, tests it, and makes or reads its identity. Credentials and endpoints come
    /// from the environment.
    ///
    /// The full test runs once, before the identity is made; each opening only tests whether an object can be
    /// created twice. A `memory:///` store is new and empty each time.
    pub async fn open(url: &StoreUrl, cluster: &ClusterId) -> Result<Self, OpenError> {
        Self::open_patiently(url, cluster, std::future::ready(())).await
    }

    /// The same, but a new store is tested only once `others` has completed: of many nodes that start at once, the first
    /// runs the full test for all.
    pub async fn open_patiently(
        url: &StoreUrl,
        cluster: &ClusterId,
        others: impl Future<Output = ()> + Send,
    ) -> Result<Self, OpenError> {
        // Not `vars`, which panics on names and values that are not UTF-8.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::open_over(url, cluster, &environment, others).await
    }

    /// The same with the given environment.
    pub async fn open_with(
        url: &StoreUrl,
        cluster: &ClusterId,
        environment: &Environment,
    ) -> Result<Self, OpenError> {
        Self::open_over(url, cluster, environment, std::future::ready(())).await
    }

    async fn open_over(
        url: &StoreUrl,
        cluster: &ClusterId,
        environment: &Environment,
        others: impl Future<Output = ()> + Send,
    ) -> Result<Self, OpenError> {
        let connected = tokio::time::timeout(crate::objects::LIMIT, connect(url, environment)).await;
        let objects = match connected {
            Ok(Ok(objects)) => objects,
            Ok(Err(error)) if url.is_local() => {
                return Err(StoreError::new("open", "", &url.to_string(), error).into());
            }
            Ok(Err(error)) => {
                let reason = StoreError::new("open", "", &url.to_string(), error).cause().to_owned();
                return Err(OpenError::Settings { url: url.clone(), reason });
            }
            Err(_) => {
                let cause = format!("no answer within {:?}", crate::objects::LIMIT);
                return Err(StoreError::of(Fault::Timeout, "open", "", &url.to_string(), cause).into());
            }
        };
        let Place::Folder(root) = url.place() else {
            return Self::over_patiently(objects, url.clone(), cluster, others).await;
        };
        // The identity is made first: the guard needs the file.
        let store = Self::over_patiently(Arc::clone(&objects), url.clone(), cluster, others).await?;
        let path = root.join(cluster.as_str()).join("store.json");
        let guarded = MountGuard::new(objects, path).map_err(|error| {
            let source = object_store::Error::Generic { store: "folder", source: error.into() };
            OpenError::from(StoreError::new("open", "store.json", &url.to_string(), source))
        })?;
        Ok(Self { objects: below(Arc::new(guarded), url, cluster), ..store })
    }

    /// The same over any implementation, for tests and for programs that embed Coterie; `url` is for display.
    pub async fn over(
        objects: Arc<dyn ObjectStore>,
        url: StoreUrl,
        cluster: &ClusterId,
    ) -> Result<Self, OpenError> {
        Self::over_patiently(objects, url, cluster, std::future::ready(())).await
    }

    /// The same, patiently; see [`Store::open_patiently`].
    pub async fn over_patiently(
        objects: Arc<dyn ObjectStore>,
        url: StoreUrl,
        cluster: &ClusterId,
        others: impl Future<Output = ()> + Send,
    ) -> Result<Self, OpenError> {
        let objects = below(objects, &url, cluster);
        let name = Identity::path();
        let mut found = objects.read(&name).await?;
        if found.is_none() {
            others.await;
            found = objects.read(&name).await?;
        }
        if found.is_none()
            && let Some(left) = leftover(&objects, &url).await?
        {
            // Another node may have made it meanwhile, and begun to use the store.
            found = objects.read(&name).await?;
            if found.is_none() {
                return Err(OpenError::Damaged {
                    url,
                    object: format!("{cluster}/{name}"),
                    reason: format!("it is gone, though `{left}` is there"),
                });
            }
        }
        let depth = if found.is_some() { Depth::Quick } else { Depth::Full };
        let known = match &found {
            // Before the test, which must not write to a damaged store.
            Some(content) => Some(Identity::read(content, &url, cluster)?),
            None => None,
        };
        test(&objects, &url, cluster, depth).await?;
        let identity = match known {
            Some(identity) => identity,
            None => Identity::make(&objects, &url, cluster).await?,
        };
        let info = Arc::new(StoreInfo { id: identity.id, url: url.to_string() });
        Ok(Self { objects, info, http: None })
    }

    /// Records the URL of this node's API in each claim that it takes.
    #[must_use]
    pub fn reached_at(self, http: &str) -> Self {
        Self { http: Some(http.into()), ..self }
    }

    /// Its identity and its URL.
    pub fn info(&self) -> &StoreInfo {
        &self.info
    }

    /// The specs of the services.
    pub fn specs(&self) -> Specs {
        Specs::new(self.objects.clone())
    }

    /// Who owns which shard.
    pub fn claims(&self) -> Claims {
        Claims::new(self.objects.clone(), self.http.clone())
    }

    /// A role's own data: everything below `data/{service}/{shard}`.
    pub fn data(&self, ShardRef { service, shard }: &ShardRef) -> Arc<dyn ObjectStore> {
        let below = Path::from("data").join(service.as_str()).join(shard.to_string());
        Arc::new(PrefixStore::new(Arc::clone(self.objects.store()), below))
    }

    /// The logs among a role's own data, and those of its service.
    pub fn logs(&self, shard: &ShardRef) -> RoleLogs {
        RoleLogs::new(self.objects.clone(), shard)
    }

    /// Deletes all data of a service, which must not run on any node. Returns the number of objects.
    pub async fn delete_data(&self, service: &ServiceName) -> Result<usize, StoreError> {
        self.objects.delete_below(&Path::from("data").join(service.as_str())).await
    }

    #[cfg(test)]
    pub(crate) fn objects_for_test(&self) -> Objects {
        self.objects.clone()
    }

    /// Whether it is on a network, where each request takes time and may cost money.
    pub fn is_remote(&self) -> bool {
        !self.objects.is_local()
    }

    /// How often a replica polls a role's own data: ten times a second where requests are free, once a second where each
    /// costs money.
    pub fn replica_poll(&self) -> Duration {
        if self.objects.is_local() { Duration::from_millis(100) } else { Duration::from_secs(1) }
    }

    /// How often an owner polls its claim: four times a second where requests are free, once a second where each costs
    /// money. See [`Claims::is_latest`].
    pub fn poll_interval(&self) -> Duration {
        if self.objects.is_local() { Duration::from_millis(250) } else { Duration::from_secs(1) }
    }

    /// The time that a challenged owner gets besides two of its polls: for the requests of a defence, and for a store that
    /// is briefly slow.
    pub fn defence_slack(&self) -> Duration {
        self.poll_interval()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The objects of a cluster, below its name.
fn below(objects: Arc<dyn ObjectStore>, url: &StoreUrl, cluster: &ClusterId) -> Objects {
    Objects::new(Arc::new(PrefixStore::new(objects, cluster.as_str())), url)
}

/// An object of an earlier use of the store, except objects of a running test.
async fn leftover(objects: &Objects, url: &StoreUrl) -> Result<Option<Path>, StoreError> {
    let probes = Path::from("probe");
    let mut all = objects.store().list(None);
    let search = async {
        while let Some(object) = all.try_next().await? {
            if !object.location.prefix_matches(&probes) {
                return Ok(Some(object.location));
            }
        }
        Ok(None)
    };
    match tokio::time::timeout(crate::objects::LIMIT, search).await {
        Ok(found) => found.map_err(|error| StoreError::new("list", "", &url.to_string(), error)),
        Err(_) => {
            let cause = format!("no answer within {:?}", crate::objects::LIMIT);
            Err(StoreError::of(Fault::Timeout, "list", "", &url.to_string(), cause))
        }
    }
}

async fn test(objects: &Objects, url: &StoreUrl, cluster: &ClusterId, depth: Depth) -> Result<(), OpenError> {
    let folder = probe::folder();
    let result = probe::test(objects, &folder, depth).await;
    if let Place::Folder(root) = url.place() {
        // The objects are removed, their folders are not. (A store that is not over this folder has none.)
        let left = root.join(cluster.as_str()).join(folder.as_ref());
        for empty in [left.join("list"), left] {
            tokio::fs::remove_dir(empty).await.ok();
        }
    }
    result.map_err(|refusal| match refusal {
        Refusal::Unfit(reason) => OpenError::Unfit { url: url.clone(), reason },
        Refusal::Store(error) => OpenError::Store(error),
    })
}

impl Identity {
    fn path() -> Path {
        Path::from("store.json")
    }

    fn read(content: &[u8], url: &StoreUrl, cluster: &ClusterId) -> Result<Self, OpenError> {
        serde_json::from_slice(content).map_err(|error| OpenError::Damaged {
            url: url.clone(),
            object: format!("{cluster}/{}", Self::path()),
            reason: if content.is_empty() { "it is empty".to_owned() } else { error.to_string() },
        })
    }

    /// Makes it, or reads the one that a faster node has made.
    async fn make(objects: &Objects, url: &StoreUrl, cluster: &ClusterId) -> Result<Self, OpenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let made = Self {
            id: StoreId(Uuid::now_v7()),
            made_by: env!("CARGO_PKG_VERSION").to_owned(),
            made_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            test: TestResult { verdict: "fit".to_owned(), creators: RACERS },
        };
        let content = serde_json::to_vec_pretty(&made).expect("plain data is always JSON");
        let created = objects.create(&Self::path(), content.into()).await?;
        match objects.read(&Self::path()).await? {
            // Also if it was created: a repeated request may have found its own object.
            Some(content) => Self::read(&content, url, cluster),
            None if created == Created::Yes => Ok(made),
            None => Err(OpenError::Unfit {
                url: url.clone(),
                reason: format!("`{}` exists when written and does not exist when read", Self::path()),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
