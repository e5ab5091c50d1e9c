//! The real agent with a gateway, and one raw exchange with it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Machine, eventually, example};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Recorder;

/// How long an exchange may take: all limits of the gateway that end one are shorter.
const LONG: Duration = Duration::from_secs(30);

/// A machine with a gateway in front of a recorder.
pub(crate) struct Front {
    /// Ended when this is dropped.
    pub(crate) machine: Machine,
    pub(crate) recorder: Recorder,
    pub(crate) gateway: SocketAddr,
}

/// What came back on one connection.
pub(crate) struct Came {
    pub(crate) text: String,
    /// Whether the gateway closed the connection.
    pub(crate) is_closed: bool,
}

impl Came {
    /// The statuses of all final answers.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        let after = |version| self.text.split(version).skip(1);
        let status = |answer: &str| answer.get(..3).and_then(|code| code.parse::<u16>().ok());
        let answers = after("HTTP/1.1 ").filter_map(status);
        answers.chain(after("HTTP/1.0 ").filter_map(status)).filter(|code| *code >= 200).collect()
    }

    pub(crate) fn status(&self) -> u16 {
        self.statuses().first().copied().unwrap_or_default()
    }

    /// The head of the first answer, in lower case.
    pub(crate) fn head(&self) -> String {
        self.text.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase() + "\r\n"
    }

    /// The code of the problem in the last answer, which must be whole.
    pub(crate) fn code(&self) -> anyhow::Result<String> {
        let (head, body) = self.text.rsplit_once("\r\n\r\n").context("no head and body")?;
        let head = head.to_ascii_lowercase();
        ensure!(head.contains("content-type: application/problem+json"), "no problem: {}", self.text);
        ensure!(head.contains("x-request-id: ") && head.contains("coterie-node: gateway"), "{head}");
        let problem: Value = serde_json::from_str(body).with_context(|| self.text.clone())?;
        ensure!(problem["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "no hint: {problem}");
        let kind = problem["type"].as_str().unwrap_or_default();
        Ok(kind.rsplit([':', '/', '#']).next().unwrap_or_default().to_owned())
    }
}

impl Front {
    /// A gateway that sends `/base` to the recorder's `/public`, `/slow` to it with a short limit for standstill, and
    /// everything else to it as it is.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let recorder = Recorder::start().await?;
        let url = format!("http://{}", recorder.address);
        let routes = format!(
            "[{{prefix: /base, to: ['{url}/public']}}, {{prefix: /slow, to: ['{url}'], timeouts: {{idle: 1s}}}}, \
             {{prefix: /, to: ['{url}']}}]"
        );
        let nodes = "nodes:\n  - {id: gateway, service: api_gateway}\n";
        let settings = format!("services:\n  api_gateway:\n    settings:\n      routes: {routes}\n");
        Self::up(recorder, &format!("{settings}{nodes}"), &[]).await
    }

    /// A gateway in front of a member that echoes each request, `tests/examples/echo.rs`, under `/echo`.
    pub(crate) async fn with_member() -> anyhow::Result<Self> {
        let agent = example("echo")?.display().to_string();
        let nodes = "nodes:\n  - {id: gateway, service: api_gateway}\n  - {id: member, service: echo}\n";
        Self::up(Recorder::start().await?, nodes, &["--agent-bin", &agent]).await
    }

    async fn up(recorder: Recorder, manifest: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let machine = Machine::new()?;
        let manifest = machine.manifest(manifest)?;
        let arguments = [&["up", &manifest, "--timeout", "60s"], arguments].concat();
        machine.ctl(&arguments).await?.exits(0)?;
        let gateway = eventually("the gateway listens", || async {
            let shown = machine.ctl(&["members", "-o", "json"]).await.ok()?.json().ok()?;
            let members = shown["members"].as_array()?.clone();
            let found = members.iter().find_map(|one| one["state"]["endpoints"]["gateway"].as_str())?;
            found.trim_start_matches("http://").parse().ok()
        })
        .await?;
        Ok(Self { machine, recorder, gateway })
    }

    /// Sends bytes, then the end of the sending side if `ends`, and reads until the gateway closes the connection.
    pub(crate) async fn exchange(&self, bytes: &[u8], ends: bool) -> anyhow::Result<Came> {
        let stream = TcpStream::connect(self.gateway).await?;
        let (mut reader, mut writer) = stream.into_split();
        let sending = async {
            // The gateway may refuse and close before it has read everything.
            let sent = writer.write_all(bytes).await;
            if ends && sent.is_ok() {
                let _ = writer.shutdown().await;
            }
        };
        let mut came = Vec::new();
        let reading = timeout(LONG, async {
            // A reset after the answer is an end, too.
            while reader.read_buf(&mut came).await.is_ok_and(|count| count > 0) {}
        });
        let ((), read) = tokio::join!(sending, reading);
        Ok(Came { text: String::from_utf8_lossy(&came).into_owned(), is_closed: read.is_ok() })
    }
}

/// Collects what is wrong with the rows of a table.
#[derive(Default)]
pub(crate) struct Failures(Vec<String>);

impl Failures {
    /// Notes the result of a row.
    pub(crate) fn note(&mut self, row: &str, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.0.push(format!("{row}: {error:#}"));
        }
    }

    /// Fails with all of them.
    pub(crate) fn result(self) -> anyhow::Result<()> {
        ensure!(self.0.is_empty(), "{} rows are wrong:\n\n{}", self.0.len(), self.0.join("\n\n"));
        Ok(())
    }
}
