//! Short fault tests of the real binaries, without privileges.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue panics")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Command;

/// `bench torture`, with its temporary folders in this one. The agent is built if necessary, in the folder of bench.
fn torture(folder: &Path, arguments: &[&str]) -> Command {
    let binaries = e2e::binaries().unwrap();
    assert!(Path::new(env!("CARGO_BIN_EXE_bench")).starts_with(binaries));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command
        .args(["torture", "--plain", "--seed", "7"])
        .args(arguments)
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

/// Runs a short test that must find nothing. Returns the details of its report.
async fn finds_nothing(arguments: &[&str]) -> Value {
    let (folder, report) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let json = report.path().to_str().unwrap();
    let arguments = [arguments, &["--seconds", "15", "--json", json]].concat();
    let output = torture(folder.path(), &arguments).output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("result: nothing is wrong"), "{out}");
    let mut report: Value = serde_json::from_slice(&std::fs::read(report.path()).unwrap()).unwrap();
    let details = report["details"][0].take();
    assert_eq!(details["seed"], 7);
    assert_eq!(details["anomalies"], Value::Array(Vec::new()));
    for fault in ["kill", "stop"] {
        assert!(details["faults"][fault][0].as_u64().unwrap() > 0, "{fault}: {details}");
    }
    assert!(is_empty(folder.path()), "nothing is left when nothing is wrong");
    details
}

/// How many requests of this kind were carried out.
fn done(details: &Value, kind: &str) -> u64 {
    let is_done = |counted: &&Value| counted[0] == kind && counted[1] == "ok";
    let counted = details["outcomes"].as_array().unwrap().iter().find(is_done);
    counted.and_then(|counted| counted[2].as_u64()).unwrap_or_default()
}

#[tokio::test]
async fn guarantees_hold_while_nodes_are_killed_and_paused_and_shards_are_moved() {
    let details = finds_nothing(&[]).await;
    assert!(done(&details, "put") > 10, "{details}");
}

#[tokio::test]
async fn no_document_is_lost_repeated_or_resurrected_while_nodes_are_killed_and_shards_are_moved() {
    let details = finds_nothing(&["--service", "searcher"]).await;
    for kind in ["put", "search"] {
        assert!(done(&details, kind) > 0, "{kind}: {details}");
    }
    let inventory = &details["inventory"];
    assert!(inventory["documents"].as_u64().unwrap() > 0, "{details}");
    assert!(inventory["tokens"].as_u64() >= inventory["documents"].as_u64(), "{details}");
}

#[tokio::test]
async fn stale_reads_of_replicas_are_found() {
    let (folder, report) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let json = report.path().to_str().unwrap();
    let arguments = ["--seconds", "5", "--reads", "any", "--json", json];
    let output = torture(folder.path(), &arguments).output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    for words in
        ["is no register", "<== no order explains this", "the seed was 7", "the logs of the nodes are kept"]
    {
        assert!(out.contains(words) || err.contains(words), "{words}: {out}{err}");
    }
    assert!(!is_empty(folder.path()), "the logs are kept");
}

#[tokio::test]
async fn an_interrupted_run_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = torture(folder.path(), &["--seconds", "600"]).stderr(Stdio::null()).spawn().unwrap();
    e2e::eventually("a node runs", || async {
        let mut made = std::fs::read_dir(folder.path()).ok()?.flatten();
        made.find_map(|made| made.path().join("s1.log").is_file().then_some(()))
    })
    .await
    .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait()).await;
    assert_eq!(ended.expect("it ends").unwrap().code(), Some(1));
    // Killed processes may exist a little longer.
    e2e::eventually("nothing is left", || async { is_empty(folder.path()).then_some(()) }).await.unwrap();
}
