//! HTTP/2 floods and malformed requests (section 4e of the design page), as frames against the real agent.

use std::time::Duration;

use anyhow::ensure;
use e2e::eventually;

use crate::frames::{
    CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS, PING,
    PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
    exchange, exchange_within, field, frame, get, has_ended, preface,
};
use crate::front::Failures;
use crate::{Front, of_each_front};

/// How long streams may be held: twice the time that a client may read nothing.
const HELD: Duration = Duration::from_secs(120);
/// The index of `:method: GET` and of other pseudo headers in HPACK's static table.
const GET_SLASH: [u8; 4] = [0x82, 0x86, 0x84, 0x01];

/// `HEADERS` for `GET /`, with more bytes in its block.
fn headers(stream: u32, flags: u8, more: &[u8]) -> Vec<u8> {
    let block = [&GET_SLASH[..], &[1, b'x'], more].concat();
    frame(HEADERS, flags, stream, &block)
}

/// The numbers of the first streams of a client.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// A block in one HEADERS and as many CONTINUATION frames as it needs.
fn in_pieces(stream: u32, block: &[u8]) -> Vec<u8> {
    let pieces: Vec<_> = block.chunks(16_384).collect();
    let last = pieces.len() - 1;
    let mut bytes = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let kind = if number == 0 { HEADERS } else { CONTINUATION };
        let end_stream = if number == 0 { END_STREAM } else { 0 };
        bytes.extend(frame(kind, end_stream | if number == last { END_HEADERS } else { 0 }, stream, piece));
    }
    bytes
}

async fn a_flood_ends_its_connection_and_nothing_else(front: Front) -> anyhow::Result<()> {
    let mut failures = Failures::default();
    let post = frame(HEADERS, END_HEADERS, 1, &{
        block(&[(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/flood")])
    });
    let crumb = [&[0x40, 6][..], b"cookie", &[3], b"a=b"].concat();
    let indexed = [&GET_SLASH[..], &[1, b'x'], &[0x40, 1, b'a', 1, b'b'], &vec![0xbe; 32_000]].concat();
    let floods: Vec<(&str, Vec<u8>, &[u32])> = vec![
        (
            "rapid reset",
            streams(2_000)
                .flat_map(|stream| {
                    let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
                    [headers(stream, END_HEADERS | END_STREAM, &[]), reset].concat()
                })
                .collect(),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "MadeYouReset",
            streams(2_000)
                .flat_map(|stream| {
                    let update = frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes());
                    [headers(stream, END_HEADERS, &[]), update].concat()
                })
                .collect(),
            &[PROTOCOL_ERROR, ENHANCE_YOUR_CALM],
        ),
        (
            "CONTINUATION without an end",
            [
                headers(1, 0, &[]),
                frame(CONTINUATION, 0, 1, &field("a", &"b".repeat(100)).repeat(150)).repeat(330),
            ]
            .concat(),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "empty CONTINUATION",
            [headers(1, 0, &[]), frame(CONTINUATION, 0, 1, &[]).repeat(50_000)].concat(),
            &[ENHANCE_YOUR_CALM],
        ),
        ("32,000 indexed fields", in_pieces(1, &indexed), &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR]),
        (
            "16,000 cookie crumbs",
            in_pieces(1, &[&GET_SLASH[..], &[1, b'x'], &crumb, &vec![0xbe; 16_000]].concat()),
            &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR],
        ),
        (
            "50,000 empty DATA",
            [post.clone(), frame(DATA, 0, 1, &[]).repeat(50_000)].concat(),
            &[ENHANCE_YOUR_CALM],
        ),
        (
            "60,000 DATA of one byte",
            [post, frame(DATA, 0, 1, b"a").repeat(60_000)].concat(),
            &[ENHANCE_YOUR_CALM],
        ),
    ];
    for (name, flood, codes) in floods {
        let frames = exchange(front.address, [preface(&[]), flood].concat(), |_| false).await?;
        let goaway = frames.iter().rev().find(|frame| frame.kind == GOAWAY);
        let is_right = goaway.is_some_and(|goaway| codes.contains(&goaway.code()));
        failures.note(
            name,
            if is_right { Ok(()) } else { Err(anyhow::anyhow!("{goaway:?} of {}", frames.len())) },
        );
        failures.note(name, still_serves(&front).await);
    }
    failures.result()
}

async fn still_serves(front: &Front) -> anyhow::Result<()> {
    let request = [preface(&[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/served"))].concat();
    let frames = exchange(front.address, request, |frames| has_ended(frames, 1)).await?;
    let body: Vec<_> =
        frames.iter().filter(|one| one.kind == DATA).flat_map(|one| one.payload.clone()).collect();
    ensure!(body == b"recorded", "another client gets {frames:?}");
    Ok(())
}

async fn frames_that_cost_nothing_are_answered_or_ignored(front: Front) -> anyhow::Result<()> {
    let mut failures = Failures::default();
    for (name, flood) in [
        ("PING", frame(PING, 0, 0, &[7; 8]).repeat(50_000)),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[]).repeat(50_000)),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(50_000)),
    ] {
        let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/served"));
        let frames =
            exchange(front.address, [preface(&[]), flood, request].concat(), |frames| has_ended(frames, 1))
                .await?;
        let last = frames.last().map(|last| (last.kind, last.stream));
        let is_right = last.is_some_and(|(kind, stream)| kind <= HEADERS && stream == 1);
        failures.note(name, if is_right { Ok(()) } else { Err(anyhow::anyhow!("{:?}", frames.last())) });
    }
    failures.result()
}

async fn a_connection_has_at_most_100_open_streams(front: Front) -> anyhow::Result<()> {
    let open = block(&[(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/open")]);
    let all: Vec<u8> = streams(1_000).flat_map(|stream| frame(HEADERS, END_HEADERS, stream, &open)).collect();
    let refused = |frames: &[Frame]| {
        frames.iter().filter(|one| one.kind == RST_STREAM && one.code() == REFUSED_STREAM).count()
    };
    let frames =
        exchange(front.address, [preface(&[]), all].concat(), |frames| refused(frames) >= 900).await?;
    ensure!(refused(&frames) == 900, "{} were refused: {:?}", refused(&frames), frames.last());
    ensure!(front.recorder.seen("/open").len() <= 100);
    Ok(())
}

/// RFC 9113, section 8.4. httpwg's case for this leaves its frame without an end, and waits.
async fn a_client_cannot_push(front: Front) -> anyhow::Result<()> {
    let mut failures = Failures::default();
    let promise =
        |flags| frame(PUSH_PROMISE, flags, 1, &[&2_u32.to_be_bytes()[..], &get("/pushed")].concat());
    let open = block(&[(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/open")]);
    for (name, frames) in [
        ("on an idle stream", promise(END_HEADERS)),
        ("on an open stream", [frame(HEADERS, END_HEADERS, 1, &open), promise(END_HEADERS)].concat()),
        ("without an end, before another frame", [promise(0), frame(PING, 0, 0, &[7; 8])].concat()),
    ] {
        let frames = exchange(front.address, [preface(&[]), frames].concat(), |_| false).await?;
        let goaway = frames.iter().rev().find(|frame| frame.kind == GOAWAY);
        let is_right = goaway.is_some_and(|goaway| goaway.code() == PROTOCOL_ERROR);
        failures.note(name, if is_right { Ok(()) } else { Err(anyhow::anyhow!("{frames:?}")) });
    }
    let arrived = front.recorder.seen("/pushed");
    ensure!(arrived.is_empty(), "{arrived:?}");
    failures.result()
}

/// What becomes of a malformed request.
enum Right {
    /// This status, from the front.
    Status(&'static [&'static str]),
    /// A stream error.
    Reset,
    /// The connection or the stream ends with an error, or the request is answered with 400.
    Any,
}

async fn a_malformed_request_is_refused_alone(front: Front) -> anyhow::Result<()> {
    let mut failures = Failures::default();
    let with = |path: &str, more: &[(&str, &str)]| {
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", path)];
        block(&[&pseudo[..], more].concat())
    };
    let connect = block(&[(":method", "CONNECT"), (":authority", "x:443")]);
    let as_user = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "u@x"), (":path", "/bad")]);
    for (name, block, right) in [
        ("path *", with("*", &[]), Right::Any),
        ("an empty path", with("", &[]), Right::Any),
        ("a path without a slash", with("a", &[]), Right::Any),
        ("a quote in the path", with("/bad\"", &[]), Right::Status(&["400"])),
        ("a backtick in the path", with("/bad`", &[]), Right::Reset),
        ("a user name", as_user, Right::Status(&["400"])),
        ("another host", with("/bad", &[("host", "y")]), Right::Reset),
        ("a value with a leading space", with("/bad", &[("a", " b")]), Right::Reset),
        ("a value with a trailing tab", with("/bad", &[("a", "b\t")]), Right::Reset),
        ("CONNECT", connect, Right::Status(&["405"])),
        ("CONNECT without :authority", block(&[(":method", "CONNECT")]), Right::Reset),
        ("connection", with("/bad", &[("connection", "close")]), Right::Reset),
        ("upgrade", with("/bad", &[("upgrade", "websocket")]), Right::Reset),
        ("te: gzip", with("/bad", &[("te", "gzip")]), Right::Reset),
        ("transfer-encoding", with("/bad", &[("transfer-encoding", "chunked")]), Right::Reset),
        ("an upper-case name", with("/bad", &[("Upper", "1")]), Right::Any),
        ("CR in a value", with("/bad", &[("a", "b\rc")]), Right::Any),
        ("LF in a value", with("/bad", &[("a", "b\nc")]), Right::Any),
        ("NUL in a value", with("/bad", &[("a", "b\0c")]), Right::Any),
    ] {
        let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
        let next = frame(HEADERS, END_HEADERS | END_STREAM, 3, &get("/next"));
        let frames =
            exchange(front.address, [preface(&[]), request, next].concat(), |frames| has_ended(frames, 3))
                .await?;
        let of_first: Vec<_> = frames.iter().filter(|one| one.stream == 1).collect();
        let is_reset = of_first.iter().any(|one| one.kind == RST_STREAM && one.code() == PROTOCOL_ERROR);
        // The status is the first field; h2 sends it with Huffman's code or as an index.
        let has_status = |wanted: &str| {
            of_first.iter().any(|one| {
                one.kind == DATA && {
                    String::from_utf8_lossy(&one.payload).contains(&format!("\"status\":{wanted}"))
                }
            })
        };
        let is_right = match right {
            Right::Status(statuses) => statuses.iter().any(|status| has_status(status)),
            Right::Reset => is_reset,
            Right::Any => is_reset || has_status("400") || frames.iter().any(|one| one.kind == GOAWAY),
        };
        let arrived = front.recorder.seen("/bad").len();
        let is_right = is_right && arrived == 0;
        failures.note(
            name,
            if is_right { Ok(()) } else { Err(anyhow::anyhow!("{arrived} arrived; {frames:?}")) },
        );
    }
    failures.result()
}

async fn malformed_trailers_reset_their_stream_and_reach_nobody(front: Front) -> anyhow::Result<()> {
    let head =
        block(&[(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", "/trailers")]);
    let trailers = block(&[("checksum", "1 ")]);
    let request = [
        frame(HEADERS, END_HEADERS, 1, &head),
        frame(DATA, 0, 1, b"hello"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
    ];
    let frames =
        exchange(front.address, [preface(&[]), request.concat()].concat(), |frames| has_ended(frames, 1))
            .await?;
    let reset = frames.iter().find(|one| one.kind == RST_STREAM && one.stream == 1);
    ensure!(reset.is_some_and(|reset| reset.code() == PROTOCOL_ERROR), "{frames:?}");
    eventually("nothing whole arrives", || async {
        front.recorder.seen("/trailers").iter().all(|one| !one.is_whole).then_some(())
    })
    .await?;
    still_serves(&front).await
}

async fn a_body_that_differs_from_its_length_resets_both_sides(front: Front) -> anyhow::Result<()> {
    let mut failures = Failures::default();
    for (name, path, data) in [("too long", "/long", &b"sixsix"[..]), ("too short", "/short", b"four")] {
        let pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path)];
        let head = block(&[&pseudo[..], &[("content-length", "5")]].concat());
        let request = [frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, END_STREAM, 1, data)].concat();
        let frames =
            exchange(front.address, [preface(&[]), request].concat(), |frames| has_ended(frames, 1)).await?;
        let reset = frames.iter().find(|one| one.kind == RST_STREAM && one.stream == 1);
        let is_right = reset.is_some_and(|reset| reset.code() == PROTOCOL_ERROR);
        failures.note(name, if is_right { Ok(()) } else { Err(anyhow::anyhow!("{frames:?}")) });
        // It may have been cancelled before it was sent.
        let aborted = eventually("nothing whole arrives", || async {
            front.recorder.seen(path).iter().all(|one| !one.is_whole).then_some(())
        });
        failures.note(name, aborted.await);
        failures.note(name, still_serves(&front).await);
    }
    failures.result()
}

async fn cookie_crumbs_arrive_as_one_cookie(front: Front) -> anyhow::Result<()> {
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/crumbs")];
    let crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")];
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[&pseudo[..], &crumbs].concat()));
    exchange(front.address, [preface(&[]), request].concat(), |frames| has_ended(frames, 1)).await?;
    let seen = front.recorder.seen("/crumbs");
    ensure!(seen.len() == 1 && seen[0].values("cookie") == ["a=1; b=2; c=3"], "{seen:?}");
    Ok(())
}

/// A known limit: h2 parses `:path` before anything else sees it, with a parser that drops the fragment. What is left is
/// matched, logged and sent, so no two servers read it differently. HTTP/1.1, of which we see the bytes, refuses it.
async fn a_fragment_in_a_path_is_dropped_by_the_parser_and_reaches_nobody(
    front: Front,
) -> anyhow::Result<()> {
    let request = [preface(&[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/dropped#b?c"))].concat();
    exchange(front.address, request, |frames| has_ended(frames, 1)).await?;
    let seen = front.recorder.seen("/dropped");
    ensure!(seen.len() == 1 && seen[0].line() == "GET /dropped", "{seen:?}");
    Ok(())
}

/// Section 4e: as many streams as there may be, with large heads, whose answers are never taken. Each ends after the time that
/// a client may read nothing, and gives its place back.
async fn streams_held_with_a_window_of_zero_are_reset_and_free_their_places(
    front: Front,
) -> anyhow::Result<()> {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    // One field, and references to it.
    let fields = [&[0x40, 1, b'a', 1, b'b'][..], &[0xbe; 80]].concat();
    let held: Vec<u8> =
        streams(100).flat_map(|stream| headers(stream, END_HEADERS | END_STREAM, &fields)).collect();
    let reset =
        |frames: &[Frame]| frames.iter().filter(|one| one.kind == RST_STREAM && one.code() == CANCEL).count();
    let bytes = [preface(&[(INITIAL_WINDOW_SIZE, 0)]), held].concat();
    let frames = exchange_within(HELD, front.address, bytes, |frames| reset(frames) >= 100).await?;
    ensure!(reset(&frames) == 100, "{} were reset: {:?}", reset(&frames), frames.last());
    let data: usize = frames.iter().filter(|one| one.kind == DATA).map(|one| one.payload.len()).sum();
    ensure!(data == 0, "{data} bytes were sent into a window of zero");
    still_serves(&front).await
}

of_each_front!(start:
    a_fragment_in_a_path_is_dropped_by_the_parser_and_reaches_nobody,
    streams_held_with_a_window_of_zero_are_reset_and_free_their_places,
    a_flood_ends_its_connection_and_nothing_else,
    frames_that_cost_nothing_are_answered_or_ignored,
    a_connection_has_at_most_100_open_streams,
    a_client_cannot_push,
    a_malformed_request_is_refused_alone,
    malformed_trailers_reset_their_stream_and_reach_nobody,
    a_body_that_differs_from_its_length_resets_both_sides,
    cookie_crumbs_arrive_as_one_cookie,
);
