//! The table of raw HTTP/1 requests of the design page (section 4b): request lines, hosts, fields and sizes.

use crate::front::NO_HOST;
use crate::requests::{Arrived, Right, check, sent};
use crate::{Front, of_each_front};

const BAD_HEADER: Right = Right::Refused(&[400], "bad-header");
const BAD_HOST: Right = Right::Refused(&[400], "bad-host");
const BAD_TARGET: Right = Right::Refused(&[400], "bad-target");
const BAD_LINE: Right = Right::Refused(&[400], "bad-request-line");
const BAD_METHOD: Right = Right::Refused(&[400], "bad-method");
const TOO_LARGE: Right = Right::Refused(&[431], "head-too-large");
const VERSION: Right = Right::Refused(&[505], "http-version");

fn with(fields: &str) -> String {
    format!("GET /@@@/a HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
}

fn line(line: &str) -> String {
    format!("{line}\r\nHost: x\r\n\r\n")
}

fn host(fields: &str) -> String {
    format!("GET /@@@/a HTTP/1.1\r\n{fields}\r\n")
}

async fn a_request_line_has_one_meaning(front: Front) -> anyhow::Result<()> {
    let at = |line| Right::Sent(Arrived { line, ..Arrived::default() });
    check(
        &front,
        vec![
            ("CRLF before the request line", format!("\r\n{}", with("")), sent("")),
            ("a line of rubbish", format!("rubbish\r\n{}", with("")), BAD_METHOD),
            ("an absolute target", line("GET http://y/@@@/a HTTP/1.1"), {
                let has = &["x-forwarded-host: y\r\n"];
                Right::Sent(Arrived { line: "GET /@@@/a", has, host: "y", ..Arrived::default() })
            }),
            ("an absolute target with a user", line("GET http://u:p@y/@@@/a HTTP/1.1"), {
                Right::Refused(&[400], "user-name")
            }),
            ("a target of host and port", line("GET x:80 HTTP/1.1"), BAD_TARGET),
            ("a target without a slash", line("GET a HTTP/1.1"), BAD_TARGET),
            ("GET *", line("GET * HTTP/1.1"), BAD_TARGET),
            ("OPTIONS *", line("OPTIONS * HTTP/1.1"), Right::Own(200)),
            ("a fragment", line("GET /@@@/a#/b HTTP/1.1"), BAD_TARGET),
            ("UTF-8", line("GET /@@@/caf\u{e9} HTTP/1.1"), BAD_TARGET),
            ("an invalid escape", line("GET /@@@/a%zz HTTP/1.1"), at("GET /@@@/a%zz")),
            ("an escaped NUL", line("GET /@@@/a%00b HTTP/1.1"), at("GET /@@@/a%00b")),
            ("other bytes that stay", line("GET /@@@/%2F//;+?&%00 HTTP/1.1"), at("GET /@@@/%2F//;+?&%00")),
            ("NUL in the path", line("GET /@@@/a\0b HTTP/1.1"), BAD_TARGET),
            ("angle brackets", line("GET /@@@/a<b> HTTP/1.1"), BAD_TARGET),
            ("a quote in the query", line("GET /@@@/?q=\"x\" HTTP/1.1"), BAD_TARGET),
            ("a quote in the path", line("GET /@@@/\"x\" HTTP/1.1"), BAD_TARGET),
            ("a backtick in the path", line("GET /@@@/`x` HTTP/1.1"), BAD_TARGET),
            // Browsers send it so.
            ("a backtick in the query", line("GET /@@@/?q=`x` HTTP/1.1"), at("GET /@@@/?q=`x`")),
            ("a fragment of a readiness check", line("GET /ready#b HTTP/1.1"), BAD_TARGET),
            (
                "an absolute target with a port above 65535",
                line("GET http://y:99999/@@@/a HTTP/1.1"),
                BAD_HOST,
            ),
            ("an absolute target with a slash in a password", line("GET http://u:p/w@y/@@@/a HTTP/1.1"), {
                BAD_HOST
            }),
            ("a space in the path", line("GET /@@@/a b HTTP/1.1"), BAD_LINE),
            ("two spaces", line("GET  /@@@/a HTTP/1.1"), BAD_LINE),
            ("a tab", line("GET\t/@@@/a HTTP/1.1"), BAD_METHOD),
            ("a path of 70 KB", line(&format!("GET /@@@/{} HTTP/1.1", "a".repeat(70_000))), {
                Right::Refused(&[414], "target-too-long")
            }),
            ("HTTP/0.9", "GET /@@@/a\r\n\r\n".to_owned(), BAD_LINE),
            ("HTTP/1.2", line("GET /@@@/a HTTP/1.2"), VERSION),
            ("HTTP/2.0", line("GET /@@@/a HTTP/2.0"), VERSION),
            ("http/1.1", line("GET /@@@/a http/1.1"), BAD_LINE),
            ("HTTP/1.10", line("GET /@@@/a HTTP/1.10"), VERSION),
            ("a brace in the method", line("G{T /@@@/a HTTP/1.1"), BAD_METHOD),
            (
                "a method of 5,000 letters",
                line(&format!("{} /@@@/a HTTP/1.1", "A".repeat(5_000))),
                BAD_METHOD,
            ),
            ("get", line("get /@@@/a HTTP/1.1"), at("get /@@@/a")),
            ("CONNECT", line("CONNECT x:443 HTTP/1.1"), Right::Refused(&[405], "no-tunnels")),
            (
                "CONNECT with a body",
                "CONNECT x:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
                Right::Refused(&[405], "no-tunnels"),
            ),
            ("TRACE", line("TRACE /@@@/a HTTP/1.1"), Right::Refused(&[405], "no-trace")),
            ("TLS", "\u{16}\u{3}\u{1}\u{2}\u{1}\r\n\r\n".to_owned(), Right::Refused(&[400], "tls")),
        ],
    )
    .await
}

async fn a_request_names_one_host(front: Front) -> anyhow::Result<()> {
    check(
        &front,
        vec![
            ("1.1 without Host", host(""), Right::Refused(&[400], "no-host")),
            ("1.0 without Host", "GET /@@@/a HTTP/1.0\r\n\r\n".to_owned(), {
                Right::Sent(Arrived { line: "GET /@@@/a", host: NO_HOST, ..Arrived::default() })
            }),
            ("two Hosts", host("Host: a\r\nHost: b\r\n"), Right::Refused(&[400], "several-hosts")),
            ("the same Host twice", host("Host: a\r\nHost: a\r\n"), Right::Refused(&[400], "several-hosts")),
            ("two names", host("Host: x, y\r\n"), BAD_HOST),
            ("a path", host("Host: x/y\r\n"), BAD_HOST),
            ("a user", host("Host: u@x\r\n"), BAD_HOST),
            ("an empty Host", host("Host:\r\n"), BAD_HOST),
            ("a port above 65535", host("Host: x:99999\r\n"), BAD_HOST),
            ("spaces and a path", host("Host: a b/c@d\r\n"), BAD_HOST),
            ("a port", host("Host: x:80\r\n"), {
                Right::Sent(Arrived { host: "x:80", ..Arrived::default() })
            }),
        ],
    )
    .await
}

async fn a_field_has_one_meaning_and_heads_have_a_limit(front: Front) -> anyhow::Result<()> {
    check(
        &front,
        vec![
            ("lines ended by LF", "GET /@@@/a HTTP/1.1\nHost: x\nX-Kept: 1\n\n".to_owned(), {
                Right::Sent(Arrived { has: &["x-kept: 1\r\n"], ..Arrived::default() })
            }),
            ("CR in a value", with("a: b\rc\r\n"), BAD_HEADER),
            ("NUL in a value", with("a: b\0c\r\n"), BAD_HEADER),
            ("a folded field", with("a: b\r\n c\r\n"), BAD_HEADER),
            ("the first field folded", "GET /@@@/a HTTP/1.1\r\n Host: x\r\n\r\n".to_owned(), BAD_HEADER),
            ("no colon", with("foo bar\r\n"), BAD_HEADER),
            ("an empty name", with(": bar\r\n"), BAD_HEADER),
            ("a space in a name", with("foo bar: baz\r\n"), BAD_HEADER),
            ("UTF-8 in a name", with("caf\u{e9}: 1\r\n"), BAD_HEADER),
            ("120 fields", with(&"a: b\r\n".repeat(120)), TOO_LARGE),
            ("2,000 fields", with(&"a: b\r\n".repeat(2_000)), TOO_LARGE),
            ("a field of 40 KB", with(&format!("cookie: {}\r\n", "a".repeat(40_000))), TOO_LARGE),
            ("a field of 500 KB", with(&format!("cookie: {}\r\n", "a".repeat(500_000))), TOO_LARGE),
            ("90 fields", with(&"a: b\r\n".repeat(90)), sent("")),
        ],
    )
    .await
}

async fn a_client_can_neither_remove_nor_forge_the_fields_of_a_proxy(front: Front) -> anyhow::Result<()> {
    let named = "Connection: close, Host, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, X-Request-Id, \
                 Authorization, Cookie, CDN-Loop, X-Hop\r\n";
    let forged = "X-Forwarded-For: 9.9.9.9\r\nX_Forwarded_For: 9.9.9.9\r\nX.Forwarded.For: 9.9.9.9\r\n\
                  X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: //evil.example\r\n\
                  X-Forwarded-Port: 1\r\nForwarded: for=9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\nX-Request-Id: mine\r\n\
                  Coterie-Hops: 3\r\nCoterie-Epoch: 99\r\nCoterie_Epoch: 99\r\nCoterie-Not-Processed: 1\r\n";
    let kept = "Authorization: Basic a\r\nCookie: a=b\r\nX-Hop: 1\r\nX-Kept: 1\r\n";
    check(
        &front,
        vec![
            (
                "everything at once",
                with(&format!("{named}{forged}{kept}")),
                Right::Sent(Arrived {
                    has: &[
                        "authorization: basic a\r\n",
                        "cookie: a=b\r\n",
                        "cdn-loop: coterie\r\n",
                        "x-forwarded-for: 127.0.0.1\r\n",
                        "x-forwarded-host: x\r\n",
                        "x-forwarded-proto: http\r\n",
                        "x-request-id: ",
                        "x-kept: 1\r\n",
                    ],
                    lacks: &[
                        "9.9.9.9",
                        "evil",
                        "mine",
                        "coterie-epoch",
                        "coterie_epoch",
                        "not-processed",
                        "x-hop",
                        "-port",
                    ],
                    ..Arrived::default()
                }),
            ),
            ("an alias with underscores", with("X_Forwarded_For: 9.9.9.9\r\n"), {
                Right::Sent(Arrived { lacks: &["9.9.9.9"], ..Arrived::default() })
            }),
            ("an alias with dots", with("X.Forwarded.For: 9.9.9.9\r\n"), {
                Right::Sent(Arrived { lacks: &["9.9.9.9"], ..Arrived::default() })
            }),
            ("Connection: Host", with("Connection: close, Host\r\n"), {
                Right::Sent(Arrived { has: &["x-forwarded-host: x"], ..Arrived::default() })
            }),
        ],
    )
    .await
}

of_each_front!(start:
    a_request_line_has_one_meaning,
    a_request_names_one_host,
    a_field_has_one_meaning_and_heads_have_a_limit,
    a_client_can_neither_remove_nor_forge_the_fields_of_a_proxy,
);
