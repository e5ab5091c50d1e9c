use super::*;

async fn ask(upstream: &Upstream) -> TcpStream {
    let mut stream = TcpStream::connect(upstream.addr).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    stream
}

async fn answer_of(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_server_answers_and_counts() {
    let upstream =
        Upstream::serving(async |request: Request<Incoming>| text(request.uri().to_string())).await;
    for hits in 1..=2 {
        let answer = answer_of(ask(&upstream).await).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n/a"), "{answer}");
        assert_eq!(upstream.hits(), hits);
    }
}

#[tokio::test]
async fn a_server_stalls_until_it_is_dropped() {
    let upstream = Upstream::serving(async |_| std::future::pending().await).await;
    let stalled = ask(&upstream).await;
    until(|| upstream.hits() == 1).await;
    drop(upstream);
    assert_eq!(answer_of(stalled).await, "", "its connections end with it");
}

#[tokio::test]
async fn a_server_breaks_where_it_is_told_to_and_keeps_the_heads() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let upstream = Upstream::writing(half).await;
    assert_eq!(answer_of(ask(&upstream).await).await, half);
    assert_eq!(upstream.heads(), ["GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"]);
    assert_eq!(upstream.hits(), 1);
}

#[tokio::test]
async fn nobody_listens_at_a_closed_port() {
    let addr = closed_addr();
    assert!(TcpStream::connect(addr).await.is_err(), "{addr}");
    assert!(TcpListener::bind(addr).await.is_err(), "and nobody else can");
}
