//! An S3 server on this machine, if `moto_server` is installed.

use std::io;
use std::process::{Child, Command, Stdio};

use anyhow::Context;

use crate::{eventually, free_port};

/// An S3 server on a free port, with one bucket. Dropping it stops the server.
#[derive(Debug)]
pub struct Moto {
    child: Child,
    url: String,
}

impl Moto {
    /// The bucket.
    pub const BUCKET: &str = "coterie";

    /// Starts it. If it is not installed, prints that and returns `None`; on CI that is a failure.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        let port = free_port()?;
        let mut command = Command::new("moto_server");
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
                anyhow::ensure!(!is_ci, "moto_server is not installed: pip install 'moto[server]'");
                println!("skipped: moto_server is not installed (pip install 'moto[server]')");
                return Ok(None);
            }
            Err(error) => return Err(error).context("moto_server does not start"),
        };
        let moto = Self { child, url: format!("http://127.0.0.1:{port}") };
        let http = client::plain_http().build()?;
        let bucket = format!("{}/{}", moto.url, Self::BUCKET);
        eventually("the S3 server has a bucket", || async {
            http.put(&bucket).send().await.ok()?.status().is_success().then_some(())
        })
        .await?;
        Ok(Some(moto))
    }

    /// The environment variables of its users.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT", self.url.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
