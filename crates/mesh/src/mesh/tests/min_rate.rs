//! Requests whose clients have a minimum rate.

use super::*;

/// A minimum rate over short windows.
fn min_rate(bytes_per_second: u64) -> Limits {
    let min_rate = MinRate { bytes_per_second, window: Duration::from_millis(300) };
    Limits { min_rate, ..Limits::default() }
}

#[tokio::test]
async fn a_body_below_its_least_rate_ends_its_request_though_it_moves() {
    let upstream = Upstream::serving(|request: Request<Incoming>| async move {
        let _ = request.into_body().collect().await;
        text("never")
    })
    .await;
    let (_view, mesh) = mesh([], min_rate(1_000_000));
    let (pieces, body) = Pieces::new();
    let request = Request::post("/").body(body).unwrap();
    let sending = async {
        while pieces.send(Ok(Bytes::from_static(b"x"))).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let urls = [upstream.url()];
    // The upstream's request is aborted, so nobody reads the pieces any more.
    let (answer, ()) = tokio::join!(mesh.send_to_any(&urls, request), sending);
    let error = answer.unwrap_err();
    assert!(matches!(error, MeshError::BodyTooSlow { .. }), "{error:?}");

    // A request may have a limit of its own.
    let (pieces, body) = Pieces::new();
    let options =
        Options { min_rate: Some(MinRate::default()), idle: Some(short_limits().idle), ..Options::default() };
    let request = Request::post("/").body(body).unwrap();
    let error = mesh.send_to_any_with(&urls, &options, request).await.unwrap_err();
    assert!(matches!(error, MeshError::BodyStalled { .. }), "{error:?}");
    drop(pieces);
}

#[tokio::test]
async fn a_server_that_does_not_read_makes_no_client_slow() {
    const PAUSE: Duration = Duration::from_millis(1500);
    let upstream = Upstream::raw(|mut stream| async move {
        read_head(&mut stream).await;
        tokio::time::sleep(PAUSE).await;
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") && stream.read_buf(&mut body).await.is_ok_and(|read| read > 0) {}
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nread").await;
    })
    .await;
    let (_view, mesh) = mesh([], min_rate(10));
    let (pieces, body) = Pieces::new();
    // More than sockets and buffers hold.
    let sending = async move {
        for _ in 0..512 {
            pieces.send(Ok(Bytes::from_static(&[b'x'; 64 * 1024]))).await.unwrap();
        }
    };
    let (request, began) = (Request::post("/").body(body).unwrap(), Instant::now());
    let urls = [upstream.url()];
    let (answer, ()) = tokio::join!(mesh.send_to_any(&urls, request), sending);
    assert_eq!(whole(answer.unwrap().into_body()).await.unwrap(), "read");
    assert!(began.elapsed() >= PAUSE);
}
