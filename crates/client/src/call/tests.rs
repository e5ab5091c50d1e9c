//! Each call against a server that sends the answer the test chooses.

use futures_util::StreamExt;
use mesh::testing::{Upstream, closed_port};

use super::*;

fn response(status: &str, media_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A client of a server that sends this answer.
async fn answering(answer: String) -> (Upstream, Client) {
    let server = Upstream::writing(answer).await;
    let client = Client::new(&server.url().to_string()).unwrap();
    (server, client)
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
    let problem = Problem::new(types::ErrorKind::Conflict, "busy", "n1 is busy").hint("wait");
    let body = serde_json::to_string(&problem).unwrap();
    let if_match = IfMatch { generation: Generation(7), revision: 2 };
    let n1 = id("n1");
    let role = "storage/0".parse().unwrap();
    let (server, client) = answering(response("409 Conflict", Problem::MEDIA_TYPE, &body)).await;
    let answer = client.set_service(&n1, &role, Wait::Local, false, Some(if_match)).await;
    let head = server.heads().remove(0);
    assert!(head.starts_with("PUT /v1/members/n1/service?wait=local HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("if-match: \"7.2\"\r\n"), "{head}");
    assert_eq!(answer.unwrap_err().problem(), Some(&problem));
}

#[tokio::test]
async fn an_answer_of_another_server_is_truncated_and_stripped_of_control_characters() {
    let page = format!("<html>\u{1b}[31m{}", "x".repeat(500));
    let (_server, client) = answering(response("404 Not Found", "text/html", &page)).await;
    match client.members().await.unwrap_err() {
        ClientError::Unexpected { status, excerpt, .. } => {
            assert_eq!(status, 404);
            assert!(excerpt.starts_with("<html> [31mxxx") && excerpt.ends_with('…'), "{excerpt}");
        }
        other => panic!("{other}"),
    }
    let (_server, client) = answering(response("200 OK", "application/json", "{}")).await;
    assert!(matches!(client.members().await, Err(ClientError::Unexpected { status: 200, .. })));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let answer = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let (_server, client) = answering(answer.to_owned()).await;
    assert!(matches!(client.agent_self().await, Err(ClientError::Unexpected { status: 302, .. })));
}

#[tokio::test]
async fn a_silent_agent_is_a_timeout_and_a_closed_port_is_unreachable() {
    let server = Upstream::serving(|_| std::future::pending()).await;
    let client = Client::new(&server.url().to_string()).unwrap();
    let silent = client.within(Duration::from_millis(50)).members().await;
    assert!(matches!(silent, Err(ClientError::Timeout { .. })), "{silent:?}");
    let client = Client::new(&closed_port().await.to_string()).unwrap();
    match client.members().await.unwrap_err() {
        ClientError::Unreachable { why, .. } => assert_eq!(why, "connection refused"),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn events_arrive_in_order_and_the_stream_ends_with_the_connection() {
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
    let (server, client) = answering(answer).await;
    let events = client.events(Some("5.0")).collect::<Vec<_>>().await;
    let head = server.heads().remove(0);
    assert!(head.contains("last-event-id: 5.0\r\n"), "{head}");
    let nodes: Vec<_> = events.into_iter().map(|event| event.unwrap().node).collect();
    assert_eq!(nodes, [id("n1"), id("n2")]);
}
