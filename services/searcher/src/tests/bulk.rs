use super::*;

#[tokio::test]
async fn many_documents_reach_their_shards_and_bad_lines_are_refused_alone() {
    let searchers = Searchers::with_index(2, json!({})).await;
    let mut lines: Vec<String> =
        (0..200).map(|number| format!("{{\"name\":\"d{number}\",\"size\":{number}}}")).collect();
    lines[7] = "{\"name\":\"bad\",\"size\":\"x\"}".to_owned();
    lines[9] = "{".to_owned();
    lines[11] = String::new();
    lines[13] = format!("{{\"name\":\"{}\"}}", "i".repeat(600));
    let answer = searchers.call("POST", "/x/docs?refresh=true", lines.join("\n")).await;
    let shown = answer.json();
    assert_eq!((answer.status, &shown["indexed"]), (200, &json!(196)), "{shown}");
    let refused: Vec<_> = shown["refused"].as_array().unwrap().iter().collect();
    let found: Vec<_> = refused
        .iter()
        .map(|line| {
            (line["line"].as_u64().unwrap(), line["status"].as_u64().unwrap(), line["code"].as_str().unwrap())
        })
        .collect();
    assert_eq!(found, [(8, 400, "bad-document"), (10, 400, "bad-document"), (14, 400, "bad-id")]);
    assert_eq!(refused[0]["id"], "bad");
    assert!(refused[0]["detail"].as_str().unwrap().contains("size"), "{shown}");
    let found = searchers.get("/x/search?size=1&sort=size").await.json();
    assert_eq!((&found["total"], &found["hits"][0]["id"]), (&json!(196), &json!("d0")));
    for number in [0, 42, 199] {
        assert_eq!(searchers.get(&format!("/x/docs/d{number}")).await.status, 200);
    }
    searchers.stop().await;
}

#[tokio::test]
async fn lines_of_one_id_are_written_in_their_order() {
    let searchers = Searchers::with_index(2, json!({})).await;
    let lines: Vec<_> = (1..=50).map(|size| format!("{{\"name\":\"a\",\"size\":{size}}}")).collect();
    let answer = searchers.call("POST", "/x/docs", lines.join("\n")).await;
    assert_eq!(answer.json(), json!({"indexed": 50, "refused": []}));
    assert_eq!(searchers.get("/x/docs/a").await.json()["size"], 50);
    assert_eq!(searchers.get("/x/docs/a").await.headers["coterie-version"], "50");
    searchers.stop().await;
}

#[tokio::test]
async fn a_shard_without_an_owner_gives_its_lines_503_and_the_others_are_written() {
    let searchers = Searchers::with_index(2, json!({})).await;
    let (here, lost) = (Searchers::id_of(0), Searchers::id_of(1));
    let node = searchers.0.owner(shard(0));
    searchers.0.lose(shard(1));
    let body = format!("{{\"name\":\"{lost}\"}}\n{{\"name\":\"{here}\"}}");
    let answer = searchers.call_at(&node, "POST", "/x/docs", body).await;
    let shown = answer.json();
    assert_eq!((answer.status, &shown["indexed"]), (200, &json!(1)), "{shown}");
    let refused = &shown["refused"][0];
    assert_eq!(
        (&refused["line"], &refused["id"], &refused["status"], &refused["code"]),
        (&json!(1), &json!(lost), &json!(503), &json!("shard-missing"))
    );
    assert!(refused["detail"].as_str().unwrap().starts_with("shard 1: "), "{refused}");
    assert_eq!(searchers.get(&format!("/x/docs/{here}")).await.status, 200);
    searchers.stop().await;
}

#[tokio::test]
async fn too_large_a_request_is_refused_whole() {
    let searchers = Searchers::with_index(1, json!({"max_body": 1_048_576})).await;
    let answer = searchers.call("POST", "/x/docs", "x".repeat(1_048_577)).await;
    assert_eq!(answer.code(), (413, "body-too-large".to_owned()));
    let chunks = (0..200).map(|_| Ok::<_, std::io::Error>("x".repeat(1 << 19)));
    let endless = Body::from_stream(futures_util::stream::iter(chunks));
    let node = searchers.0.owner(shard(0));
    let answer = searchers.call_at(&node, "POST", "/x/docs", endless).await;
    assert_eq!(answer.status, 413, "a line of 100 MB is not read to its end");
    let many = "{}\n".repeat(50_001);
    assert_eq!(searchers.call("POST", "/x/docs", many).await.code(), (413, "too-many-lines".to_owned()));
    assert_eq!(searchers.call("POST", "/x/docs", "").await.json(), json!({"indexed": 0, "refused": []}));
    assert_eq!(searchers.call("POST", "/x/search", r#"{"consistency":"strong"}"#).await.json()["total"], 0);
    searchers.stop().await;
}

#[tokio::test]
async fn what_a_search_finds_is_deleted_at_all_shards() {
    let searchers = Searchers::with_index(2, json!({})).await;
    let line = |number: u32| {
        format!(
            "{{\"name\":\"d{number}\",\"text\":\"{}\"}}",
            if number.is_multiple_of(3) { "old" } else { "new" }
        )
    };
    let lines: Vec<_> = (0..3_000).map(line).collect();
    assert_eq!(searchers.call("POST", "/x/docs", lines.join("\n")).await.json()["indexed"], 3_000);
    let deleted = searchers.call("POST", "/x/delete", r#"{"q": "text:old"}"#).await.json();
    assert_eq!((&deleted["deleted"], &deleted["conflicts"]), (&json!(1_000), &json!(0)), "{deleted}");
    assert_eq!((&deleted["timed_out"], &deleted["shards"]["ok"]), (&json!(false), &json!(2)), "{deleted}");
    let left = searchers.call("POST", "/x/search", r#"{"consistency": "strong", "size": 0}"#).await.json();
    assert_eq!(left["total"], 2_000);
    assert_eq!(searchers.get("/x/docs/d0").await.status, 404);
    let again = searchers.call("POST", "/x/delete", r#"{"q": "text:old"}"#).await.json();
    assert_eq!(again["deleted"], 0);
    searchers.stop().await;
}

#[tokio::test]
async fn a_member_that_has_lost_its_shard_sends_its_lines_to_the_next_owner() {
    let mut searchers = Searchers::with_index(1, json!({})).await;
    let former = searchers.0.take_over(shard(0)).await;
    let answer = searchers.call_at(&former, "POST", "/x/docs?refresh=true", "{\"name\":\"a\"}").await;
    assert_eq!(answer.json(), json!({"indexed": 1, "refused": []}));
    assert_eq!(searchers.get("/x/docs/a").await.status, 200);
    searchers.stop().await;
}
