//! Stores for tests: a folder, memory, and an S3 server of its own where `moto_server` is installed.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::objects::Objects;

/// A store and what must outlive it.
pub(crate) struct Place {
    pub(crate) store: Arc<dyn ObjectStore>,
    _folder: Option<TempDir>,
}

impl Place {
    pub(crate) fn memory() -> Self {
        Self { store: Arc::new(InMemory::new()), _folder: None }
    }

    pub(crate) fn folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap().with_fsync(true);
        Self { store: Arc::new(store), _folder: Some(folder) }
    }

    pub(crate) fn objects(&self) -> Objects {
        objects(Arc::clone(&self.store))
    }
}

pub(crate) fn objects(store: Arc<dyn ObjectStore>) -> Objects {
    Objects::new(store, &"memory:///".parse().unwrap())
}

/// An S3 server on a free port of this machine; dropping it stops it.
pub(crate) struct Moto {
    child: Child,
    port: u16,
}

impl Moto {
    /// `None`, with a message, where `moto_server` is not installed; on CI that is a failure.
    pub(crate) async fn start(bucket: &str) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let spawned = Command::new("moto_server")
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let ci = std::env::var("CI").is_ok_and(|value| value == "true");
                assert!(!ci, "moto_server is not installed: pip install 'moto[server]'");
                println!("skipped: moto_server is not installed (pip install 'moto[server]')");
                return None;
            }
            Err(error) => panic!("moto_server does not start: {error}"),
        };
        let moto = Self { child, port };
        let patience = Instant::now() + Duration::from_secs(60);
        while let Err(error) = moto.make_bucket(bucket).await {
            assert!(Instant::now() < patience, "moto_server does not answer: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(moto)
    }

    async fn make_bucket(&self, bucket: &str) -> io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let request = format!(
            "PUT /{bucket} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.port
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(io::Error::other(answer)) }
    }

    /// The environment variables that a user would set.
    pub(crate) fn environment(&self) -> BTreeMap<String, String> {
        environment(&format!("http://127.0.0.1:{}", self.port))
    }
}

pub(crate) fn environment(endpoint: &str) -> BTreeMap<String, String> {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
