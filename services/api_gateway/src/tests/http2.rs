//! HTTP/2 on the listeners of a gateway.

use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::tls::{connect, testdata};
use super::*;

pub(super) async fn client<T>(stream: T, tasks: &mut JoinSet<()>) -> SendRequest<Full<Bytes>>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tasks.spawn(async {
        let _ = connection.await;
    });
    sender
}

#[tokio::test]
async fn http_2_is_spoken_by_prior_knowledge_and_over_tls() {
    let upstream = Upstream::serving(reflecting).await;
    let certificate = json!({"cert": testdata().join("shop.crt"), "key": testdata().join("shop.key")});
    let listeners = json!([
        {"name": "plain", "address": "127.0.0.1:0"},
        {"name": "web", "address": "127.0.0.1:0", "tls": {"certificates": [certificate]}},
    ]);
    let routes = json!([{"prefix": "/", "to": [upstream.url().to_string()]}]);
    let gateway = Running::with(json!({"listeners": listeners, "routes": routes}), Vec::new()).await;
    let mut tasks = JoinSet::new();
    let plain = TcpStream::connect(gateway.listener("plain")).await.unwrap();
    let mut plain = client(plain, &mut tasks).await;
    let web = connect(gateway.listener("web"), "shop.example", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(web.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut web = client(web, &mut tasks).await;
    for (sender, scheme) in [(&mut plain, "http"), (&mut web, "https")] {
        let request = Request::put(format!("{scheme}://shop.example/a%2Fb?q"))
            .header("te", "trailers")
            .body(Full::from("a body"))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.version(), http::Version::HTTP_2);
        let text = whole(answer).await;
        assert!(text.starts_with("PUT /a%2Fb?q\n"), "{text}");
        for line in [
            format!("x-forwarded-proto: {scheme}"),
            "x-forwarded-host: shop.example".to_owned(),
            "x-forwarded-for: 127.0.0.1".to_owned(),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
    let metrics = gateway.metrics();
    for name in ["plain", "web"] {
        let line = format!("open_connections{{listener=\"{name}\",protocol=\"h2\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_and_says_how_long_it_would_be() {
    let routes = json!([{"path": "/up", "answer": {"body": "ok"}}]);
    let gateway = Running::with(json!({"listen": "127.0.0.1:0", "routes": routes}), Vec::new()).await;
    let mut tasks = JoinSet::new();
    let stream = TcpStream::connect(gateway.addr).await.unwrap();
    let mut sender = client(stream, &mut tasks).await;
    for (path, status) in [("/up", 200), ("/none", 404), ("/", 200)] {
        let request = Request::head(format!("http://shop.example{path}")).body(Full::default()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        let length = answer.headers()["content-length"].to_str().unwrap().parse::<u64>().unwrap();
        assert!(length > 1, "{path}");
        // The stream ends well, and so does its connection.
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_listener_offers_only_its_protocols() {
    let upstream = Upstream::serving(reflecting).await;
    let listeners = json!([
        {"name": "one", "address": "127.0.0.1:0", "protocols": ["http1"]},
        {"name": "two", "address": "127.0.0.1:0", "protocols": ["http2"]},
    ]);
    let routes = json!([{"prefix": "/", "to": [upstream.url().to_string()]}]);
    let gateway = Running::with(json!({"listeners": listeners, "routes": routes}), Vec::new()).await;
    for (name, request, problem) in [
        ("one", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "and not HTTP/2"),
        ("two", "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "and not HTTP/1.1"),
    ] {
        let mut stream = TcpStream::connect(gateway.listener(name)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 505 ") && answer.contains(problem), "{answer}");
    }
}
