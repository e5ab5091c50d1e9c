//! The backend of all proxies: nginx with two files, on the core of the load.
//!
//! It has two addresses, so that proxies balance. A second nginx on the core of the proxies answers requests without a proxy,
//! so that these cross cores as well. File descriptors stay open and files are in the page cache: an answer costs about as
//! much as wrk needs to ask for it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::ports;
use crate::process::Process;
use crate::proxies::certificate::Certificate;
use crate::proxies::cores::{Cores, pinned};
use crate::proxies::find;
use crate::proxies::{Proxy, config};

/// A file that the backend serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Body {
    OneKb,
    SixtyFourKb,
}

impl Body {
    pub(crate) const ALL: [Self; 2] = [Self::OneKb, Self::SixtyFourKb];

    /// The number of bytes.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::OneKb => 1_024,
            Self::SixtyFourKb => 65_536,
        }
    }

    /// The path of its URL, and the name of its file.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::OneKb => "1k",
            Self::SixtyFourKb => "64k",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OneKb => "1 KB",
            Self::SixtyFourKb => "64 KB",
        }
    }
}

/// What proxies are configured with.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) backends: [SocketAddr; 2],
    pub(crate) certificate: Certificate,
}

/// The running backend. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) site: Site,
    /// The version of nginx.
    pub(crate) version: String,
    /// The address of the nginx on the core of the proxies.
    pub(crate) direct: SocketAddr,
    _processes: [Process; 2],
}

impl Backend {
    /// Starts Debian's nginx, or that of the virtual environment, with its files in a folder.
    pub(crate) async fn start(cores: Cores, peers: Option<&Path>, folder: &Path) -> anyhow::Result<Self> {
        let program = match find::proxy(Proxy::Nginx, peers).await {
            Ok(program) => program,
            Err(why) => match find::proxy(Proxy::NginxMainline, peers).await {
                Ok(program) => program,
                Err(_) => bail!("nginx serves the files behind all proxies: {why}"),
            },
        };
        let files = folder.join("files");
        std::fs::create_dir_all(&files).with_context(|| format!("creating {}", files.display()))?;
        for body in Body::ALL {
            std::fs::write(files.join(body.path()), "x".repeat(body.length()))?;
        }
        let start = |core: usize, name: &str, addresses: &[SocketAddr]| {
            let own = folder.join(name);
            std::fs::create_dir_all(&own).with_context(|| format!("creating {}", own.display()))?;
            let command = nginx(&program.binary, &own, &config::backend(addresses, &own, &files))?;
            Process::spawn(pinned(core, &command), own.join("log"))
        };
        let (backends, direct) = ([ports::free()?, ports::free()?], ports::free()?);
        let processes = [start(cores.load, "backend", &backends)?, start(cores.proxy, "direct", &[direct])?];
        let site = Site { backends, certificate: Certificate::create(folder).await? };
        Ok(Self { site, version: program.version, direct, _processes: processes })
    }
}

/// The command of an nginx with this configuration, which it finds in a folder.
pub(crate) fn nginx(binary: &PathBuf, folder: &Path, config: &str) -> anyhow::Result<Command> {
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
    let mut command = Command::new(binary);
    command.arg("-p").arg(folder).args(["-e", "stderr", "-c"]).arg(file);
    Ok(command)
}
