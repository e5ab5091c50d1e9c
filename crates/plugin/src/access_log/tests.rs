//! The access log with real files.

use std::path::Path;

use rustix::process::{Signal, getpid, kill_process};

use super::settings::log_file;
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
    let path = folder.path().join("file/log");
    std::fs::write(folder.path().join("file"), "no folder").unwrap();
    let (cx, log) = started(&path);
    let metrics = || {
        let mut metrics = String::new();
        cx.metrics.encode(&mut metrics).unwrap();
        metrics
    };
    until("it is degraded before the first line", || log.health() != Health::Ready).await;
    let Health::Degraded(reason) = log.health() else { panic!("it is degraded") };
    assert!(reason.text.contains("file/log: "), "{}", reason.text);
    log.append(|out| out.extend(b"one"));
    until("the line is counted", || metrics().contains("access_log_dropped_total 1")).await;
    assert!(log.health() != Health::Ready);
    std::fs::remove_file(folder.path().join("file")).unwrap();
    log.append(|out| out.extend(b"two"));
    until("a line is written", || text(&path) == "two\n").await;
    until("it is well again", || log.health() == Health::Ready).await;
}

#[tokio::test]
async fn a_missing_folder_is_created_with_the_file_before_the_first_line() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a/b/log"), folder.path().join("c/log"));
    let (_cx, log) = started(&first);
    until("the file is there", || first.exists()).await;
    log.change(Some(AccessLogPlan { file: Some(second.clone()), ..AccessLogPlan::default() }));
    until("the other file is there", || second.exists()).await;
    assert_eq!(log.health(), Health::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_could_not_be_opened_is_tried_again_without_a_line() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "no folder").unwrap();
    let (_cx, log) = started(&folder.path().join("file/log"));
    until("it is degraded", || log.health() != Health::Ready).await;
    std::fs::remove_file(folder.path().join("file")).unwrap();
    until("it is well again", || log.health() == Health::Ready).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_can_be_opened_and_not_written_stays_degraded_until_a_line_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let (_cx, log) = started(&path);
    assert_eq!(log.health(), Health::Ready);
    log.append(|out| out.extend(b"one"));
    until("a write fails", || log.health() != Health::Ready).await;
    let shared = &log.0;
    let (mut sink, mut reporter) = (
        Sink::new(Some(path.clone())),
        Reporter { reported: 0, next: Instant::now(), next_open: Instant::now() },
    );
    shared.open(&mut sink, &mut reporter).await;
    let Health::Degraded(reason) = log.health() else { panic!("opening it shows nothing") };
    assert!(reason.text.contains("No space left"), "{}", reason.text);
    std::fs::remove_file(&path).unwrap();
    // The first ones may still go where the first line went.
    let is_well = || {
        log.append(|out| out.extend(b"two"));
        log.health() == Health::Ready
    };
    until("it is well again", is_well).await;
    assert!(text(&path).starts_with("two\n"));
}

#[test]
fn names_of_other_outputs_are_refused_and_are_no_files() {
    for to in ["stderr", "-", "syslog", "journald"] {
        let mut settings = serde_json::json!({"access_log": {"to": to}});
        resolve_access_log(&mut settings, Path::new("/m"));
        assert_eq!(settings["access_log"]["to"], to);
        let mut mistakes = Vec::new();
        assert_eq!(log_file(to, &mut mistakes), None);
        assert_eq!(mistakes[0].pointer, "/access_log/to");
        let hint = mistakes[0].hint.as_deref().unwrap();
        assert!(hint.contains("`stdout`") && hint.contains(&format!("`./{to}`")), "{hint}");
    }
    let mut settings = serde_json::json!({"access_log": {"to": "./stderr"}});
    resolve_access_log(&mut settings, Path::new("/m"));
    assert_eq!(settings["access_log"]["to"], "/m/./stderr");
    let mut mistakes = Vec::new();
    assert_eq!(log_file("stdout", &mut mistakes), None);
    assert!(mistakes.is_empty());
}
