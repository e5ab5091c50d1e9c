//! The certificate that all proxies show, made by `openssl` for each run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;

use crate::proxies::load;

const LIMIT: Duration = Duration::from_secs(30);

/// A self-signed certificate for `localhost`, with an ECDSA key on P-256.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub(crate) both: PathBuf,
}

impl Certificate {
    /// The files in a folder, which need not exist yet.
    pub(crate) fn of(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name);
        Self { cert: file("tls.crt"), key: file("tls.key"), both: file("tls.pem") }
    }

    /// Makes the files in a folder.
    pub(crate) async fn create(folder: &Path) -> anyhow::Result<Self> {
        let made = Self::of(folder);
        let mut command = Command::new("openssl");
        command
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "30", "-subj", "/CN=localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout"])
            .arg(&made.key)
            .arg("-out")
            .arg(&made.cert);
        load::output(command, LIMIT).await.context("making a certificate; apt-get install openssl")?;
        let both = [std::fs::read(&made.cert)?, std::fs::read(&made.key)?].concat();
        std::fs::write(&made.both, both)?;
        Ok(made)
    }
}
