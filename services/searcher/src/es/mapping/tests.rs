use serde_json::json;

use super::*;

fn defined(mappings: &Value) -> Result<Mapped, EsError> {
    define(&Definition::default(), true, mappings, &Analysis::default())
}

#[test]
fn mappings_become_definitions_and_come_back() {
    let mappings = json!({
        "dynamic": "strict",
        "properties": {
            "title": {"type": "text", "analyzer": "english", "fields": {
                "keyword": {"type": "keyword", "ignore_above": 256}, "plain": {"type": "text"},
            }},
            "actor": {"properties": {"id": {"type": "long"}, "login": {"type": "keyword", "normalizer": "lowercase"}}},
            "size": {"type": "double"},
            "is_new": {"type": "boolean"},
            "at": {"type": "date"},
        },
    });
    let mapped = defined(&mappings).unwrap();
    assert_eq!(mapped.warnings, [""; 0]);
    let definition: Definition = serde_json::from_value(json!({
        "dynamic": "strict",
        "fields": {
            "title": {"type": "text", "analyzer": "en", "fields": {
                "keyword": {"type": "keyword", "ignore_above": 256}, "plain": {"type": "text"},
            }},
            "actor.id": {"type": "i64"}, "actor.login": {"type": "keyword", "normalizer": "lowercase"},
            "size": {"type": "f64"}, "is_new": {"type": "bool"}, "at": {"type": "date"},
        },
    }))
    .unwrap();
    assert_eq!(mapped.definition, definition);
    assert_eq!(mappings_of(&definition), mappings);
    assert_eq!(mappings_of(&Definition::default()), json!({}));
}

#[test]
fn what_has_no_effect_is_accepted_with_a_warning() {
    let mapped = defined(&json!({"properties": {
        "a": {"type": "text", "store": true, "norms": false, "index_options": "docs", "fielddata": true},
        "b": {"type": "integer"}, "c": {"type": "half_float"}, "d": {"type": "object"},
        "e": {"type": "date", "format": "strict_date_optional_time||epoch_millis"},
    }}))
    .unwrap();
    assert_eq!(mapped.warnings.len(), 4, "{:?}", mapped.warnings);
    assert_eq!(mapped.definition.fields.keys().collect::<Vec<_>>(), ["a", "b", "c", "e"]);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (mappings, words) in [
        (json!([]), "Expected map"),
        (json!({"properties": []}), "Expected map"),
        (json!({"properties": {"a": {"type": "geo_point"}}}), "[geo_point]"),
        (json!({"properties": {"a": {"type": "nested"}}}), "[nested]"),
        (json!({"properties": {"a": {"type": "text", "copy_to": "b"}}}), "[copy_to]"),
        (json!({"properties": {"a": {"type": "text", "index": false}}}), "[index]"),
        (json!({"properties": {"a": {"type": "text", "analyzer": "whitespace"}}}), "[whitespace]"),
        (json!({"properties": {"a": {"type": "text", "search_analyzer": "english"}}}), "[search_analyzer]"),
        (json!({"properties": {"a": {"type": "text", "fields": {"b": {"type": "long"}}}}}), "[long]"),
        (json!({"properties": {"a": {"type": "long", "null_value": 1}}}), "[null_value]"),
        (json!({"properties": {"a": {"type": "date", "format": "yyyy"}}}), "[format: yyyy]"),
        (json!({"properties": {"a": {"type": "keyword", "normalizer": "x"}}}), "[x]"),
        (json!({"properties": {"a": {"enabled": false}}}), "[enabled]"),
        (json!({"properties": {"a": {"dynamic": "strict"}}}), "[dynamic]"),
        (json!({"properties": {"_id": {"type": "keyword"}}}), "_id"),
        (json!({"dynamic": "runtime"}), "[dynamic: runtime]"),
        (json!({"_source": {"enabled": false}}), "[_source]"),
        (json!({"runtime": {}}), "[runtime]"),
        (json!({"dynamic_templates": [{}]}), "[dynamic_templates]"),
    ] {
        let error = defined(&mappings).unwrap_err();
        let shown = error.to_json().to_string();
        assert_eq!(error.status, 400);
        assert!(shown.contains(words), "{mappings}: {shown}");
    }
}

#[test]
fn analyzers_and_normalizers_of_the_settings_are_ours_or_refused_by_name() {
    let analysis = Analysis::parse(&json!({
        "analyzer": {
            "default": {"type": "german"},
            "folded": {"tokenizer": "standard", "filter": ["lowercase", "asciifolding"]},
        },
        "normalizer": {"lower": {"type": "custom", "filter": "lowercase"}, "keep": {"type": "custom"}},
        "filter": {},
    }))
    .unwrap();
    assert_eq!(analysis.default, Analyzer::De);
    assert_eq!(analysis.analyzer("folded"), Ok(Analyzer::Default));
    assert_eq!(analysis.normalizer("lower"), Ok(Normalizer::Lowercase));
    assert_eq!(analysis.normalizer("keep"), Ok(Normalizer::None));
    let mappings = json!({"properties": {"a": {"type": "text"}}});
    let mapped = define(&Definition::default(), true, &mappings, &analysis).unwrap();
    let fields = BTreeMap::new();
    assert_eq!(mapped.definition.fields["a"], FieldDefinition::Text { analyzer: Analyzer::De, fields });
    for (value, words) in [
        (json!({"analyzer": {"a": {"tokenizer": "whitespace"}}}), "[tokenizer: whitespace]"),
        (
            json!({"analyzer": {"a": {"tokenizer": "standard", "filter": ["lowercase", "stop"]}}}),
            "[filter: stop]",
        ),
        (json!({"analyzer": {"a": {"tokenizer": "standard"}}}), "[lowercase]"),
        (json!({"analyzer": {"a": {"type": "english", "stopwords": []}}}), "[stopwords]"),
        (json!({"analyzer": {"a": {"type": "pattern"}}}), "[type: pattern]"),
        (json!({"normalizer": {"a": {"filter": ["uppercase"]}}}), "[filter: uppercase]"),
        (json!({"filter": {"a": {"type": "synonym"}}}), "[analysis.filter]"),
    ] {
        let error = Analysis::parse(&value).unwrap_err().to_json().to_string();
        assert!(error.contains(words), "{value}: {error}");
    }
}

#[test]
fn fields_are_added_and_what_an_index_is_stays() {
    let base = defined(&json!({"properties": {"a": {"type": "text"}}})).unwrap().definition;
    let more = json!({"properties": {"b": {"type": "long"}}});
    let mapped = define(&base, false, &more, &Analysis::default()).unwrap().definition;
    assert_eq!(mapped.fields.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert!(define(&base, false, &json!({"dynamic": "strict"}), &Analysis::default()).is_err());
}

#[test]
fn only_what_mappings_change_is_asked_of_the_catalog() {
    let base: Definition = serde_json::from_value(json!({
        "fields": {"a": {"type": "keyword"}, "b": {"type": "i64"}}, "dynamic": false, "coerce": true,
        "id": "a", "synonyms": ["x, y"],
    }))
    .unwrap();
    let mappings = json!({"properties": {"b": {"type": "long"}, "c": {"type": "boolean"}}});
    let mapped = define(&base, false, &mappings, &Analysis::default()).unwrap();
    let changes = mapped.changes(&base);
    assert_eq!(json!(changes), json!({"fields": {"c": {"type": "bool"}}, "coerce": true}));
    assert_eq!(base.extended(&changes), Ok(mapped.definition));
    let new =
        define(&Definition::default(), true, &json!({"dynamic": "strict"}), &Analysis::default()).unwrap();
    assert_eq!(new.changes(&Definition::default()).complete(), new.definition);
}
