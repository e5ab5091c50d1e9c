//! Measures how fast roles change, and whether a request fails meanwhile.
//!
//! Quiet: five idle agent processes. Under load: real nodes in this process, because the service type `echo` exists
//! only in tests; a gateway sends the requests of 16 clients to the nodes whose roles change.

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::serve::ListenerExt;
use client::Client;
use e2e::{NodeOptions, Sandbox};
use http::Response;
use serde_json::json;
use tokio::task::JoinSet;

use crate::fleet::{Fleet, Kind};
use crate::kept_log::KeptLog;
use crate::load::{Load, Outcome};
use crate::ours::Binaries;
use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Peer, Row, Target};
use crate::serf;
use crate::stats::Summary;
use crate::times::{CHANGE_LIMIT, Times};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Moves of a role under load, for each of the two kinds; each move is two role changes
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    moves: u32,
    /// End the role on one node before it starts on the other, so that requests have to wait
    #[arg(long)]
    gap: bool,
    /// Clients that send requests all the time
    #[arg(long, value_name = "COUNT", default_value_t = 16)]
    clients: usize,
    /// Role changes of five idle agents
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    quiet: u32,
}

pub(crate) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let log = KeptLog::start();
    if args.quiet > 0 {
        quiet(args.quiet, report).await?;
    }
    if args.moves > 0 {
        Box::pin(echo_moves(args, &log, report)).await?;
        Box::pin(gateway_moves(args, &log, report)).await?;
    }
    Ok(())
}

/// Measures `standby` to `api_gateway` and back on one of five agents, and a tag change on one of five Serf agents.
async fn quiet(changes: u32, report: &mut Report) -> anyhow::Result<()> {
    const NODES: usize = 5;
    let fleet = Fleet::of(Kind::Ours(Binaries::find()?), NODES).await?;
    let config = fleet.configs().last().context("the fleet has no nodes")?.clone();
    let agent = fleet.configs().first().context("the fleet has no nodes")?.api;
    let client = Client::new(&format!("http://{agent}"))?.within(CHANGE_LIMIT);
    let mut times = Times::default();
    for number in 0..changes {
        let role = if number.is_multiple_of(2) { "api_gateway" } else { "standby" };
        times.change(&client, &config.name, role, false).await?;
    }
    fleet.end().await;
    progress(&format!("{changes} quiet role changes: done"));
    let peer = match serf::profiles().await {
        Ok(profiles) => {
            let mut peers = Vec::new();
            for profile in profiles {
                let measured = tags(profile, NODES, changes).await.map_err(|error| format!("{error:#}"));
                progress(&format!("serf {profile}, {changes} changes of a tag: done"));
                peers.push((profile.to_string(), measured));
            }
            Peer::best(peers)
        }
        Err(why) => Peer::Missing(why),
    };
    report.rows.push(
        Row::new("role change, quiet (Serf: tag)", NODES, "ms")
            .ours(Summary::of_times(&times.wall))
            .peer(peer)
            .target(Target::P50(150.0)),
    );
    report.details.push(times.details("quiet, standby <-> api_gateway"));
    Ok(())
}

async fn tags(profile: serf::Profile, nodes: usize, changes: u32) -> anyhow::Result<Summary> {
    /// A lost message may take Serf seconds; this many changes are enough to see it.
    const ENOUGH: u32 = 50;
    let mut fleet = Fleet::of(Kind::Serf(profile), nodes).await?;
    let name = fleet.configs().last().context("the fleet has no nodes")?.name.clone();
    let mut times = Vec::new();
    for number in 0..changes.min(ENOUGH) {
        times.push(fleet.set_tag(&name, &format!("role-{number}")).await?);
    }
    fleet.end().await;
    Summary::of_times(&times).context("no samples")
}

/// Moves `echo` between two nodes while a gateway sends it requests.
async fn echo_moves(args: &Args, log: &KeptLog, report: &mut Report) -> anyhow::Result<()> {
    let roles = [("gateway", "api_gateway"), ("a", "echo"), ("b", "standby")];
    let sandbox = Box::pin(Sandbox::of(&roles, &NodeOptions::default())).await?;
    let url = format!("{}/echo", sandbox.gateway("gateway").await?);
    let (times, outcome) = moves("echo", args, &sandbox, url, log).await?;
    report_rows("echo a <-> b", roles.len(), &times, &outcome, report);
    Ok(())
}

/// Moves a gateway between two nodes while a load balancer leads clients to it, with requests for a small server.
async fn gateway_moves(args: &Args, log: &KeptLog, report: &mut Report) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let upstream = format!("http://{}", listener.local_addr()?);
    // Without `TCP_NODELAY`, an answer in two pieces waits 40 ms for the acknowledgement of the first.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, Router::new().fallback(echo)).await });
    let settings = json!({ "routes": [{ "prefix": "/files", "to": [upstream] }] });
    let front =
        json!({ "listeners": [{ "name": "gateway", "address": "127.0.0.1:0", "service": "api_gateway" }] });
    let settings = vec![("api_gateway", settings), ("load_balancer", front)];
    let options = NodeOptions { settings, ..NodeOptions::default() };
    let roles = [("gateway", "load_balancer"), ("a", "api_gateway"), ("b", "standby")];
    let sandbox = Box::pin(Sandbox::of(&roles, &options)).await?;
    let front = sandbox.gateway("gateway").await?;
    let url = format!("{}/files", front.replacen("tcp://", "http://", 1));
    let (times, outcome) = moves("api_gateway", args, &sandbox, url, log).await?;
    report_rows("api_gateway a <-> b", roles.len(), &times, &outcome, report);
    Ok(())
}

/// The server behind the gateways.
async fn echo(request: Request) -> Response<Body> {
    let path = request.uri().to_string();
    let answer = Response::builder().header("echo-path", path);
    answer.body(request.into_body()).unwrap_or_default()
}

/// Moves a role from `a` to `b` and back, under load.
async fn moves(
    service: &str,
    args: &Args,
    sandbox: &Sandbox,
    url: String,
    log: &KeptLog,
) -> anyhow::Result<(Times, Outcome)> {
    let load = Load::start(args.clients, url, log.clone())?;
    let client = Client::new(&sandbox.url("gateway")?)?.within(CHANGE_LIMIT);
    let mut times = Times::default();
    for number in 1..=args.moves {
        let (to, from) = if number.is_multiple_of(2) { ("a", "b") } else { ("b", "a") };
        let mut changes = [(to, service), (from, "standby")];
        if args.gap {
            changes.reverse();
        }
        for (node, role) in changes {
            load.stage(format!("move {number}: {node} becomes {role}"));
            times.change(&client, node, role, false).await?;
        }
        if number.is_multiple_of(50) {
            let (sent, failed) = load.so_far();
            let moves = args.moves;
            progress(&format!("{service}, move {number}/{moves}: {sent} requests, {failed} failed"));
        }
    }
    load.stage("after the last change".to_owned());
    Ok((times, load.finish().await?))
}

fn report_rows(what: &str, nodes: usize, times: &Times, outcome: &Outcome, report: &mut Report) {
    let exact = |count: u64| Summary::of(&[f64::from(u32::try_from(count).unwrap_or(u32::MAX))]);
    report.rows.extend([
        Row::new(format!("{what}: role change under load"), nodes, "ms")
            .ours(Summary::of_times(&times.wall))
            .target(Target::P50(150.0)),
        Row::new(format!("{what}: the same, as receipts say"), nodes, "ms")
            .ours(Summary::of(&times.receipts)),
        Row::new(format!("{what}: requests through the gateway"), nodes, "ms").ours(outcome.latency.clone()),
        Row::new(format!("{what}: failed of {} requests", outcome.sent), nodes, "requests")
            .ours(exact(outcome.failed))
            .target(Target::Max(0.0)),
    ]);
    report.details.push(times.details(what));
    report.details.push(json!({ "what": what, "requests": outcome }));
    let shares: Vec<_> = outcome
        .answered_by
        .iter()
        .filter(|(node, _)| !node.is_empty())
        .map(|(node, count)| format!(", {count} by {node}"))
        .collect();
    report.notes.push(format!(
        "{what}: {:.0} requests/s{}; {} changes not confirmed by all nodes, {} refused",
        outcome.per_second,
        shares.concat(),
        times.unconfirmed,
        times.refused.len()
    ));
    for failure in outcome.failures.iter().take(5) {
        report.notes.push(format!("  {failure:?}"));
    }
    for refusal in &times.refused {
        report.notes.push(format!("  refused: {refusal}"));
    }
}
