use proptest::prelude::*;
use serde_json::json;

use super::*;

fn merged(mut into: Value, patch: Value) -> Value {
    merge(&mut into, patch);
    into
}

#[test]
fn objects_are_merged_deeply_and_everything_else_is_replaced() {
    for (into, patch, expected) in [
        (json!({"a":1}), json!({}), json!({"a":1})),
        (json!({"a":1}), json!({"b":2}), json!({"a":1,"b":2})),
        (json!({"a":1}), json!({"a":null}), json!({"a":null})),
        (json!({"a":[1,2]}), json!({"a":[3]}), json!({"a":[3]})),
        (json!({"a":{"b":1,"c":2}}), json!({"a":{"b":{"d":3}}}), json!({"a":{"b":{"d":3},"c":2}})),
        (json!({"a":{"b":1}}), json!({"a":7}), json!({"a":7})),
        (json!({"a":7}), json!({"a":{"b":1}}), json!({"a":{"b":1}})),
    ] {
        assert_eq!(merged(into.clone(), patch.clone()), expected, "{into} {patch}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_patch_that_is_merged_twice_changes_nothing_more(into in any_value(), patch in any_value()) {
        let once = merged(into, patch.clone());
        prop_assert_eq!(merged(once.clone(), patch), once);
    }

    #[test]
    fn a_document_that_is_merged_into_itself_stays(value in any_value()) {
        prop_assert_eq!(merged(value.clone(), value.clone()), value);
    }
}

#[test]
fn a_condition_holds_only_for_the_very_document() {
    let present = Present { seq: 7, term: 3, version: 1, source: None };
    for (condition, of_present, of_none) in [
        (None, true, true),
        (Some(Condition::Absent), false, true),
        (Some(Condition::Is { seq: 7, term: 3 }), true, false),
        (Some(Condition::Is { seq: 7, term: 2 }), false, false),
        (Some(Condition::Is { seq: 6, term: 3 }), false, false),
        (Some(Condition::Unchanged { seq: 7 }), true, false),
        (Some(Condition::Unchanged { seq: 8 }), false, false),
        (Some(Condition::Older { seq: 8 }), true, true),
        (Some(Condition::Older { seq: 7 }), false, true),
    ] {
        assert_eq!(check(condition, Some(&present)).is_ok(), of_present, "{condition:?}");
        assert_eq!(check(condition, None).is_ok(), of_none, "{condition:?}");
    }
}
