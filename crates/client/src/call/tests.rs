//! Each call against a server that sends the answer the test chooses.

use futures_util::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers one request with the bytes given and returns the request's head.
async fn answer_once(listener: TcpListener, answer: Vec<u8>) -> String {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut buffer = [0; 1024];
        let read = socket.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the request ended early");
        head.extend_from_slice(&buffer[..read]);
    }
    socket.write_all(&answer).await.unwrap();
    socket.shutdown().await.unwrap();
    String::from_utf8(head).unwrap()
}

fn response(status: &str, media_type: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn listener() -> (TcpListener, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(&listener.local_addr().unwrap().to_string()).unwrap();
    (listener, client)
}

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

#[test]
fn urls_are_accepted_with_and_without_scheme_and_slash() {
    for text in ["127.0.0.1:10000", "http://127.0.0.1:10000/", " http://127.0.0.1:10000 "] {
        assert_eq!(Client::new(text).unwrap().base_url(), "http://127.0.0.1:10000");
    }
    assert_eq!(Client::new("http://h:1/p/").unwrap().base_url(), "http://h:1/p");
    for text in ["", "https://h:1", "ftp://h", "http://h:99999", "http://h:1/?q"] {
        let error = Client::new(text).unwrap_err();
        assert!(matches!(error, ClientError::BadUrl { .. }), "{text}: {error}");
    }
}

#[tokio::test]
async fn a_change_sends_role_wait_and_condition_and_returns_the_whole_problem() {
    let (listener, client) = listener().await;
    let problem = Problem::new(types::ErrorKind::Conflict, "busy", "n1 is busy").hint("wait");
    let body = serde_json::to_string(&problem).unwrap();
    let if_match = IfMatch { generation: Generation(7), revision: 2 };
    let n1 = id("n1");
    let role = "storage/0".parse().unwrap();
    let (head, answer) = tokio::join!(
        answer_once(listener, response("409 Conflict", Problem::MEDIA_TYPE, &body)),
        client.set_service(&n1, &role, Wait::Local, false, Some(if_match)),
    );
    assert!(head.starts_with("PUT /v1/members/n1/service?wait=local HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("if-match: \"7.2\"\r\n"), "{head}");
    assert_eq!(answer.unwrap_err().problem(), Some(&problem));
}

#[tokio::test]
async fn an_answer_of_another_server_is_truncated_and_stripped_of_control_characters() {
    let (server, client) = listener().await;
    let page = format!("<html>\u{1b}[31m{}", "x".repeat(500));
    let (_, answer) =
        tokio::join!(answer_once(server, response("404 Not Found", "text/html", &page)), client.members(),);
    match answer.unwrap_err() {
        ClientError::Unexpected { status, excerpt, .. } => {
            assert_eq!(status, 404);
            assert!(excerpt.starts_with("<html> [31mxxx") && excerpt.ends_with('…'), "{excerpt}");
        }
        other => panic!("{other}"),
    }
    let (server, client) = listener().await;
    let (_, answer) =
        tokio::join!(answer_once(server, response("200 OK", "application/json", "{}")), client.members(),);
    assert!(matches!(answer, Err(ClientError::Unexpected { status: 200, .. })));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (listener, client) = listener().await;
    let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let (_, answer) = tokio::join!(answer_once(listener, answer.into()), client.agent_self());
    assert!(matches!(answer, Err(ClientError::Unexpected { status: 302, .. })));
}

#[tokio::test]
async fn a_silent_agent_is_a_timeout_and_a_closed_port_is_unreachable() {
    let (listener, client) = listener().await;
    let silent = client.within(Duration::from_millis(50)).members().await;
    assert!(matches!(silent, Err(ClientError::Timeout { .. })), "{silent:?}");
    drop(listener);
    match client.members().await.unwrap_err() {
        ClientError::Unreachable { why, .. } => assert_eq!(why, "connection refused"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn events_arrive_in_order_and_the_stream_ends_with_the_connection() {
    let (listener, client) = listener().await;
    let event = |n: u32| {
        format!(
            "id: 5.{n}\nevent: joined\ndata: {{\"id\":\"5.{n}\",\"at_ms\":1,\"kind\":\"joined\",\"node\":\"n{n}\",\
             \"generation\":9,\"message\":\"joined\"}}\n\n"
        )
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: hi\n\n{}{}",
        event(1),
        event(2)
    );
    let (head, events) =
        tokio::join!(answer_once(listener, answer.into()), client.events(Some("5.0")).collect::<Vec<_>>());
    assert!(head.contains("last-event-id: 5.0\r\n"), "{head}");
    let nodes: Vec<_> = events.into_iter().map(|event| event.unwrap().node).collect();
    assert_eq!(nodes, [id("n1"), id("n2")]);
}
