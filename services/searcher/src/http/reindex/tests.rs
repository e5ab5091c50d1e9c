use mesh::shards::ShardError as Unanswered;

use super::*;

fn shard(number: u32) -> ShardId {
    number.try_into().unwrap()
}

#[test]
fn a_request_names_its_target_and_where_the_last_copy_ended() {
    let wanted =
        parse(br#"{"to": "b", "q": "x", "after_seq": {"0": 17, "1": null}, "timeout": "2s"}"#, 2).unwrap();
    assert_eq!((wanted.to.as_str(), wanted.timeout), ("b", Duration::from_secs(2)));
    assert_eq!(wanted.after, BTreeMap::from([(shard(0), 17)]));
    assert_eq!(Value::Object(wanted.search), json!({"q": "x"}));
    assert_eq!(parse(br#"{"to": "b", "q": null, "timeout": null}"#, 1).unwrap().timeout, LIMIT);
    for (body, detail) in [
        ("", "no JSON object"),
        ("[]", "no JSON object"),
        ("{}", "`to` is missing"),
        (r#"{"to": 7}"#, "`to` is the name"),
        (r#"{"to": "b", "size": 3}"#, "no member `size`"),
        (r#"{"to": "b", "timeout": "0s"}"#, "`timeout` is a duration"),
        (r#"{"to": "b", "timeout": "2h"}"#, "`timeout` is a duration"),
        (r#"{"to": "b", "timeout": 7}"#, "`timeout` is a duration"),
        (r#"{"to": "b", "after_seq": 7}"#, "`after_seq` is an object"),
        (r#"{"to": "b", "after_seq": {"2": 7}}"#, "`after_seq` is an object"),
        (r#"{"to": "b", "after_seq": {"x": 7}}"#, "`after_seq` is an object"),
        (r#"{"to": "b", "after_seq": {"0": -7}}"#, "`after_seq` is an object"),
        (r#"{"to": "b", "after_seq": {"0": 1.5}}"#, "`after_seq` is an object"),
    ] {
        let refusal = parse(body.as_bytes(), 2).unwrap_err();
        assert_eq!((refusal.problem.status, refusal.problem.code()), (400, "bad-reindex"));
        assert!(refusal.problem.detail.contains(detail), "{body}: {}", refusal.problem);
        assert!(refusal.problem.hint.is_some());
    }
    let refusal = parse(br#"{"tos": "b"}"#, 1).unwrap_err();
    assert_eq!(refusal.problem.hint.as_deref(), Some("did you mean `to`?"));
}

#[test]
fn what_was_not_done_is_done_by_the_next_copy() {
    let reason = Reason { status: 503, code: "not-open".to_owned(), detail: "why".to_owned() };
    let copied = |seq, timed_out, failed| Copied {
        created: 2,
        skipped: 1,
        seq: Some(seq),
        timed_out,
        failed,
        ..Copied::default()
    };
    let after = BTreeMap::from([(shard(1), 5)]);
    for (last, timed_out, ok, seq) in [
        (Ok(copied(9, false, None)), false, 2, Some(9)),
        (Ok(copied(7, true, None)), true, 2, Some(7)),
        (Ok(copied(7, true, Some(reason))), false, 1, Some(7)),
        (Err(Unanswered::TimedOut(LIMIT)), true, 1, Some(5)),
    ] {
        let (done, failures) =
            Failures::split(vec![(shard(0), Ok(copied(3, false, None))), (shard(1), last)]);
        let total = total(done, &failures, &after, 2);
        assert_eq!((total.copied.timed_out, total.shards.ok, total.seqs[&shard(1)]), (timed_out, ok, seq));
        assert_eq!(total.seqs[&shard(0)], Some(3));
    }
}

#[test]
fn many_refused_documents_are_counted_and_some_are_listed() {
    let mut sum = Copied::default();
    for part in 0..3 {
        let mut copied = Copied { seq: Some(part), ..Copied::default() };
        for number in 0..80 {
            copied.refuse(
                &number.to_string(),
                Reason { status: 400, code: String::new(), detail: String::new() },
            );
        }
        sum.add(copied);
    }
    assert_eq!((sum.refused, sum.refusals.len(), sum.seq), (240, MAX_LISTED, Some(2)));
}
