use proptest::prelude::*;

use super::*;

fn source(text: &str) -> Arc<RawValue> {
    in_one_line(RawValue::from_string(text.to_owned()).unwrap())
}

fn operation(id: &str, version: u64, text: Option<&str>) -> Operation {
    Operation { index: Uuid::nil(), id: id.into(), version, source: text.map(source) }
}

/// Without the sharing of texts, for comparisons.
fn plain(operations: &[Operation]) -> Vec<(Uuid, String, u64, Option<String>)> {
    let text = |source: &Arc<RawValue>| source.get().to_owned();
    let plain = |op: &Operation| (op.index, op.id.to_string(), op.version, op.source.as_ref().map(text));
    operations.iter().map(plain).collect()
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let text = prop::option::of((".{0,40}", any::<u64>()));
    (any::<u128>(), ".{0,40}", any::<u64>(), text).prop_map(|(index, id, version, text)| {
        let text =
            text.map(|(key, value)| serde_json::json!({ key: value, "nested": { "n": null } }).to_string());
        Operation {
            index: Uuid::from_u128(index),
            id: id.into(),
            version,
            source: text.as_deref().map(source),
        }
    })
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(
        first in 0..1_u64 << 53,
        operations in prop::collection::vec(any_operation(), 0..20),
    ) {
        let written = Operations { first, operations };
        let read = Operations::decode(&written.encode()).unwrap();
        prop_assert_eq!(read.first, first);
        prop_assert_eq!(plain(&read.operations), plain(&written.operations));
    }

    #[test]
    fn damaged_bytes_are_an_error_or_another_record_and_never_a_panic(
        operations in prop::collection::vec(any_operation(), 0..5),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut record = Operations { first: 3, operations }.encode();
        let _ = Operations::decode(&record[..cut.index(record.len())]);
        *at.get_mut(&mut record) = byte;
        let _ = Operations::decode(&record);
    }

    #[test]
    fn arbitrary_bytes_are_no_record(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Operations::decode(&bytes).is_err());
    }
}

#[test]
fn a_record_that_is_cut_off_or_too_long_or_no_operation_is_an_error() {
    let zstd = |text: &[u8]| zstd::bulk::compress(text, 1).unwrap();
    for (text, part) in [
        ("", "cut off"),
        ("{\"first\":1}", "cut off"),
        ("{\"first\":-1}\n", "line 1"),
        ("{\"first\":1}\n\n", "line 2"),
        ("{\"first\":1}\n{\"index\":\"x\",\"id\":\"a\"}\n", "line 2"),
        ("{\"first\":1}\n{\"index\":\"00000000-0000-0000-0000-000000000000\"}\n", "`id`"),
    ] {
        let error = Operations::decode(&zstd(text.as_bytes())).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let bomb = zstd(&vec![b' '; usize::try_from(MAX_DECOMPRESSED).unwrap() + 1]);
    assert!(bomb.len() < 100_000);
    assert!(matches!(Operations::decode(&bomb), Err(RecordError::TooLong)));
}

#[test]
fn a_document_with_line_breaks_becomes_one_line_with_the_same_value() {
    let text = "{\r\n  \"a\": \"x\\ny\",\n  \"b\": [1,\n2]\n}";
    let line = source(text);
    assert!(!line.get().contains(['\n', '\r']));
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(value(line.get()), value(text));
}

#[test]
fn many_operations_become_several_records_that_fit_and_are_numbered_without_a_gap() {
    // Random, so that it can't be compressed.
    let noise: String = std::iter::repeat_with(|| char::from(rand::random_range(b'0'..=b'z')))
        .filter(|c| c.is_alphanumeric())
        .take(1 << 20)
        .collect();
    let text = format!("{{\"a\":\"{noise}\"}}");
    let operations: Vec<_> = (0..20).map(|n| operation(&n.to_string(), 1, Some(&text))).collect();
    let records = Operations::split(7, operations.clone());
    assert!(records.len() > 2);
    let mut next = 7;
    let mut all = Vec::new();
    for record in &records {
        assert_eq!(record.first, next);
        next = record.end();
        assert!(record.encode().len() <= store::MAX_RECORD);
        all.extend(record.operations.clone());
    }
    assert_eq!(plain(&all), plain(&operations));
    let longest = format!("{{\"a\":\"{}\"}}", noise.repeat(16).get(..MAX_SOURCE - 8).unwrap());
    assert_eq!(longest.len(), MAX_SOURCE);
    let record = Operations { first: 0, operations: vec![operation("a", 1, Some(&longest))] };
    assert!(record.encode().len() <= store::MAX_RECORD);
    assert!(Operations::split(0, Vec::new()).is_empty());
}
