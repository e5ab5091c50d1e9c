//! Raw answers of a server behind the front (section 4c of the design page): repaired, refused, or passed on, and no
//! answer spoils the next one.

use anyhow::ensure;

use crate::front::{Came, Failures};
use crate::recorder::Scripted;
use crate::{Front, of_each_front};

/// The right outcome for a client.
enum Right {
    /// 502 with this code.
    Refused(&'static str),
    /// This status and body. The head has and lacks these, in lower case.
    Passed { status: u16, body: &'static str, has: &'static [&'static str], lacks: &'static [&'static str] },
    /// 200, and then the connection ends before the answer is complete.
    Cut,
}

fn ok(body: &'static str, has: &'static [&'static str], lacks: &'static [&'static str]) -> Right {
    Right::Passed { status: 200, body, has, lacks }
}

const BAD: Right = Right::Refused("bad-answer");
const CHUNKED: &str = "6\r\nhello\n\r\n0\r\n\r\n";

fn rows() -> Vec<(&'static str, String, bool, Right)> {
    let answer = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
    let by_six = &["content-length: 6\r\n"];
    let by_chunks: &[&str] = &["transfer-encoding: chunked\r\n"];
    vec![
        ("CL twice, different", answer("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"), false, BAD),
        ("TE in HTTP/1.0", format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKED}"), true, BAD),
        ("a folded field", answer("a: b\r\n c\r\nContent-Length: 0\r\n", ""), false, BAD),
        ("NUL in a value", answer("a: b\0c\r\nContent-Length: 0\r\n", ""), false, BAD),
        ("CR in a value", answer("a: b\rc\r\nContent-Length: 0\r\n", ""), false, BAD),
        ("a space before a colon", answer("a : b\r\nContent-Length: 0\r\n", ""), false, BAD),
        ("status 099", "HTTP/1.1 099 x\r\nContent-Length: 0\r\n\r\n".to_owned(), false, BAD),
        ("status 20", "HTTP/1.1 20 x\r\nContent-Length: 0\r\n\r\n".to_owned(), false, BAD),
        ("HTTP/0.9", "hello".to_owned(), true, BAD),
        ("SMTP", "220 mail.example ESMTP\r\n\r\n".to_owned(), true, BAD),
        ("a head of 1 MB", answer(&format!("a: {}\r\n", "b".repeat(1_000_000)), ""), true, {
            Right::Refused("answer-head-too-large")
        }),
        ("200 fields", answer(&"a: b\r\n".repeat(200), ""), true, Right::Refused("answer-head-too-large")),
        ("TE gzip, chunked", answer("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), false, BAD),
        ("TE chunked, chunked", answer("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), false, BAD),
        ("TE xchunked", answer("Transfer-Encoding: xchunked\r\n", "hello"), true, BAD),
        ("101 nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_owned(), false, BAD),
        ("CL beside TE", answer("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", CHUNKED), false, {
            ok(CHUNKED, by_chunks, &["content-length"])
        }),
        ("CL above what TE says", answer("Content-Length: 30\r\nTransfer-Encoding: chunked\r\n", CHUNKED), false, {
            ok(CHUNKED, by_chunks, &["content-length"])
        }),
        ("CL 6, 6", answer("Content-Length: 6, 6\r\n", "hello\n"), false, ok("hello\n", by_six, &["6, 6"])),
        ("CL twice, the same", answer("Content-Length: 6\r\nContent-Length: 6\r\n", "hello\n"), false, {
            ok("hello\n", by_six, &["transfer-encoding"])
        }),
        ("bytes behind the end", answer("Content-Length: 6\r\n", "hello\nHTTP/1.1 200 OK\r\n\r\nevil"), false, {
            ok("hello\n", by_six, &[])
        }),
        ("204 with a body", "HTTP/1.1 204 x\r\nContent-Length: 4\r\n\r\nevil".to_owned(), false, {
            Right::Passed { status: 204, body: "", has: &[], lacks: &[] }
        }),
        ("304 with a body", "HTTP/1.1 304 x\r\nContent-Length: 4\r\n\r\nevil".to_owned(), false, {
            Right::Passed { status: 304, body: "", has: &[], lacks: &[] }
        }),
        (
            "100 and 103 before the answer",
            "HTTP/1.1 100 x\r\n\r\nHTTP/1.1 103 x\r\nlink: <x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n"
                .to_owned(),
            false,
            ok("hello\n", by_six, &["link"]),
        ),
        ("status 999", "HTTP/1.1 999 x\r\nContent-Length: 6\r\n\r\nhello\n".to_owned(), false, {
            Right::Passed { status: 999, body: "hello\n", has: by_six, lacks: &[] }
        }),
        (
            "Connection: set-cookie",
            answer("Connection: set-cookie, x-hop\r\nSet-Cookie: a=b\r\nX-Hop: 1\r\nContent-Length: 6\r\n", "hello\n"),
            false,
            ok("hello\n", &["set-cookie: a=b\r\n"], &["x-hop"]),
        ),
        (
            "trailers nobody asked for",
            answer("Transfer-Encoding: chunked\r\nTrailer: a\r\n", "6\r\nhello\n\r\n0\r\na: b\r\n\r\n"),
            false,
            ok(CHUNKED, by_chunks, &[]),
        ),
        (
            "fields of members",
            answer("Coterie-Not-Processed: 1\r\nCoterie-Epoch: 9\r\nContent-Length: 6\r\n", "hello\n"),
            false,
            ok("hello\n", by_six, &["coterie-not-processed", "coterie-epoch"]),
        ),
        ("an end by close", answer("", "hello\n"), true, ok(CHUNKED, by_chunks, &[])),
        ("CL that is cut", answer("Content-Length: 30\r\n", "hello\n"), true, Right::Cut),
        ("chunks that are cut", answer("Transfer-Encoding: chunked\r\n", "6\r\nhello\n\r\n"), true, Right::Cut),
        ("a chunk that is none", answer("Transfer-Encoding: chunked\r\n", "6\r\nhello\n\r\nzz\r\n"), false, Right::Cut),
    ]
}

fn judge(came: &Came, right: &Right) -> anyhow::Result<()> {
    ensure!(came.is_closed && came.statuses().len() == 1, "came: {}", came.text);
    match right {
        Right::Refused(code) => {
            ensure!(came.status() == 502 && came.code()? == *code, "came: {}", came.text);
        }
        Right::Passed { status, body, has, lacks } => {
            ensure!(came.status() == *status, "came: {}", came.text);
            ensure!(
                came.text.split_once("\r\n\r\n").is_some_and(|(_, came)| came == *body),
                "came: {}",
                came.text
            );
            let head = came.head();
            ensure!(has.iter().all(|part| head.contains(part)), "came: {head}");
            ensure!(!lacks.iter().any(|part| head.contains(part)), "came: {head}");
        }
        Right::Cut => {
            let is_complete = came.head().contains("chunked") && came.text.ends_with("0\r\n\r\n");
            ensure!(came.status() == 200 && !is_complete, "came: {}", came.text);
            ensure!(!came.head().contains("content-length: 6\r\n"), "came: {}", came.text);
        }
    }
    Ok(())
}

async fn an_answer_is_whole_or_refused_and_never_spoils_the_next_one(front: Front) -> anyhow::Result<()> {
    let mut failures = Failures::default();
    for (number, (name, bytes, closes, right)) in rows().into_iter().enumerate() {
        let path = format!("/{number:03}/");
        front.recorder.answers(&path, Scripted { bytes: bytes.into_bytes(), closes });
        let request = |path: &str| {
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx")
        };
        let came = front.exchange(request(&path).as_bytes(), false).await?;
        failures.note(name, judge(&came, &right));
        let times = front.recorder.seen(&path).len();
        failures.note(
            name,
            if times == 1 { Ok(()) } else { Err(anyhow::anyhow!("a POST arrived {times} times")) },
        );
        let next = front.exchange(request("/next").as_bytes(), false).await?;
        let is_right = next.status() == 200 && next.text.ends_with("\r\n\r\nrecorded");
        failures.note(
            name,
            if is_right { Ok(()) } else { Err(anyhow::anyhow!("the next answer is {}", next.text)) },
        );
    }
    failures.result()
}

of_each_front!(start:
    an_answer_is_whole_or_refused_and_never_spoils_the_next_one,
);
