//! The access log with real files.

use std::path::Path;

use rustix::process::{Signal, getpid, kill_process};

use super::*;

fn started(path: &Path) -> (Context, AccessLog) {
    let (cx, _failures) = Context::for_test("gateway".parse().unwrap());
    let plan = AccessLogPlan { file: Some(path.to_owned()), ..AccessLogPlan::default() };
    let log = AccessLog::start(&cx, Some(plan));
    (cx, log)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited until {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn a_hangup_opens_the_file_again_at_once_and_loses_no_line() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
    let (_cx, log) = started(&path);
    log.append(|out| out.extend(b"one"));
    until("the first line is written", || text(&path) == "one\n").await;
    log.append(|out| out.extend(b"two"));
    std::fs::rename(&path, &moved).unwrap();
    kill_process(getpid(), Signal::HUP).unwrap();
    until("the file is there again without a further line", || path.exists()).await;
    log.append(|out| out.extend(b"three"));
    log.stop().await;
    assert_eq!(text(&moved) + &text(&path), "one\ntwo\nthree\n");
    assert!(text(&path).ends_with("three\n"), "{}", text(&path));
}

#[tokio::test]
async fn a_changed_log_writes_earlier_lines_where_it_was_and_later_ones_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("log"), folder.path().join("other"));
    let (cx, log) = started(&path);
    log.append(|out| out.extend(b"one"));
    until("the first line is written", || text(&path) == "one\n").await;
    log.append(|out| out.extend(b"two"));
    log.change(Some(AccessLogPlan { file: Some(other.clone()), ..AccessLogPlan::default() }));
    // At once: the writer does not know of the change yet.
    log.append(|out| out.extend(b"three"));
    until("the third line is written", || text(&other) == "three\n").await;
    assert_eq!(text(&path), "one\ntwo\n");
    log.change(None);
    log.append(|_| panic!("a log that is off asks for no line"));
    log.stop().await;
    let mut metrics = String::new();
    cx.metrics.encode(&mut metrics).unwrap();
    assert!(metrics.contains("access_log_dropped_total 0"), "{metrics}");
}

#[tokio::test]
async fn lines_that_cannot_be_written_are_counted_and_reported_until_they_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/log");
    let (cx, log) = started(&path);
    let metrics = || {
        let mut metrics = String::new();
        cx.metrics.encode(&mut metrics).unwrap();
        metrics
    };
    log.append(|out| out.extend(b"one"));
    until("the line is counted", || metrics().contains("access_log_dropped_total 1")).await;
    let Health::Degraded(reason) = log.health() else { panic!("it is degraded") };
    assert!(reason.text.contains("missing/log"), "{}", reason.text);
    std::fs::create_dir(folder.path().join("missing")).unwrap();
    log.append(|out| out.extend(b"two"));
    until("a line is written", || text(&path) == "two\n").await;
    until("it is well again", || log.health() == Health::Ready).await;
}
