//! Minimal runs of the gateway and balancer benchmarks with the real binaries, beside Debian's nginx and HAProxy.

#![expect(clippy::unwrap_used, reason = "a test that cannot continue panics")]

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::Command;

/// A quick run beside these proxies, with its temporary folders in this one.
fn bench(folder: &Path, verb: &str, proxies: &str) -> Command {
    let binaries = e2e::binaries().unwrap();
    assert!(Path::new(env!("CARGO_BIN_EXE_bench")).starts_with(binaries));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command
        .args([verb, "--quick", "--proxies", proxies])
        .env_remove("COTERIE_BENCH_PEERS")
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs it to its end. Returns its report.
async fn report(verb: &str, proxies: &str) -> Value {
    let (folder, report) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let output = bench(folder.path(), verb, proxies).arg("--json").arg(report.path()).output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left");
    serde_json::from_slice(&std::fs::read(report.path()).unwrap()).unwrap()
}

/// Each row has a result of ours, and of a peer unless it says `ours`.
fn assert_measured(report: &Value, rows: &[(&str, u64, &str)]) {
    let all = report["rows"].as_array().unwrap();
    for (what, clients, peer) in rows {
        let row = all.iter().find(|row| row["what"] == *what && row["nodes"] == *clients);
        let row = row.unwrap_or_else(|| panic!("no row {what}, {clients}: {all:#?}"));
        assert!(row["ours"]["max"].as_f64().is_some(), "{row}");
        assert_eq!(row["peer"]["Measured"]["profile"], *peer, "{row}");
        assert!(row["peer"]["Measured"]["summary"]["p50"].as_f64().is_some(), "{row}");
    }
    let failed = report["notes"].as_array().unwrap().iter().filter_map(Value::as_str);
    let failed: Vec<_> = failed.filter(|note| note.contains("rounds failed")).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[tokio::test]
async fn every_part_of_a_gateway_is_measured_beside_nginx() {
    let report = report("gateway", "ours,nginx").await;
    assert_measured(
        &report,
        &[
            ("HTTP/1, 1 KB", 64, "nginx"),
            ("HTTP/1, 64 KB: latency", 64, "nginx"),
            ("HTTP/1, 1 KB: CPU for 100,000", 1, "nginx"),
            ("HTTP/1, 1 KB: more than a direct request", 1, "nginx"),
            ("HTTP/2, 64 KB", 64, "nginx"),
            ("TLS, HTTP/1, 1 KB", 64, "nginx"),
            ("TLS, HTTP/2, 1 KB: latency", 64, "nginx"),
            ("TLS, new connections", 16, "nginx"),
            ("new connections", 64, "nginx"),
            ("memory of an idle connection, HTTP/1", 300, "nginx"),
            ("memory of an idle connection, HTTP/2", 300, "nginx"),
            ("memory of an idle connection, TLS", 300, "nginx"),
            ("with rate limit: CPU for 100,000", 64, "no features"),
        ],
    );
}

#[tokio::test]
async fn every_part_of_a_balancer_is_measured_beside_haproxy() {
    let report = report("balancer", "ours,haproxy").await;
    assert_measured(
        &report,
        &[
            ("TCP, 64 KB", 64, "haproxy"),
            ("TCP, 64 KB: CPU for 100,000, beside HAProxy", 512, "haproxy"),
            ("TCP, 64 KB, spliced: CPU for 100,000", 64, "haproxy"),
            ("TCP, 1 KB: latency", 1, "haproxy"),
            ("new TCP connections", 64, "haproxy"),
            ("memory of an idle TCP connection", 300, "haproxy"),
            ("HTTP/1, 1 KB: CPU for 100,000, beside HAProxy", 512, "haproxy"),
            ("HTTP/1, 64 KB: latency", 64, "haproxy"),
        ],
    );
}

/// The children of all threads of a process.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    texts
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[tokio::test]
async fn an_interrupted_run_leaves_no_folders_and_no_processes() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = bench(folder.path(), "gateway", "ours,nginx").stderr(Stdio::null()).spawn().unwrap();
    let pids = e2e::eventually("our gateway and two nginx run", || async {
        let pids = children(child.id()?);
        (pids.len() >= 3).then_some(pids)
    })
    .await
    .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait()).await;
    assert_eq!(ended.expect("it ends").unwrap().code(), Some(1));
    e2e::eventually("nothing is left", || async {
        let is_empty = std::fs::read_dir(folder.path()).ok()?.next().is_none();
        let none_runs = pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}/exe")).exists());
        (is_empty && none_runs).then_some(())
    })
    .await
    .unwrap();
}
