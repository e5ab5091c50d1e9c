use serde_json::json;

use super::*;

#[test]
fn every_aggregation_takes_its_keys() {
    let all = json!({
        "a": {"terms": {"field": "f", "size": 5, "shard_size": 7, "min_doc_count": 0, "order": {"_key": "asc"},
            "missing": "x", "include": ["a"], "exclude": "b.*", "show_term_doc_count_error": true}},
        "b": {"range": {"field": "f", "ranges": [{"to": 1}, {"from": 1, "to": "2", "key": "k"}], "keyed": true}},
        "c": {"histogram": {"field": "f", "interval": 0.5, "offset": 0.1, "min_doc_count": 1, "hard_bounds": {"min": 0, "max": 5}}},
        "d": {"date_histogram": {"field": "f", "fixed_interval": "1d", "offset": "-4h",
            "extended_bounds": {"min": "2024-01-01T00:00:00Z", "max": "2024-02-01T00:00:00Z"}}},
        "e": {"filter": "x:1", "aggs": {"avg": {"avg": {"field": "f", "missing": 0}}}},
        "f": {"extended_stats": {"field": "f", "sigma": 2.0}},
        "g": {"cardinality": {"field": "f", "missing": "none"}},
        "h": {"percentiles": {"field": "f", "percents": [1, 99.9], "keyed": false}},
        "i": {"multi_terms": {"terms": [{"field": "f"}, {"field": "g", "missing": "x"}], "size": 3, "order": {"_key": "asc"}}},
        "j": {"composite": {"size": 2, "after": {"t": "str:x", "h": "f64:5", "d": "null:"}, "sources": [
            {"t": {"terms": {"field": "f", "order": "desc"}}}, {"h": {"histogram": {"field": "f", "interval": 5}}},
            {"d": {"date_histogram": {"field": "f", "fixed_interval": "1d", "missing_bucket": true, "missing_order": "first"}}}]}},
    });
    let aggs = Aggregations::read(&all, None).unwrap();
    assert_eq!(aggs.filters.len(), 1);
    assert_eq!(aggs.fields.len(), 13);
    assert_eq!(aggs.to_json(), all);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn unknown_and_refused_keys_are_named() {
    for (aggs, message, hint) in [
        (
            json!({"a": {"term": {"field": "f"}}}),
            "`aggs`: `a`: there is no aggregation `term`",
            "did you mean `terms`?",
        ),
        (json!({"a": {"top_hits": {}}}), "`aggs`: `a`: `top_hits` is not supported", ""),
        (json!({"a": {"global": {}}}), "`aggs`: `a`: `global` is not supported", ""),
        (
            json!({"a": {"terms": {"field": "f", "sise": 1}}}),
            "`aggs`: `a`: `terms` has no key `sise`",
            "did you mean `size`?",
        ),
        (
            json!({"a": {"terms": {"field": "f", "script": "x"}}}),
            "`aggs`: `a`: `script` is not supported",
            "",
        ),
        (
            json!({"a": {"date_histogram": {"field": "f", "calendar_interval": "1M"}}}),
            "`aggs`: `a`: `calendar_interval` is not supported",
            "fixed_interval",
        ),
        (
            json!({"a": {"date_histogram": {"field": "f"}}}),
            "`aggs`: `a`: `date_histogram` needs a `fixed_interval`",
            "",
        ),
        (
            json!({"a": {"date_histogram": {"field": "f", "fixed_interval": "1y"}}}),
            "`aggs`: `a`: `fixed_interval` is a number with",
            "",
        ),
        (
            json!({"a": {"date_histogram": {"field": "f", "fixed_interval": "0d"}}}),
            "`aggs`: `a`: `fixed_interval` is a number with",
            "",
        ),
        (
            json!({"a": {"date_histogram": {"field": "f", "fixed_interval": "99999999999d"}}}),
            "`aggs`: `a`: `fixed_interval`",
            "",
        ),
        (
            json!({"a": {"date_histogram": {"field": "f", "fixed_interval": "1ms",
            "extended_bounds": {"min": "2000-01-01T00:00:00Z", "max": "2024-02-01T00:00:00Z"}}}}),
            "`aggs`: `a`: `extended_bounds` has more",
            "",
        ),
        (json!({"a": {"histogram": {"field": "f"}}}), "`aggs`: `a`: `histogram` needs an `interval`", ""),
        (
            json!({"a": {"histogram": {"field": "f", "interval": 0}}}),
            "`aggs`: `a`: `interval` is a number above 0",
            "",
        ),
        (
            json!({"a": {"histogram": {"field": "f", "interval": 1, "extended_bounds": {"min": 0, "max": 1e18}}}}),
            "`aggs`: `a`: `extended_bounds` has more",
            "",
        ),
        (json!({"a": {"terms": {"size": 1}}}), "`aggs`: `a`: `terms` needs a `field`", ""),
        (
            json!({"a": {"multi_terms": {"terms": [{"field": "f"}]}}}),
            "`aggs`: `a`: `multi_terms` needs `terms`",
            "",
        ),
        (
            json!({"a": {"multi_terms": {"terms": [{"field": "f"}, {"field": "g", "mising": 1}]}}}),
            "`aggs`: `a`: `terms`: `mising` is not supported (did you mean `missing`?)",
            "",
        ),
        (json!({"a": {"composite": {}}}), "`aggs`: `a`: `composite` needs `sources`", ""),
        (
            json!({"a": {"composite": {"sources": [{"x": {"terms": {"field": "f"}}}, {"x": {"terms": {"field": "g"}}}]}}}),
            "`aggs`: `a`: two of `sources` have the name `x`",
            "",
        ),
        (
            json!({"a": {"composite": {"sources": [{"x": {"geotile_grid": {"field": "f"}}}]}}}),
            "`aggs`: `a`: `x`: a source is `terms`",
            "",
        ),
        (
            json!({"a": {"composite": {"sources": [{"x": {"date_histogram": {"field": "f", "calendar_interval": "1M"}}}]}}}),
            "`aggs`: `a`: `x`: `calendar_interval` is not supported",
            "",
        ),
        (
            json!({"a": {"composite": {"sources": [{"x": {"histogram": {"field": "f", "interval": 1, "missing_order": "last"}}}]}}}),
            "`aggs`: `a`: `x`: `missing_order` is `first` for histograms",
            "",
        ),
        (
            json!({"a": {"composite": {"sources": [{"x": {"histogram": {"field": "f", "interval": 1, "order": "desc",
                "missing_bucket": true}}}]}}}),
            "`aggs`: `a`: `x`: with the order `desc`",
            "",
        ),
        (
            json!({"a": {"composite": {"sources": [{"x": {"histogram": {"field": "f"}}}]}}}),
            "`aggs`: `a`: `x`: `histogram` needs `interval`",
            "",
        ),
        (
            json!({"a": {"composite": {"sources": [{"x": {"terms": {"field": "f"}}}], "after": {"y": "str:a"}}}}),
            "`aggs`: `a`: `after` has a value for each",
            "",
        ),
        (
            json!({"a": {"composite": {"sources": [{"x": {"terms": {"field": "f"}}}], "after": {"x": "a"}}}}),
            "`aggs`: `a`: invalid after key",
            "",
        ),
        (
            json!({"a": {"terms": {"field": "f"}, "aggs": {"b": {"composite": {"sources": [{"x": {"terms": {"field": "f"}}}]}}}}}),
            "`aggs`: `a.b`: `composite` can't be below",
            "",
        ),
        (
            json!({"a": {"terms": {"field": "f", "size": 70_000}}}),
            "`aggs`: `a`: `size` is a whole number from 1 to 65536",
            "",
        ),
        (json!({"a": {"terms": {"field": "f", "include": "("}}}), "", ""),
        (
            json!({"a": {"range": {"field": "f", "ranges": [{"form": 1}]}}}),
            "`aggs`: `a`: `ranges` is a list",
            "",
        ),
        (json!({"a": {"avg": {"field": "f"}, "aggs": {}}}), "`aggs`: `a`: `avg` has no buckets", ""),
        (
            json!({"a": {"avg": {"field": "f"}, "sum": {"field": "f"}}}),
            "`aggs`: `a`: it has exactly one kind",
            "terms",
        ),
        (json!({"a": {}}), "`aggs`: `a`: it has exactly one kind", "terms"),
        (
            json!({"a": {"terms": {"field": "f"}, "aggs": {"b": {"max": {"feld": "f"}}}}}),
            "`aggs`: `a.b`: `max` has no key `feld`",
            "field",
        ),
        (json!({"a": {"filter": "x:("}}), "`aggs`: `a`: ", ""),
        (json!({"a": {"filter": {"term": {}}}}), "`aggs`: `a`: `filter` is the text of a query", ""),
        (
            json!({"a": {"percentiles": {"field": "f", "percents": [101]}}}),
            "`aggs`: `a`: `percents` is a list",
            "",
        ),
    ] {
        let Err(error) = Aggregations::read(&aggs, None) else {
            // A regular expression is compiled with the values of a segment.
            assert!(aggs.to_string().contains("include"), "{aggs}");
            continue;
        };
        assert!(error.message.starts_with(message), "{aggs}: {}", error.message);
        assert!(error.hint.unwrap_or_default().contains(hint), "{aggs}");
    }
    let mut deep = json!({"a": {"terms": {"field": "f"}}});
    for _ in 0..8 {
        deep = json!({"a": {"terms": {"field": "f"}, "aggs": deep}});
    }
    assert!(Aggregations::read(&deep, None).unwrap_err().message.contains("nested 8 deep"));
}
