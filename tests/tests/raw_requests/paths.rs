//! Paths (section 4d of the design page): sent on byte for byte, and no way out of a route.

use anyhow::ensure;

use crate::front::{Failures, Kind};
use crate::{Front, of_each_front};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

/// A path, and what arrives of it; `None` if it is refused.
type Row = (&'static str, Option<&'static str>);

async fn check(front: &Front, rows: &[Row]) -> anyhow::Result<()> {
    let mut failures = Failures::default();
    for (number, (path, arrives)) in rows.iter().enumerate() {
        let id = format!("id={number:03}");
        // The query names the row.
        let query = if path.contains('?') { "&" } else { "?" };
        let came = front.exchange(get(&format!("{path}{query}{id}")).as_bytes(), false).await?;
        let seen = front.recorder.seen(&id);
        let result = (|| {
            if let Some(arrives) = arrives {
                ensure!(came.status() == 200 && seen.len() == 1, "{} {seen:?}", came.text);
                ensure!(seen[0].line() == format!("GET {arrives}{query}{id}"), "{seen:?}");
            } else {
                ensure!(came.status() == 400 && seen.is_empty(), "{} {seen:?}", came.text);
                ensure!(matches!(came.code()?.as_str(), "bad-path" | "bad-target"), "{}", came.text);
            }
            Ok(())
        })();
        failures.note(path, result);
    }
    failures.result()
}

/// Only a gateway has routes.
#[tokio::test]
async fn a_path_cannot_leave_the_address_of_its_route_of_a_gateway() -> anyhow::Result<()> {
    let rows = [
        ("/base/../secret", None),
        ("/base/./secret", None),
        ("/base/..", None),
        ("/base/%2e%2e/secret", None),
        ("/base/.%2E/secret", None),
        ("/base/%2e/secret", None),
        ("/base/..;x/secret", None),
        ("/base/.;/secret", None),
        ("/base/%2e%2e;x/secret", None),
        ("/base/..\\secret", None),
        ("/base/..%5csecret", None),
        ("/base/x%5C..%5C..%5Csecret", None),
        ("/base/x%00", None),
        ("/base/%252e%252e/secret", Some("/public/%252e%252e/secret")),
        ("/base/..%2fsecret", Some("/public/..%2fsecret")),
        ("/base/a%2Fb", Some("/public/a%2Fb")),
        ("/base//x//", Some("/public//x//")),
        ("/base/a..b/...", Some("/public/a..b/...")),
        ("/base/x;y=..", Some("/public/x;y=..")),
        ("/base/%41%7e+", Some("/public/%41%7e+")),
        ("/base", Some("/public/")),
        ("/%62ase/x", Some("/public/x")),
        ("/base?../", Some("/public/?../")),
        ("/base/?", Some("/public/?")),
        ("/based/x", Some("/based/x")),
        ("/BASE/x", Some("/BASE/x")),
    ];
    check(&Front::start(Kind::Gateway).await?, &rows).await
}

/// A balancer has no routes, so there is nothing that a path could leave, and its backends decide what it means.
#[tokio::test]
async fn a_backend_of_a_balancer_gets_the_path_byte_for_byte() -> anyhow::Result<()> {
    let same = |path| (path, Some(path));
    let rows = [
        same("/a/../b"),
        same("/a/./b"),
        same("/%2e%2e/b"),
        same("/..;x/b"),
        same("/..%5cb"),
        same("/x%00"),
        same("/%252e%252e/b"),
        same("/..%2fb"),
        same("//x//"),
        same("/a..b/..."),
        same("/%41%7e+"),
        same("/?../"),
        same("/x?"),
        same("/a\\b"),
    ];
    check(&Front::start(Kind::Balancer).await?, &rows).await
}

/// The member is the real agent with the service `echo`, which returns the path as it arrived.
async fn a_member_gets_the_path_byte_for_byte(front: Front) -> anyhow::Result<()> {
    let mut failures = Failures::default();
    for (path, arrives) in [
        ("/a%2Fb%2f", Some("/a%2Fb%2f")),
        ("//x//", Some("//x//")),
        ("/%2e%2e/secret", Some("/%2e%2e/secret")),
        ("/..%2fsecret", Some("/..%2fsecret")),
        ("/..;x/;y", Some("/..;x/;y")),
        ("/%zz%00", Some("/%zz%00")),
        ("/a+b%20c?q=%2F+&&=?", Some("/a+b%20c?q=%2F+&&=?")),
        ("/x?", Some("/x?")),
        ("", Some("/")),
        ("/../agent/self", None),
        ("/x/../../v1/members", None),
        ("/./x", None),
        ("/..", None),
    ] {
        let target = front.of_member(path);
        // For a balancer, that is no target.
        if target.is_empty() {
            continue;
        }
        let came = front.exchange(get(&target).as_bytes(), false).await?;
        let result = (|| {
            if let Some(arrives) = arrives {
                let expected = format!("\r\necho-path: {arrives}\r\n").to_ascii_lowercase();
                ensure!(came.statuses() == [200] && came.head().contains(&expected), "{}", came.text);
            } else {
                ensure!(came.statuses() == [400] && !came.head().contains("echo-path"), "{}", came.text);
                ensure!(came.code()? == "bad-path", "{}", came.text);
            }
            Ok(())
        })();
        failures.note(path, result);
    }
    front.machine.ctl(&["down"]).await?.exits(0)?;
    failures.result()
}

of_each_front!(with_member: a_member_gets_the_path_byte_for_byte);
