//! Requests as programs send them that write many documents.

use http::header::USER_AGENT;

use super::*;

/// A bulk request with the headers of a program.
async fn send(searchers: &Searchers, path: &str, agent: &str, body: Vec<u8>, is_gzip: bool) -> Answer {
    let mut request = Request::post(format!("/es{path}"))
        .header(USER_AGENT, agent)
        .header(CONTENT_TYPE, "application/x-ndjson");
    if is_gzip {
        request = request.header(CONTENT_ENCODING, "gzip");
    }
    searchers.send(request.body(Body::from(body)).unwrap()).await
}

/// It asks for the version and the health, and looks for `"errors":true` in the answers to its requests.
#[tokio::test]
async fn vector_finds_out_the_version_and_sends_compressed_lines() {
    let searchers = Searchers::start(2, json!({})).await;
    let number = ask(&searchers, "GET", "/", "", 200).await["version"]["number"].as_str().unwrap().to_owned();
    assert_eq!(number.split('.').next().unwrap().parse::<usize>(), Ok(8));
    ask(&searchers, "GET", "/_cluster/health", "", 200).await;
    for action in ["index", "create"] {
        let event = json!({"host": "a", "message": "\"quoted\" line\n", "timestamp": "2024-05-01T00:00:00.123456789Z"});
        let lines = format!("{{\"{action}\":{{\"_index\":\"vector-2024.05.01\"}}}}\n{event}\n").repeat(50);
        let sent =
            send(&searchers, "/_bulk?timeout=60s", "Vector/0.45.0", gzip(lines.as_bytes()), true).await;
        let shown = String::from_utf8_lossy(&sent.body).into_owned();
        assert_eq!(sent.status, 200, "{shown}");
        assert!(shown.contains("\"errors\":false"), "{shown}");
    }
    let bad = "{\"index\":{\"_index\":\"vector-2024.05.01\"}}\n[]\n".as_bytes().to_vec();
    let sent = send(&searchers, "/_bulk?timeout=60s", "Vector/0.45.0", bad, false).await;
    assert!(String::from_utf8_lossy(&sent.body).contains("\"errors\":true"));
    ask(&searchers, "POST", "/_refresh", "", 200).await;
    let found =
        ask(&searchers, "GET", "/vector-*/_search?q=message:quoted&sort=timestamp:desc", "", 200).await;
    assert_eq!(found["hits"]["total"]["value"], 100);
    searchers.stop().await;
}

/// With `Suppress_Type_Name`, as Elasticsearch 8 wants it. `Generate_ID` makes repeated requests harmless.
#[tokio::test]
async fn fluent_bit_creates_updates_and_repeats_documents() {
    let searchers = Searchers::start(2, json!({})).await;
    let record = json!({"@timestamp": "2024-05-01T00:00:00.000Z", "log": "a line", "kubernetes": {"labels": {"app_kubernetes_io/name": "x"}}});
    let create = |meta: Value| format!("{}\n{record}\n", json!({ "create": meta }));
    let agent = "Fluent-Bit";
    let plain = create(json!({"_index": "fluent-bit"})).repeat(3).into_bytes();
    let sent = send(&searchers, "/_bulk", agent, plain, false).await.json();
    assert_eq!((&sent["errors"], &sent["items"][2]["create"]["status"]), (&json!(false), &json!(201)));
    let with_id = create(json!({"_index": "fluent-bit", "_id": "5f1b0b6f-0000-5f1b-0b6f-000000000000"}));
    send(&searchers, "/_bulk/", agent, gzip(with_id.as_bytes()), true).await;
    let again = send(&searchers, "/_bulk/", agent, gzip(with_id.as_bytes()), true).await.json();
    assert_eq!((&again["errors"], &again["items"][0]["create"]["status"]), (&json!(true), &json!(409)));
    let upsert = format!(
        "{}\n{}\n",
        json!({"update": {"_index": "fluent-bit", "_id": "u"}}),
        json!({"doc": record, "doc_as_upsert": true})
    );
    let sent = send(&searchers, "/_bulk", agent, upsert.into_bytes(), false).await.json();
    assert_eq!(sent["items"][0]["update"]["result"], "created");
    ask(&searchers, "POST", "/fluent-bit/_refresh", "", 200).await;
    assert_eq!(ask(&searchers, "GET", "/fluent-bit/_count?q=log:line", "", 200).await["count"], 5);
    // Without that option it sends what only Elasticsearch 7 takes.
    let typed = create(json!({"_index": "fluent-bit", "_type": "_doc"})).into_bytes();
    let refused = send(&searchers, "/_bulk", agent, typed, false).await;
    assert_eq!(refused.status, 400);
    assert!(refused.json()["error"]["reason"].as_str().unwrap().contains("[_type]"), "{}", refused.json());
    searchers.stop().await;
}

#[tokio::test]
async fn the_health_is_asked_for_with_head_and_get() {
    let searchers = Searchers::start(1, json!({})).await;
    for (method, path) in
        [("HEAD", "/"), ("GET", "/_cluster/health"), ("HEAD", "/_cluster/health"), ("GET", "/_cat/health")]
    {
        let answer = searchers.call(method, &format!("/es{path}"), "").await;
        assert_eq!((answer.status, answer.body.is_empty()), (200, method == "HEAD"), "{method} {path}");
    }
    searchers.stop().await;
}
