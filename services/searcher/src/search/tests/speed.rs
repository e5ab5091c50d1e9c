//! What a search adds to Tantivy's own work. Run by hand: `cargo test --release -p searcher speed -- --ignored --nocapture`.

use std::time::Instant;

use serde_json::json;
use tantivy::collector::{Count, TopDocs};

use super::*;

#[test]
#[ignore = "measures; run it by hand, in release"]
fn a_term_query_adds_little_to_what_tantivy_does() {
    let documents: Vec<_> = (0..100_000_usize)
        .map(|at| {
            let filler: Vec<String> =
                (0..at % 13 + 3).map(|word| format!("w{}", (at * 31 + word * word * 17) % 5_000)).collect();
            json!({"t": format!("common {} half{}", filler.join(" "), at % 2), "k": at % 10})
        })
        .collect();
    let index = TestIndex::dealt(&json!({"fields": {"t": {"type": "text"}}}), &documents, 1, 4);
    let snapshot = &index.shards[0];
    let shard = ShardId::try_from(0).unwrap();
    let mut lines = Vec::new();
    for q in ["t:w7", "t:common", "t:half1", "t:(w7 OR half1)", "t:(w7 OR w8 OR half1)"] {
        let body = json!({ "q": q }).to_string();
        let time = |run: &mut dyn FnMut()| {
            run();
            let start = Instant::now();
            (0..200).for_each(|_| run());
            start.elapsed().as_secs_f64() * 1e6 / 200.0
        };
        let request = SearchRequest::from_json(body.as_bytes()).unwrap();
        let prepared = prepare(snapshot, &request).unwrap();
        let query =
            crate::query::compile(&request.ast, &index.schema, &prepared.expansions[0]).unwrap().query;
        let bare = time(&mut || {
            let hits = snapshot.searcher.search(&query, &TopDocs::with_limit(10).order_by_score()).unwrap();
            let _count = snapshot.searcher.search(&query, &Count).unwrap();
            for (_, address) in hits {
                let _document: TantivyDocument = snapshot.searcher.doc(address).unwrap();
            }
        });
        let ours = time(&mut || {
            let request = SearchRequest::from_json(body.as_bytes()).unwrap();
            let plan = combine([prepare(snapshot, &request).unwrap()]);
            let found = execute(snapshot, &request, &plan, shard, &Cancel::default()).unwrap();
            let answer = merge(&request, &index.schema, vec![(shard, found)]).unwrap();
            let _bytes = serde_json::to_vec(&answer).unwrap();
        });
        lines.push(format!("{q:<30} tantivy {bare:>8.1} us, whole search {ours:>8.1} us"));
    }
    eprintln!("{}", lines.join("\n"));
}
