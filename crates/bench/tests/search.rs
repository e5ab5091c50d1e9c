//! A minimal run of the search benchmark with the real binaries.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn every_part_is_measured_beside_tantivy_with_the_same_answers() {
    let binaries = e2e::binaries().unwrap();
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    assert!(bench.starts_with(binaries));
    let (folder, report) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let output = Command::new(bench)
        .args(["search", "--quick", "--corpora", "generated", "--kinds", "term,facet", "--json"])
        .arg(report.path())
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    let report: Value = serde_json::from_slice(&std::fs::read(report.path()).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    for (beginning, has_peer) in [
        ("generated, 1 shard: term", true),
        ("generated, 2 shards: term with facet: CPU a query", true),
        ("generated, 1 shard: term with facet, during merges: latency", true),
        ("generated: bytes on the store, 1 shard, beside tantivy", true),
        ("exact kNN, 2000 vectors of 384 numbers", false),
        ("exact kNN, 2000 vectors of 384 numbers, a tenth of them filtered", false),
        ("indexing: until found, durable over HTTP", true),
        ("indexing at full rate: from acknowledged to found", false),
        ("1,000 documents/s: from sent to found", false),
        ("kill -9, a replica takes over: until the first search, any", false),
        ("kill -9, a standby takes over: until the first search, strong", false),
        ("5000 documents of 200 B: RssAnon while indexed and searched", false),
    ] {
        let row = rows.iter().find(|row| row["what"] == beginning).expect(beginning);
        assert!(row["ours"]["max"].as_f64().is_some_and(|max| max > 0.0), "{row}");
        let theirs = row["peer"]["Measured"]["summary"]["p50"].as_f64();
        assert_eq!(theirs.is_some_and(|p50| p50 > 0.0), has_peer, "{row}");
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left");
}
