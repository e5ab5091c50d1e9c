//! Shards rank as one index would.

use serde_json::json;

use super::*;

fn documents() -> Vec<Value> {
    let words = [
        "proxy", "server", "cache", "web", "http", "small", "fast", "editor", "proxies", "prime", "caches",
        "serve",
    ];
    (0..300_usize)
        .map(|at| {
            let count = 1 + (at * 7) % 9;
            let text: Vec<&str> = (0..count).map(|word| words[(at * at + word * (at % 5 + 1) + at / 3) % words.len()]).collect();
            json!({"title": text[0], "body": text.join(" "), "tag": words[at % 4], "note": text[count - 1], "n": at})
        })
        .collect()
}

#[test]
fn two_and_three_shards_give_the_hits_and_scores_of_one_index() {
    let definition =
        json!({"fields": {"title": {"type": "text"}, "body": {"type": "text"}, "tag": {"type": "keyword"}}});
    let documents = documents();
    let indexes: Vec<_> = [(1, 1), (1, 4), (2, 1), (2, 3), (3, 2)]
        .map(|(shards, segments)| TestIndex::dealt(&definition, &documents, shards, segments))
        .into();
    for request in [
        json!({"q": "body:proxy"}),
        json!({"q": "proxy"}),
        json!({"q": "body:(proxy server)"}),
        json!({"q": "body:(proxy server cache web http)"}),
        json!({"q": "body:(proxy server)", "default_operator": "and"}),
        json!({"q": "proxy server fast", "default_operator": "and"}),
        json!({"q": "body:\"proxy server\""}),
        json!({"q": "body:pro*"}),
        json!({"q": "pr*"}),
        json!({"q": "body:prxoy~"}),
        json!({"q": "servr cach", "typos": "auto"}),
        json!({"q": "proxy web", "fields": {"title": 3.0, "body": 1.0}}),
        json!({"q": "+body:proxy -title:web tag:server"}),
        json!({"q": "note:proxy"}),
        json!({"q": "body:proxy", "filter": "tag:web"}),
        json!({}),
    ] {
        let mut request = request;
        request["size"] = json!(300);
        let expected = indexes[0].search(&request);
        assert!(expected["total"].as_u64().unwrap() > 0, "{request}");
        for index in &indexes[1..] {
            let answer = index.search(&request);
            assert_eq!(answer["total"], expected["total"], "{request}");
            let scores = |answer: &Value| {
                let hits = answer["hits"].as_array().unwrap().iter();
                let mut scores: Vec<_> = hits
                    .map(|hit| (hit["id"].as_str().unwrap().to_owned(), hit["score"].as_f64().unwrap()))
                    .collect();
                let order: Vec<f64> = scores.iter().map(|(_, score)| *score).collect();
                assert!(order.is_sorted_by(|left, right| left >= right), "{request}");
                scores.sort_by(|left, right| left.0.cmp(&right.0));
                scores
            };
            for ((id, score), (other_id, other)) in scores(&expected).iter().zip(&scores(&answer)) {
                assert_eq!(id, other_id, "{request}");
                assert!((score - other).abs() < 1e-5, "{request}: {id} {score} {other}");
            }
        }
    }
}

#[test]
fn documents_that_come_between_the_rounds_are_found_with_scores() {
    let definition =
        json!({"fields": {"title": {"type": "text"}, "body": {"type": "text"}, "tag": {"type": "keyword"}}});
    let documents = documents();
    let others: Vec<_> = (0..3).map(|n| json!({"n": n})).collect();
    for shards in [1, 2] {
        let index = TestIndex::dealt(&definition, &documents, shards, 2);
        for seen in [&[][..], &others] {
            let first = TestIndex::dealt(&definition, seen, shards, 1);
            for request in [
                json!({"q": "body:proxy"}),
                json!({"q": "body:(proxy server cache web http)"}),
                json!({"q": "proxy server", "default_operator": "and"}),
                json!({"q": "body:\"proxy server\""}),
                json!({"q": "note:proxy"}),
                json!({"q": "tag:web", "sort": "_score"}),
                json!({"q": "body:proxy", "filter": "tag:web"}),
            ] {
                let mut request = request;
                request["size"] = json!(300);
                let read = SearchRequest::from_wire(request.to_string().as_bytes()).unwrap();
                let answer = index.search_after_first_round_at(&first, &read).unwrap();
                let hits = answer["hits"].as_array().unwrap();
                assert!(!hits.is_empty(), "{request}");
                assert_eq!(answer["total"], hits.len(), "{request}");
                assert!(hits.iter().all(|hit| hit["score"].is_f64()), "{request}: a score is no number");
            }
        }
    }
}
