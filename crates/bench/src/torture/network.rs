//! The run's own network: each node in a namespace, all on one bridge, so that a node can be cut off from the others.
//!
//! It needs root, `ip` and `nft`. Its names contain the process id. Dropping it removes everything.

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};

/// The nodes of a run on their bridge. Dropping it removes everything; the processes in it must have exited.
#[derive(Debug)]
pub(crate) struct Network {
    /// The prefix of all names.
    name: String,
    /// The third byte of all addresses.
    subnet: u8,
    nodes: u8,
}

/// The direction in which packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    Both,
    /// The node receives nothing.
    Incoming,
    /// The node's packets are lost.
    Outgoing,
}

impl Network {
    /// Creates a network for `nodes` nodes. The error states why that is not possible.
    pub(crate) fn new(nodes: u8) -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("only root can create network namespaces");
        }
        let pid = std::process::id();
        let subnet = u8::try_from(pid % 250).unwrap_or_default() + 1;
        // Dropping it removes everything if a step fails. The kernel allows names of 15 characters.
        let network = Self { name: format!("ct{}", pid % 1_000_000), subnet, nodes };
        network.make()?;
        Ok(network)
    }

    fn make(&self) -> anyhow::Result<()> {
        let bridge = self.bridge();
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", self.outside()), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for node in 0..self.nodes {
            let (space, outer, inner) = (self.space(node), self.outer(node), self.inner(node));
            ip(&["netns", "add", &space])?;
            ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner])?;
            ip(&["link", "set", &inner, "netns", &space])?;
            ip(&["link", "set", &outer, "master", &bridge, "up"])?;
            ip(&["-n", &space, "addr", "add", &format!("{}/24", self.address(node)), "dev", &inner])?;
            ip(&["-n", &space, "link", "set", &inner, "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    fn outer(&self, node: u8) -> String {
        format!("{}o{node}", self.name)
    }

    fn inner(&self, node: u8) -> String {
        format!("{}i{node}", self.name)
    }

    /// The namespace of a node.
    pub(crate) fn space(&self, node: u8) -> String {
        format!("{}n{node}", self.name)
    }

    /// The address of this process, which every node can reach.
    pub(crate) fn outside(&self) -> IpAddr {
        Ipv4Addr::new(10, 213, self.subnet, 1).into()
    }

    pub(crate) fn address(&self, node: u8) -> IpAddr {
        Ipv4Addr::new(10, 213, self.subnet, node + 10).into()
    }

    /// Cuts a node off from all others, but not from this process.
    pub(crate) fn cut(&self, node: u8, lost: Lost) -> anyhow::Result<()> {
        self.cut_as("cut", node, lost)
    }

    /// Cuts a node off from all others, independently of [`Network::cut`].
    pub(crate) fn isolate(&self, node: u8) -> anyhow::Result<()> {
        self.cut_as("alone", node, Lost::Both)
    }

    fn cut_as(&self, table: &str, node: u8, lost: Lost) -> anyhow::Result<()> {
        let others: Vec<_> = (0..self.nodes)
            .filter(|other| *other != node)
            .map(|other| self.address(other).to_string())
            .collect();
        let others = others.join(", ");
        let mut rules = String::new();
        if lost != Lost::Outgoing {
            rules +=
                &format!("chain in {{ type filter hook input priority 0; ip saddr {{ {others} }} drop; }}\n");
        }
        if lost != Lost::Incoming {
            rules += &format!(
                "chain out {{ type filter hook output priority 0; ip daddr {{ {others} }} drop; }}\n"
            );
        }
        self.nft(node, &format!("table inet {table} {{ {rules} }}"))
    }

    /// Cuts a node off from a port of this process.
    pub(crate) fn cut_port(&self, node: u8, port: u16) -> anyhow::Result<()> {
        let outside = self.outside();
        let chain = format!(
            "chain out {{ type filter hook output priority 0; ip daddr {outside} tcp dport {port} drop; }}\n"
        );
        self.nft(node, &format!("table inet store {{ {chain} }}"))
    }

    /// Ends a cut.
    pub(crate) fn join(&self, node: u8) -> anyhow::Result<()> {
        self.nft(node, "delete table inet cut")
    }

    /// Ends an isolation, if it has not ended already.
    pub(crate) fn rejoin(&self, node: u8) {
        let _ = self.nft(node, "delete table inet alone");
    }

    /// Ends a cut of a port.
    pub(crate) fn join_port(&self, node: u8) -> anyhow::Result<()> {
        self.nft(node, "delete table inet store")
    }

    fn nft(&self, node: u8, rules: &str) -> anyhow::Result<()> {
        run("ip", &["netns", "exec", &self.space(node), "nft", rules])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Parts that were not created can't be removed; errors can't be reported here.
        for node in 0..self.nodes {
            let _ = ip(&["link", "del", &self.outer(node)]);
            let _ = ip(&["netns", "del", &self.space(node)]);
        }
        let _ = ip(&["link", "del", &self.bridge()]);
    }
}

/// The command that runs in a namespace, with the same process id.
pub(crate) fn within(space: &str, command: &tokio::process::Command) -> tokio::process::Command {
    let inner = command.as_std();
    let mut outer = tokio::process::Command::new("ip");
    outer.args(["netns", "exec", space]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run("ip", arguments)
}

/// Runs a system command that takes milliseconds.
pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output: Output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", arguments.join(" "), why.trim());
    }
    Ok(())
}
