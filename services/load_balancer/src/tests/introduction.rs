//! What connections say before their first byte for the backend: PROXY protocol headers and TLS hellos.

use plugin::proxy_protocol::{Proxied, ProxyVersion, header, receive};

use super::*;
use crate::hello::tests::hello;

/// A backend that takes a header off, and answers with the client's address and what follows.
async fn proxied() -> Backend {
    Backend::serving(|mut stream| async move {
        let peer = stream.peer_addr().unwrap();
        let answer = match receive(&mut stream, peer, &["127.0.0.0/8".parse().unwrap()]).await {
            Ok(proxied) => proxied
                .map_or("local".to_owned(), |found| format!("{} -> {}", found.source, found.destination)),
            Err(error) => error.to_string(),
        };
        let _ = stream.write_all(format!("{answer}\n").as_bytes()).await;
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await
}

#[tokio::test]
async fn a_backend_learns_the_address_of_the_client() {
    let backend = proxied().await;
    for version in ["v1", "v2"] {
        let running = Running::over(&[&backend], json!({"send_proxy_protocol": version})).await;
        let mut client = running.connect().await;
        let wanted = format!("{} -> {}", client.local_addr().unwrap(), client.peer_addr().unwrap());
        assert_eq!(greeting(&mut client).await, wanted, "{version}");
        client.write_all(b"x").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
    }
}

#[tokio::test]
async fn the_header_of_a_trusted_proxy_names_the_client_for_limits_and_backends() {
    let backend = proxied().await;
    let more = json!({
        "proxy_protocol": true, "trust": ["127.0.0.1"], "send_proxy_protocol": "v2", "limits": {"per_client": 1},
    });
    let running = Running::over(&[&backend], more).await;
    let through = async |source: &str, version| {
        let proxied =
            Proxied { source: source.parse().unwrap(), destination: "10.9.9.9:443".parse().unwrap() };
        let mut stream = running.connect().await;
        let bytes = [header(version, Some(proxied)), b"payload".to_vec()].concat();
        stream.write_all(&bytes).await.unwrap();
        let greeted = greeting(&mut stream).await;
        if !greeted.is_empty() {
            let mut rest = [0; 7];
            stream.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"payload");
        }
        (greeted, stream)
    };
    let (greeted, _one) = through("10.1.1.1:5", ProxyVersion::V1).await;
    assert_eq!(greeted, "10.1.1.1:5 -> 10.9.9.9:443");
    let (greeted, _other) = through("10.1.1.2:5", ProxyVersion::V2).await;
    assert_eq!(greeted, "10.1.1.2:5 -> 10.9.9.9:443");
    assert_eq!(through("10.1.1.1:6", ProxyVersion::V2).await.0, "", "its second connection");
    assert_eq!(running.metric("refused_total", "per_client"), 1);

    // One that is not trusted, and one that sends something else.
    let mut stranger = running.connect_from("127.0.0.2").await;
    let _ = stranger.write_all(&header(ProxyVersion::V2, None)).await;
    assert_eq!(greeting(&mut stranger).await, "");
    let mut other = running.connect().await;
    let _ = other.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(greeting(&mut other).await, "");
    assert_eq!(running.metric("refused_total", "proxy_protocol"), 2);
}

/// A backend that answers with its name, then with everything that it gets.
async fn named(name: &'static str) -> Backend {
    Backend::greeting(name).await
}

async fn by_name(shop: &Backend, mail: &Backend) -> Running {
    let sni = json!([
        {"hosts": ["shop.example", "*.shop.example"], "backends": [{"address": shop.addr}]},
        {"hosts": ["mail.example"], "backends": [{"address": mail.addr}]},
    ]);
    Running::with(json!([listener(json!({"sni": sni}), json!({}))]), Vec::new()).await
}

#[tokio::test]
async fn the_server_name_decides_and_the_backend_gets_every_byte() {
    let (shop, mail) = (named("shop").await, named("mail").await);
    let running = by_name(&shop, &mail).await;
    for (name, record, target) in
        [("shop.example", 1 << 14, "shop"), ("WWW.Shop.Example", 100, "shop"), ("mail.example", 700, "mail")]
    {
        let sent = [hello(Some(name), record), b"early data".to_vec()].concat();
        let mut client = running.connect().await;
        client.write_all(&sent).await.unwrap();
        assert_eq!(greeting(&mut client).await, target, "{name}");
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        timeout(PATIENCE, client.read_to_end(&mut got)).await.unwrap().unwrap();
        assert!(got == sent, "{name}");
    }
}

#[tokio::test]
async fn a_hello_in_pieces_of_one_byte_is_understood() {
    let (shop, mail) = (named("shop").await, named("mail").await);
    let running = by_name(&shop, &mail).await;
    let mut client = running.connect().await;
    client.set_nodelay(true).unwrap();
    for byte in hello(Some("mail.example"), 300) {
        client.write_u8(byte).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(greeting(&mut client).await, "mail");
}

#[tokio::test]
async fn a_connection_without_a_known_name_is_closed() {
    let (shop, mail) = (named("shop").await, named("mail").await);
    let running = by_name(&shop, &mail).await;
    for bytes in [hello(Some("other.example"), 1 << 14), hello(None, 1 << 14)] {
        let mut client = running.connect().await;
        client.write_all(&bytes).await.unwrap();
        assert_eq!(greeting(&mut client).await, "");
    }
    assert_eq!(running.metric("refused_total", "unknown_name"), 2);
    let endless = [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xff][..], &[0; 16 * 1024]].concat();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x00\x01\x02", &endless] {
        let mut client = running.connect().await;
        let _ = client.write_all(bytes).await;
        assert_eq!(greeting(&mut client).await, "");
    }
    assert_eq!(running.metric("refused_total", "hello"), 3);
    assert_eq!((shop.accepted(), mail.accepted()), (0, 0));
}
