use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(value: &Value) -> Result<SearchRequest, QueryError> {
    SearchRequest::from_json(value.to_string().as_bytes())
}

#[test]
fn an_empty_request_has_the_defaults() {
    for body in ["", "  ", "{}", r#"{"q": null}"#] {
        let request = SearchRequest::from_json(body.as_bytes()).unwrap();
        assert_eq!((request.size, request.from), (10, 0));
        assert_eq!(request.timeout, Duration::from_secs(10));
        assert!(request.allow_partial && request.did_you_mean && request.is_by_score());
        assert_eq!(request.to_json(), b"{}");
    }
}

#[test]
fn mistakes_are_named_with_what_to_write_instead() {
    for (body, message, hint) in [
        (json!({"sise": 1}), "there is no member `sise`", "did you mean `size`?"),
        (json!({"xyzzy": 1}), "there is no member `xyzzy`", "there are q, filter"),
        (json!({"size": 1001}), "`size` is a whole number from 0 to 1000, not `1001`", ""),
        (json!({"size": -1}), "`size` is a whole number from 0 to 1000, not `-1`", ""),
        (json!({"from": 9_995}), "`from` and `size` together are at most 10000", "search_after"),
        (json!({"from": 18_446_744_073_709_551_615_u64}), "`from` and `size` together", "search_after"),
        (json!({"q": 1}), "`q` is text, not `1`", ""),
        (json!({"filter": [1]}), "`filter` is text or a list of texts", ""),
        (json!({"filter": "a:("}), "`filter`: ", ""),
        (json!({"fields": {"a": -1}}), "`fields`: the boost of `a` is a number above 0, not -1", ""),
        (json!({"fields": 1}), "`fields` is a list", ""),
        (json!({"default_operator": "xor"}), "`default_operator` is \"or\" or \"and\", not `xor`", ""),
        (json!({"typos": true}), "`typos` is \"off\" or \"auto\", not `true`", ""),
        (json!({"sort": [1]}), "`sort`: a key is text or an object, not `1`", "-size"),
        (json!({"sort": {"feld": "a"}}), "`sort`: a key has no member `feld`", "did you mean `field`?"),
        (json!({"sort": {"field": "a", "order": "up"}}), "`sort`: `order` is", ""),
        (json!({"sort": {"order": "asc"}}), "`sort`: a key names no field", ""),
        (
            json!({"sort": ["a", "b", "c", "d", "e", "f", "g", "h", "i"]}),
            "`sort`: there are at most 8 keys",
            "",
        ),
        (json!({"search_after": [1]}), "`search_after`: it has 3 values, not 1", "next"),
        (
            json!({"search_after": [1, -2, 0]}),
            "`search_after`: its last two values are whole numbers",
            "next",
        ),
        (json!({"search_after": [[], 2, 0]}), "`search_after`: `[]` is not a sort value", "next"),
        (json!({"search_after": [1, 2, 0], "from": 1}), "`from` can't be used with `search_after`", "leave"),
        (json!({"highlight": 1}), "`highlight`: it is true, false or an object, not `1`", ""),
        (json!({"highlight": {"tags": []}}), "`highlight`: there is no member `tags`", ""),
        (json!({"highlight": {"fragment_size": 1}}), "`highlight`: `fragment_size` is a whole number", ""),
        (json!({"facets": {"a": 0}}), "`facets`: the number of values of `a` is from 1 to 1000", ""),
        (json!({"aggs": []}), "`aggs`: it is an object of aggregations by name", ""),
        (json!({"explain": 1}), "`explain` is true or false, not `1`", ""),
        (json!({"source": 1}), "`source` is true, false or a list of paths, not `1`", ""),
        (json!({"consistency": "weak"}), "`consistency` is strong, primary or any, not `weak`", ""),
        (json!({"timeout": "61s"}), "`timeout` is above 0 and at most 60s, not `61s`", ""),
        (json!({"timeout": "0s"}), "`timeout` is above 0", ""),
        (json!({"timeout": "soon"}), "`timeout` is a duration such as \"500ms\", not `soon`", ""),
        (json!([]), "the body is not a JSON object", "http proxy"),
    ] {
        let error = read(&body).unwrap_err();
        assert!(error.message.starts_with(message), "{body}: {}", error.message);
        assert!(error.hint.clone().unwrap_or_default().contains(hint), "{body}: {:?}", error.hint);
    }
    let error = SearchRequest::from_json(br#"{"q": "a", "q": "b"}"#).unwrap_err();
    assert_eq!(error.message, "`q` is given twice");
    assert!(SearchRequest::from_json(b"\xff").is_err());
    assert!(SearchRequest::from_json("[".repeat(100_000).as_bytes()).is_err());
    let deep = format!(r#"{{"aggs": {}1{}}}"#, r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    assert!(SearchRequest::from_json(deep.as_bytes()).is_err());
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let error = read(&json!({"sise": 1, "from": -1, "explain": "yes"})).unwrap_err();
    assert_eq!(
        error.message,
        "there is no member `sise`; `from` is a whole number from 0, not `-1`; `explain` is true or false, not `\"yes\"`"
    );
    assert_eq!(error.hint.as_deref(), Some("did you mean `size`?"));
}

#[test]
fn a_query_string_says_the_same_as_json() {
    for (query, body) in [
        ("", json!({})),
        ("q=http%20proxy&size=5&from=2", json!({"q": "http proxy", "size": 5, "from": 2})),
        ("filter=a:1&q=x&filter=b:2", json!({"q": "x", "filter": ["a:1", "b:2"]})),
        ("sort=-size,name&fields=a,b", json!({"sort": ["-size", "name"], "fields": ["a", "b"]})),
        ("highlight=true&facets=section,arch", json!({"highlight": true, "facets": ["section", "arch"]})),
        ("highlight=a,b&source=false", json!({"highlight": {"fields": ["a", "b"]}, "source": false})),
        (
            "source=a.b,c&typos=auto&default_operator=and",
            json!({"source": ["a.b", "c"], "typos": "auto", "default_operator": "and"}),
        ),
        ("search_after=%5B1.5,3,0%5D&timeout=1s", json!({"search_after": [1.5, 3, 0], "timeout": "1s"})),
        (
            "consistency=any&allow_partial=false&explain=true",
            json!({"consistency": "any", "allow_partial": false, "explain": true}),
        ),
        ("q=7&did_you_mean=false", json!({"q": "7", "did_you_mean": false})),
    ] {
        assert_eq!(SearchRequest::from_query(query).unwrap(), read(&body).unwrap(), "{query}");
    }
    for (query, message) in [
        ("sise=1", "there is no parameter `sise`"),
        ("aggs=%7B%7D", "there is no parameter `aggs`"),
        ("q=a&q=b", "`q` is given twice"),
        ("size=ten", "`size` is a whole number from 0 to 1000, not `\"ten\"`"),
        ("q=%ff", "`q` is not UTF-8"),
        ("q=%", "`q`: `%` at byte 0"),
        ("search_after=x", "`search_after` is not JSON"),
        ("explain=yes", "`explain` is true or false"),
    ] {
        let error = SearchRequest::from_query(query).unwrap_err();
        assert!(error.message.starts_with(message), "{query}: {}", error.message);
    }
}

fn words() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["http", "proxy", "title:x", "a*", "\"a b\"", "n:>5"]).prop_map(str::to_owned)
}

fn sort_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has finite numbers only", |n| n.is_finite()).prop_map(Value::from),
        ".{0,10}".prop_map(Value::from),
        any::<i64>().prop_map(|nanos| super::super::sort::SortValue::Date(nanos).to_json()),
    ]
}

prop_compose! {
    fn request()(
        q in prop::option::of(words()),
        filter in prop::collection::vec(words(), 0..3),
        size in 0..=1_000_usize,
        from in 0..100_usize,
        boosts in prop::collection::btree_map("[a-z]{1,3}", 1..9_u8, 0..3),
        flags in prop::array::uniform5(any::<bool>()),
        after in prop::option::of((sort_value(), sort_value(), any::<u64>(), any::<u16>())),
        milliseconds in 1..60_000_u64,
        source in prop_oneof![Just(json!(true)), Just(json!(false)), Just(json!(["a.b", "c"]))],
    ) -> Value {
        let mut request = json!({
            "q": q, "filter": filter, "size": size, "fields": boosts, "source": source,
            "explain": flags[0], "did_you_mean": flags[1], "allow_partial": flags[2],
            "typos": if flags[3] { "auto" } else { "off" },
            "sort": ["-a", {"field": "b", "missing": "first"}],
            "timeout": format!("{milliseconds}ms"),
            "facets": {"a": 3},
            "aggs": {"x": {"terms": {"field": "a"}, "aggs": {"y": {"filter": "b:1"}}}},
        });
        if flags[4] {
            request["highlight"] = json!({"fields": ["a"], "pre": "<b>", "post": "</b>"});
        }
        match after {
            Some((a, b, seq, shard)) => request["search_after"] = json!([a, b, seq, shard]),
            None => request["from"] = json!(from),
        }
        request
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(body in request()) {
        let request = read(&body).unwrap();
        prop_assert_eq!(&SearchRequest::from_json(&request.to_json()).unwrap(), &request);
        if let Some(cursor) = &request.search_after {
            // To the last digit.
            prop_assert_eq!(&Value::Array(cursor.to_json()), &body["search_after"]);
        }
    }

    #[test]
    fn no_body_panics(body in "\\PC{0,80}", members in prop::collection::btree_map(prop::sample::select(vec![
        "q", "filter", "fields", "size", "sort", "search_after", "highlight", "facets", "aggs", "source", "timeout",
    ]), prop_oneof![sort_value(), Just(json!([])), Just(json!({"a": {"terms": {}}})), Just(json!({"field": 1}))], 0..4)) {
        drop(SearchRequest::from_json(body.as_bytes()));
        drop(SearchRequest::from_query(&body));
        drop(SearchRequest::from_json(json!(members).to_string().as_bytes()));
    }
}
