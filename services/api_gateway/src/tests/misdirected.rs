//! Requests on connections that were opened for other hosts.

use super::http2::client;
use super::tls::{connect, testdata};
use super::*;

fn listener(name: &str, certificates: &[&str], trust: &[&str]) -> Value {
    let files = certificates.iter().map(|name| {
        let at = |end: &str| testdata().join(format!("{name}.{end}"));
        json!({"cert": at("crt"), "key": at("key")})
    });
    let tls = json!({"certificates": files.collect::<Vec<_>>()});
    json!({"name": name, "address": "127.0.0.1:0", "tls": tls, "trust": trust})
}

/// The statuses of requests for these hosts on one connection that was opened for a name.
async fn statuses(addr: SocketAddr, name: &str, hosts: &[&str]) -> Vec<u16> {
    let mut tasks = JoinSet::new();
    let mut sender = client(connect(addr, name, &["h2"]).await.unwrap(), &mut tasks).await;
    let mut statuses = Vec::new();
    for host in hosts {
        let request = Request::get(format!("https://{host}/")).body(Full::default()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        statuses.push(answer.status().as_u16());
        let text = whole(answer).await;
        assert_eq!(text.contains("misdirected-request"), statuses.last() == Some(&421), "{text}");
    }
    statuses
}

#[tokio::test]
async fn a_request_for_a_host_with_another_certificate_is_sent_to_another_connection() {
    let listeners = json!([
        listener("both", &["shop", "wild"], &[]),
        listener("one", &["shop"], &[]),
        listener("proxied", &["shop", "wild"], &["127.0.0.0/8"]),
    ]);
    let routes = json!([{"prefix": "/", "answer": {"body": "ok"}}]);
    let settings = json!({"listeners": listeners, "routes": routes});
    let gateway = Running::with(settings.clone(), Vec::new()).await;
    let both = gateway.listener("both");
    let hosts = ["shop.example", "a.wild.example", "WWW.shop.example:443", "x.example", "A.Wild.example"];
    assert_eq!(statuses(both, "shop.example", &hosts).await, [200, 421, 200, 200, 421], "it stays open");
    assert_eq!(statuses(both, "a.wild.example", &hosts).await, [421, 200, 421, 200, 200]);
    assert_eq!(gateway.metric("refused_total", "reason=\"host\""), 4);
    // These can't get a better certificate: no name, an unknown one, a proxy that opens its connections as it likes.
    assert_eq!(statuses(both, "127.0.0.1", &hosts).await, [200; 5]);
    assert_eq!(statuses(both, "gateway.internal", &hosts).await, [200; 5]);
    assert_eq!(statuses(gateway.listener("proxied"), "shop.example", &hosts).await, [200; 5]);
    assert_eq!(
        statuses(gateway.listener("one"), "shop.example", &hosts).await,
        [200, 421, 200, 200, 421],
        "another listener has the certificate"
    );
    // Once it is the only certificate, everything is served with it.
    let only = json!({"listeners": [listener("one", &["shop"], &[])], "routes": routes});
    reload::applied(&gateway, only).await;
    assert_eq!(statuses(gateway.listener("one"), "shop.example", &hosts).await, [200; 5]);

    let gateway = Running::with(settings, Vec::new()).await;
    let mut stream = connect(gateway.listener("both"), "shop.example", &["http/1.1"]).await.unwrap();
    for (host, status) in [("a.wild.example", "421"), ("shop.example", "200")] {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {head}");
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        stream.read_exact(&mut vec![0; len.parse().unwrap()]).await.unwrap();
    }
}
