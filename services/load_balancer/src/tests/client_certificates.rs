//! Clients that identify themselves with certificates, in HTTP mode.

use mesh::testing::Upstream;
use plugin::Updated;
use plugin::testing::tls::tls_client;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::listeners::update;
use super::requests::{at, http, reflecting};
use super::tls::testdata;
use super::*;

/// A client with one of the test certificates, or without one.
fn client(certificate: Option<&str>) -> Arc<ClientConfig> {
    Arc::new(tls_client(certificate))
}

/// The answer to one request on a connection of its own, with lines in its head.
async fn ask(running: &Running, client: &Arc<ClientConfig>, more: &str) -> std::io::Result<String> {
    let asking = async {
        let stream = TcpStream::connect(at(running)).await?;
        let name = ServerName::try_from("shop.example").unwrap();
        let mut stream = TlsConnector::from(Arc::clone(client)).connect(name, stream).await?;
        let request = format!("GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    timeout(PATIENCE, asking).await.expect("it is answered or refused")
}

/// Listeners with TLS and these further settings of it.
fn with(upstream: &Upstream, more: Value) -> Value {
    let mut tls = json!({"certificates": [{"cert": testdata("shop.crt"), "key": testdata("shop.key")}]});
    let Value::Object(more) = more else { panic!("settings are mappings") };
    tls.as_object_mut().unwrap().extend(more);
    json!([http(json!({"backends": [{"address": upstream.addr}]}), json!({ "tls": tls }))])
}

fn ca(name: &str) -> Value {
    json!({"client_ca": testdata(name)})
}

const ALICE: &str = "x-forwarded-client-cert: Hash=8fb19480206f1c55646061fd94cab4cbaecd7545358e702adfd8ad8b9ceb4d10;\
                     Subject=\"CN=alice \\22a\\22";

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_ca_are_served_and_backends_learn_which() {
    let upstream = Upstream::serving(reflecting).await;
    let running = Running::with(with(&upstream, ca("client-ca.crt")), Vec::new()).await;
    let [alice, bob, nobody] = [Some("client"), Some("client-2"), None].map(client);
    let answer = ask(&running, &alice, "x-forwarded-client-cert: Hash=00\r\n").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(ALICE), "{answer}");
    assert!(!answer.contains("Hash=00"), "{answer}");
    for other in [&bob, &nobody] {
        ask(&running, other, "").await.unwrap_err();
    }
    assert_eq!(upstream.hits(), 1);
    let result = |name: &str| {
        let labels = format!(r#"{{listener="main",version="unknown",result="{name}"}} 1"#);
        running.metrics().contains(&format!("coterie_tls_handshakes_total{labels}"))
    };
    eventually("both are counted", async || {
        result("no_client_certificate") && result("client_certificate_refused")
    })
    .await;
    assert_eq!(running.service.health(), Health::Ready);
}

#[tokio::test]
async fn where_a_certificate_is_optional_a_client_without_one_is_served_and_a_foreign_one_is_not() {
    let upstream = Upstream::serving(reflecting).await;
    let mut optional = ca("client-ca.crt");
    optional["client_certificates"] = json!("optional");
    let running = Running::with(with(&upstream, optional), Vec::new()).await;
    let answer = ask(&running, &client(Some("client")), "").await.unwrap();
    assert!(answer.contains(ALICE), "{answer}");
    let forged = "x-forwarded-client-cert: Hash=00\r\nx_forwarded_client_cert: Hash=00\r\n";
    let answer = ask(&running, &client(None), forged).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("Hash="), "{answer}");
    ask(&running, &client(Some("client-2")), "").await.unwrap_err();
}

#[tokio::test]
async fn a_ca_is_set_and_removed_in_place_and_one_that_cannot_be_read_is_refused() {
    let upstream = Upstream::serving(reflecting).await;
    let running = Running::with(with(&upstream, json!({})), Vec::new()).await;
    let address = at(&running);
    let clients = [Some("client"), Some("client-2"), None].map(client);
    let accepted = async || {
        let mut accepted = Vec::new();
        for client in &clients {
            accepted.push(ask(&running, client, "").await.is_ok());
        }
        accepted
    };
    let applied = async |settings: Value| {
        let updated = update(&running, with(&upstream, settings)).await;
        assert!(matches!(updated, Updated::Applied), "{updated:?}");
    };
    assert_eq!(accepted().await, [true, true, true]);
    applied(ca("client-ca.crt")).await;
    assert_eq!(accepted().await, [true, false, false], "at once, and without older sessions");
    applied(ca("client-ca-2.crt")).await;
    assert_eq!(accepted().await, [false, true, false]);
    let Updated::Failed(error) = update(&running, with(&upstream, ca("gone.crt"))).await else {
        panic!("it is refused")
    };
    for words in ["listener `main` can't use its TLS files", "gone.crt can't be read"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(accepted().await, [false, true, false], "the settings before it stay");
    let mut optional = ca("client-ca-2.crt");
    optional["client_certificates"] = json!("optional");
    applied(optional).await;
    assert_eq!(accepted().await, [false, true, true]);
    applied(json!({})).await;
    assert_eq!((accepted().await, at(&running)), (vec![true, true, true], address));
}
