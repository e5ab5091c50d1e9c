//! The real agent with a gateway or a balancer in HTTP mode, and one raw exchange with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{Machine, eventually, example};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Recorder;

/// How long an exchange may take: all limits of a front that end one are shorter.
const LONG: Duration = Duration::from_secs(30);

/// Stands for the host of a request that names none.
pub(crate) const NO_HOST: &str = "-";

/// Which service is in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Gateway,
    /// A load balancer in HTTP mode.
    Balancer,
}

/// Makes of each function a test for each front, which gets it as its argument.
macro_rules! of_each_front {
    ($start:ident: $($test:ident),+ $(,)?) => {
        mod gateway {
            $(#[tokio::test]
            async fn $test() -> anyhow::Result<()> {
                super::$test(crate::Front::$start(crate::front::Kind::Gateway).await?).await
            })+
        }

        mod balancer {
            $(#[tokio::test]
            async fn $test() -> anyhow::Result<()> {
                super::$test(crate::Front::$start(crate::front::Kind::Balancer).await?).await
            })+
        }
    };
}
pub(crate) use of_each_front;

/// A machine with a gateway or a balancer in front of a recorder.
pub(crate) struct Front {
    pub(crate) kind: Kind,
    /// Ended when this is dropped.
    pub(crate) machine: Machine,
    pub(crate) recorder: Recorder,
    pub(crate) address: SocketAddr,
    /// Where targets that begin with `/slow` have a short limit for standstill.
    pub(crate) slow: SocketAddr,
}

/// What came back on one connection.
pub(crate) struct Came {
    pub(crate) text: String,
    /// Whether the front closed the connection.
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
        ensure!(head.contains("x-request-id: ") && head.contains("coterie-node: front"), "{head}");
        let problem: Value = serde_json::from_str(body).with_context(|| self.text.clone())?;
        ensure!(problem["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "no hint: {problem}");
        let kind = problem["type"].as_str().unwrap_or_default();
        Ok(kind.rsplit([':', '/', '#']).next().unwrap_or_default().to_owned())
    }
}

impl Front {
    /// A gateway that sends `/base` to the recorder's `/public`, `/slow` to it with a short limit for standstill, and
    /// everything else to it as it is. A balancer has no routes: it sends everything as it is, and the short limit is that of
    /// another listener.
    pub(crate) async fn start(kind: Kind) -> anyhow::Result<Self> {
        Self::with(kind, "").await
    }

    /// The same with an access log without queries.
    pub(crate) async fn logging(kind: Kind) -> anyhow::Result<Self> {
        Self::with(kind, "access_log: {to: access.log, query: omit}\n      ").await
    }

    /// Where that log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.machine.folder().join("access.log")
    }

    /// The same with more settings.
    async fn with(kind: Kind, more: &str) -> anyhow::Result<Self> {
        let recorder = Recorder::start().await?;
        let url = format!("http://{}", recorder.address);
        let settings = match kind {
            Kind::Gateway => format!(
                "routes: [{{prefix: /base, to: ['{url}/public']}}, {{prefix: /slow, to: ['{url}'], timeouts: {{idle: 1s}}}}, \
                 {{prefix: /, to: ['{url}']}}]"
            ),
            Kind::Balancer => {
                let web = format!("mode: http, address: '127.0.0.1:0', backends: [{{address: '{url}'}}]");
                format!(
                    "listeners: [{{name: gateway, {web}}}, {{name: slow, {web}, timeouts: {{idle: 1s}}}}]"
                )
            }
        };
        Self::up(kind, recorder, &format!("{more}{settings}"), "", &[]).await
    }

    /// In front of a recorder, with short limits for slow clients and with an access log.
    pub(crate) async fn hurried(kind: Kind) -> anyhow::Result<Self> {
        let recorder = Recorder::start().await?;
        let url = format!("http://{}", recorder.address);
        let settings = match kind {
            Kind::Gateway => format!(
                "{{keep_alive: 1s, send_timeout: 1s, min_rate: 100B, access_log: {{to: access.log}}, \
                 routes: [{{prefix: /, to: ['{url}']}}]}}"
            ),
            Kind::Balancer => format!(
                "{{access_log: {{to: access.log}}, listeners: [{{name: gateway, mode: http, address: '127.0.0.1:0', \
                 backends: [{{address: '{url}'}}], timeouts: {{keep_alive: 1s, send: 1s}}, limits: {{min_rate: 100B}}}}]}}"
            ),
        };
        Self::up(kind, recorder, &settings, "", &[]).await
    }

    /// In front of a member that echoes each request, `tests/examples/echo.rs`: a gateway under `/echo`, a balancer under `/`.
    pub(crate) async fn with_member(kind: Kind) -> anyhow::Result<Self> {
        let agent = example("echo")?.display().to_string();
        let settings = match kind {
            Kind::Gateway => "routes: []",
            Kind::Balancer => {
                "listeners: [{name: gateway, mode: http, address: '127.0.0.1:0', service: echo}]"
            }
        };
        let member = "  - {id: member, service: echo}\n";
        Self::up(kind, Recorder::start().await?, settings, member, &["--agent-bin", &agent]).await
    }

    async fn up(
        kind: Kind,
        recorder: Recorder,
        settings: &str,
        members: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let service = match kind {
            Kind::Gateway => "api_gateway",
            Kind::Balancer => "load_balancer",
        };
        let machine = Machine::new()?;
        let manifest = machine.manifest(&format!(
            "services:\n  {service}:\n    settings:\n      {settings}\n\
             nodes:\n  - {{id: front, service: {service}}}\n{members}"
        ))?;
        let arguments = [&["up", &manifest, "--timeout", "60s"], arguments].concat();
        machine.ctl(&arguments).await?.exits(0)?;
        let (address, slow) = eventually("the front listens", || async {
            let shown = machine.ctl(&["members", "-o", "json"]).await.ok()?.json().ok()?;
            let members = shown["members"].as_array()?.clone();
            let front = members.into_iter().find(|one| one["id"] == "front")?;
            let of = |name: &str| -> Option<SocketAddr> {
                let url = front["state"]["endpoints"][name].as_str()?;
                url.trim_start_matches("http://").parse().ok()
            };
            let address = of("gateway")?;
            Some((address, of("slow").unwrap_or(address)))
        })
        .await?;
        Ok(Self { kind, machine, recorder, address, slow })
    }

    /// The `Host` that arrives at the recorder when the client asked for this one.
    pub(crate) fn host(&self, asked: &str) -> String {
        match self.kind {
            Kind::Balancer if asked != NO_HOST => asked.to_owned(),
            Kind::Balancer | Kind::Gateway => self.recorder.address.to_string(),
        }
    }

    /// The target of the member's path.
    pub(crate) fn of_member(&self, path: &str) -> String {
        match self.kind {
            Kind::Gateway => format!("/echo{path}"),
            Kind::Balancer => path.to_owned(),
        }
    }

    /// Sends bytes, then the end of the sending side if `ends`, and reads until the front closes the connection.
    pub(crate) async fn exchange(&self, bytes: &[u8], ends: bool) -> anyhow::Result<Came> {
        exchange(self.address, bytes, ends).await
    }
}

/// The same with another address.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8], ends: bool) -> anyhow::Result<Came> {
    let stream = TcpStream::connect(address).await?;
    let (mut reader, mut writer) = stream.into_split();
    let sending = async {
        // The front may refuse and close before it has read everything.
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
