//! The table of raw HTTP/1 requests of the design page (section 4b): body framing, chunks, and what stands around them.

use anyhow::ensure;

use crate::front::{Came, Failures, exchange};
use crate::{Front, of_each_front};

/// Stands for the number of the row, which is part of every path: so each request that arrives belongs to one row.
const ID: &str = "@@@";
/// A whole request that must never be parsed as one where it is part of another.
pub(crate) const NEXT: &str = "GET /@@@/smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
const POST: &str = "POST /@@@/a HTTP/1.1\r\nHost: x\r\n";
const GET: &str = "GET /@@@/a HTTP/1.1\r\nHost: x\r\n";

/// The right answer to a row.
pub(crate) enum Right {
    /// A problem with one of these statuses and this code. The connection ends. No whole request arrives.
    Refused(&'static [u16], &'static str),
    /// Answered by the front itself.
    Own(u16),
    /// One request arrives, whose head and body are as [`Arrived`] says.
    Sent(Arrived),
}

/// What the recorder must have seen.
#[derive(Default)]
pub(crate) struct Arrived {
    /// Method and target; `POST /@@@/a` or `GET /@@@/a`, as it was sent, unless given.
    pub(crate) line: &'static str,
    pub(crate) body: String,
    /// In the head or the trailers, in lower case.
    pub(crate) has: &'static [&'static str],
    /// Nowhere in the head or the trailers.
    pub(crate) lacks: &'static [&'static str],
    /// The statuses of the answers; one 200 unless given.
    pub(crate) answers: &'static [u16],
    /// The host that the client asked for, which a balancer leaves as it is; `x` unless given.
    pub(crate) host: &'static str,
}

/// A row: a name, the bytes, the right answer.
pub(crate) type Row = (&'static str, String, Right);

pub(crate) fn sent(body: &str) -> Right {
    Right::Sent(Arrived { body: body.to_owned(), ..Arrived::default() })
}

/// Sends every row and notes what is wrong with each.
pub(crate) async fn check(front: &Front, rows: Vec<Row>) -> anyhow::Result<()> {
    let mut failures = Failures::default();
    let mut refused = Vec::new();
    for (number, (name, bytes, right)) in rows.into_iter().enumerate() {
        let id = format!("{number:03}");
        let is_refused = matches!(right, Right::Refused(..));
        let bytes = if is_refused { bytes + NEXT } else { bytes };
        let came = front.exchange(bytes.replace(ID, &id).as_bytes(), !is_refused).await?;
        let path = format!("/{id}/");
        failures.note(name, judge(front, &came, &right, &bytes.replace(ID, &id), &id));
        if is_refused {
            refused.push((name, path));
        }
    }
    // What a refused request left behind would have arrived by now: each later row had a round trip.
    for (name, path) in refused {
        let seen = front.recorder.seen(&path);
        let is_right =
            seen.len() <= 1 && seen.iter().all(|one| !one.is_whole && !one.line().contains("smuggled"));
        failures.note(name, if is_right { Ok(()) } else { Err(anyhow::anyhow!("arrived: {seen:?}")) });
    }
    failures.result()
}

fn judge(front: &Front, came: &Came, right: &Right, bytes: &str, id: &str) -> anyhow::Result<()> {
    let seen = front.recorder.seen(&format!("/{id}/"));
    ensure!(came.is_closed, "the connection is still open: {}", came.text);
    for one in &seen {
        let has_bare = one.head.replace("\r\n", "").contains(['\r', '\n', '\0']);
        ensure!(!has_bare && !one.line().contains("smuggled"), "arrived: {one:?}");
        let framings = one.values("content-length").len() + one.values("transfer-encoding").len();
        ensure!(framings <= 1, "arrived with {framings} framings: {one:?}");
    }
    match right {
        Right::Refused(statuses, code) => {
            ensure!(
                came.statuses().len() == 1 && statuses.contains(&came.status()),
                "answered: {}",
                came.text
            );
            ensure!(came.code()? == *code, "answered: {}", came.text);
            ensure!(came.head().contains("connection: close\r\n"), "not marked as the last: {}", came.text);
        }
        Right::Own(status) => {
            ensure!(came.statuses() == [*status] && seen.is_empty(), "answered: {}, {seen:?}", came.text);
        }
        Right::Sent(arrived) => {
            let answers = if arrived.answers.is_empty() { &[200] } else { arrived.answers };
            ensure!(came.statuses() == answers, "answered: {}", came.text);
            ensure!(seen.len() == 1 && seen[0].is_whole, "arrived: {seen:?}");
            let one = &seen[0];
            let as_sent = bytes.trim_start().split(' ').take(2).collect::<Vec<_>>().join(" ");
            let line = if arrived.line.is_empty() { as_sent } else { arrived.line.replace(ID, id) };
            ensure!(one.line() == line, "arrived: {one:?}");
            let asked = if arrived.host.is_empty() { "x" } else { arrived.host };
            ensure!(one.values("host") == [front.host(asked)], "arrived: {one:?}");
            ensure!(one.body == arrived.body.replace(ID, id).as_bytes(), "arrived: {one:?}");
            let text = format!("{}\r\n{}", one.head, one.trailers).to_ascii_lowercase();
            for part in arrived.has {
                ensure!(text.contains(part), "`{part}` did not arrive: {one:?}");
            }
            for part in arrived.lacks {
                ensure!(!text.contains(part), "`{part}` arrived: {one:?}");
            }
        }
    }
    Ok(())
}

const CODING: Right = Right::Refused(&[501], "transfer-coding");
const LENGTH: Right = Right::Refused(&[400], "bad-length");
const HEADER: Right = Right::Refused(&[400], "bad-header");
const CHUNK: Right = Right::Refused(&[400], "malformed-body");

/// A body of five bytes that is counted by its length.
fn by_length() -> Right {
    Right::Sent(Arrived {
        body: "hello".to_owned(),
        has: &["content-length: 5"],
        lacks: &["transfer", "content_length"],
        ..Arrived::default()
    })
}

async fn a_body_has_one_framing_and_nothing_behind_it_is_a_request(front: Front) -> anyhow::Result<()> {
    let lacks_length = || {
        let arrived = Arrived {
            has: &["transfer-encoding: chunked"],
            lacks: &["content-length"],
            ..Arrived::default()
        };
        Right::Sent(arrived)
    };
    let chunked = "Transfer-Encoding: chunked\r\n";
    let over = 5 + NEXT.len();
    let mut rows: Vec<Row> = vec![
        (
            "CL 6 beside TE, one byte behind the last chunk",
            format!("{POST}Content-Length: 6\r\n{chunked}\r\n0\r\n\r\nX"),
            lacks_length(),
        ),
        (
            "CL over a request behind the last chunk",
            format!("{POST}Content-Length: {over}\r\n{chunked}\r\n0\r\n\r\n{NEXT}"),
            lacks_length(),
        ),
        ("TE gzip, chunked", format!("{POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), CODING),
        (
            "TE chunked, chunked",
            format!("{POST}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
            CODING,
        ),
        ("TE twice", format!("{POST}{chunked}Transfer-Encoding: x\r\n\r\n0\r\n\r\n"), CODING),
        (
            "TE with a space before its colon",
            format!("{POST}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
            HEADER,
        ),
        (
            "TE after a vertical tab",
            format!("{POST}Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n"),
            HEADER,
        ),
        (
            "TE on a folded line, beside CL",
            format!("{POST}Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
            HEADER,
        ),
        (
            "TE in HTTP/1.0",
            format!("POST /@@@/a HTTP/1.0\r\nHost: x\r\n{chunked}\r\n0\r\n\r\n"),
            Right::Refused(&[400], "transfer-coding"),
        ),
        (
            "Transfer_Encoding beside CL",
            format!("{POST}Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello"),
            by_length(),
        ),
    ];
    for coding in ["xchunked", "identity", "chunked, identity", "\"chunked\"", "chunked;q=1"] {
        rows.push((
            "TE that is no coding",
            format!("{POST}Transfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"),
            CODING,
        ));
    }
    check(&front, rows).await
}

async fn a_length_is_one_number_and_a_body_is_counted_by_it(front: Front) -> anyhow::Result<()> {
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut rows: Vec<Row> = vec![
        ("CL 5 and 6", format!("{POST}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), LENGTH),
        ("CL with a space before its colon", format!("{POST}Content-Length : 5\r\n\r\nhello"), HEADER),
        ("CL 5 and 5", format!("{POST}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), by_length()),
        (
            "Content_Length on GET, and five bytes",
            format!("{GET}Content_Length: 5\r\n\r\nhello\r\n\r\n"),
            Right::Sent(Arrived {
                lacks: &["content_length", "content-length"],
                answers: &[200, 400],
                ..Arrived::default()
            }),
        ),
        ("GET with a request as its body", format!("{GET}Content-Length: {}\r\n\r\n{NEXT}", NEXT.len()), {
            sent(NEXT)
        }),
        (
            "CR before a TE in a value",
            format!("{POST}a: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            HEADER,
        ),
        (
            "TE Chunked",
            format!("{POST}Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            sent("hello"),
        ),
        (
            "Connection: content-length",
            format!("{POST}Connection: content-length\r\nContent-Length: 5\r\n\r\nhello"),
            by_length(),
        ),
        (
            "Connection: transfer-encoding",
            format!("{POST}Connection: transfer-encoding\r\n{chunked}\r\n5\r\nhello\r\n0\r\n\r\n"),
            sent("hello"),
        ),
    ];
    for length in ["+5", "0x5", "5 6", "-1", "18446744073709551621", "", "5, 5"] {
        rows.push(("CL that is no length", format!("{POST}Content-Length: {length}\r\n\r\nhello"), LENGTH));
    }
    check(&front, rows).await
}

async fn an_upgrade_or_an_expectation_changes_no_framing(front: Front) -> anyhow::Result<()> {
    let rows: Vec<Row> = vec![
        (
            "an unknown Upgrade, with a request as the body",
            format!(
                "{POST}Connection: upgrade\r\nUpgrade: foo\r\nContent-Length: {}\r\n\r\n{NEXT}",
                NEXT.len()
            ),
            Right::Sent(Arrived {
                body: NEXT.to_owned(),
                lacks: &["upgrade", "connection"],
                ..Arrived::default()
            }),
        ),
        (
            "Upgrade: h2c",
            format!(
                "{GET}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            ),
            Right::Sent(Arrived {
                lacks: &["upgrade", "http2-settings", "connection"],
                ..Arrived::default()
            }),
        ),
        (
            "a WebSocket handshake that is answered with 200, and a request behind it",
            format!(
                "{GET}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n{NEXT}"
            ),
            sent(""),
        ),
        (
            "a WebSocket handshake with a body",
            format!(
                "{GET}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: {}\r\n\r\n{NEXT}",
                NEXT.len()
            ),
            Right::Refused(&[400], "bad-handshake"),
        ),
        (
            "a WebSocket handshake of another version, and a request behind it",
            format!(
                "{GET}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n{NEXT}"
            ),
            Right::Refused(&[426], "websocket-version"),
        ),
        (
            "Expect: 100-continue with a body",
            format!("{POST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello"),
            { sent("hello") },
        ),
        ("Expect: 100-continue without a body", format!("{GET}Expect: 100-continue\r\n\r\n"), {
            Right::Sent(Arrived { lacks: &["expect"], ..Arrived::default() })
        }),
        (
            "Expect: y 100-continue",
            format!("{POST}Expect: y 100-continue\r\nContent-Length: 1\r\n\r\nx"),
            Right::Refused(&[417], "bad-expectation"),
        ),
        (
            "Expect: 200-ok",
            format!("{POST}Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx"),
            Right::Refused(&[417], "bad-expectation"),
        ),
    ];
    check(&front, rows).await
}

async fn chunks_are_exact_and_trailers_forge_nothing(front: Front) -> anyhow::Result<()> {
    let post = format!("{POST}Transfer-Encoding: chunked\r\n");
    let trailers = "Checksum: 1\r\nContent-Length: 3\r\nHost: z\r\nX-Forwarded-For: 9.9.9.9\r\n";
    let mut rows: Vec<Row> = vec![
        (
            "a size line ended by LF in its extension",
            format!("{post}\r\n2;\nxx\r\n45\r\n0\r\n\r\n{NEXT}"),
            CHUNK,
        ),
        ("CR in an extension", format!("{post}\r\n2;a\rb\r\nhi\r\n0\r\n\r\n"), CHUNK),
        ("an extension of 64 KB", format!("{post}\r\n2;{}\r\nhi\r\n0\r\n\r\n", "e".repeat(65_536)), CHUNK),
        ("a size ended by LF", format!("{post}\r\n5\nhello\r\n0\r\n\r\n"), CHUNK),
        ("data ended by LF", format!("{post}\r\n5\r\nhello\n0\r\n\r\n"), CHUNK),
        ("no CRLF after data", format!("{post}\r\n5\r\nhello0\r\n\r\n"), CHUNK),
        (
            "trailers that forge",
            format!(
                "{post}Trailer: Checksum, Content-Length, Host, X-Forwarded-For\r\n\r\n5\r\nhello\r\n0\r\n{trailers}\r\n"
            ),
            Right::Sent(Arrived {
                body: "hello".to_owned(),
                lacks: &["9.9.9.9", "content-length: 3", "host: z"],
                ..Arrived::default()
            }),
        ),
        ("a small extension", format!("{post}\r\n5;a=b\r\nhello\r\n0\r\n\r\n"), {
            Right::Sent(Arrived { body: "hello".to_owned(), lacks: &["a=b"], ..Arrived::default() })
        }),
    ];
    for size in ["0x5", "+5", " 5", "5_", "10000000000000005"] {
        rows.push(("a size that is none", format!("{post}\r\n{size}\r\nhello\r\n0\r\n\r\n"), CHUNK));
    }
    check(&front, rows).await
}

/// These end by a limit: the client sends nothing more.
async fn a_body_that_stops_ends_its_request_and_the_one_behind_it(front: Front) -> anyhow::Result<()> {
    let mut failures = Failures::default();
    let head = "POST /slow/@@@/a HTTP/1.1\r\nHost: x\r\n";
    for (number, (name, bytes)) in [
        ("a body cut short", format!("{head}Content-Length: 10\r\n\r\nhello")),
        ("a chunk cut short", format!("{head}Transfer-Encoding: chunked\r\n\r\na\r\nhello")),
        ("an end without CR", format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\n")),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("{number:03}");
        let came = exchange(front.slow, bytes.replace(ID, &id).as_bytes(), false).await?;
        let is_right = came.is_closed && matches!(came.status(), 400 | 408) && came.statuses().len() == 1;
        failures.note(name, if is_right { Ok(()) } else { Err(anyhow::anyhow!("answered: {}", came.text)) });
        let aborted = e2e::eventually("the recorder's request is aborted", || async {
            let seen = front.recorder.seen(&format!("/{id}/"));
            (seen.len() == 1 && seen[0].is_cut).then_some(())
        });
        failures.note(name, aborted.await);
    }
    failures.result()
}

of_each_front!(start:
    a_body_has_one_framing_and_nothing_behind_it_is_a_request,
    a_length_is_one_number_and_a_body_is_counted_by_it,
    an_upgrade_or_an_expectation_changes_no_framing,
    chunks_are_exact_and_trailers_forge_nothing,
    a_body_that_stops_ends_its_request_and_the_one_behind_it,
);
