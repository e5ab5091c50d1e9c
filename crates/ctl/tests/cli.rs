//! Tests the ctl binary where no agent is needed: exit codes, stdout and stderr.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ctl"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env("COTERIE_STATE_DIR", self.path().join("state"))
            .env_remove("COTERIE_AGENT")
            .stdin(Stdio::null());
        command
    }

    /// Exit code, stdout, stderr.
    fn ctl(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    /// A record of one node with the given process.
    fn write_record(&self, pid: u32, start_time: u64) {
        let run = self.path().join("state/run/demo");
        std::fs::create_dir_all(&run).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = run.join("n1.log");
        let record = format!(
            r#"{{"cluster": "demo", "manifest": "demo.yaml", "started_at_ms": 1, "nodes": [{{
                "id": "n1", "http": "{free}", "gossip": "{free}", "role": {{"service": "standby"}},
                "log": "{}", "data_dir": "/d/n1"}}]}}"#,
            log.display()
        );
        let process = format!(r#"{{"pid": {pid}, "start_time": {start_time}}}"#);
        std::fs::write(run.join("n1.pid"), process).unwrap();
        std::fs::write(run.join("cluster.json"), record).unwrap();
    }
}

fn nothing() -> String {
    String::new()
}

#[test]
fn wrong_usage_is_2_and_help_is_0() {
    let machine = Machine::new();
    for arguments in [
        &["bogus"][..],
        &[],
        &["set-service", "n1"],
        &["set-service", "n1", "storage", "--shard", "99999"],
        &["set-service", "n 1", "standby"],
        &["kill", "n1", "--signal", "NOPE"],
        &["up", "--timeout", "soon"],
        &["members", "-o", "xml"],
    ] {
        let (code, out, err) = machine.ctl(arguments);
        assert_eq!((code, out), (Some(2), nothing()), "{arguments:?}");
        assert!(!err.is_empty(), "{arguments:?}");
    }
    let (code, out, err) = machine.ctl(&["--help"]);
    assert_eq!((code, err), (Some(0), nothing()));
    assert!(out.contains("3    the cluster did not converge in time"), "{out}");
}

#[test]
fn without_a_cluster_each_verb_fails_with_its_own_code() {
    let machine = Machine::new();
    for verb in [&["members"][..], &["status"], &["events"], &["drain", "n1"], &["logs"]] {
        assert_eq!(
            machine.ctl(verb),
            (
                Some(4),
                nothing(),
                format!(
                    "error: no cluster runs on this machine\n\
                     hint: `{} init` writes a manifest to start one from; --agent URL names an agent elsewhere\n",
                    env!("CARGO_BIN_EXE_ctl")
                )
            ),
            "{verb:?}"
        );
    }
    assert_eq!(machine.ctl(&["down"]), (Some(0), nothing(), "nothing is running\n".to_owned()));
    assert_eq!(machine.ctl(&["ls", "-o", "json"]).1, "{\n  \"clusters\": []\n}\n");
    assert_eq!(machine.ctl(&["version"]).1, "ctl 0.1.0\n");
    assert!(!machine.path().join("state").exists());
}

#[test]
fn an_agent_elsewhere_that_does_not_answer_is_4_and_a_bad_url_is_2() {
    let machine = Machine::new();
    let (code, _, err) = machine.ctl(&["--agent", "http://127.0.0.1:1", "members"]);
    assert_eq!(code, Some(4));
    assert_eq!(
        err,
        format!(
            "error: no agent answers at http://127.0.0.1:1: connection refused\nhint: `{} ls` shows the clusters of this \
             machine, and where an agent of each listens\n",
            env!("CARGO_BIN_EXE_ctl")
        )
    );
    for url in ["ftp://x", "http://127.0.0.1:1/v1"] {
        assert_eq!(machine.ctl(&["--agent", url, "members"]).0, Some(2), "{url}");
    }
    let out = machine.command(&["kill", "n1"]).env("COTERIE_AGENT", "http://127.0.0.1:1").output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn up_without_a_manifest_points_to_init_which_overwrites_nothing() {
    let machine = Machine::new();
    let (code, _, err) = machine.ctl(&["up"]);
    assert_eq!(code, Some(2));
    assert!(err.contains(&format!("hint: `{} init` writes", env!("CARGO_BIN_EXE_ctl"))), "{err}");
    assert_eq!(machine.ctl(&["init"]).0, Some(0));
    let written = std::fs::read_to_string(machine.path().join("coterie.yaml")).unwrap();
    let (code, _, err) = machine.ctl(&["init"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("error: coterie.yaml exists already\n"), "{err}");
    assert_eq!(std::fs::read_to_string(machine.path().join("coterie.yaml")).unwrap(), written);
    let (code, out, _) = machine.ctl(&["init", "-"]);
    assert_eq!((code, out), (Some(0), written));
    assert_eq!(machine.ctl(&["init", "other.yaml", "--agent-bin", "nowhere"]).0, Some(2));
    assert!(!machine.path().join("other.yaml").exists());
}

#[test]
fn a_pid_that_now_belongs_to_another_process_is_never_signalled() {
    let machine = Machine::new();
    let mut other_process = Command::new("sh")
        .args(["-c", "echo here; read line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    other_process.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    // Even if it was started within the same second.
    machine.write_record(other_process.id(), now.as_secs());
    let (code, out, err) = machine.ctl(&["kill", "n1"]);
    assert_eq!((code, out), (Some(1), nothing()));
    assert!(err.contains("nothing was signalled"), "{err}");
    let (code, out, _) = machine.ctl(&["down"]);
    assert_eq!(code, Some(0));
    assert_eq!(out, "stopped 0 agents, 0 left, 2 ports free (1 was not running)\n");
    assert_eq!(other_process.try_wait().unwrap(), None);
    other_process.kill().unwrap();
    other_process.wait().unwrap();
}

#[test]
fn a_damaged_record_is_reported_and_hides_no_other_cluster() {
    let machine = Machine::new();
    machine.write_record(1, 1);
    let run = machine.path().join("state/run/broken");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(run.join("cluster.json"), "{").unwrap();
    let (code, out, err) = machine.ctl(&["ls", "-o", "name"]);
    assert_eq!((code, out.as_str()), (Some(0), "demo\n"));
    assert!(err.contains("broken/cluster.json is damaged"), "{err}");
    assert_eq!(std::fs::read_to_string(run.join("cluster.json.damaged")).unwrap(), "{");
    assert_eq!(machine.ctl(&["down", "--cluster", "broken"]).0, Some(0));
}

#[test]
fn a_stream_without_a_reader_ends_though_nothing_happens() {
    let machine = Machine::new();
    let run = machine.path().join("state/run/demo");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(run.join("n1.log"), "hello\n").unwrap();
    let mut child = machine
        .command(&["logs", "-f", "--cluster", "demo"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn an_unknown_cluster_cannot_be_stopped_but_one_that_has_ended_can() {
    let machine = Machine::new();
    let (code, out, err) = machine.ctl(&["down", "--cluster", "demo"]);
    assert_eq!((code, out), (Some(1), nothing()));
    assert_eq!(err, "error: no cluster named `demo` is known on this machine\nhint: there are none\n");
    std::fs::create_dir_all(machine.path().join("state/run/demo")).unwrap();
    std::fs::write(machine.path().join("state/run/demo/n1.log"), "hello\n").unwrap();
    let (code, _, err) = machine.ctl(&["down", "--cluster", "demi"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("did you mean `demo`?"), "{err}");
    assert_eq!(machine.ctl(&["down", "--cluster", "demo"]).0, Some(0));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let machine = Machine::new();
    let mut child = machine
        .command(&["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
