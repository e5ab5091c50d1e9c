//! Paging through everything visits each document once, in the order of a brute-force model.

use proptest::prelude::*;
use serde_json::json;
use tantivy::query::EnableScoring;
use tantivy::schema::Value as _;

use super::*;

/// A document: how often it has each of three words, and its sort values.
#[derive(Debug, Clone)]
struct Made {
    words: [usize; 4],
    n: Value,
    k: Option<&'static str>,
}

fn made() -> impl Strategy<Value = Made> {
    let n = prop_oneof![
        Just(Value::Null),
        (0..3_i64).prop_map(Value::from),
        Just(json!(1.5)),
        Just(json!(0.1)),
        Just(json!(18_446_744_073_709_551_615_u64)),
        any::<bool>().prop_map(Value::from),
        Just(json!("a")),
        Just(json!("b")),
        Just(json!("2024-01-01T00:00:00Z")),
        Just(json!([2, "c", 0])),
    ];
    let k = prop_oneof![Just(None), Just(Some("x")), Just(Some("y")), Just(Some("z"))];
    (prop::array::uniform4(0..3_usize), n, k).prop_map(|(words, n, k)| Made { words, n, k })
}

fn source(made: &Made) -> Value {
    let words = ["aa", "bb", "cc", "dd"].iter().zip(made.words);
    let text: Vec<&str> = words.flat_map(|(word, count)| std::iter::repeat_n(*word, count)).collect();
    let mut source = json!({"t": text.join(" ")});
    if !made.n.is_null() {
        source["n"] = made.n.clone();
    }
    if let Some(k) = made.k {
        source["k"] = json!(k);
    }
    source
}

/// All hits of a request, page by page.
fn pages(index: &TestIndex, request: &Value, size: usize) -> Vec<Value> {
    let mut request = request.clone();
    request["size"] = json!(size);
    let mut hits = Vec::new();
    for _ in 0..200 {
        let answer = index.search(&request);
        hits.extend(answer["hits"].as_array().unwrap().iter().cloned());
        match answer.get("next") {
            Some(next) => request["search_after"] = next.clone(),
            None => return hits,
        }
    }
    panic!("the pages do not end");
}

fn check(index: &TestIndex, request: &Value, size: usize) -> Result<(), TestCaseError> {
    let mut whole = request.clone();
    whole["size"] = json!(1_000);
    let whole = index.search(&whole);
    let all = whole["hits"].as_array().unwrap();
    prop_assert_eq!(whole["total"].as_u64().unwrap(), all.len() as u64);
    let found = pages(index, request, size);
    let (ids, expected): (Vec<_>, Vec<_>) =
        (found.iter().map(|hit| &hit["sort"]).collect(), all.iter().map(|hit| &hit["sort"]).collect());
    prop_assert_eq!(ids, expected, "{} by {}", request, size);
    let mut names: Vec<_> = found.iter().map(|hit| hit["id"].to_string()).collect();
    names.sort();
    names.dedup();
    prop_assert_eq!(names.len(), found.len());
    // The same with `from`.
    let mut from = request.clone();
    from["from"] = json!(size);
    from["size"] = json!(size);
    let second = index.search(&from);
    let second: Vec<_> = second["hits"].as_array().unwrap().iter().map(|hit| &hit["sort"]).collect();
    let expected: Vec<_> = all.iter().skip(size).take(size).map(|hit| &hit["sort"]).collect();
    prop_assert_eq!(second, expected, "{} from {}", request, size);
    Ok(())
}

/// Ties are in the order of `_seq` and shard.
fn check_ties(index: &TestIndex, request: &Value) -> Result<(), TestCaseError> {
    let mut request = request.clone();
    request["size"] = json!(1_000);
    let answer = index.search(&request);
    let places: Vec<(Vec<Value>, u64, u64)> = answer["hits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| {
            let sort = hit["sort"].as_array().unwrap();
            let (values, position) = sort.split_at(sort.len() - 2);
            (values.to_vec(), position[0].as_u64().unwrap(), position[1].as_u64().unwrap())
        })
        .collect();
    for pair in places.windows(2) {
        if pair[0].0 == pair[1].0 {
            prop_assert!((pair[0].1, pair[0].2) < (pair[1].1, pair[1].2), "{} {:?}", request, pair);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_document_is_visited_once_in_any_order(
        made in prop::collection::vec(made(), 1..40),
        places in prop::collection::vec((0..3_usize, 0..3_usize, 0..1_000_u64), 40),
        size in 1..7_usize,
    ) {
        // Numbers are unique in a shard, equal in several shards, and not in the order of the segments.
        let mut shards = vec![vec![Vec::new(); 3]; 3];
        let mut used = std::collections::BTreeSet::new();
        for (at, (made, (shard, segment, seq))) in made.iter().zip(&places).enumerate() {
            let seq = (*seq..).find(|seq| used.insert((*shard, *seq))).unwrap();
            // Some documents are replaced by later ones.
            shards[*shard][*segment].push((format!("s{shard}-{}", at % 15), seq, source(made)));
        }
        for index in [
            TestIndex::new(&json!({"fields": {"t": {"type": "text"}, "k": {"type": "keyword"}}}), &shards),
            TestIndex::new(&json!({"fields": {"t": {"type": "text"}, "k": {"type": "keyword"}}}), &shards[..1]),
        ] {
            for request in [
                json!({}),
                json!({"q": "t:aa"}),
                json!({"q": "t:(aa bb)"}),
                json!({"q": "t:(aa bb cc dd)"}),
                json!({"q": "t:(aa bb cc)", "default_operator": "and"}),
                json!({"q": "t:aa*"}),
                json!({"q": "aa bb cc", "filter": "k:(x OR y)"}),
                json!({"filter": "k:x"}),
                json!({"sort": "n"}),
                json!({"sort": "-n"}),
                json!({"sort": [{"field": "n", "missing": "first"}, "-k"]}),
                json!({"sort": ["k", {"field": "n", "order": "desc", "missing": "first"}]}),
                json!({"q": "t:(aa bb cc)", "sort": ["k", "_score"]}),
                json!({"q": "t:(aa bb cc)", "sort": [{"field": "_score", "order": "asc"}]}),
                json!({"sort": "-_seq"}),
            ] {
                check(&index, &request, size)?;
                check_ties(&index, &request)?;
            }
        }
    }
}

#[test]
fn sorted_hits_are_those_of_a_model() {
    let values = [Some(3), None, Some(1), Some(3), Some(2), None, Some(1)];
    let documents: Vec<_> =
        values.iter().map(|n| n.map_or_else(|| json!({}), |n| json!({ "n": n }))).collect();
    let index = TestIndex::dealt(&json!({}), &documents, 2, 2);
    let mut model: Vec<usize> = (0..values.len()).collect();
    model.sort_by_key(|at| (values[*at].is_none(), values[*at], *at));
    let answer = index.search(&json!({"sort": "n"}));
    let expected: Vec<_> = model.iter().map(|at| format!("d{at}")).collect();
    assert_eq!(ids(&answer), expected);
}

#[test]
fn ties_at_the_cut_are_settled_by_number_even_where_postings_are_skipped() {
    // Numbers fall in the second segment, so that it is not in order.
    let word = |seq: u64| (format!("d{seq}"), seq, json!({"t": "aa"}));
    let first: Vec<_> = (2_000..4_000).map(word).collect();
    let second: Vec<_> = (0..2_000).rev().map(word).collect();
    let definition = json!({"fields": {"t": {"type": "text"}}});
    for segments in [vec![first.clone(), second.clone()], vec![second, first]] {
        let index = TestIndex::new(&definition, &[segments]);
        for q in ["t:aa", "t:(aa OR bb)", "t:(aa OR bb OR cc)", ""] {
            let answer = index.search(&json!({"q": q, "size": 5}));
            assert_eq!(answer["total"], 4_000);
            assert_eq!(ids(&answer), ["d0", "d1", "d2", "d3", "d4"], "{q}");
        }
    }
}

/// The scores of all matches, by id, without any pruning.
fn naive(index: &TestIndex, q: &str) -> BTreeMap<String, f32> {
    let request = SearchRequest::from_json(json!({ "q": q }).to_string().as_bytes()).unwrap();
    let plan = combine(index.shards.iter().map(|shard| prepare(shard, &request).unwrap()));
    let mut scores = BTreeMap::new();
    for shard in &index.shards {
        let query = crate::query::compile(&request.ast, &index.schema, &plan.expansions[0]).unwrap().query;
        let scoring = EnableScoring::enabled_from_statistics_provider(&plan.statistics, &shard.searcher);
        let weight = query.weight(scoring).unwrap();
        for (ordinal, reader) in (0..).zip(shard.searcher.segment_readers()) {
            weight
                .for_each(reader, &mut |doc, score| {
                    if reader.alive_bitset().is_none_or(|alive| alive.is_alive(doc)) {
                        let address = tantivy::DocAddress::new(ordinal, doc);
                        let document: TantivyDocument = shard.searcher.doc(address).unwrap();
                        let id =
                            document.get_first(index.schema.id).and_then(|id| id.as_str().map(str::to_owned));
                        scores.insert(id.unwrap(), score);
                    }
                })
                .unwrap();
        }
    }
    scores
}

#[test]
fn pruned_pages_have_all_matches_with_their_scores() {
    let words = ["aa", "bb", "cc", "dd", "ee", "ff"];
    let document = |at: usize| {
        let count = 1 + (at * 13) % 40;
        let text: Vec<&str> = (0..count)
            .map(|word| words[((at * 7919 + word * word * 104_729 + word * at) % 97).isqrt() % words.len()])
            .collect();
        json!({ "t": text.join(" ") })
    };
    let mut shards = vec![vec![Vec::new(); 3]; 2];
    for at in 0..4_000_usize {
        // Numbers are in order in one shard and not in the other; every tenth document replaces another one.
        let (shard, segment) = (at % 2, at / 2 % 3);
        let seq = if shard == 0 { at } else { (at * 7_919) % 4_001 };
        let id = format!("s{shard}-{}", if at % 10 < 2 { at / 3 } else { at });
        shards[shard][segment].push((id, u64::try_from(seq).unwrap(), document(at)));
    }
    let index = TestIndex::new(&json!({"fields": {"t": {"type": "text"}}}), &shards);
    for q in [
        "t:aa",
        "t:(aa dd)",
        "t:(aa cc dd ee)",
        "t:(aa bb cc dd ee ff)",
        "t:(+aa +dd +ee)",
        "t:(+aa ff)",
        "t:\"aa bb\"",
    ] {
        let expected = naive(&index, q);
        assert!(expected.len() > 100, "{q}: {}", expected.len());
        let hits = pages(&index, &json!({ "q": q, "source": false }), expected.len() / 9 + 1);
        assert_eq!(hits.len(), expected.len(), "{q}");
        let scores: Vec<f32> =
            hits.iter().map(|hit| serde_json::from_value(hit["score"].clone()).unwrap()).collect();
        assert!(scores.is_sorted_by(|left, right| left >= right), "{q}");
        let found: BTreeMap<_, _> = hits
            .iter()
            .zip(&scores)
            .map(|(hit, score)| (hit["id"].as_str().unwrap().to_owned(), *score))
            .collect();
        assert_eq!(found.len(), expected.len(), "{q}");
        for (id, score) in &expected {
            assert!((found[id] - score).abs() < 1e-5, "{q} {id}");
        }
    }
}

/// The place of a value among others, as the documentation says it.
fn model_key(value: &Value, is_descending: bool) -> Option<(u8, f64, String)> {
    let one = |value: &Value| match value {
        Value::Number(number) => Some((0, number.as_f64().unwrap(), String::new())),
        Value::Bool(flag) => Some((2, f64::from(u8::from(*flag)), String::new())),
        Value::String(text) if text.starts_with("20") => Some((1, 0.0, String::new())),
        Value::String(text) => Some((3, 0.0, text.clone())),
        _ => None,
    };
    let values = match value {
        Value::Array(values) => values.iter().filter_map(one).collect(),
        value => one(value).into_iter().collect::<Vec<_>>(),
    };
    let order = |left: &(u8, f64, String), right: &(u8, f64, String)| left.partial_cmp(right).unwrap();
    if is_descending { values.into_iter().max_by(order) } else { values.into_iter().min_by(order) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sorted_hits_are_those_of_a_model_for_values_of_all_types(made in prop::collection::vec(made(), 1..40), is_descending: bool, is_first: bool) {
        // Large whole numbers are rounded in the segments that have fractions.
        let made: Vec<Made> = made.into_iter().filter(|made| made.n != json!(u64::MAX)).collect();
        let documents: Vec<Value> = made.iter().map(source).collect();
        let mut model: Vec<usize> = (0..made.len()).collect();
        model.sort_by(|left, right| {
            let keys = [left, right].map(|at| model_key(&made[*at].n, is_descending));
            let order = match &keys {
                [None, None] => std::cmp::Ordering::Equal,
                [None, _] => if is_first { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater },
                [_, None] => if is_first { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less },
                [left, right] if is_descending => right.partial_cmp(left).unwrap(),
                [left, right] => left.partial_cmp(right).unwrap(),
            };
            order.then(left.cmp(right))
        });
        let expected: Vec<_> = model.iter().map(|at| format!("d{at}")).collect();
        let key = json!({"field": "n", "order": if is_descending { "desc" } else { "asc" }, "missing": if is_first { "first" } else { "last" }});
        for (shards, segments) in [(1, 1), (1, 3), (3, 2)] {
            let index = TestIndex::dealt(&json!({}), &documents, shards, segments);
            let answer = index.search(&json!({"sort": key, "size": 100}));
            prop_assert_eq!(ids(&answer), expected.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
