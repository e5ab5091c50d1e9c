//! A minimal run of the key-value benchmark with the real binaries, without etcd.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn every_task_is_measured_directly_and_through_the_gateway() {
    let binaries = e2e::binaries().unwrap();
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    assert!(bench.starts_with(binaries));
    let (folder, report) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let output = Command::new(bench)
        .args([
            "kv",
            "--alone",
            "--no-million",
            "--many",
            "5000",
            "--starts",
            "1",
            "--rounds",
            "1",
            "--seconds",
            "1",
        ])
        .args(["--clients", "2", "--values", "100", "--keys", "50", "--choices", "zipf", "--json"])
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
    for task in ["PUT", "GET strong", "GET primary"] {
        for gateway in ["", ", gateway"] {
            let name = format!("{task} 100 B, zipf{gateway}");
            let row = report["rows"].as_array().unwrap().iter().find(|row| row["what"] == name.as_str());
            assert!(row.unwrap()["ours"]["p50"].as_f64().unwrap() > 0.0, "{name}: {out}");
        }
    }
    let many =
        |row: &&Value| row["what"].as_str().unwrap().starts_with("5000 keys of 100 B: GET strong, random");
    let row = report["rows"].as_array().unwrap().iter().find(many).unwrap();
    assert!(row["peer"]["Measured"]["summary"]["p50"].as_f64().unwrap() > 0.0, "{row}");
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left");
}
