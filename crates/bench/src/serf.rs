//! Debian's `serf`: its command, and the part of its RPC that bench needs.
//!
//! The RPC is a stream of msgpack values: a header, then a body if the command has one; answers likewise
//! (<https://github.com/hashicorp/serf/blob/master/docs/agent/rpc.html.markdown>).

use std::collections::BTreeMap;
use std::fmt;
use std::io::Cursor;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::node_config::NodeConfig;

/// The largest answer, in bytes.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;
const TAG: &str = "role";

/// Serf's timing profile; the better one is compared with ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Local,
    Lan,
}

impl Profile {
    pub(crate) const ALL: [Self; 2] = [Self::Local, Self::Lan];
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Lan => "lan",
        })
    }
}

/// The profiles to compare with, or why there are none.
pub(crate) async fn profiles() -> Result<Vec<Profile>, String> {
    let version = Command::new("serf").arg("version").kill_on_drop(true).output().await;
    match version {
        Ok(output) if output.status.success() => Ok(Profile::ALL.to_vec()),
        Ok(output) => Err(format!("fails: {}", output.status)),
        Err(_) => Err("not installed".to_owned()),
    }
}

/// The command of a Serf agent. It retries to join from its start on, as ours does.
pub(crate) fn command(profile: Profile, config: &NodeConfig, seeds: &[SocketAddr]) -> Command {
    let mut command = Command::new("serf");
    command
        .arg("agent")
        .arg(format!("-node={}", config.name))
        .arg(format!("-bind={}", config.gossip))
        .arg(format!("-rpc-addr={}", config.api))
        .arg(format!("-profile={profile}"))
        .arg("-retry-interval=20ms");
    for seed in seeds {
        command.arg(format!("-retry-join={seed}"));
    }
    command
}

/// A member as Serf reports it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Member {
    pub(crate) name: String,
    status: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

impl Member {
    pub(crate) fn is_alive(&self) -> bool {
        self.status == "alive"
    }

    /// The tag that [`Rpc::set_tag`] sets.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.tags.get(TAG).map(String::as_str)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    command: &'a str,
    seq: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    seq: u64,
    error: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Members {
    members: Vec<Member>,
}

/// The connection to one Serf agent, opened on demand and again after it broke.
#[derive(Debug)]
pub(crate) struct Rpc {
    addr: SocketAddr,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    seq: u64,
    /// Bytes that were read but not yet parsed.
    pending: Vec<u8>,
}

impl Rpc {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr, connection: None }
    }

    /// Opens the connection if it is not open. An error means that Serf does not answer yet.
    pub(crate) async fn connect(&mut self) -> anyhow::Result<()> {
        if self.connection.is_none() {
            let stream = TcpStream::connect(self.addr).await?;
            stream.set_nodelay(true)?;
            let mut connection = Connection { stream, seq: 0, pending: Vec::new() };
            connection
                .call::<IgnoredAny>("handshake", Some(&BTreeMap::from([("Version", 1)])), false)
                .await?;
            self.connection = Some(connection);
        }
        Ok(())
    }

    pub(crate) async fn members(&mut self) -> anyhow::Result<Vec<Member>> {
        let none: Option<&BTreeMap<&str, u32>> = None;
        let members: Option<Members> = self.call("members", none, true).await?;
        Ok(members.context("the answer has no body")?.members)
    }

    pub(crate) async fn set_tag(&mut self, value: &str) -> anyhow::Result<()> {
        let body = BTreeMap::from([("Tags", BTreeMap::from([(TAG, value)]))]);
        self.call::<IgnoredAny>("tags", Some(&body), false).await?;
        Ok(())
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        command: &str,
        body: Option<&impl Serialize>,
        is_answered: bool,
    ) -> anyhow::Result<Option<T>> {
        self.connect().await?;
        // A connection dropped in the middle of an answer can't be used again.
        let mut connection = self.connection.take().context("the connection is closed")?;
        let answer = connection.call(command, body, is_answered).await?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

impl Connection {
    async fn call<T: DeserializeOwned>(
        &mut self,
        command: &str,
        body: Option<&impl Serialize>,
        is_answered: bool,
    ) -> anyhow::Result<Option<T>> {
        self.seq += 1;
        let mut bytes = rmp_serde::to_vec_named(&Request { command, seq: self.seq })?;
        if let Some(body) = body {
            bytes.extend(rmp_serde::to_vec_named(body)?);
        }
        self.stream.write_all(&bytes).await?;
        let head: Answer = self.value().await?;
        if head.seq != self.seq || !head.error.is_empty() {
            bail!("{command}: answer {} to {}: {}", head.seq, self.seq, head.error);
        }
        Ok(if is_answered { Some(self.value().await?) } else { None })
    }

    /// The next value, once it has arrived completely.
    async fn value<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        while self.pending.len() < ANSWER_LIMIT {
            if let Some((value, length)) = first_value(&self.pending)? {
                self.pending.drain(..length);
                return Ok(value);
            }
            if self.stream.read_buf(&mut self.pending).await? == 0 {
                bail!("the connection was closed");
            }
        }
        bail!("the answer is too long")
    }
}

/// The first value and its length; `None` if it is incomplete.
fn first_value<T: DeserializeOwned>(bytes: &[u8]) -> anyhow::Result<Option<(T, usize)>> {
    use rmp_serde::decode::Error;
    let mut reader = Cursor::new(bytes);
    match rmp_serde::from_read(&mut reader) {
        Ok(value) => Ok(Some((value, usize::try_from(reader.position())?))),
        Err(Error::InvalidMarkerRead(error) | Error::InvalidDataRead(error))
            if error.kind() == std::io::ErrorKind::UnexpectedEof =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_parsed_only_when_it_is_complete() {
        let mut bytes = rmp_serde::to_vec_named(&BTreeMap::from([("Seq", 7)])).unwrap();
        let length = bytes.len();
        bytes.extend([0xc0, 0xc0]);
        for end in 0..length {
            let value = first_value::<BTreeMap<String, u64>>(&bytes[..end]).unwrap();
            assert_eq!(value, None, "{end} of {length} bytes");
        }
        let (value, read) = first_value::<BTreeMap<String, u64>>(&bytes).unwrap().unwrap();
        assert_eq!((value["Seq"], read), (7, length));
    }

    #[test]
    fn a_member_is_parsed_even_if_its_address_is_not_text() {
        // As Serf's encoder writes it: bytes in the old format, which is also that of text.
        let mut bytes = vec![0x83, 0xa4];
        bytes.extend(b"Name");
        bytes.extend([0xa2, b'n', b'1', 0xa4]);
        bytes.extend(b"Addr");
        bytes.extend([0xa4, 0xff, 0xfe, 0, 1, 0xa6]);
        bytes.extend(b"Status");
        bytes.push(0xa5);
        bytes.extend(b"alive");
        let (member, _) = first_value::<Member>(&bytes).unwrap().unwrap();
        assert!(member.is_alive() && member.name == "n1" && member.tag().is_none());
    }
}
