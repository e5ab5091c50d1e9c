//! The lines of the access log for requests that are refused for their heads alone: whole, and without credentials.

use std::time::Duration;

use anyhow::{Context, ensure};
use e2e::eventually;
use serde_json::{Value, json};

use crate::frames::{DATA, END_HEADERS, END_STREAM, HEADERS, block, exchange, frame, has_ended, preface};
use crate::front::Failures;
use crate::{Front, of_each_front};

/// What must never be in the log.
const SECRET: &str = "s3cret";
/// How long a head may take.
const HEAD: Duration = Duration::from_secs(10);

/// What the answer to a refused request says.
struct Answered {
    id: String,
    body: usize,
}

/// A request over HTTP/1.1, and what its line has. `null` is left out.
fn rows() -> Vec<(&'static str, String, Value)> {
    let fields = "Host: x\r\nUser-Agent: test\r\nAuthorization: Basic s3cret\r\nCookie: s3cret\r\n";
    let line = |line: &str| format!("{line}\r\n{fields}\r\n");
    let of = |status: u16, method: &str, host: &str, path: &str| {
        json!({"status": status, "method": method, "host": host, "path": path, "protocol": "HTTP/1.1",
               "user_agent": "test"})
    };
    vec![
        ("a user name", line("GET http://user:s3cret@y/base/a?t=s3cret HTTP/1.1"), {
            of(400, "GET", "y", "/base/a")
        }),
        ("a password with a slash", line("GET http://user:s3c/s3cret@y/a HTTP/1.1"), {
            let mut expected = of(400, "GET", "x", "");
            expected["path"] = Value::Null;
            expected
        }),
        ("a Host with a user name", "GET /a HTTP/1.1\r\nHost: user:s3cret@y\r\n\r\n".to_owned(), {
            json!({"status": 400, "method": "GET", "host": "y", "path": "/a", "protocol": "HTTP/1.1",
                   "user_agent": null})
        }),
        ("TRACE", line("TRACE /trace?t=s3cret HTTP/1.1"), of(405, "TRACE", "x", "/trace")),
        ("CONNECT", line("CONNECT user:s3cret@y:443 HTTP/1.1"), {
            let mut expected = of(405, "CONNECT", "y:443", "");
            expected["path"] = Value::Null;
            expected
        }),
        ("an expectation", format!("POST /a HTTP/1.1\r\nExpect: y\r\n{fields}\r\n"), {
            of(417, "POST", "x", "/a")
        }),
        ("a transfer coding", format!("POST /a HTTP/1.1\r\nTransfer-Encoding: gzip\r\n{fields}\r\n"), {
            of(501, "POST", "x", "/a")
        }),
        ("a version", line("GET /a HTTP/1.2"), {
            let mut expected = of(505, "GET", "x", "/a");
            expected["protocol"] = json!("HTTP/1.2");
            expected
        }),
        ("many fields", format!("GET /a HTTP/1.1\r\n{fields}{}\r\n", "a: b\r\n".repeat(120)), {
            of(431, "GET", "x", "/a")
        }),
        ("a character", line("GET /a<b>?t=s3cret HTTP/1.1"), of(400, "GET", "x", "/a<b>")),
        ("two spaces", line("GET  http://user:s3cret@y/a HTTP/1.1"), {
            json!({"status": 400, "method": "GET", "path": null, "protocol": null, "host": "x"})
        }),
        ("a header field for a request line", line("Authorization: Basic s3cret"), {
            json!({"status": 400, "method": null, "path": null, "protocol": null, "host": null})
        }),
        ("a slow head", format!("GET /slow-head?t=s3cret HTTP/1.1\r\n{fields}"), {
            of(408, "GET", "x", "/slow-head")
        }),
        ("a slow request line", "GET /slow-line?t=s3cret".to_owned(), {
            json!({"status": 408, "method": "GET", "path": "/slow-line", "protocol": null, "host": null})
        }),
        ("a long target", line(&format!("GET /{} HTTP/1.1", "a".repeat(70_000))), {
            json!({"status": 414, "method": "GET"})
        }),
    ]
}

/// The line of a request is the one with its id.
async fn line_of(front: &Front, answered: &Answered) -> anyhow::Result<Value> {
    let path = front.log();
    eventually("the log has the line", || async {
        let text = std::fs::read_to_string(&path).ok()?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["request_id"] == answered.id.as_str())
    })
    .await
}

fn judge(line: &Value, answered: &Answered, expected: &Value) -> anyhow::Result<()> {
    for (key, value) in expected.as_object().context("an object")? {
        ensure!(&line[key] == value, "{key} is {} in {line}", line[key]);
    }
    ensure!(line["bytes_out"] == answered.body, "{} bytes were sent: {line}", answered.body);
    ensure!(line["reason"] == "malformed" && line["client_ip"] == "127.0.0.1", "{line}");
    let took = line["duration_ms"].as_f64().context("a duration")?;
    let is_slow = line["status"] == 408;
    let least = if is_slow { HEAD.as_secs_f64() * 900.0 } else { 0.0 };
    ensure!(took >= least, "it took {took} ms: {line}");
    Ok(())
}

async fn a_refused_head_is_a_line_with_all_that_is_known_and_no_credentials(
    front: Front,
) -> anyhow::Result<()> {
    let mut failures = Failures::default();
    for (name, request, expected) in rows() {
        let came = front.exchange(request.as_bytes(), false).await?;
        let judged = async {
            let id =
                came.head().lines().find_map(|line| line.strip_prefix("x-request-id: ").map(str::to_owned));
            let (_, body) = came.text.split_once("\r\n\r\n").context("a body")?;
            let answered = Answered { id: id.context("an id")?, body: body.len() };
            judge(&line_of(&front, &answered).await?, &answered, &expected)
        };
        failures.note(name, judged.await);
    }
    for (name, authority, path, expected) in [
        ("a user name in :authority", "user:s3cret@x", "/base/a?t=s3cret", "/base/a"),
        ("a path that is none", "x", "*", "*"),
        ("a quote", "x", "/a\"", "/a\""),
    ] {
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", authority), (":path", path)];
        let head = block(&[&pseudo[..], &[("user-agent", "test"), ("cookie", SECRET)]].concat());
        let request = [preface(&[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &head)].concat();
        let frames = exchange(front.address, request, |frames| has_ended(frames, 1)).await?;
        let body: Vec<_> =
            frames.iter().filter(|one| one.kind == DATA).flat_map(|one| one.payload.clone()).collect();
        let judged = async {
            let problem: Value = serde_json::from_slice(&body)?;
            let id = problem["request_id"].as_str().context("an id")?.to_owned();
            if path == "*" {
                let detail = problem["detail"].as_str().unwrap_or_default();
                ensure!(detail.contains("the target `*` is no path"), "{problem}");
            }
            let answered = Answered { id, body: body.len() };
            let expected = json!({"status": 400, "method": "GET", "host": "x", "path": expected,
                                  "protocol": "HTTP/2.0", "user_agent": "test"});
            judge(&line_of(&front, &answered).await?, &answered, &expected)
        };
        failures.note(name, judged.await);
    }
    let log = std::fs::read_to_string(front.log())?;
    ensure!(!log.contains("s3c"), "credentials are in the log: {log}");
    failures.result()
}

of_each_front!(logging: a_refused_head_is_a_line_with_all_that_is_known_and_no_credentials);
