//! The object store of a run, and the faults that can be injected into it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use e2e::Moto;
use store::{Store, StoreUrl};

use crate::torture::network;
use crate::torture::proxy::{Mode, Proxy};

/// The size of the in-memory file system; it uses memory only for data that is written.
const ROOM: &str = "8g";
/// The free bytes that remain when it is filled.
const LEFT: u64 = 64 * 1024;

/// The store of a run.
#[derive(Debug)]
pub(crate) struct Backend {
    url: StoreUrl,
    environment: BTreeMap<String, String>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Folder(Mount),
    /// One proxy for each node, if the server uses plain HTTP.
    Bucket {
        proxies: Vec<Proxy>,
        _moto: Option<Moto>,
    },
}

/// A separate file system, if it could be mounted; otherwise `missing` has the reason. Dropping it unmounts it.
#[derive(Debug)]
struct Mount {
    folder: PathBuf,
    missing: Option<String>,
}

impl Backend {
    /// Prepares the store, for `nodes` nodes that reach this process at `outside`.
    pub(crate) async fn prepare(
        store: Option<&str>,
        folder: &Path,
        may_mount: bool,
        outside: IpAddr,
        nodes: usize,
    ) -> anyhow::Result<Self> {
        let mut environment: BTreeMap<_, _> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let (text, moto) = match store {
            None => {
                let mount = Mount::new(folder.join("store"), may_mount)?;
                let url = StoreUrl::folder(&mount.folder)?;
                return Ok(Self { url, environment, kind: Kind::Folder(mount) });
            }
            Some("moto") => {
                let moto = Moto::start().await?.context("moto_server is not installed")?;
                let own = moto.environment();
                environment.extend(own.map(|(name, value)| (name.to_owned(), value)));
                (format!("s3://{}/torture", Moto::BUCKET), Some(moto))
            }
            Some(text) => (text.to_owned(), None),
        };
        let url: StoreUrl = text.parse()?;
        if url.is_local() {
            let mount = Mount {
                folder: PathBuf::new(),
                missing: Some("the folder was given with --store".to_owned()),
            };
            return Ok(Self { url, environment, kind: Kind::Folder(mount) });
        }
        let server = environment.get("AWS_ENDPOINT").and_then(|endpoint| endpoint.strip_prefix("http://"));
        let server: Option<SocketAddr> = server.and_then(|server| server.trim_end_matches('/').parse().ok());
        let mut proxies = Vec::new();
        if let Some(server) = server {
            for _ in 0..nodes {
                proxies.push(Proxy::start(outside, server).await?);
            }
        }
        Ok(Self { url, environment, kind: Kind::Bucket { proxies, _moto: moto } })
    }

    pub(crate) fn url(&self) -> String {
        self.url.to_string()
    }

    /// The environment for a node, or for this process with `None`.
    pub(crate) fn environment(&self, node: Option<usize>) -> Vec<(String, String)> {
        let is_ours = |name: &str| name.starts_with("AWS_");
        let mut own: Vec<_> = self
            .environment
            .iter()
            .filter(|(name, _)| is_ours(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if let Some(proxy) = node.and_then(|node| self.proxy(node)) {
            own.retain(|(name, _)| name != "AWS_ENDPOINT");
            own.push(("AWS_ENDPOINT".to_owned(), format!("http://{}", proxy.addr())));
        }
        own
    }

    /// Opens the store from this process, without a proxy.
    pub(crate) async fn open(&self, cluster: &str) -> anyhow::Result<Store> {
        Ok(Store::open_with(&self.url, &cluster.parse()?, &self.environment).await?)
    }

    fn proxy(&self, node: usize) -> Option<&Proxy> {
        match &self.kind {
            Kind::Folder(_) => None,
            Kind::Bucket { proxies, .. } => proxies.get(node),
        }
    }

    /// The port of a node's proxy, if it has one.
    pub(crate) fn port(&self, node: usize) -> Option<u16> {
        Some(self.proxy(node)?.addr().port())
    }

    /// Checks that the requests of nodes pass proxies. The error is the reason if not.
    pub(crate) fn has_proxies(&self) -> Result<(), String> {
        match &self.kind {
            Kind::Folder(_) => Err("the store is a folder".to_owned()),
            Kind::Bucket { proxies, .. } if proxies.is_empty() => {
                Err("AWS_ENDPOINT is not http://ADDRESS:PORT".to_owned())
            }
            Kind::Bucket { .. } => Ok(()),
        }
    }

    /// Sets the mode of a node's proxy.
    pub(crate) fn disturb(&self, node: usize, mode: Mode) {
        if let Some(proxy) = self.proxy(node) {
            proxy.set(mode);
        }
    }

    /// Whether the server checks the time at which requests were signed.
    pub(crate) fn is_signed(&self) -> bool {
        matches!(self.kind, Kind::Bucket { _moto: None, .. })
    }

    /// Checks that the store can be filled. The error is the reason if not.
    pub(crate) fn can_fill(&self) -> Result<(), String> {
        match &self.kind {
            Kind::Folder(mount) => mount.missing.clone().map_or(Ok(()), Err),
            Kind::Bucket { .. } => Err("the store is not a folder".to_owned()),
        }
    }

    /// Fills the store almost completely.
    pub(crate) fn fill(&self) -> anyhow::Result<()> {
        let Kind::Folder(mount) = &self.kind else { bail!("only a folder can be full") };
        let stat = rustix::fs::statvfs(&mount.folder)?;
        let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
        mount.resize(&(used + LEFT).to_string())
    }

    /// Restores the free space.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        let Kind::Folder(mount) = &self.kind else { bail!("only a folder can be full") };
        mount.resize(ROOM)
    }
}

impl Mount {
    fn new(folder: PathBuf, may_mount: bool) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let options = format!("size={ROOM},nr_inodes=0");
        let missing = if !may_mount {
            Some("--plain was given".to_owned())
        } else {
            let target = folder.display().to_string();
            let mounted = network::run("mount", &["-t", "tmpfs", "-o", &options, "coterie-torture", &target]);
            mounted.err().map(|error| format!("{error:#}"))
        };
        Ok(Self { folder, missing })
    }

    fn resize(&self, size: &str) -> anyhow::Result<()> {
        let target = self.folder.display().to_string();
        network::run("mount", &["-o", &format!("remount,size={size}"), &target])
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.missing.is_none() {
            // Lazy unmount: a node that is being killed may still have a file open.
            let _ = network::run("umount", &["-l", &self.folder.display().to_string()]);
        }
    }
}
