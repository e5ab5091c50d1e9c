use proptest::prelude::*;

use super::*;

fn key(is_descending: bool, is_missing_first: bool) -> SortKey {
    SortKey { field: SortField::Field("f".to_owned()), is_descending, is_missing_first }
}

fn cursor(value: SortValue, seq: u64, shard: u32) -> Cursor {
    Cursor { values: vec![value], seq, shard }
}

#[test]
fn types_are_in_a_fixed_order_and_numbers_are_compared_exactly() {
    let ascending = [
        SortValue::F64(-1e300),
        SortValue::I64(i64::MIN),
        SortValue::F64(-0.5),
        SortValue::I64(0),
        SortValue::F64(0.5),
        SortValue::I64(9_007_199_254_740_992),
        SortValue::I64(9_007_199_254_740_993),
        SortValue::F64(9_007_199_254_740_994.0),
        SortValue::I64(i64::MAX),
        SortValue::F64(9_223_372_036_854_775_808.0),
        SortValue::U64(u64::MAX),
        SortValue::F64(1e300),
        SortValue::Date(-1),
        SortValue::Date(1),
        SortValue::Bool(false),
        SortValue::Bool(true),
        SortValue::Text(String::new()),
        SortValue::Text("a".to_owned()),
    ];
    for (at, left) in ascending.iter().enumerate() {
        for (other, right) in ascending.iter().enumerate() {
            assert_eq!(left.order(right), at.cmp(&other), "{left:?} {right:?}");
        }
    }
    assert_eq!(SortValue::F64(0.0).order(&SortValue::F64(-0.0)), Ordering::Equal);
    assert_eq!(SortValue::F64(3.0).order(&SortValue::I64(3)), Ordering::Equal);
}

#[test]
fn missing_values_are_last_or_first_in_both_directions_and_ties_are_settled_by_number_and_shard() {
    let (one, missing) = (cursor(SortValue::I64(1), 9, 0), cursor(SortValue::Missing, 1, 0));
    for (is_descending, is_missing_first, order) in [
        (false, false, Ordering::Less),
        (true, false, Ordering::Less),
        (false, true, Ordering::Greater),
        (true, true, Ordering::Greater),
    ] {
        let keys = [key(is_descending, is_missing_first)];
        assert_eq!(one.order(&missing, &keys), order);
        assert_eq!(cursor(SortValue::I64(1), 8, 5).order(&one, &keys), Ordering::Less);
        assert_eq!(cursor(SortValue::I64(1), 9, 1).order(&one, &keys), Ordering::Greater);
        assert_eq!(one.order(&one, &keys), Ordering::Equal);
    }
}

#[test]
fn the_score_is_descending_unless_an_object_says_otherwise() {
    let read = |text: &str| SortKey::read_all(&RawValue::from_string(text.to_owned()).unwrap()).unwrap();
    for (text, is_best_first) in [
        (r#""_score""#, true),
        (r#"["-_score"]"#, true),
        (r#"{"field": "_score"}"#, true),
        (r#"{"field": "_score", "order": "asc"}"#, false),
        (r#""size""#, false),
    ] {
        assert_eq!(read(text)[0].is_best_first(), is_best_first, "{text}");
    }
}

proptest! {
    #[test]
    fn values_keep_every_bit_in_json_and_between_members(bits in any::<u64>(), nanos in any::<i64>(), text in ".*") {
        let number = Some(f64::from_bits(bits)).filter(|number| number.is_finite()).unwrap_or_default();
        for value in [SortValue::F64(number), SortValue::I64(nanos), SortValue::U64(bits), SortValue::Date(nanos), SortValue::Text(text)] {
            let json = RawValue::from_string(value.to_json().to_string()).unwrap();
            let read = SortValue::read(&json).unwrap();
            prop_assert_eq!(read.order(&value), Ordering::Equal);
            let sent = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<SortValue>(&sent).unwrap(), value);
        }
    }
}
