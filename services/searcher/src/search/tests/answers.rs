//! What an answer has, for one and for several shards.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;
use crate::search::top::Shape;

fn indexes() -> Vec<TestIndex> {
    let (definition, documents) = packages();
    [(1, 1), (1, 2), (2, 2), (3, 1)]
        .map(|(shards, segments)| TestIndex::dealt(&definition, &documents, shards, segments))
        .into()
}

#[test]
fn hits_come_with_id_score_sort_and_their_source_as_it_was_stored() {
    for index in indexes() {
        let answer = index.search(&json!({"q": "server"}));
        assert_eq!(answer["total"], 1);
        assert_eq!(answer["hits"].as_array().unwrap().len(), 1);
        let hit = &answer["hits"][0];
        assert_eq!(hit["id"], "d0");
        assert_eq!(hit["source"]["name"], "nginx");
        assert_eq!(hit["sort"].as_array().unwrap().len(), 3);
        assert!(hit["score"].as_f64().unwrap() > 0.0);
        assert_eq!(answer["max_score"], hit["score"]);
        assert!(answer.get("next").is_none() && answer.get("did_you_mean").is_none());
    }
}

#[test]
fn filters_all_match_and_leave_the_score_alone() {
    for index in indexes() {
        let all = index.search(&json!({"q": "proxy"}));
        let some = index.search(&json!({"q": "proxy", "filter": ["section:net", "size:<600"]}));
        assert_eq!(some["total"], 2);
        for hit in some["hits"].as_array().unwrap() {
            let same = all["hits"].as_array().unwrap().iter().find(|other| other["id"] == hit["id"]).unwrap();
            assert_eq!(same["score"], hit["score"]);
        }
        let none = index.search(&json!({"filter": "section:none"}));
        assert_eq!((none["total"].as_u64(), ids(&none).len()), (Some(0), 0));
    }
}

#[test]
fn hits_are_sorted_by_fields_of_every_type_with_missing_ones_last_or_first() {
    for index in indexes() {
        for (sort, expected) in [
            (json!(["-size", "name"]), vec!["d3", "d1", "d2", "d5", "d0", "d4"]),
            (json!(["size", "-name"]), vec!["d0", "d5", "d2", "d1", "d3", "d4"]),
            (json!("name"), vec!["d4", "d3", "d5", "d0", "d1", "d2"]),
            (json!(["weight", "_seq"]), vec!["d1", "d0", "d5", "d3", "d2", "d4"]),
            (
                json!([{"field": "date", "order": "desc", "missing": "first"}]),
                vec!["d3", "d4", "d5", "d0", "d1", "d2"],
            ),
            (json!(["-free", "name"]), vec!["d3", "d0", "d1", "d2", "d4", "d5"]),
            (json!("-_seq"), vec!["d5", "d4", "d3", "d2", "d1", "d0"]),
            (json!(["nothing", "_seq"]), vec!["d0", "d1", "d2", "d3", "d4", "d5"]),
        ] {
            let answer = index.search(&json!({"sort": sort}));
            assert_eq!(ids(&answer), expected, "{sort}");
            assert!(answer["hits"][0].get("score").is_none());
        }
        let answer = index.search(&json!({"q": "proxy", "sort": ["section", "_score"]}));
        assert!(answer["hits"][0]["score"].as_f64().unwrap() > 0.0);
        assert!(answer["max_score"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn types_at_one_path_are_sorted_as_numbers_dates_booleans_and_text() {
    let documents: Vec<_> =
        [json!("b"), json!(true), json!(2.5), json!(false), json!("a"), json!(2), json!(3)]
            .into_iter()
            .map(|value| json!({ "mixed": value }))
            .collect();
    for (shards, segments) in [(1, 1), (1, 7), (2, 2)] {
        let index = TestIndex::dealt(&json!({}), &documents, shards, segments);
        let answer = index.search(&json!({"sort": "mixed"}));
        assert_eq!(ids(&answer), ["d5", "d2", "d6", "d3", "d1", "d4", "d0"]);
        let answer = index.search(&json!({"sort": "-mixed"}));
        assert_eq!(ids(&answer), ["d0", "d4", "d1", "d3", "d6", "d2", "d5"]);
    }
}

#[test]
fn facets_and_aggregations_are_those_of_one_index() {
    let request = json!({
        "size": 0,
        "facets": {"section": 2, "free": 5},
        "aggs": {
            "sections": {"terms": {"field": "section", "order": {"heavy": "desc"}}, "aggs": {"heavy": {"max": {"field": "size"}}}},
            "sizes": {"histogram": {"field": "size", "interval": 500}},
            "days": {"date_histogram": {"field": "date", "fixed_interval": "365d"}},
            "ranges": {"range": {"field": "size", "ranges": [{"to": 600}, {"from": 600}]}},
            "net": {"filter": "section:net", "aggs": {"weight": {"stats": {"field": "weight"}}}},
            "count": {"value_count": {"field": "weight"}},
            "names": {"cardinality": {"field": "name"}},
            "percent": {"percentiles": {"field": "size", "percents": [50]}},
        },
    });
    let all: Vec<Value> = indexes().iter().map(|index| index.search(&request)).collect();
    for answer in &all {
        assert_eq!(answer["total"], 6);
        assert_eq!(
            answer["facets"]["section"],
            json!([{"value": "net", "count": 3}, {"value": "editors", "count": 2}])
        );
        assert_eq!(
            answer["facets"]["free"],
            json!([{"value": true, "count": 4}, {"value": false, "count": 1}])
        );
        let aggs = &answer["aggs"];
        assert_eq!(aggs["net"]["doc_count"], 3);
        assert_eq!(aggs["net"]["weight"]["count"], 3);
        assert_eq!(aggs["count"]["value"], 4.0);
        assert_eq!(aggs["names"]["value"], 6.0);
        assert_eq!(aggs["sections"]["buckets"][0]["key"], "editors");
        assert_eq!(aggs["sections"]["sum_other_doc_count"], 0);
        assert_eq!(aggs["ranges"]["buckets"][0]["doc_count"], 2);
        assert_eq!(aggs["sizes"], all[0]["aggs"]["sizes"]);
        assert_eq!(aggs["days"], all[0]["aggs"]["days"]);
    }
    let answer = indexes()[2].search(&json!({"q": "proxy", "facets": ["section"]}));
    assert_eq!(answer["facets"]["section"], json!([{"value": "net", "count": 3}]));
}

#[test]
fn a_histogram_with_too_many_buckets_is_refused_and_does_not_fill_the_memory() {
    for index in indexes() {
        for interval in [1e-3, 1e-12, 2e-15, 1e-300] {
            for request in [
                json!({"aggs": {"h": {"histogram": {"field": "size", "interval": interval}}}}),
                json!({"aggs": {"t": {"terms": {"field": "free"}, "aggs": {"h": {"histogram": {"field": "size", "interval": interval}}}}}}),
            ] {
                let error = index.try_search(&request).unwrap_err();
                assert!(
                    matches!(&error, SearchError::Query(error) if error.message.contains("bucket")),
                    "{error}"
                );
            }
            let below = json!({"aggs": {"r": {"range": {"field": "size", "ranges": [{}]}, "aggs": {"h": {"histogram": {"field": "size", "interval": interval}}}}}});
            index.try_search(&below).unwrap();
        }
    }
}

#[test]
fn an_explanation_has_the_score_of_its_hit() {
    for index in indexes() {
        for q in ["proxy", "proxy web", "pro*", "\"reverse proxy\"", "prxoy~"] {
            let answer = index.search(&json!({"q": q, "explain": true, "filter": "section:net"}));
            assert!(answer["total"].as_u64().unwrap() > 0, "{q}");
            for hit in answer["hits"].as_array().unwrap() {
                let (score, explained) =
                    (hit["score"].as_f64().unwrap(), hit["explanation"]["value"].as_f64().unwrap());
                assert!((score - explained).abs() < 1e-5, "{q}: {score} {explained}");
            }
        }
    }
}

#[test]
fn another_spelling_is_proposed_only_if_there_are_no_hits() {
    for index in indexes() {
        let answer = index.search(&json!({"q": "Proxi servr", "default_operator": "and"}));
        assert_eq!(answer["did_you_mean"], "proxy server");
        let answer = index.search(&json!({"q": "description:edtor"}));
        assert_eq!(answer["did_you_mean"], "description:editor");
        for request in [
            json!({"q": "proxi server"}),
            json!({"q": "proxi", "did_you_mean": false}),
            json!({"q": "xylophone"}),
            json!({"q": "proxy editor", "default_operator": "and"}),
        ] {
            assert!(index.search(&request).get("did_you_mean").is_none(), "{request}");
        }
    }
}

#[test]
fn matches_are_marked_for_words_prefixes_misspellings_and_dynamic_text() {
    for index in indexes() {
        for (request, id, field, fragment) in [
            (json!({"q": "http"}), "d0", "description", "small, powerful <em>http</em> server and proxy"),
            (json!({"q": "cach*"}), "d1", "description", "<em>caching</em> proxy for the web &lt;www&gt;"),
            (json!({"q": "edtior~"}), "d2", "description", "text <em>editor</em> with a long history"),
            (json!({"q": "maintainer:alice"}), "d0", "maintainer", "<em>Alice</em> Proxy"),
            (
                json!({"q": "\"load balancing\""}),
                "d5",
                "description",
                "fast and reliable <em>load</em> <em>balancing</em> reverse proxy",
            ),
        ] {
            let mut request = request;
            request["highlight"] = json!(true);
            let answer = index.search(&request);
            let hit = answer["hits"].as_array().unwrap().iter().find(|hit| hit["id"] == id).unwrap();
            assert_eq!(hit["highlight"], json!({ field: [fragment] }), "{request}");
        }
        let plain = json!({"q": "web", "highlight": {"pre": "[", "post": "]"}, "filter": "name:squid"});
        let answer = index.search(&plain);
        assert_eq!(answer["hits"][0]["highlight"]["description"][0], "caching proxy for the [web] <www>");
        let other = json!({"q": "web", "highlight": {"fields": ["maintainer"]}});
        assert!(index.search(&other)["hits"][0].get("highlight").is_none());
    }
}

#[test]
fn parts_of_the_source_can_be_asked_for() {
    for index in indexes() {
        let answer = index.search(&json!({"q": "http", "source": ["name", "size"]}));
        assert_eq!(answer["hits"][0]["source"], json!({"name": "nginx", "size": 500}));
        assert!(index.search(&json!({"q": "http", "source": false}))["hits"][0].get("source").is_none());
    }
}

#[test]
fn fields_that_do_not_fit_their_use_are_refused_with_a_hint() {
    let (definition, documents) = packages();
    let mut definition = definition;
    definition["dynamic"] = json!(false);
    let index = TestIndex::dealt(&definition, &documents, 1, 1);
    for (request, message, hint) in [
        (json!({"sort": "description"}), "`sort`: `description` is text", "keyword"),
        (json!({"sort": "siz"}), "`sort`: there is no field `siz`", "did you mean `size`?"),
        (json!({"sort": "_id"}), "`sort`: `_id` can only be searched", "_seq"),
        (json!({"facets": ["description"]}), "`facets`: `description` is text", "keyword"),
        (
            json!({"aggs": {"a": {"terms": {"field": "description"}}}}),
            "`aggs`: `a`: `description` is text",
            "keyword",
        ),
        (json!({"highlight": {"fields": ["descriptin"]}}), "`highlight`: there is no field", "description"),
    ] {
        let SearchError::Query(error) = index.try_search(&request).unwrap_err() else { panic!("{request}") };
        assert!(error.message.starts_with(message), "{}", error.message);
        assert!(error.hint.unwrap().contains(hint));
    }
}

#[test]
fn values_are_suggested_by_prefix_over_shards() {
    for index in indexes() {
        let shards = index.shards.iter().map(|shard| suggest(shard, "section", "", 10).unwrap());
        let suggestions = merge_suggestions(shards, 2);
        let net = Suggestion { value: "net".to_owned(), count: 3 };
        assert_eq!(suggestions, [net, Suggestion { value: "editors".to_owned(), count: 2 }]);
        let shards = index.shards.iter().map(|shard| suggest(shard, "name", "ha", 10).unwrap());
        let values: Vec<_> = merge_suggestions(shards, 10).into_iter().map(|found| found.value).collect();
        assert_eq!(values, ["haproxy"]);
        assert!(suggest(&index.shards[0], "description", "a", 10).is_err());
        assert!(suggest(&index.shards[0], "name", "a", 0).is_err());
    }
}

#[test]
fn a_cancelled_search_ends_with_an_error() {
    let documents: Vec<_> =
        (0..5_000).map(|at| json!({"text": format!("word{} all", at % 7), "n": at})).collect();
    let index = TestIndex::dealt(&json!({}), &documents, 1, 1);
    let shard = ShardId::try_from(0).unwrap();
    for request in [
        json!({"q": "text:all"}),
        json!({"q": "text:(all word1 word2 word3)"}),
        json!({"q": "\"word1 all\""}),
        json!({"sort": "n"}),
        json!({"q": "all", "sort": ["_score", "n"]}),
        json!({"size": 0, "aggs": {"a": {"avg": {"field": "n"}}}}),
        json!({"filter": "n:>5"}),
    ] {
        let request = SearchRequest::from_json(request.to_string().as_bytes()).unwrap();
        let plan = combine([prepare(&index.shards[0], &request).unwrap()]);
        let cancel = Cancel::default();
        assert!(execute(&index.shards[0], &request, &plan, shard, &cancel).is_ok());
        cancel.0.store(true, Ordering::Relaxed);
        let error = execute(&index.shards[0], &request, &plan, shard, &cancel).unwrap_err();
        assert_eq!(error, SearchError::Cancelled);
    }
}

#[test]
fn a_plan_with_impossible_or_missing_numbers_fails_the_shard() {
    let (definition, documents) = packages();
    let index = TestIndex::dealt(&definition, &documents, 1, 1);
    let shard = ShardId::try_from(0).unwrap();
    let request = SearchRequest::from_json(br#"{"q": "proxy"}"#).unwrap();
    let prepared = prepare(&index.shards[0], &request).unwrap();
    let run = |plan: &Value, request: &SearchRequest| {
        let plan: Plan = serde_json::from_value(plan.clone()).unwrap();
        execute(&index.shards[0], request, &plan, shard, &Cancel::default())
    };
    let plan = serde_json::to_value(combine([prepared])).unwrap();
    assert!(run(&plan, &request).is_ok());
    let mut impossible = plan.clone();
    impossible["statistics"]["docs"] = json!(1);
    assert!(matches!(run(&impossible, &request), Err(SearchError::Engine(_))));
    let mut missing = plan.clone();
    missing["statistics"]["terms"] = json!({});
    assert!(matches!(run(&missing, &request), Err(SearchError::Engine(_))));
    let other = SearchRequest::from_json(br#"{"q": "server", "filter": "size:1"}"#).unwrap();
    assert!(matches!(run(&plan, &other), Err(SearchError::Engine(_))));
}

#[test]
fn counts_of_more_values_than_a_segment_reports_err_by_no_more_than_the_bound() {
    let documents: Vec<_> = (0..12_000_usize)
        .map(|at| json!({ "v": if at % 10 == 0 { format!("often{}", at % 7) } else { format!("once{at}") } }))
        .collect();
    let index =
        TestIndex::dealt(&json!({"fields": {"v": {"type": "keyword"}}, "dynamic": false}), &documents, 1, 1);
    let answer = index.search(&json!({
        "size": 0, "facets": {"v": 3},
        "aggs": {"v": {"terms": {"field": "v", "size": 8}}, "n": {"cardinality": {"field": "v"}}},
    }));
    let terms = &answer["aggs"]["v"];
    let bound = terms["doc_count_error_upper_bound"].as_u64().unwrap();
    let mut counted = terms["sum_other_doc_count"].as_u64().unwrap();
    for bucket in terms["buckets"].as_array().unwrap() {
        let (value, count) = (bucket["key"].as_str().unwrap(), bucket["doc_count"].as_u64().unwrap());
        let exact = documents.iter().filter(|document| document["v"] == value).count() as u64;
        assert!(count <= exact && exact <= count + bound, "{value}: {count} {exact} {bound}");
        counted += count;
    }
    assert_eq!(counted, 12_000);
    assert_eq!(answer["facets"]["v"].as_array().unwrap().len(), 3);
    let values = answer["aggs"]["n"]["value"].as_f64().unwrap();
    assert!((10_000.0..11_500.0).contains(&values), "{values}");
}

#[test]
fn terms_and_their_unions_are_pruned() {
    let (definition, documents) = packages();
    let index = TestIndex::dealt(&definition, &documents, 1, 1);
    for (body, shape) in [
        (json!({"q": "proxy"}), Shape::Pruned { terms: 1 }),
        (json!({"q": "section:net"}), Shape::Pruned { terms: 1 }),
        (json!({"q": "proxy server"}), Shape::Pruned { terms: 2 }),
        (json!({"q": "+proxy +server web^2"}), Shape::Pruned { terms: 3 }),
        (json!({"q": "\"http proxy\""}), Shape::Full),
        (json!({"q": "pro*"}), Shape::Full),
        (json!({"q": "proxy -server"}), Shape::Full),
        (json!({}), Shape::Constant),
    ] {
        let request = SearchRequest::from_json(body.to_string().as_bytes()).unwrap();
        let expansions =
            crate::query::expand(&request.ast, &index.schema, &index.shards[0].searcher).unwrap();
        let query = crate::query::compile(&request.ast, &index.schema, &expansions).unwrap().query;
        assert_eq!(Shape::of(query.as_ref()), shape, "{body} {query:?}");
    }
}

#[test]
fn a_dynamic_date_is_one_value_of_a_facet() {
    let documents = [
        json!({"d": "2024-01-01T00:00:00Z"}),
        json!({"d": "2024-01-01T00:00:00Z"}),
        json!({"d": "2023-01-01"}),
    ];
    let index = TestIndex::dealt(&json!({}), &documents, 1, 1);
    let answer = index.search(&json!({"facets": ["d"]}));
    assert_eq!(answer["facets"]["d"][0]["count"], 2);
}
