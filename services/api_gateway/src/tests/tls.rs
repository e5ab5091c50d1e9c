//! TLS on the listeners of a gateway.

use std::path::Path;

use plugin::Health;
pub(super) use plugin::testing::tls::testdata;
use plugin::testing::tls::tls_client;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

/// A connection with TLS; `name` is asked for.
pub(super) async fn connect(
    addr: SocketAddr,
    name: &str,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = tls_client(None);
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Which of the test certificates a connection got.
fn served(stream: &TlsStream<TcpStream>) -> &'static str {
    let got = &stream.get_ref().1.peer_certificates().unwrap()[0];
    let known = ["shop", "shop-renewed", "wild", "expired"];
    let is_it = |name: &&&str| {
        let pem = std::fs::read(testdata().join(format!("{name}.crt"))).unwrap();
        CertificateDer::from_pem_slice(&pem).unwrap() == *got
    };
    known.iter().find(is_it).unwrap()
}

/// Puts a test certificate into a folder, under another name, by renaming.
fn put(folder: &Path, to: &str, from: &str) {
    for end in ["crt", "key"] {
        let new = folder.join(format!("{to}.{end}.new"));
        std::fs::copy(testdata().join(format!("{from}.{end}")), &new).unwrap();
        std::fs::rename(&new, folder.join(format!("{to}.{end}"))).unwrap();
    }
}

fn listener(name: &str, folder: &Path, certificates: &[&str]) -> Value {
    let one = |name: &&str| {
        let at = |end: &str| folder.join(format!("{name}.{end}"));
        json!({"cert": at("crt"), "key": at("key")})
    };
    let certificates: Vec<_> = certificates.iter().map(one).collect();
    json!({"name": name, "address": "127.0.0.1:0", "tls": {"certificates": certificates}})
}

/// A gateway with routes to the upstream.
async fn gateway(listeners: Value, upstream: &Upstream) -> Running {
    let routes = json!([{"prefix": "/", "to": [upstream.url().to_string()]}]);
    Running::with(json!({"listeners": listeners, "routes": routes}), Vec::new()).await
}

/// Sends a request on a connection that stays open. Returns as much of the answer as ends with `end`.
async fn ask<T: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut T, path: &str, end: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        answer.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(answer).unwrap()
}

/// Lets the interval of the checks pass.
pub(super) async fn next_check() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_request_over_tls_arrives_as_https() {
    let upstream = Upstream::serving(reflecting).await;
    let gateway = gateway(json!([listener("web", &testdata(), &["shop"])]), &upstream).await;
    let url = gateway.context.endpoints.urls()["web"].clone();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let mut stream = connect(gateway.addr, "shop.example", &["http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    for _ in 0..2 {
        // The last field that the mock reflects may vary, so the answer is read to its length.
        let answer = whole_answer(&mut stream, "/x").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("x-forwarded-proto: https"), "{answer}");
        assert!(answer.contains("x-forwarded-host: shop.example"), "{answer}");
    }
    let metrics = gateway.metrics();
    for line in [
        r#"coterie_tls_handshakes_total{listener="web",version="TLSv1.3",result="done"} 1"#,
        r#"tls_settings_reloads_total{listener="web",result="loaded"} 1"#,
        r#"tls_certificate_not_after_seconds{listener="web",name="shop.example"} 4891363200"#,
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
    assert_eq!(gateway.service.health(), Health::Ready);
}

async fn whole_answer<T: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut T, path: &str) -> String {
    let head = ask(stream, path, "\r\n\r\n").await;
    let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.unwrap();
    head + &String::from_utf8(body).unwrap()
}

#[tokio::test]
async fn a_redirect_to_https_takes_no_request_that_comes_over_tls() {
    let plain = json!({"name": "plain", "address": "127.0.0.1:0"});
    let listeners = json!([listener("web", &testdata(), &["shop"]), plain]);
    let routes = json!([
        {"prefix": "/", "redirect": {"scheme": "https", "port": 8443}},
        {"prefix": "/", "answer": {"body": "the shop"}},
    ]);
    let gateway = Running::with(json!({"listeners": listeners, "routes": routes}), Vec::new()).await;
    let mut stream = TcpStream::connect(gateway.listener("plain")).await.unwrap();
    let answer = ask(&mut stream, "/a", "\r\n\r\n").await;
    assert!(answer.contains("\r\nlocation: https://shop.example:8443/a\r\n"), "{answer}");
    let mut stream = connect(gateway.listener("web"), "shop.example", &["http/1.1"]).await.unwrap();
    let answer = ask(&mut stream, "/a", "the shop").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn the_server_name_selects_the_certificate() {
    let upstream = Upstream::serving(reflecting).await;
    let gateway = gateway(json!([listener("web", &testdata(), &["shop", "wild"])]), &upstream).await;
    for (name, expected) in [
        ("WWW.shop.example", "shop"),
        ("a.wild.example", "wild"),
        ("wild.example", "shop"),
        ("127.0.0.1", "shop"),
    ] {
        assert_eq!(served(&connect(gateway.addr, name, &[]).await.unwrap()), expected, "{name}");
    }
}

/// Behaviour 12.
#[tokio::test]
async fn behaviour_12_certificates_replaced_on_disk_are_served_within_10_s_and_a_broken_pair_changes_nothing()
{
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "tls", "shop");
    let upstream = Upstream::serving(reflecting).await;
    let gateway = gateway(json!([listener("web", folder.path(), &["tls"])]), &upstream).await;
    let mut kept = connect(gateway.addr, "shop.example", &[]).await.unwrap();
    assert_eq!(served(&kept), "shop");
    whole_answer(&mut kept, "/").await;

    let began = std::time::Instant::now();
    put(folder.path(), "tls", "shop-renewed");
    while served(&connect(gateway.addr, "shop.example", &[]).await.unwrap()) == "shop" {
        assert!(began.elapsed() < Duration::from_secs(60), "the new certificate is never served");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    whole_answer(&mut kept, "/").await;

    // The certificate of one pair and the key of the other.
    std::fs::copy(testdata().join("shop.crt"), folder.path().join("tls.crt")).unwrap();
    for _ in 0..2 {
        next_check().await;
        whole_answer(&mut kept, "/").await;
    }
    until_in_real_time(|| matches!(gateway.service.health(), Health::Degraded(_))).await;
    let Health::Degraded(why) = gateway.service.health() else { panic!("it is degraded") };
    assert!(why.text.contains("`web`") && why.text.contains("does not belong"), "{why:?}");
    assert_eq!(served(&connect(gateway.addr, "shop.example", &[]).await.unwrap()), "shop-renewed");
    assert!(gateway.metrics().contains(r#"tls_settings_reloads_total{listener="web",result="failed"} 1"#));
    whole_answer(&mut kept, "/").await;

    put(folder.path(), "tls", "shop");
    next_check().await;
    until_in_real_time(|| gateway.service.health() == Health::Ready).await;
    assert_eq!(served(&connect(gateway.addr, "shop.example", &[]).await.unwrap()), "shop");
    whole_answer(&mut kept, "/").await;
}

/// Waits for what a blocking thread does.
pub(super) async fn until_in_real_time(mut condition: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never became true");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_missing_certificate_degrades_its_listener_and_not_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::serving(reflecting).await;
    let listeners = json!([
        listener("web", folder.path(), &["tls"]),
        listener("other", &testdata(), &["shop"]),
        {"name": "plain", "address": "127.0.0.1:0"},
    ]);
    let gateway = gateway(listeners, &upstream).await;
    let Health::Degraded(why) = gateway.service.health() else { panic!("it is degraded") };
    assert_eq!(why.code.to_string(), "certificate-missing");
    assert!(why.text.contains("`web`") && why.text.contains("tls.crt"), "{why:?}");
    connect(gateway.listener("web"), "shop.example", &[]).await.unwrap_err();
    let mut other = connect(gateway.listener("other"), "shop.example", &[]).await.unwrap();
    whole_answer(&mut other, "/").await;
    let mut plain = TcpStream::connect(gateway.listener("plain")).await.unwrap();
    whole_answer(&mut plain, "/").await;

    put(folder.path(), "tls", "shop");
    next_check().await;
    until_in_real_time(|| gateway.service.health() == Health::Ready).await;
    whole_answer(&mut connect(gateway.listener("web"), "shop.example", &[]).await.unwrap(), "/").await;
}

#[tokio::test]
async fn plain_http_to_a_listener_with_tls_and_the_reverse_are_refused_clearly() {
    let upstream = Upstream::serving(reflecting).await;
    let listeners =
        json!([listener("web", &testdata(), &["shop"]), {"name": "plain", "address": "127.0.0.1:0"}]);
    let gateway = gateway(listeners, &upstream).await;
    let mut stream = TcpStream::connect(gateway.listener("web")).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("plain-http"), "{answer}");
    assert!(answer.contains("https://"), "{answer}");

    let mut stream = TcpStream::connect(gateway.listener("plain")).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("problem:tls\""), "{answer}");

    // Neither of both.
    let mut stream = TcpStream::connect(gateway.listener("web")).await.unwrap();
    stream.write_all(&[0; 64]).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP"), "{rest:?}");
}

#[tokio::test]
async fn a_handshake_and_a_head_that_never_end_share_one_deadline() {
    let upstream = Upstream::serving(reflecting).await;
    let gateway = gateway(json!([listener("web", &testdata(), &["shop"])]), &upstream).await;
    // The beginning of a handshake; a handshake and nothing else; a handshake and half a head.
    let mut hello = TcpStream::connect(gateway.addr).await.unwrap();
    hello.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    let mut silent = connect(gateway.addr, "shop.example", &[]).await.unwrap();
    let mut half = connect(gateway.addr, "shop.example", &[]).await.unwrap();
    half.write_all(b"GET / HT").await.unwrap();
    until_in_real_time(|| gateway.metrics().contains(r#"open_connections{listener="web",protocol="h1"} 2"#))
        .await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(21)).await;
    tokio::time::resume();
    let mut rest = Vec::new();
    hello.read_to_end(&mut rest).await.unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP"));
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
    let mut answer = Vec::new();
    let _ = half.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("slow-head"), "{answer}");
}

#[tokio::test]
async fn a_client_that_closes_its_tls_connection_cancels_its_request() {
    let upstream = Upstream::serving(|_| std::future::pending::<Answer>()).await;
    let gateway = gateway(json!([listener("web", &testdata(), &["shop"])]), &upstream).await;
    let mut stream = connect(gateway.addr, "shop.example", &[]).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n").await.unwrap();
    until_in_real_time(|| gateway.in_flight()).await;
    stream.shutdown().await.unwrap();
    drop(stream);
    until_in_real_time(|| !gateway.in_flight()).await;
}

/// Waits for the limit of the listener for heads, which is ten seconds.
#[tokio::test]
async fn a_handshake_that_never_ends_is_counted_as_failed_and_as_too_late_unless_nothing_came() {
    let certificate = json!({"cert": testdata().join("shop.crt"), "key": testdata().join("shop.key")});
    let listeners =
        json!([{"name": "web", "address": "127.0.0.1:0", "tls": {"certificates": [certificate]}}]);
    let gateway = Running::with(json!({"listeners": listeners}), Vec::new()).await;
    let address = gateway.listener("web");
    let failed = |count: usize| {
        let line = format!(
            r#"coterie_tls_handshakes_total{{listener="web",version="unknown",result="failed"}} {count}"#
        );
        gateway.metrics().lines().any(|shown| shown == line)
    };
    // A health check of TCP is no handshake.
    drop(TcpStream::connect(address).await.unwrap());
    // The begin of a hello, and nothing at all.
    let mut stalled = TcpStream::connect(address).await.unwrap();
    stalled.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    for stream in [&mut stalled, &mut silent] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest, b"", "it gets no answer");
    }
    until(|| failed(1) && gateway.metric("refused_total", "timeout") == 2).await;
}
