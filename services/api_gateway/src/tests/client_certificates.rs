//! Clients that identify themselves with certificates.

use std::path::{Path, PathBuf};

use plugin::testing::tls::tls_client;
use plugin::{Health, Updated};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::reload::{applied, update};
use super::tls::{next_check, testdata, until_in_real_time};
use super::*;

/// A client of HTTP/1.1 with one of the test certificates, or without one.
fn client(certificate: Option<&str>) -> Arc<ClientConfig> {
    Arc::new(tls_client(certificate))
}

/// The answer to one request on a connection of its own, with lines in its head.
async fn ask(addr: SocketAddr, client: &Arc<ClientConfig>, more: &str) -> std::io::Result<String> {
    Ok(open(addr, client, more).await?.1)
}

async fn open(
    addr: SocketAddr,
    client: &Arc<ClientConfig>,
    more: &str,
) -> std::io::Result<(TlsStream<TcpStream>, String)> {
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from("shop.example").unwrap();
    let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, stream).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok((stream, answer))
}

fn listener(ca: &Path, more: &Value) -> Value {
    let at = |end: &str| testdata().join(format!("shop.{end}"));
    let mut tls = json!({"certificates": [{"cert": at("crt"), "key": at("key")}], "client_ca": ca});
    tls.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"name": "web", "address": "127.0.0.1:0", "tls": tls})
}

fn settings(listener: &Value, upstream: &Upstream) -> Value {
    json!({"listeners": [listener], "routes": [{"prefix": "/", "to": [upstream.url().to_string()]}]})
}

fn copied(folder: &Path, from: &str) -> PathBuf {
    let path = folder.join("ca.crt");
    let new = folder.join("new");
    std::fs::copy(testdata().join(from), &new).unwrap();
    std::fs::rename(&new, &path).unwrap();
    path
}

const ALICE: &str = "x-forwarded-client-cert: Hash=8fb19480206f1c55646061fd94cab4cbaecd7545358e702adfd8ad8b9ceb4d10;\
                     Subject=\"CN=alice \\22a\\22";

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_ca_are_served_and_servers_learn_which() {
    let upstream = Upstream::serving(reflecting).await;
    let web = listener(&testdata().join("client-ca.crt"), &json!({}));
    let gateway = Running::with(settings(&web, &upstream), Vec::new()).await;
    let [alice, bob, nobody] = [Some("client"), Some("client-2"), None].map(client);
    let answer = ask(gateway.addr, &alice, "x-forwarded-client-cert: Hash=00\r\n").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(ALICE), "{answer}");
    assert!(!answer.contains("Hash=00"), "{answer}");
    for other in [&bob, &nobody] {
        ask(gateway.addr, other, "").await.unwrap_err();
    }
    assert_eq!(upstream.hits(), 1);
    let result = |name: &str| {
        let line =
            format!(r#"coterie_tls_handshakes_total{{listener="web",version="unknown",result="{name}"}} 1"#);
        gateway.metrics().contains(&line)
    };
    until(|| result("no_client_certificate") && result("client_certificate_refused")).await;
    assert_eq!(gateway.service.health(), Health::Ready);
}

#[tokio::test]
async fn where_a_certificate_is_optional_a_client_without_one_is_served_and_a_foreign_one_is_not() {
    let upstream = Upstream::serving(reflecting).await;
    let web = listener(&testdata().join("client-ca.crt"), &json!({"client_certificates": "optional"}));
    let gateway = Running::with(settings(&web, &upstream), Vec::new()).await;
    let answer = ask(gateway.addr, &client(Some("client")), "").await.unwrap();
    assert!(answer.contains(ALICE), "{answer}");
    let forged = "x-forwarded-client-cert: Hash=00\r\nx_forwarded_client_cert: Hash=00\r\n";
    let answer = ask(gateway.addr, &client(None), forged).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("Hash="), "{answer}");
    ask(gateway.addr, &client(Some("client-2")), "").await.unwrap_err();
}

#[tokio::test]
async fn a_session_is_resumed_but_not_after_the_ca_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let ca = copied(folder.path(), "client-ca.crt");
    let upstream = Upstream::serving(reflecting).await;
    let gateway = Running::with(settings(&listener(&ca, &json!({})), &upstream), Vec::new()).await;
    let (alice, bob) = (client(Some("client")), client(Some("client-2")));
    let kind = async |client: &Arc<ClientConfig>| {
        let (stream, answer) = open(gateway.addr, client, "").await.unwrap();
        assert!(answer.contains("x-forwarded-client-cert: Hash="), "{answer}");
        stream.get_ref().1.handshake_kind().unwrap()
    };
    assert_eq!(kind(&alice).await, rustls::HandshakeKind::Full);
    assert_eq!(kind(&alice).await, rustls::HandshakeKind::Resumed, "its certificate is known from before");

    copied(folder.path(), "client-ca-2.crt");
    next_check().await;
    let began = std::time::Instant::now();
    while ask(gateway.addr, &bob, "").await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "the new CA is never used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let hits = upstream.hits();
    ask(gateway.addr, &alice, "").await.unwrap_err();
    assert_eq!(upstream.hits(), hits, "her session is worth nothing any more");
    assert_eq!(kind(&bob).await, rustls::HandshakeKind::Resumed);
}

#[tokio::test]
async fn a_missing_ca_lets_nobody_in_and_a_broken_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::serving(reflecting).await;
    let ca = folder.path().join("ca.crt");
    let plain = json!({"name": "plain", "address": "127.0.0.1:0"});
    let mut settings = settings(&listener(&ca, &json!({"client_certificates": "optional"})), &upstream);
    settings["listeners"].as_array_mut().unwrap().push(plain);
    let gateway = Running::with(settings, Vec::new()).await;
    let web = gateway.listener("web");
    let degraded = |code: &str, words: &str| match gateway.service.health() {
        Health::Degraded(why) => why.code.to_string() == code && why.text.contains(words),
        _ => false,
    };
    assert!(degraded("client-ca-missing", "ca.crt can't be read"), "{:?}", gateway.service.health());
    for one in [Some("client"), None] {
        ask(web, &client(one), "").await.unwrap_err();
    }
    let url = format!("http://{}/", gateway.listener("plain"));
    assert_eq!(send(Request::get(url), "").await.status(), 200, "the others work");
    let hits = upstream.hits();

    copied(folder.path(), "client-ca.crt");
    next_check().await;
    until_in_real_time(|| gateway.service.health() == Health::Ready).await;
    assert!(ask(web, &client(Some("client")), "").await.unwrap().contains(ALICE));

    std::fs::write(&ca, "no certificate").unwrap();
    // A file that was just changed is looked at twice.
    for _ in 0..2 {
        next_check().await;
        assert!(ask(web, &client(Some("client")), "").await.unwrap().contains(ALICE));
    }
    until_in_real_time(|| degraded("client-ca-refused", "no certificate")).await;
    ask(web, &client(Some("client-2")), "").await.unwrap_err();
    assert_eq!(upstream.hits(), hits + 3);
}

#[tokio::test]
async fn a_ca_is_set_and_removed_in_place_and_one_that_cannot_be_read_is_refused() {
    let upstream = Upstream::serving(reflecting).await;
    let with = |more: Value| {
        let mut web = listener(&testdata().join("client-ca.crt"), &more);
        if more["client_ca"].is_null() {
            web["tls"].as_object_mut().unwrap().remove("client_ca");
        }
        settings(&web, &upstream)
    };
    let ca = |name: &str| json!({"client_ca": testdata().join(name)});
    let gateway = Running::with(with(json!({})), Vec::new()).await;
    let clients = [Some("client"), Some("client-2"), None].map(client);
    let accepted = async || {
        let mut accepted = Vec::new();
        for client in &clients {
            accepted.push(ask(gateway.addr, client, "").await.is_ok());
        }
        accepted
    };
    assert_eq!(accepted().await, [true, true, true]);
    applied(&gateway, with(ca("client-ca.crt"))).await;
    assert_eq!(accepted().await, [true, false, false], "at once, and without older sessions");
    applied(&gateway, with(ca("client-ca-2.crt"))).await;
    assert_eq!(accepted().await, [false, true, false]);
    let Updated::Failed(error) = update(&gateway, with(ca("gone.crt"))).await else {
        panic!("it is refused")
    };
    assert!(error.to_string().contains("gone.crt can't be read"), "{error}");
    assert_eq!(accepted().await, [false, true, false], "the settings before it stay");
    let mut optional = ca("client-ca-2.crt");
    optional["client_certificates"] = json!("optional");
    applied(&gateway, with(optional)).await;
    assert_eq!(accepted().await, [false, true, true]);
    applied(&gateway, with(json!({}))).await;
    assert_eq!(accepted().await, [true, true, true]);
}
