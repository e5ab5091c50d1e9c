use super::*;

fn fields(range: std::ops::Range<usize>) -> String {
    let fields = range.map(|number| (format!("f{number}"), json!(1)));
    Value::Object(fields.collect()).to_string()
}

#[tokio::test]
async fn documents_bring_at_most_5000_fields_into_a_shard_also_after_a_takeover() {
    let mut searchers = Searchers::with_index(2, json!({})).await;
    let ids = |shard: u32| {
        let two = NonZeroU32::new(2).unwrap();
        let ids = (0..200).map(|number| format!("id-{number}"));
        ids.filter(move |id| KeyHash::of(id.as_bytes()).shard(two).as_u32() == shard)
    };
    let mut own = ids(0);
    for part in 0..5 {
        let path = format!("/x/docs/{}", own.next().unwrap());
        let body = fields(part * 990..(part + 1) * 990);
        assert_eq!(searchers.call("PUT", &path, body).await.status, 201);
    }
    let (path, other) =
        (format!("/x/docs/{}", own.next().unwrap()), format!("/x/docs/{}", ids(1).next().unwrap()));
    for round in ["at first", "after a takeover, from the log", "after a refresh, from the segments"] {
        match round {
            "at first" => {}
            "after a takeover, from the log" => drop(searchers.0.take_over(shard(0)).await),
            _ => {
                assert_eq!(searchers.call("POST", "/x/refresh", "").await.status, 200);
                searchers.0.move_shard(shard(0)).await;
            }
        }
        let refused = searchers.call("PUT", &path, fields(4_900..5_010)).await;
        assert_eq!(refused.code(), (400, "bad-document".to_owned()), "{round}");
        let detail = refused.problem().detail;
        assert!(detail.contains("60 new fields") && detail.contains("4950 of them"), "{round}: {detail}");
        assert!(detail.contains("declare fields") && detail.contains("`dynamic: false`"), "{detail}");
        let line = format!("{{\"name\":\"{}\",\"n\":{}}}", &path[8..], fields(0..900));
        let bulk = searchers.call("POST", "/x/docs", line).await.json();
        assert_eq!(bulk["refused"][0]["code"], "bad-document", "{round}: {bulk}");
        assert!(searchers.call("PUT", &path, fields(0..900)).await.status < 300, "{round}");
        let patch = searchers.call("PATCH", &path, fields(4_950..5_001)).await;
        assert_eq!(patch.code(), (400, "bad-document".to_owned()), "{round}: what a merge makes counts");
    }
    assert_eq!(searchers.call("PUT", &path, fields(4_900..5_000)).await.status, 200, "there is room for 50");
    assert_eq!(searchers.call("PATCH", &path, r#"{"one": 1}"#).await.status, 400);
    assert_eq!(
        searchers.call("PUT", &other, fields(6_000..6_100)).await.status,
        201,
        "another shard has room"
    );
    searchers.stop().await;
}

#[tokio::test]
async fn fields_that_are_declared_or_only_stored_do_not_count() {
    let searchers = Searchers::start(1, json!({})).await;
    assert_eq!(searchers.call("PUT", "/n", r#"{"dynamic": false}"#).await.status, 201);
    for part in 0..7 {
        let body = fields(part * 900..(part + 1) * 900);
        assert_eq!(searchers.call("PUT", &format!("/n/docs/{part}"), body).await.status, 201);
    }
    assert_eq!(searchers.call("PUT", "/d", "{}").await.status, 201);
    for part in 0..5 {
        let body = fields(part * 1_000..(part + 1) * 1_000);
        assert_eq!(searchers.call("PUT", &format!("/d/docs/{part}"), body).await.status, 201);
    }
    assert_eq!(searchers.call("PUT", "/d/docs/new", r#"{"new": 1}"#).await.status, 400);
    let more = json!({"fields": {"f1": {"type": "i64"}, "f2": {"type": "i64"}}}).to_string();
    assert_eq!(searchers.call("PUT", "/d", more).await.status, 200);
    assert_eq!(searchers.call("PUT", "/d/docs/new", r#"{"new": 1}"#).await.status, 201, "two count no more");
    assert_eq!(searchers.call("PUT", "/d/docs/newer", r#"{"newer": 1, "newest": 2}"#).await.status, 400);
    searchers.stop().await;
}
