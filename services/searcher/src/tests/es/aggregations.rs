use super::*;

/// Documents about which the index was told nothing, in two shards.
async fn events() -> Searchers {
    let searchers = Searchers::start(2, json!({})).await;
    let lines: String = (0..60)
        .map(|n: usize| {
            let document = json!({
                "at": format!("2024-05-{:02}T{:02}:30:00Z", 1 + n / 6, (n % 6) * 4), "kind": (["a", "b", "c"][n % 3]),
                "n": n, "f": f64::from(u32::try_from(n).unwrap()) / 2.0, "on": n.is_multiple_of(2),
            });
            format!("{}\n{document}\n", json!({"index": {"_id": n.to_string()}}))
        })
        .collect();
    let other = "{\"index\":{\"_id\":\"x\"}}\n{\"kind\":\"none\"}\n";
    let body = format!("{lines}{other}");
    assert_eq!(ask(&searchers, "POST", "/events/_bulk?refresh=true", &body, 200).await["errors"], false);
    searchers
}

async fn aggregate(searchers: &Searchers, aggs: Value) -> Value {
    let body = json!({"size": 0, "aggs": aggs}).to_string();
    ask(searchers, "POST", "/events/_search", &body, 200).await["aggregations"].clone()
}

#[tokio::test]
async fn dates_of_fields_that_were_not_declared_are_milliseconds_with_a_text() {
    let searchers = events().await;
    let found = aggregate(
        &searchers,
        json!({
            "days": {"date_histogram": {"field": "at", "fixed_interval": "1d", "format": "yyyy-MM-dd"}},
            "keyed": {"date_histogram": {"field": "at", "fixed_interval": "5d", "keyed": true}},
            "local": {"date_histogram": {"field": "at", "fixed_interval": "1d", "time_zone": "-04:00"}},
            "bounds": {"date_histogram": {"field": "at", "fixed_interval": "1d", "min_doc_count": "0",
                "order": {"_key": "asc"}, "extended_bounds": {"min": "2024-04-29", "max": 1_715_472_000_000_i64}}},
            "first": {"min": {"field": "at"}}, "stats": {"stats": {"field": "at"}},
            "wide": {"extended_stats": {"field": "at"}},
            "middle": {"percentiles": {"field": "at", "percents": [0, 100]}},
            "terms": {"terms": {"field": "at", "size": 1, "order": {"_key": "asc"}}},
            "pairs": {"multi_terms": {"terms": [{"field": "kind"}, {"field": "at"}], "size": 1, "order": {"_key": "asc"}}},
            "count": {"value_count": {"field": "at"}}, "kinds": {"cardinality": {"field": "at"}},
        }),
    )
    .await;
    let first = 1_714_523_400_000_i64;
    let text = "2024-05-01T00:30:00.000Z";
    let day = json!({"key": 1_714_521_600_000_i64, "key_as_string": "2024-05-01", "doc_count": 6});
    assert_eq!(
        (&found["days"]["buckets"][0], found["days"]["buckets"].as_array().unwrap().len()),
        (&day, 10)
    );
    let keyed =
        json!({"key": 1_714_176_000_000_i64, "key_as_string": "2024-04-27T00:00:00.000Z", "doc_count": 6});
    assert_eq!(found["keyed"]["buckets"]["2024-04-27T00:00:00.000Z"], keyed);
    // In that zone, the day before has the first document.
    let local = json!({"key": 1_714_449_600_000_i64, "key_as_string": "2024-04-30T00:00:00.000-04:00", "doc_count": 1});
    assert_eq!(found["local"]["buckets"][0], local);
    let bounds = found["bounds"]["buckets"].as_array().unwrap();
    assert_eq!((bounds.len(), &bounds[0]["key_as_string"]), (14, &json!("2024-04-29T00:00:00.000Z")));
    assert_eq!(found["first"], json!({"value": first as f64, "value_as_string": text}));
    assert_eq!(
        (&found["stats"]["min"], &found["stats"]["min_as_string"]),
        (&json!(first as f64), &json!(text))
    );
    assert_eq!(
        (&found["stats"]["count"], &found["stats"]["max_as_string"]),
        (&json!(60), &json!("2024-05-10T20:30:00.000Z"))
    );
    let deviation = found["wide"]["std_deviation"].as_f64().unwrap() / 86_400_000.0;
    assert!((2.0..4.0).contains(&deviation), "{}", found["wide"]);
    assert!(
        found["middle"]["values"]["0.0_as_string"].as_str().unwrap().starts_with("2024-05-01T"),
        "{}",
        found["middle"]
    );
    let term = json!({"key": first, "key_as_string": text, "doc_count": 1});
    assert_eq!(found["terms"]["buckets"], json!([term]));
    let pair = &found["pairs"]["buckets"][0];
    assert_eq!((&pair["key"], &pair["key_as_string"]), (&json!(["a", text]), &json!(format!("a|{text}"))));
    assert_eq!((&found["count"]["value"], &found["kinds"]["value"]), (&json!(60), &json!(60)));
    searchers.stop().await;
}

#[tokio::test]
async fn ranges_of_dates_have_date_math_formats_and_results_of_their_own() {
    let searchers = events().await;
    let found = aggregate(
        &searchers,
        json!({
            "plain": {"date_range": {"field": "at", "ranges": [
                {"from": "2024-05-06"}, {"to": "2024-05-01||+1d/d", "key": "first day"}]},
                "aggs": {"most": {"max": {"field": "n"}}, "days": {"date_histogram": {"field": "at", "fixed_interval": "1d"}}}},
            "keyed": {"date_range": {"field": "at", "format": "dd/MM/yyyy", "keyed": true, "time_zone": "+02:00",
                "ranges": [{"from": "02/05/2024", "to": "04/05/2024"}]}},
            "range": {"range": {"field": "at", "ranges": [{"from": "2024-05-10T00:00:00Z"}]}},
            "numbers": {"range": {"field": "n", "ranges": [{"to": 10}, {"from": 10, "to": 20}]}},
        }),
    )
    .await;
    let buckets = found["plain"]["buckets"].as_array().unwrap();
    let shown = |bucket: &Value| {
        (bucket["key"].clone(), bucket["doc_count"].clone(), bucket["most"]["value"].clone())
    };
    assert_eq!(shown(&buckets[0]), (json!("first day"), json!(6), json!(5.0)));
    assert_eq!(shown(&buckets[1]), (json!("2024-05-06T00:00:00.000Z-*"), json!(30), json!(59.0)));
    assert_eq!(
        (&buckets[0]["to"], &buckets[0]["to_as_string"], &buckets[1]["days"]["buckets"][0]["doc_count"]),
        (&json!(1_714_608_000_000.0), &json!("2024-05-02T00:00:00.000Z"), &json!(6))
    );
    let keyed = &found["keyed"]["buckets"]["02/05/2024-04/05/2024"];
    assert_eq!(
        (&keyed["doc_count"], &keyed["from_as_string"]),
        (&json!(12), &json!("02/05/2024")),
        "{}",
        found["keyed"]
    );
    assert_eq!(found["range"]["buckets"][0]["doc_count"], 6);
    assert_eq!(found["numbers"]["buckets"][1]["doc_count"], 10);
    for (aggs, words) in [
        (json!({"range": {"field": "at", "ranges": [{"from": 5}]}}), "use [date_range]"),
        (
            json!({"date_range": {"field": "at", "ranges": [{"from": "soon"}]}}),
            "failed to parse the date [soon]",
        ),
        (json!({"date_range": {"field": "at", "ranges": [{"form": "now"}]}}), "[ranges] has no [form]"),
        (json!({"date_range": {"field": "at", "ranges": []}}), "1 to 100 ranges"),
        (
            json!({"date_range": {"field": "at", "ranges": [{}], "missing": "now"}}),
            "[missing] is not supported",
        ),
        (json!({"date_range": {"field": "at", "ranges": [{"from": 1e300}]}}), "failed to parse the date"),
        (
            json!({"date_histogram": {"field": "at", "fixed_interval": "1d", "time_zone": "Europe/Berlin"}}),
            "[time_zone]",
        ),
        (json!({"date_histogram": {"field": "at", "fixed_interval": "1d", "format": "d.M.yy"}}), "[format]"),
        (
            json!({"date_histogram": {"field": "at", "calendar_interval": "1M"}}),
            "`calendar_interval` is not supported",
        ),
        (
            json!({"date_histogram": {"field": "at", "fixed_interval": "1d", "hard_bounds": {"min": "x"}}}),
            "[hard_bounds]",
        ),
        (json!({"top_hits": {}}), "`top_hits` is not supported"),
        (json!({"significant_terms": {"field": "kind"}}), "`significant_terms` is not supported"),
        (json!({"percentile_ranks": {"field": "n"}}), "`percentile_ranks` is not supported"),
        (
            json!({"filters": {"filters": {"a": {"match_all": {}}}, "other_bucket": true}}),
            "[other_bucket] is not supported",
        ),
        (json!({"multi_terms": {"terms": [{"field": "kind"}]}}), "a list of 2 to 16 fields"),
        (
            json!({"composite": {"sources": [{"a": {"terms": {"field": "n"}}}], "after": {"b": 1}}}),
            "`after` has a value",
        ),
        (json!({"composite": {"sources": [{"a": {"terms": {"field": "n"}}}], "after": {"a": [1]}}}), "`a`"),
    ] {
        let body = json!({"aggs": {"a": aggs}}).to_string();
        let answer = ask(&searchers, "POST", "/events/_search", &body, 400).await;
        assert!(answer["error"]["reason"].as_str().unwrap().contains(words), "{body}: {answer}");
    }
    searchers.stop().await;
}

#[tokio::test]
async fn a_composite_is_read_page_by_page_whatever_its_sources_are() {
    let searchers = events().await;
    for sources in [
        json!([{"kind": {"terms": {"field": "kind"}}}]),
        json!([{"kind": {"terms": {"field": "kind.keyword", "order": "desc"}}}, {"on": {"terms": {"field": "on"}}}]),
        json!([{"n": {"terms": {"field": "n", "missing_bucket": true}}}]),
        json!([{"f": {"terms": {"field": "f"}}}, {"at": {"terms": {"field": "at"}}}]),
        json!([{"f": {"histogram": {"field": "f", "interval": 7}}}, {"day": {"date_histogram": {"field": "at", "fixed_interval": "2d"}}}]),
        json!([{"f": {"histogram": {"field": "f", "interval": 2.5, "order": "desc"}}}, {"kind": {"terms": {"field": "kind"}}}]),
        json!([{"day": {"date_histogram": {"field": "at", "fixed_interval": "1d", "order": "desc", "missing_bucket": true, "missing_order": "first"}}}]),
    ] {
        let composite = |size: u64, after: Option<&Value>| {
            let mut body = json!({"sources": sources, "size": size});
            body.as_object_mut().unwrap().extend(after.map(|after| ("after".to_owned(), after.clone())));
            json!({"all": {"composite": body, "aggs": {"sum": {"sum": {"field": "n"}}}}})
        };
        let all =
            aggregate(&searchers, composite(1_000, None)).await["all"]["buckets"].as_array().unwrap().clone();
        let documents: u64 = all.iter().map(|bucket| bucket["doc_count"].as_u64().unwrap()).sum();
        let lacks = sources.to_string().contains("missing_bucket") || sources.as_array().unwrap().len() == 1;
        assert_eq!(documents, if lacks { 61 } else { 60 }, "{sources}");
        for size in [1, 4] {
            let (mut seen, mut after) = (Vec::new(), None::<Value>);
            loop {
                let page = aggregate(&searchers, composite(size, after.as_ref())).await["all"].clone();
                let buckets = page["buckets"].as_array().unwrap().clone();
                let Some(last) = buckets.last() else { break };
                let is_dynamic_date = sources.to_string().contains("\"at\":{\"terms\"");
                assert!(is_dynamic_date || page["after_key"] == last["key"], "{page}");
                seen.extend(buckets);
                after = Some(page["after_key"].clone());
                assert!(seen.len() <= all.len(), "{sources}");
            }
            assert_eq!(seen, all, "{sources} {size}");
        }
    }
    // Values of other types than the field's are refused or find something, and nothing fails.
    for kind in ["terms", "histogram", "date_histogram"] {
        for field in ["kind", "n", "f", "on", "at", "nothing"] {
            for value in [
                json!(null),
                json!("x"),
                json!(true),
                json!(-5),
                json!(0.5),
                json!(u64::MAX),
                json!({"date": 5}),
                json!({}),
            ] {
                for order in ["asc", "desc"] {
                    let mut source = json!({"field": field, "order": order});
                    match kind {
                        "histogram" => source["interval"] = json!(5),
                        "date_histogram" => source["fixed_interval"] = json!("1h"),
                        _ => {}
                    }
                    let body = json!({"size": 0, "aggs": {"a": {"composite": {"sources": [{"s": {kind: source}}], "after": {"s": value}}}}});
                    let answer = searchers.call("POST", "/es/events/_search", body.to_string()).await;
                    assert!(
                        matches!(answer.status, 200 | 400),
                        "{body}: {}",
                        String::from_utf8_lossy(&answer.body)
                    );
                }
            }
        }
    }
    searchers.stop().await;
}
