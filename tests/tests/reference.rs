//! Checks that the reference pages in `docs` list exactly what the agents have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::{NodeOptions, Sandbox, eventually, repository};
use serde_json::json;
use types::Spec;

/// A page of `docs`, or its new text with `UPDATE_GOLDEN=1`.
fn page(name: &str, wanted: &str) -> anyhow::Result<()> {
    let path = repository().join("docs").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, wanted)?;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    ensure!(
        found == wanted,
        "docs/{name} is stale; `UPDATE_GOLDEN=1 cargo test --workspace --test reference` renews it; it should be\n{wanted}"
    );
    Ok(())
}

/// A metric of an agent.
#[derive(Debug, Default)]
struct Metric {
    help: String,
    kind: String,
    /// Its labels, with all values of those in [`WORDS`].
    labels: BTreeMap<String, BTreeSet<String>>,
}

type Metrics = BTreeMap<String, Metric>;

/// Labels whose values are fixed words, which are all there from the start.
const WORDS: [&str; 5] = ["direction", "outcome", "reason", "result", "state"];

impl Metric {
    /// `=listener=, =state= (active, idle)`.
    fn shown_labels(&self) -> String {
        let shown = |(label, values): (&String, &BTreeSet<String>)| {
            let values = values.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            if values.is_empty() { format!("={label}=") } else { format!("={label}= ({values})") }
        };
        self.labels.iter().map(shown).collect::<Vec<_>>().join(", ")
    }
}

/// Notes the labels of a sample: `name_total{listener="web",state="up"} 1`.
fn collect_labels(line: &str, metrics: &mut Metrics) {
    let Some((name, (labels, _))) =
        line.split_once('{').and_then(|(name, rest)| Some((name, rest.split_once('}')?)))
    else {
        return;
    };
    let ends = ["", "_total", "_bucket", "_sum", "_count"];
    let Some(name) =
        ends.iter().filter_map(|end| name.strip_suffix(end)).find(|name| metrics.contains_key(*name))
    else {
        return;
    };
    let metric = metrics.entry(name.to_owned()).or_default();
    for (label, value) in labels.split("\",").filter_map(|label| label.split_once("=\"")) {
        if label == "le" {
            continue;
        }
        let values = metric.labels.entry(label.to_owned()).or_default();
        if WORDS.contains(&label) {
            values.insert(value.trim_end_matches('"').to_owned());
        }
    }
}

fn collect(text: &str, metrics: &mut Metrics) {
    for line in text.lines() {
        collect_labels(line, metrics);
        let mut words = line.splitn(4, ' ');
        let (Some("#"), Some(what), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let entry = metrics.entry(name.to_owned()).or_default();
        match what {
            "HELP" => rest.trim_end_matches('.').clone_into(&mut entry.help),
            "TYPE" => rest.clone_into(&mut entry.kind),
            _ => {}
        }
    }
}

/// The metrics of a node by itself, and of each service type that comes with Coterie.
#[tokio::test]
async fn the_page_of_metrics_lists_every_metric() -> anyhow::Result<()> {
    let mut sandbox = Sandbox::new()?;
    let spec = Spec { shards: Some(1), replicas: 1, ..Spec::default() };
    for service in ["searcher", "storage"] {
        sandbox.settle(service, &spec).await?;
    }
    let front = json!({"name": "front", "address": "127.0.0.1:0", "service": "api_gateway"});
    // Some metrics exist only in HTTP mode.
    let shop = json!({"name": "shop", "address": "127.0.0.1:0", "mode": "http", "backends": [{"address": "127.0.0.1:1"}]});
    let spec = Spec { settings: json!({ "listeners": [front, shop] }), ..Spec::default() };
    sandbox.settle("load_balancer", &spec).await?;
    // Metrics of TLS and of the access log exist only where these are configured.
    let testdata = repository().join("crates/plugin/src/tls/testdata");
    let certificate = json!({"cert": testdata.join("shop.crt"), "key": testdata.join("shop.key")});
    let settings = json!({
        "listeners": [
            {"name": "web", "address": "127.0.0.1:0", "tls": {"certificates": [certificate]}},
            {"name": "gateway", "address": "127.0.0.1:0"},
        ],
        "access_log": {"to": "stdout"},
    });
    sandbox.settle("api_gateway", &Spec { settings, ..Spec::default() }).await?;
    let nodes = [
        ("gateway", "api_gateway"),
        ("balancer", "load_balancer"),
        ("owner", "storage/0"),
        ("searcher", "searcher/0"),
        ("replica", "standby"),
        ("second-replica", "standby"),
    ];
    for (name, role) in nodes {
        sandbox.start(name, role, &NodeOptions::default()).await?;
    }
    let is_replica = |member: &types::api::Member| {
        member
            .state
            .as_ref()
            .is_some_and(|state| state.duty == Some(types::Post::Replica) && state.phase.is_serving())
    };
    for replica in ["replica", "second-replica"] {
        sandbox.seen("gateway", replica, is_replica).await?;
    }
    // Metrics of requests exist once there was one.
    let request = format!("{}/storage/kv/x", sandbox.gateway("gateway").await?);
    sandbox.http().get(request).send().await?;
    // An agent compares clocks only some time after its start.
    let metrics = eventually("every metric has a value", || async {
        let mut metrics = Metrics::new();
        for (name, _) in nodes {
            let url = format!("{}/metrics", sandbox.url(name).ok()?);
            let answer = sandbox.http().get(url).timeout(Duration::from_secs(5)).send().await.ok()?;
            collect(&answer.text().await.ok()?, &mut metrics);
        }
        metrics.contains_key("coterie_clock_skew_seconds").then_some(metrics)
    })
    .await?;
    let types = [
        (
            "Listeners of a gateway and of a load balancer",
            &["coterie_tls_", "coterie_accept_", "coterie_connections_"][..],
        ),
        ("api_gateway", &["coterie_gateway_"]),
        ("load_balancer", &["coterie_balancer_"]),
        ("searcher", &["coterie_searcher_"]),
        ("storage", &["coterie_storage_"]),
    ];
    let mut out = "#+TITLE: Metrics\n\n\
        =GET /metrics= of an agent has these, in the OpenMetrics text format: those of the node, and those of the role that it\n\
        runs. Counters end in =_total= there. This page is generated:\n\
        =UPDATE_GOLDEN=1 cargo test --workspace --test reference=.\n"
        .to_owned();
    let is_of = |name: &str, prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let sections = std::iter::once(None).chain(types.map(Some));
    for section in sections {
        out += &format!(
            "\n* {}\n\n| metric | type | what it says | labels |\n|--------+------+--------------+--------|\n",
            section.map_or("The node", |(title, _)| title)
        );
        for (name, metric) in &metrics {
            let Metric { help, kind, labels: _ } = metric;
            let is_here = match section {
                Some((_, prefixes)) => is_of(name, prefixes),
                None => !types.iter().any(|(_, prefixes)| is_of(name, prefixes)),
            };
            ensure!(!help.is_empty() && !kind.is_empty(), "{name} is not described");
            if is_here {
                out += &format!("| ={name}= | {kind} | {help} | {} |\n", metric.shown_labels());
            }
        }
    }
    page("metrics.org", &out)
}

/// Every Rust file in the crates of agents, without tests.
fn sources() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let crates = ["agent", "client", "cluster", "mesh", "plugin", "runtime", "store", "types"];
    let mut folders: Vec<PathBuf> =
        crates.iter().map(|name| repository().join("crates").join(name).join("src")).collect();
    for service in std::fs::read_dir(repository().join("services"))? {
        folders.push(service?.path().join("src"));
    }
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let is_test = path.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests"));
            if is_test {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == "rs") {
                let text = std::fs::read_to_string(&path)?;
                let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned();
                found.push((path, code));
            }
        }
    }
    Ok(found)
}

/// The string literal that comes next, if it is a code.
fn code_after(code: &str) -> Option<String> {
    let (text, _) = code.trim_start().strip_prefix('"')?.split_once('"')?;
    let is_code = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    is_code.then(|| text.to_owned())
}

/// The problem codes in some Rust code: the literals after a constructor of a problem or at the head of a tuple that a match
/// arm returns, and those that a function named `code` returns.
fn codes(code: &str) -> BTreeSet<String> {
    let is_path = |c: char| c.is_alphanumeric() || "_.:()&".contains(c);
    let mut found = BTreeSet::new();
    for maker in ["to_problem(", "invalid(", "unavailable(", "conflict("] {
        found.extend(code.split(maker).skip(1).filter_map(code_after));
    }
    // rustfmt puts a long arm into braces.
    for arm in code.split("=>").skip(1) {
        let value = arm.trim_start_matches([' ', '\n', '{']);
        found.extend(value.strip_prefix('(').and_then(code_after));
    }
    for maker in ["ErrorKind::", "Problem::new(", "Explanation::new("] {
        let kinds = code.split(maker).skip(1);
        found
            .extend(kinds.filter_map(|rest| code_after(rest.trim_start_matches(is_path).strip_prefix(',')?)));
    }
    for body in code.split("fn code(").skip(1) {
        let body = body.split("\n    }").next().unwrap_or_default();
        found.extend(body.match_indices('"').filter_map(|(at, _)| code_after(&body[at..])));
    }
    // The code of a problem without one.
    found.remove("unknown");
    found
}

/// The title of the section that lists the codes of health reasons. All before it lists the codes of errors.
const REASONS: &str = "\n* Health reasons\n";

/// Compares the codes in a part of the page with those in the code.
fn compare(page: &str, wanted: &BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    let listed: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("- =")?.split_once("= :: "))
        .map(|(code, _)| code)
        .collect();
    let missing: Vec<_> = wanted.iter().filter(|(code, _)| !listed.contains(code.as_str())).collect();
    ensure!(missing.is_empty(), "docs/troubleshooting.org does not have {missing:?}");
    let stale: Vec<_> = listed.iter().filter(|code| !wanted.contains_key(**code)).collect();
    ensure!(stale.is_empty(), "docs/troubleshooting.org has codes that no code returns: {stale:?}");
    Ok(())
}

/// The page of troubles: what is before the section of health reasons, and that section.
fn troubles() -> anyhow::Result<(String, String)> {
    let text = std::fs::read_to_string(repository().join("docs/troubleshooting.org"))?;
    let (errors, reasons) = text.split_once(REASONS).context("there is no section of health reasons")?;
    Ok((errors.to_owned(), reasons.to_owned()))
}

#[test]
fn the_page_of_troubles_lists_every_error_code() -> anyhow::Result<()> {
    let mut wanted: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (path, code) in sources()? {
        wanted.extend(codes(&code).into_iter().map(|code| (code, path.clone())));
    }
    ensure!(wanted.len() > 60, "codes are not found any more: {wanted:?}");
    compare(&troubles()?.0, &wanted)
}

/// Codes of reasons are constants; examples in comments declare some that nobody gives.
#[test]
fn the_page_of_troubles_lists_every_health_reason() -> anyhow::Result<()> {
    let mut wanted: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (path, code) in sources()? {
        let is_comment = |line: &&str| line.trim_start().starts_with("//");
        let code = code.lines().filter(|line| !is_comment(line)).collect::<Vec<_>>().join("\n");
        let found = code.split("ReasonCode::new(").skip(1).filter_map(code_after);
        wanted.extend(found.map(|code| (code, path.clone())));
    }
    ensure!(wanted.len() > 20, "codes are not found any more: {wanted:?}");
    compare(&troubles()?.1, &wanted)
}
