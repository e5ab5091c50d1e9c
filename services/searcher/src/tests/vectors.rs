//! Vectors through HTTP.

use super::*;

async fn with_vectors(shards: u32) -> Searchers {
    let searchers = Searchers::start(shards, json!({})).await;
    let definition = json!({"id": "name", "fields": {
        "name": {"type": "keyword"}, "text": {"type": "text"}, "size": {"type": "i64"},
        "v": {"type": "vector", "dims": 3},
    }});
    let created = searchers.call("PUT", "/x", definition.to_string()).await;
    assert_eq!(created.status, 201, "{}", created.json());
    let lines: Vec<_> = (0..60_u16)
        .map(|number| {
            let (angle, word) = (f32::from(number) / 50.0, if number % 20 == 0 { "proxy" } else { "thing" });
            let vector = [angle.cos(), angle.sin(), 0.0];
            json!({"name": format!("d{number}"), "text": word, "size": number, "v": vector}).to_string()
        })
        .collect();
    let answer = searchers.call("POST", "/x/docs?refresh=true", lines.join("\n")).await;
    assert_eq!(answer.json()["indexed"], 60, "{}", answer.json());
    searchers
}

#[tokio::test]
async fn any_member_finds_the_nearest_over_all_shards() {
    let searchers = with_vectors(2).await;
    let knn = json!({"field": "v", "vector": [1, 0, 0], "k": 5});
    for number in 0..2 {
        let node = searchers.0.owner(shard(number));
        let ask = async |body: Value| searchers.call_at(&node, "POST", "/x/search", body.to_string()).await;
        let answer = ask(json!({"knn": knn, "facets": ["name"]})).await;
        assert_eq!(answer.ids(), ["d0", "d1", "d2", "d3", "d4"]);
        let shown = answer.json();
        assert_eq!((&shown["total"], &shown["hits"][0]["score"]), (&json!(5), &json!(1.0)));
        assert_eq!(shown["facets"]["name"].as_array().unwrap().len(), 5);
        let filtered = ask(json!({"knn": knn, "filter": "size:>=20"})).await;
        assert_eq!(filtered.ids(), ["d20", "d21", "d22", "d23", "d24"]);
        let hybrid = ask(json!({"q": "proxy", "knn": knn, "size": 20, "explain": true})).await;
        assert_eq!((hybrid.ids()[0].as_str(), &hybrid.json()["total"]), ("d0", &json!(7)), "it is in both");
        let sorted = ask(json!({"knn": knn, "sort": "-size", "size": 2})).await;
        assert_eq!(sorted.ids(), ["d4", "d3"]);
    }
    let document = searchers.get("/x/docs/d0").await;
    assert_eq!(document.json()["v"], json!([1.0, 0.0, 0.0]), "the source is as it was sent");
    assert_eq!(searchers.call("POST", "/x/compact", "").await.status, 200);
    let answer = searchers.call("POST", "/x/search", json!({ "knn": knn }).to_string()).await;
    assert_eq!(answer.ids(), ["d0", "d1", "d2", "d3", "d4"]);
    searchers.stop().await;
}

#[tokio::test]
async fn the_nearest_of_several_indexes_are_those_of_each_in_one_ranking() {
    let searchers = with_vectors(2).await;
    let definition =
        json!({"fields": {"v": {"type": "vector", "dims": 3}, "w": {"type": "vector", "dims": 2}}});
    assert_eq!(searchers.call("PUT", "/y", definition.to_string()).await.status, 201);
    for (id, vector) in [("far", [0.0, 0.0, 1.0]), ("near", [1.0, 0.005, 0.0])] {
        let path = format!("/y/docs/{id}?refresh=true");
        let put = searchers.call("PUT", &path, json!({ "v": vector, "w": [1, 1] }).to_string()).await;
        assert_eq!(put.status, 201);
    }
    for names in ["x,y", "*"] {
        let body = json!({"knn": {"field": "v", "vector": [1, 0, 0], "k": 3}, "size": 4}).to_string();
        let answer = searchers.call("POST", &format!("/{names}/search"), body).await;
        assert_eq!(answer.ids(), ["d0", "near", "d1", "d2"], "{}", answer.json());
        assert_eq!(answer.json()["total"], 5, "three of each, where there are as many");
    }
    let body = json!({"knn": {"field": "w", "vector": [1, 0], "k": 3}}).to_string();
    let answer = searchers.call("POST", "/x,y/search", body).await;
    assert_eq!(answer.status, 400, "{}", answer.json());
    assert!(answer.json()["detail"].as_str().unwrap().contains('w'), "{}", answer.json());
    searchers.stop().await;
}

#[tokio::test]
async fn vectors_that_can_not_be_are_refused_where_they_are_sent() {
    let searchers = with_vectors(2).await;
    for (method, path, body, code, words) in [
        ("PUT", "/x/docs/a", r#"{"v": [1, 2]}"#, "bad-document", "3 numbers are wanted, found 2"),
        ("PUT", "/x/docs/a", r#"{"v": [1, 2, NaN]}"#, "bad-document", "number 2 of the list"),
        ("PUT", "/x/docs/a", r#"{"v": [0, 0, 0]}"#, "bad-document", "has no direction"),
        ("PUT", "/y", r#"{"fields": {"v": {"type": "vector"}}}"#, "bad-definition", "dims"),
        (
            "PUT",
            "/y",
            r#"{"fields": {"v": {"type": "vector", "dims": 0}}}"#,
            "bad-definition",
            "from 1 to 4096",
        ),
        (
            "PUT",
            "/y",
            r#"{"fields": {"v": {"type": "vector", "dims": 4097}}}"#,
            "bad-definition",
            "found the number 4097",
        ),
        (
            "PUT",
            "/y",
            r#"{"fields": {"v": {"type": "vector", "dims": 2, "similarity": "x"}}}"#,
            "bad-definition",
            "`x`",
        ),
        (
            "PUT",
            "/y",
            r#"{"id": "v", "fields": {"v": {"type": "vector", "dims": 2}}}"#,
            "bad-definition",
            "an id is a string",
        ),
        (
            "PUT",
            "/y",
            r#"{"default_fields": {"v": 1}, "fields": {"v": {"type": "vector", "dims": 2}}}"#,
            "bad-definition",
            "has no words",
        ),
        (
            "PUT",
            "/x",
            r#"{"fields": {"v": {"type": "vector", "dims": 4}}}"#,
            "index-exists",
            "`dims` and `similarity`",
        ),
        (
            "POST",
            "/x/search",
            r#"{"knn": {"field": "v", "vector": [1]}}"#,
            "bad-search",
            "have 3 numbers, not 1",
        ),
        ("GET", "/x/search?knn=1", "", "bad-search", "knn"),
    ] {
        let answer = searchers.call(method, path, body).await;
        let shown = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(matches!(answer.status, 400 | 409), "{method} {path} {body}: {shown}");
        assert_eq!(answer.problem().code(), code, "{method} {path} {body}: {shown}");
        assert!(shown.contains(words), "{method} {path} {body}: {shown}");
    }
    let lines = "{\"name\":\"ok\",\"v\":[1,2,3]}\n{\"name\":\"no\",\"v\":[1]}";
    let answer = searchers.call("POST", "/x/docs", lines).await.json();
    assert_eq!((&answer["indexed"], &answer["refused"][0]["line"]), (&json!(1), &json!(2)), "{answer}");
    searchers.stop().await;
}

#[tokio::test]
async fn a_field_of_vectors_may_be_declared_later() {
    let searchers = Searchers::with_index(2, json!({})).await;
    let of = |name: &str| json!({"name": name, "v": [1, 0]}).to_string();
    assert_eq!(searchers.call("POST", "/x/docs?refresh=true", of("old")).await.json()["indexed"], 1);
    let definition = json!({"fields": {"v": {"type": "vector", "dims": 2}}}).to_string();
    assert_eq!(searchers.call("PUT", "/x", definition).await.status, 200);
    let lines = [of("new"), of("newer")].join("\n");
    assert_eq!(searchers.call("POST", "/x/docs?refresh=true", lines).await.json()["indexed"], 2);
    let body = json!({"knn": {"field": "v", "vector": [1, 0]}}).to_string();
    let found = async || {
        let mut ids = searchers.call("POST", "/x/search", body.clone()).await.ids();
        ids.sort();
        ids
    };
    assert_eq!(found().await, ["new", "newer"]);
    assert_eq!(searchers.call("PUT", "/x/docs/old?refresh=true", of("old")).await.status, 200);
    assert_eq!(found().await, ["new", "newer", "old"], "once it is written again, it is found");
    searchers.stop().await;
}
