use super::*;

#[tokio::test]
async fn a_first_write_creates_an_index_if_that_is_allowed() {
    let searchers = Searchers::start(2, json!({"auto_create": ["-logs-private*", "logs-*", "a*"]})).await;
    for (number, id) in [0, 1].map(|number| (number, Searchers::id_of(number))) {
        let path = format!("/logs-{number}/docs/{id}");
        assert_eq!(searchers.call("PUT", &path, "{\"n\":1}").await.status, 201);
        assert_eq!(searchers.get(&path).await.json()["n"], 1);
    }
    assert_eq!(searchers.call("POST", "/a1/docs", "\n{}\n").await.json()["indexed"], 1);
    assert_eq!(searchers.call("PATCH", "/a2/docs/x?upsert=true", "{}").await.status, 201);
    assert_eq!(searchers.get("/a1").await.json()["definition"]["coerce"], Value::Null);
    for (method, path, body, status) in [
        ("PUT", "/logs-private-1/docs/x", "{}", 404),
        ("POST", "/other/docs", "{}", 404),
        ("PATCH", "/a3/docs/x", "{}", 404),
        ("DELETE", "/a3/docs/x", "", 404),
        ("GET", "/a3/docs/x", "", 404),
        ("POST", "/a3/delete", r#"{"q": "*"}"#, 404),
        ("GET", "/a3/search", "", 404),
        // What is refused anyway creates nothing.
        ("PUT", "/a3/docs/x", "[]", 404),
        ("PUT", "/a3/docs/x", "{", 404),
        ("PUT", "/a3/docs/x?if_seq_no=1&if_primary_term=1", "{}", 404),
        ("PUT", "/a3/docs/x?refresh=maybe", "{}", 400),
        ("POST", "/a3/docs", "", 404),
        ("POST", "/a3/docs", "[]\nx\n", 404),
        ("POST", "/a3/docs?refresh=maybe", "{}", 400),
    ] {
        let answer = searchers.call(method, path, body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.json());
    }
    assert_eq!(searchers.get("/a3").await.status, 404);
    // A request overrides the settings for both APIs.
    let off = r#"{"persistent": {"action.auto_create_index": false}}"#;
    assert_eq!(searchers.call("PUT", "/es/_cluster/settings", off).await.status, 200);
    assert_eq!(searchers.call("POST", "/a4/docs", "{}").await.code(), (404, "no-such-index".to_owned()));
    searchers.stop().await;
}
