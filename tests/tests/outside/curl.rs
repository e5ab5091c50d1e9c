//! curl over HTTP/1.1, HTTP/2 with and without TLS, and the PROXY protocol.

use std::path::Path;

use anyhow::ensure;

use crate::front::{Front, HOST, Kind, LINE, authority, testdata};
use crate::tool::{has, run};

/// Options of every call: no progress, an error for 4xx and 5xx, the answer's head before its body.
const COMMON: [&str; 5] = ["-sS", "--fail", "-i", "--max-time", "60"];

async fn curl(arguments: &[&str]) -> anyhow::Result<String> {
    run(Path::new("curl"), &[&COMMON[..], arguments].concat()).await
}

#[tokio::test]
async fn curl_reads_and_writes_over_every_protocol() -> anyhow::Result<()> {
    if !has("curl", "--version", "curl").await? {
        return Ok(());
    }
    let front = Front::start(Kind::Gateway).await?;
    let file = front.machine.write("upload", &"0123456789".repeat(300_000))?;
    let (plain, ca) = (format!("http://{}", front.address("plain")?), authority());
    let resolve = format!("{HOST}:{}:127.0.0.1", front.port("web")?);
    let web = format!("https://{HOST}:{}", front.port("web")?);
    let tls = ["--cacert", &ca, "--resolve", &resolve];
    for (url, protocol, options) in [
        (&plain, "HTTP/1.1", &["--http1.1"][..]),
        (&plain, "HTTP/2", &["--http2-prior-knowledge"]),
        (&web, "HTTP/1.1", &[&["--http1.1"], &tls[..]].concat()),
        (&web, "HTTP/2", &[&["--http2"], &tls[..]].concat()),
    ] {
        let asked = format!("{url}/a%2Fb//c?d=%20");
        let shown = curl(&[options, &[&asked]].concat()).await?;
        ensure!(shown.starts_with(&format!("{protocol} 200")), "{shown}");
        ensure!(shown.contains("echo-asked: GET /a%2Fb//c?d=%20"), "{shown}");
        let scheme = if url == &web { "https" } else { "http" };
        ensure!(shown.contains(&format!("echo-x-forwarded-proto: {scheme}")), "{shown}");
        // One connection serves both requests. curl 7.88 cannot do that with prior knowledge: it sends its preface twice.
        if !options.contains(&"--http2-prior-knowledge") {
            let count = ["-w", "%{num_connects}\n", "-o", "/dev/null", "-o", "/dev/null", &asked, &asked];
            let counts = curl(&[options, &count[..]].concat()).await?;
            ensure!(counts == "1\n0\n", "{counts}");
        }
        for expect in [&["-H", "Expect:"][..], &["-H", "Expect: 100-continue", "--expect100-timeout", "50"]] {
            let sent = curl(&[options, expect, &["-T", &file, &format!("{url}/upload")]].concat()).await?;
            ensure!(sent.contains("echo-asked: PUT /upload"), "{}", &sent[..sent.len().min(1_000)]);
            let body = sent.rsplit("\r\n\r\n").next().unwrap_or_default();
            ensure!(
                body.len() == 3_000_000 && body == std::fs::read_to_string(&file)?,
                "{} bytes",
                body.len()
            );
        }
    }
    front.machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}

#[tokio::test]
async fn curl_asks_for_compressed_answers_and_reads_them() -> anyhow::Result<()> {
    if !has("curl", "--version", "curl").await? {
        return Ok(());
    }
    let front = Front::start(Kind::Gateway).await?;
    let url = format!("http://{}/lines/2000", front.address("plain")?);
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        for (accepted, coding) in [
            (&["--compressed"][..], Some("content-encoding: ")),
            (&["--compressed", "-H", "Accept-Encoding: gzip"], Some("content-encoding: gzip\r\n")),
            (&["-H", "Accept-Encoding: identity"], None),
        ] {
            let shown = curl(&[&[protocol], accepted, &[&url]].concat()).await?;
            let (head, body) = shown.split_once("\r\n\r\n").unwrap_or((&shown, ""));
            ensure!(body == LINE.repeat(2000), "{head}\n{} bytes", body.len());
            let head = format!("{head}\r\n");
            ensure!(head.contains("content-encoding: ") == coding.is_some(), "{head}");
            ensure!(coding.is_none_or(|coding| head.contains(coding)), "{head}");
            ensure!(head.contains("vary: accept-encoding"), "{head}");
        }
    }
    front.machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}

#[tokio::test]
async fn curl_identifies_itself_with_a_certificate() -> anyhow::Result<()> {
    if !has("curl", "--version", "curl").await? {
        return Ok(());
    }
    let front = Front::start(Kind::Gateway).await?;
    let (port, ca) = (front.port("clients")?, authority());
    let (url, resolve) = (format!("https://{HOST}:{port}/x"), format!("{HOST}:{port}:127.0.0.1"));
    let identity = |name: &str| [testdata(&format!("{name}.crt")), testdata(&format!("{name}.key"))];
    for version in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]] {
        let to = [version, &["--cacert", &ca, "--resolve", &resolve, &url]].concat();
        let [cert, key] = identity("client");
        let shown = curl(&[&["--cert", &cert, "--key", &key], &to[..]].concat()).await?;
        ensure!(shown.contains("echo-x-forwarded-client-cert: Hash=8fb19480206f1c55"), "{shown}");
        ensure!(shown.contains("OU=Billing+UID=u7,O=Shop\\, Inc.,C=DE\""), "{shown}");
        let [cert, key] = identity("client-2");
        let other = curl(&[&["--cert", &cert, "--key", &key], &to[..]].concat()).await;
        ensure!(other.is_err(), "a certificate of another CA was accepted: {other:?}");
        let without = curl(&to).await;
        ensure!(without.is_err(), "a client without a certificate was accepted: {without:?}");
    }
    front.machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}

#[tokio::test]
async fn curl_names_the_client_with_the_proxy_protocol() -> anyhow::Result<()> {
    if !has("curl", "--version", "curl").await? {
        return Ok(());
    }
    let front = Front::start(Kind::Gateway).await?;
    let url = format!("http://{}/x", front.address("proxied")?);
    let shown = curl(&["--haproxy-protocol", "--interface", "127.0.0.7", &url]).await?;
    ensure!(shown.contains("echo-x-forwarded-for: 127.0.0.7"), "{shown}");
    let without = curl(&[&url]).await;
    ensure!(without.is_err(), "a connection without the header was served: {without:?}");
    front.machine.ctl(&["down"]).await?.exits(0)?;
    Ok(())
}
