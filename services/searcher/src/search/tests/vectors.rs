//! Vectors: the nearest ones, alone and together with words.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn definition(similarity: &str) -> Value {
    json!({"fields": {
        "v": {"type": "vector", "dims": 4, "similarity": similarity},
        "text": {"type": "text"}, "tag": {"type": "keyword"}, "n": {"type": "i64"},
    }})
}

/// The score of a vector, in double precision.
fn score(similarity: &str, one: &[f32], other: &[f32]) -> f64 {
    let pairs = || one.iter().zip(other).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let dot: f64 = pairs().map(|(a, b)| a * b).sum();
    match similarity {
        "l2_norm" => 1.0 / (1.0 + pairs().map(|(a, b)| (a - b) * (a - b)).sum::<f64>()),
        "max_inner_product" if dot < 0.0 => 1.0 / (1.0 - dot),
        "max_inner_product" => 1.0 + dot,
        _ => {
            let length = |of: &[f32]| of.iter().map(|a| f64::from(*a) * f64::from(*a)).sum::<f64>().sqrt();
            f64::midpoint(1.0, dot / (length(one) * length(other)))
        }
    }
}

#[derive(Debug, Clone)]
struct Doc {
    vector: Option<[f32; 4]>,
    tag: u8,
    is_deleted: bool,
}

fn doc() -> impl Strategy<Value = Doc> {
    let number = || (-20_i8..20).prop_map(|number| f32::from(number) / 4.0);
    let vector =
        prop::array::uniform4(number()).prop_filter("not zeros", |all| all.iter().any(|n| *n != 0.0));
    (prop::option::weighted(0.9, vector), 0_u8..3, prop::bool::weighted(0.1))
        .prop_map(|(vector, tag, is_deleted)| Doc { vector, tag, is_deleted })
}

fn index_of(similarity: &str, docs: &[Doc], shards: usize, segments: usize) -> TestIndex {
    let mut dealt = vec![vec![Vec::new(); segments + 1]; shards];
    for (at, doc) in docs.iter().enumerate() {
        let mut source = json!({"tag": format!("t{}", doc.tag), "n": at});
        if let Some(vector) = doc.vector {
            source["v"] = json!(vector);
        }
        let (number, shard) = (u64::try_from(at).unwrap(), at % shards);
        dealt[shard][at / shards % segments].push((format!("d{at}"), number, source));
        if doc.is_deleted {
            // Replaced by one that no search of the tests finds.
            let other = json!({"tag": "gone", "n": -1});
            dealt[shard][segments].push((format!("d{at}"), number + 10_000, other));
        }
    }
    TestIndex::new(&definition(similarity), &dealt)
}

fn scores(answer: &Value) -> Vec<f64> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["score"].as_f64().unwrap()).collect()
}

fn is_near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-5 * one.abs().max(1.0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn the_nearest_are_those_that_a_look_at_all_finds_at_any_number_of_shards(
        docs in prop::collection::vec(doc(), 1..80),
        target in doc().prop_filter_map("a vector", |doc| doc.vector),
        similarity in prop::sample::select(vec!["cosine", "l2_norm", "max_inner_product"]),
        k in 1_usize..30,
        tag in prop::option::of(0_u8..3),
        is_own_filter in any::<bool>(),
    ) {
        let mut expected: Vec<(usize, f64)> = docs
            .iter()
            .enumerate()
            .filter(|(_, doc)| !doc.is_deleted && tag.is_none_or(|tag| doc.tag == tag))
            .filter_map(|(at, doc)| Some((at, score(similarity, &target, &doc.vector?))))
            .collect();
        expected.sort_by(|left, right| right.1.total_cmp(&left.1));
        let all: BTreeMap<String, f64> = expected.iter().map(|(at, score)| (format!("d{at}"), *score)).collect();
        expected.truncate(k);
        let mut request = json!({"knn": {"field": "v", "vector": target, "k": k}, "size": 100});
        if let Some(tag) = tag {
            let filter = json!(format!("tag:t{tag}"));
            if is_own_filter { request["knn"]["filter"] = filter } else { request["filter"] = filter }
        }
        for (shards, segments) in [(1, 1), (1, 3), (3, 2)] {
            let answer = index_of(similarity, &docs, shards, segments).search(&request);
            prop_assert_eq!(&answer["total"], expected.len());
            let found = scores(&answer);
            prop_assert_eq!(found.len(), expected.len());
            for ((id, found), (_, wanted)) in ids(&answer).iter().zip(&found).zip(&expected) {
                prop_assert!(is_near(*found, *wanted), "{} {} {}", id, found, wanted);
                prop_assert!(is_near(*found, all[*id]), "{} has its own score", id);
            }
            let distinct: std::collections::BTreeSet<_> = ids(&answer).into_iter().collect();
            prop_assert_eq!(distinct.len(), expected.len());
        }
    }
}

fn documents() -> Vec<Value> {
    (0..40_u16)
        .map(|at| {
            let angle = f32::from(at) * 0.05;
            let text = if at % 4 == 0 { "proxy for the web" } else { "something else entirely" };
            let text = if at % 12 == 0 { format!("{text} proxy proxy") } else { text.to_owned() };
            json!({"v": [angle.cos(), angle.sin(), 0.0, 0.0], "text": text, "tag": format!("t{}", at % 3), "n": at})
        })
        .collect()
}

fn indexes() -> Vec<TestIndex> {
    [(1, 1), (1, 3), (2, 2), (3, 1)]
        .map(|(shards, segments)| TestIndex::dealt(&definition("cosine"), &documents(), shards, segments))
        .into()
}

fn knn(k: usize) -> Value {
    json!({"field": "v", "vector": [2.0, 0.0, 0.0, 0.0], "k": k})
}

#[test]
fn the_nearest_can_be_sorted_paged_counted_and_aggregated() {
    for index in indexes() {
        let answer = index.search(&json!({"knn": knn(6), "size": 2, "facets": ["tag"], "explain": true}));
        assert_eq!((ids(&answer), &answer["total"]), (vec!["d0", "d1"], &json!(6)));
        assert_eq!(answer["facets"]["tag"][0]["count"], 2, "facets count the nearest: {answer}");
        assert_eq!((&answer["hits"][0]["score"], &answer["max_score"]), (&json!(1.0), &json!(1.0)));
        let explanation = &answer["hits"][0]["explanation"];
        assert_eq!(explanation["value"], 1.0);
        assert!(
            explanation["description"].as_str().unwrap().contains("the 6 nearest by `v`"),
            "{explanation}"
        );
        let next = index.search(&json!({"knn": knn(6), "size": 10, "search_after": answer["next"]}));
        assert_eq!(ids(&next), ["d2", "d3", "d4", "d5"]);
        let sorted = index.search(&json!({"knn": knn(4), "sort": "-n"}));
        assert_eq!(ids(&sorted), ["d3", "d2", "d1", "d0"]);
        let counted =
            index.search(&json!({"knn": knn(5), "size": 0, "aggs": {"n": {"max": {"field": "n"}}}}));
        assert_eq!((&counted["total"], &counted["aggs"]["n"]["value"]), (&json!(5), &json!(4.0)));
    }
}

#[test]
fn a_lowest_similarity_and_a_boost_change_what_is_found_and_how_it_scores() {
    for index in indexes() {
        let mut of = knn(30);
        of["min_similarity"] = json!(0.99);
        let near = index.search(&json!({"knn": of, "size": 40}));
        assert_eq!(ids(&near), ["d0", "d1", "d2"], "the cosine of 0.1 is above 0.99, that of 0.15 below");
        of["boost"] = json!(3.0);
        let boosted = index.search(&json!({"knn": of}));
        assert_eq!(boosted["hits"][0]["score"], 3.0);
    }
    let far = TestIndex::dealt(&definition("l2_norm"), &documents(), 2, 1);
    let mut of = knn(30);
    (of["vector"], of["min_similarity"]) = (json!([1, 0, 0, 0]), json!(0.12));
    assert_eq!(ids(&far.search(&json!({"knn": of}))), ["d0", "d1", "d2"], "it is the greatest distance");
}

/// The scores of two rankings.
fn fused(rankings: &[(f64, Vec<&str>)], constant: f64) -> BTreeMap<String, f64> {
    let mut scores = BTreeMap::new();
    for (weight, ranking) in rankings {
        for (rank, id) in (1_u32..).zip(ranking) {
            *scores.entry((*id).to_owned()).or_default() += weight / (constant + f64::from(rank));
        }
    }
    scores
}

#[test]
fn words_and_vectors_are_ranked_together_by_their_ranks() {
    for index in indexes() {
        let words = index.search(&json!({"q": "text:proxy", "size": 40}));
        let words: Vec<&str> = ids(&words);
        assert_eq!(words.len(), 10);
        let nearest: Vec<String> = (0..8).map(|at| format!("d{at}")).collect();
        let nearest: Vec<&str> = nearest.iter().map(String::as_str).collect();
        for (rrf, constant, window) in [
            (Value::Null, 60.0, 100),
            (json!({"rank_constant": 2}), 2.0, 100),
            (json!({"rank_window_size": 5}), 60.0, 5),
        ] {
            let of_words = words.iter().copied().take(window).collect();
            let of_vector = nearest.iter().copied().take(window).collect();
            let expected = fused(&[(1.0, of_words), (2.0, of_vector)], constant);
            let mut of = knn(8);
            of["boost"] = json!(2.0);
            let size = if window == 5 { 5 } else { 40 };
            let request = json!({
                "q": "text:proxy", "knn": of, "rrf": rrf, "size": size, "highlight": true, "explain": true,
                "facets": ["tag"],
            });
            let answer = index.search(&request);
            assert_eq!(answer["total"], 16, "10 with the word, 8 near ones, 2 of them the same");
            let found = scores(&answer);
            assert!(found.is_sorted_by(|left, right| left >= right), "{found:?}");
            assert_eq!(found.len(), size.min(expected.len()));
            for hit in answer["hits"].as_array().unwrap() {
                let (id, score) = (hit["id"].as_str().unwrap(), hit["score"].as_f64().unwrap());
                assert!(is_near(score, expected[id]), "{id}: {score} {}", expected[id]);
                let explanation = &hit["explanation"];
                assert!(is_near(explanation["value"].as_f64().unwrap(), score));
                let details = explanation["details"].as_array().unwrap();
                let sum: f64 = details.iter().map(|detail| detail["value"].as_f64().unwrap()).sum();
                assert!(is_near(sum, score), "{explanation}");
                assert!(
                    details.iter().all(|detail| detail["details"][0]["value"].is_number()),
                    "{explanation}"
                );
                let has_word = words.contains(&id);
                assert_eq!(hit["highlight"]["text"].is_array(), has_word, "{hit}");
            }
            let mut best: Vec<f64> = expected.values().copied().collect();
            best.sort_by(|left, right| right.total_cmp(left));
            assert!(found.iter().zip(&best).all(|(one, other)| is_near(*one, *other)));
            assert!(is_near(answer["max_score"].as_f64().unwrap(), best[0]));
            assert!(answer.get("next").is_none(), "ranks have no next page");
            let facet = answer["facets"]["tag"].as_array().unwrap();
            let counted: u64 = facet.iter().map(|value| value["count"].as_u64().unwrap()).sum();
            assert_eq!(counted, 16);
            if window > 5 {
                let page =
                    index.search(&json!({"q": "text:proxy", "knn": of, "rrf": rrf, "from": 3, "size": 4}));
                assert_eq!(ids(&page), ids(&answer)[3..7]);
            }
        }
    }
}

#[test]
fn a_filter_holds_for_words_and_vectors_and_one_of_a_vector_for_it_alone() {
    for index in indexes() {
        let both = index.search(&json!({"q": "text:proxy", "knn": knn(3), "filter": "tag:t0", "size": 40}));
        for hit in both["hits"].as_array().unwrap() {
            assert_eq!(hit["source"]["tag"], "t0");
        }
        assert!(
            ids(&both).contains(&"d3") && ids(&both).contains(&"d6"),
            "the nearest of those with the tag"
        );
        let mut of = knn(2);
        of["filter"] = json!(["tag:t1", "n:>1"]);
        let own = index.search(&json!({"q": "text:proxy", "knn": of, "size": 40}));
        assert_eq!(own["total"], 11, "d4 and d7, of which one has the word");
        let none = index.search(&json!({"knn": knn(2), "filter": "tag:nothing"}));
        assert_eq!((&none["total"], ids(&none).len()), (&json!(0), 0));
    }
}

#[test]
fn several_vectors_are_fused_without_words() {
    for index in indexes() {
        let other = json!({"field": "v", "vector": [0, 1, 0, 0], "k": 3});
        let answer = index.search(&json!({"knn": [knn(3), other], "size": 10}));
        assert_eq!(answer["total"], 6);
        let first: Vec<_> = ids(&answer)[..2].to_vec();
        assert!(first.contains(&"d0") && first.contains(&"d31"), "the nearest of each: {first:?}");
    }
}

#[test]
fn elasticsearch_adds_up_the_scores_of_the_query_and_the_nearest() {
    for index in indexes() {
        let dsl = |query: Value, has_query: bool| {
            json!({"query": query.to_string(), "filters": [r#"{"term": {"tag": "t0"}}"#], "now": 0, "index": 0,
                "has_query": has_query, "has_numbers": false})
        };
        let mut of = knn(2);
        of["filter"] = json!([0]);
        of["boost"] = json!(0.5);
        let query = json!({"constant_score": {"filter": {"term": {"n": 3}}, "boost": 2.0}});
        let answer = index.search(&json!({"dsl": dsl(query, true), "knn": [of], "size": 10}));
        assert_eq!(ids(&answer), ["d3", "d0"]);
        assert!(scores(&answer)[0] > 2.4 && is_near(scores(&answer)[1], 0.5), "{answer}");
        let alone = index.search(&json!({"dsl": dsl(json!({"match_none": {}}), false), "knn": [of]}));
        assert_eq!((ids(&alone), &alone["total"]), (vec!["d0", "d3"], &json!(2)));
    }
}

#[test]
fn documents_without_a_vector_and_fields_that_came_later_are_not_found() {
    let created: Definition = serde_json::from_value(json!({"fields": {"n": {"type": "i64"}}})).unwrap();
    let now: Definition = serde_json::from_value(definition("cosine")).unwrap();
    let old = IndexSchema::new(&created, Arc::new(created.clone()));
    let schema = Arc::new(IndexSchema::new(&created, Arc::new(now)));
    assert_eq!(old.schema, schema.schema, "a vector does not change the schema");
    let index = schema.create(tantivy::directory::RamDirectory::create()).unwrap();
    let mut writer: IndexWriter<TantivyDocument> = index.writer_with_num_threads(1, 15_000_000).unwrap();
    writer.set_merge_policy(Box::new(NoMergePolicy));
    for (seq, (schema, id)) in (0..).zip([(&old, "old"), (&*schema, "new"), (&*schema, "last")]) {
        let source = json!({"n": seq, "v": [1, 0, 0, 0]}).to_string();
        let document = Document { id, seq, term: 1, version: 1, source: &source };
        writer.add_document(schema.convert(&document)).unwrap();
        writer.commit().unwrap();
    }
    let catalog =
        Arc::new(Index { name: "x".to_owned(), uuid: Uuid::nil(), created, schema: Arc::clone(&schema) });
    let search = |index: &tantivy::Index| {
        let shards = vec![Snapshot {
            index: Arc::clone(&catalog),
            searcher: index.reader().unwrap().searcher(),
            vectors: Arc::default(),
        }];
        let of = TestIndex { schema: Arc::clone(&schema), shards };
        let answer = of.search(&json!({"knn": knn(10)}));
        ids(&answer).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(search(&index), ["new", "last"]);
    writer.merge(&index.searchable_segment_ids().unwrap()).wait().unwrap();
    assert_eq!(search(&index), ["new", "last"]);
}

#[test]
fn what_changed_between_the_rounds_is_looked_up_again() {
    let before = TestIndex::dealt(&definition("cosine"), &documents(), 1, 1);
    let after = TestIndex::dealt(&definition("cosine"), &documents()[1..], 1, 4);
    let request = SearchRequest::from_json(json!({"knn": knn(5)}).to_string().as_bytes()).unwrap();
    let (shard, cancel) = (ShardId::try_from(0).unwrap(), Cancel::default());
    let prepared = prepare(&before.shards[0], &request).unwrap();
    let plan = combine([prepared.with_nearest(&before.shards[0], &request, shard, &cancel).unwrap()]);
    // There, every document has the number and the place that another one had.
    let found = execute(&after.shards[0], &request, &plan, shard, &cancel).unwrap();
    assert_eq!(found.total, 5);
    let numbers: std::collections::BTreeSet<_> = found.hits.iter().map(|hit| hit.cursor.seq).collect();
    assert_eq!(numbers, (0..5).collect());
}

#[test]
fn a_cancelled_search_ends_within_the_vectors() {
    let documents: Vec<Value> = (0..6_000).map(|at| json!({"v": [1, at, 0, 0], "n": at})).collect();
    let index = TestIndex::dealt(&definition("cosine"), &documents, 1, 1);
    let shard = ShardId::try_from(0).unwrap();
    for request in [json!({"knn": knn(5)}), json!({"knn": knn(5), "filter": "n:>5"})] {
        let request = SearchRequest::from_json(request.to_string().as_bytes()).unwrap();
        let nearest = |cancel: &Cancel| {
            let prepared = prepare(&index.shards[0], &request).unwrap();
            prepared.with_nearest(&index.shards[0], &request, shard, cancel).map(drop)
        };
        let cancel = Cancel::default();
        assert_eq!(nearest(&cancel), Ok(()));
        cancel.0.store(true, Ordering::Relaxed);
        assert_eq!(nearest(&cancel), Err(SearchError::Cancelled));
    }
}

#[test]
fn mistakes_in_vectors_say_what_is_wrong() {
    let index = &indexes()[0];
    let with = |name: &str, value: Value| {
        let mut of = knn(3);
        of[name] = value;
        json!({ "knn": of })
    };
    for (request, why) in [
        (json!({"knn": 7}), "`knn`: invalid type"),
        (json!({"knn": []}), "`knn`: there are from 1 to 5 vectors, not 0"),
        (json!({"knn": vec![knn(1); 6]}), "`knn`: there are from 1 to 5 vectors, not 6"),
        (json!({"knn": {"field": "v"}}), "`knn`: missing field `vector`"),
        (with("kk", json!(1)), "`knn`: unknown field `kk`"),
        (with("vector", json!([])), "`vector` has from 1 to 4096 numbers, not 0"),
        (with("vector", json!(vec![1; 5_000])), "`vector` has from 1 to 4096 numbers, not 5000"),
        (with("vector", json!([1, 2, 3])), "the vectors of `v` have 4 numbers, not 3"),
        (with("vector", json!([0, 0, 0, 0])), "it is all zeros"),
        (with("vector", json!([1e300, 0, 0, 0])), "number 0 of `vector` is 1e300, which is beyond the range"),
        (with("vector", json!([1, null, 0, 0])), "`knn`: invalid type: null"),
        (with("vector", json!([[1, 2, 3, 4]])), "`knn`: invalid type: sequence"),
        (with("vector", json!(["1", 2, 3, 4])), "`knn`: invalid type: string"),
        (with("k", json!(0)), "`k` is a whole number from 1 to 1000, not 0"),
        (with("k", json!(1001)), "`k` is a whole number from 1 to 1000, not 1001"),
        (with("k", json!(-1)), "`knn`: invalid value"),
        (with("boost", json!(0)), "`boost` is a number above 0"),
        (with("boost", json!(1e30)), "`boost` is a number above 0 and at most"),
        (with("min_similarity", json!(1e300)), "`min_similarity` is beyond the range"),
        (with("filter", json!(7)), "`filter` is a text or a list of texts"),
        (with("filter", json!("n:(")), "`knn`: `filter`:"),
        (with("filter", json!("v:1")), "`v` is a vector, which only `knn` searches"),
        (with("field", json!("w")), "`knn`: no field `w` is declared"),
        (with("field", json!("text")), "`knn`: `text` is text, not a vector"),
        (json!({"knn": knn(1), "rrf": {}}), "`rrf`: there is only one ranking"),
        (json!({"q": "a", "rrf": {}}), "`rrf`: there is only one ranking"),
        (
            json!({"q": "a", "knn": knn(1), "rrf": {"rank_constant": 0}}),
            "`rank_constant` is from 1 to 1000000",
        ),
        (
            json!({"q": "a", "knn": knn(1), "rrf": {"rank_window_size": 2000}}),
            "`rank_window_size` is from 1 to 1000",
        ),
        (json!({"q": "a", "knn": knn(1), "rrf": {"rank": 1}}), "`rrf`: unknown field `rank`"),
        (
            json!({"q": "a", "knn": knn(1), "rrf": {"rank_window_size": 5}}),
            "at most `rank_window_size`, which is 5",
        ),
        (json!({"q": "a", "knn": knn(1), "from": 995}), "at most 1000"),
        (json!({"q": "a", "knn": knn(1), "sort": "n"}), "`sort` and `search_after` can't be used"),
        (
            json!({"q": "a", "knn": knn(1), "search_after": [1.0, 2, 0]}),
            "`sort` and `search_after` can't be used",
        ),
        (json!({"q": "v:1"}), "`v` is a vector, which only `knn` searches"),
        (json!({"sort": "v"}), "`v` is a vector, which only `knn` searches"),
        (json!({"facets": ["v"]}), "`v` is a vector, which only `knn` searches"),
        (json!({"q": "a", "fields": ["v"]}), "`v` is a vector, which only `knn` searches"),
    ] {
        let error = index.try_search(&request).unwrap_err().to_string();
        assert!(error.contains(why), "{request}: {error}");
    }
    assert_eq!(index.search(&json!({"q": "v:*"}))["total"], 40, "whether there is one can be asked");
}
