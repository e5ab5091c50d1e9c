use super::*;
use crate::torture::protocol::answer;

const KEY: Key = Key { lane: 1, group: 2, number: 3 };

fn call(action: Action) -> Call {
    Call { key: KEY, action, reads: Reads::Strong, filling: 0, term: None, refresh: None }
}

fn put(on: Condition) -> Action {
    Action::Put { value: value(7, 9), on }
}

fn source(key: &str, token: &str) -> Value {
    json!({ "key": key, "group": "g1x2", "token": token, "body": "common words x x" })
}

fn hits(hits: &[(&str, &str, u64)], total: usize) -> String {
    let hit = |(id, token, seq): &(&str, &str, u64)| json!({ "id": id, "score": 1.0, "sort": [1.0, seq, 1], "source": source(id, token) });
    let hits: Vec<_> = hits.iter().map(hit).collect();
    let shards = json!({ "total": 2, "ok": 2, "failed": [] });
    json!({ "took_ms": 1, "timed_out": false, "total": total, "shards": shards, "hits": hits }).to_string()
}

fn found(put: u32, version: u64) -> Reply {
    Reply::Outcome(Outcome::Found { value: value(7, put), version })
}

#[test]
fn a_request_names_the_document_its_condition_and_the_read_level() {
    let is = Condition::Is { version: 17, value: value(7, 8) };
    for (call, expected) in [
        (call(put(Condition::Always)), "PUT /torture/docs/t-1-2-3"),
        (call(put(is)), "PUT /torture/docs/t-1-2-3"),
        (Call { term: Some(4), ..call(put(Condition::Always)) }, "PUT /torture/docs/t-1-2-3"),
        (
            Call { term: Some(4), refresh: Some("wait"), ..call(put(is)) },
            "PUT /torture/docs/t-1-2-3?if_seq_no=17&if_primary_term=4&refresh=wait",
        ),
        (
            Call { refresh: Some("true"), ..call(Action::Delete { on: Condition::Always }) },
            "DELETE /torture/docs/t-1-2-3?refresh=true",
        ),
        (call(put(Condition::Present)), "PATCH /torture/docs/t-1-2-3"),
        (call(Action::Delete { on: Condition::Value { value: value(7, 9) } }), "POST /torture/delete"),
        (call(Action::Get), "GET /torture/docs/t-1-2-3"),
        (Call { reads: Reads::Any, ..call(Action::StaleRead) }, "GET /torture/docs/t-1-2-3?consistency=any"),
        (call(Action::Search { value: value(7, 9) }), "POST /torture/search"),
    ] {
        let request = request("", &call).unwrap();
        assert_eq!(format!("{} {}", request.method(), request.uri()), expected);
    }
    let condition = |call| request("", &call).unwrap().headers().get(IF_MATCH).cloned();
    assert_eq!(condition(call(put(is))).unwrap(), "\"17\"");
    assert_eq!(condition(Call { term: Some(4), ..call(put(is)) }), None, "a write has one condition");
}

#[test]
fn each_line_of_a_bulk_request_has_its_own_outcome() {
    let puts = [(KEY, value(7, 1)), (Key { number: 4, ..KEY }, value(7, 2))];
    let request = bulk("", &puts, 0, Some("wait")).unwrap();
    assert_eq!(request.uri(), "/torture/docs?refresh=wait");
    let refused = |line: usize, status: u16, code: &str| json!({ "line": line, "status": status, "code": code, "detail": "why" });
    let lines = |indexed: usize, refused: Vec<Value>| {
        let body = json!({ "indexed": indexed, "refused": refused }).to_string();
        bulk_replies(&answer(200, &[], &body), 6)
    };
    let done = || Reply::Outcome(Outcome::Acknowledged);
    assert_eq!(lines(6, vec![]), vec![done(); 6]);
    let replies = lines(
        1,
        vec![
            refused(1, 429, "too-far-behind"),
            refused(2, 503, "shard-missing"),
            refused(3, 503, "outcome-unknown"),
            refused(4, 504, "not-visible-in-time"),
            refused(5, 400, "bad-document"),
        ],
    );
    assert!(
        matches!(
            &replies[..],
            [Reply::Nothing, Reply::Nothing, Reply::Open(_), Reply::Outcome(Outcome::Acknowledged), Reply::Unexpected(_), last] if *last == done()
        ),
        "{replies:?}"
    );
    assert!(matches!(&lines(6, vec![refused(1, 429, "x")])[..], [Reply::Wrong(_), ..]));
    assert!(matches!(&bulk_replies(&answer(503, &[], ""), 1)[..], [Reply::Open(_)]));
    assert!(matches!(&bulk_replies(&answer(503, &[(api::NOT_PROCESSED, "1")], ""), 1)[..], [Reply::Nothing]));
}

#[test]
fn a_delete_of_what_is_found_is_done_only_if_the_answer_says_so() {
    let delete = call(Action::Delete { on: Condition::Value { value: value(7, 9) } });
    let answered = |deleted: usize, conflicts: usize, timed_out: bool, failed: Vec<Value>| {
        let body = json!({ "deleted": deleted, "conflicts": conflicts, "timed_out": timed_out, "shards": { "failed": failed } });
        reply(&delete, &answer(200, &[], &body.to_string()))
    };
    let failed = || vec![json!({ "shard": 1, "reason": "why" })];
    assert_eq!(answered(1, 0, false, failed()), Reply::Outcome(Outcome::Deleted));
    assert_eq!(answered(0, 0, false, vec![]), Reply::Outcome(Outcome::Missing));
    assert_eq!(answered(0, 1, false, vec![]), Reply::Nothing);
    assert!(matches!(answered(0, 0, true, vec![]), Reply::Open(_)));
    assert!(matches!(answered(0, 0, false, failed()), Reply::Open(_)));
    assert!(matches!(answered(2, 0, false, vec![]), Reply::Wrong(_)));
    let patched = reply(
        &call(put(Condition::Present)),
        &answer(404, &[], r#"{"type": "urn:coterie:problem:no-such-document"}"#),
    );
    assert_eq!(patched, Reply::Outcome(Outcome::Refused(None)));
}

#[test]
fn a_write_counts_as_done_or_not_done_only_if_the_answer_says_so() {
    let delete = Action::Delete { on: Condition::Always };
    let problem = |code| format!(r#"{{"type": "urn:coterie:problem:{code}"}}"#);
    for (action, answer, expected) in [
        (put(Condition::Always), answer(201, &[("etag", "\"17\"")], ""), Reply::Outcome(Outcome::Stored(17))),
        (put(Condition::Always), answer(200, &[("etag", "\"17\"")], ""), Reply::Outcome(Outcome::Stored(17))),
        (
            put(Condition::Absent),
            answer(412, &[("etag", "\"17\"")], ""),
            Reply::Outcome(Outcome::Refused(Some(17))),
        ),
        (put(Condition::Absent), answer(409, &[], ""), Reply::Outcome(Outcome::Refused(None))),
        (put(Condition::Always), answer(503, &[], &problem("x")), Reply::Open("503 x".to_owned())),
        (put(Condition::Always), answer(503, &[(api::NOT_PROCESSED, "1")], ""), Reply::Nothing),
        (put(Condition::Always), answer(429, &[], ""), Reply::Nothing),
        (delete, answer(200, &[], r#"{"result": "deleted"}"#), Reply::Outcome(Outcome::Deleted)),
        (delete, answer(200, &[], r#"{"result": "not_found"}"#), Reply::Outcome(Outcome::Missing)),
    ] {
        assert_eq!(reply(&call(action), &answer), expected);
    }
    for (action, odd) in [
        (put(Condition::Always), answer(200, &[], "")),
        (put(Condition::Always), answer(500, &[], &problem("damaged-data"))),
        (delete, answer(200, &[], "")),
        (delete, answer(404, &[], "")),
    ] {
        assert!(matches!(reply(&call(action), &odd), Reply::Unexpected(_)), "{odd:?}");
    }
    let gone = answer(404, &[], &problem("no-such-index"));
    assert!(matches!(reply(&call(delete), &gone), Reply::Wrong(_)));
}

#[test]
fn a_read_finds_the_document_that_was_put_under_its_id() {
    let get =
        |source: &Value| reply(&call(Action::Get), &answer(200, &[("etag", "\"17\"")], &source.to_string()));
    assert_eq!(get(&source("t-1-2-3", "c7n9")), found(9, 17));
    let strange = Reply::Outcome(Outcome::Found { value: u64::MAX, version: 17 });
    for other in [source("t-1-2-2", "c7n9"), source("t-1-2-3", "c7"), json!({ "token": "c7n9" })] {
        assert_eq!(get(&other), strange, "{other}");
    }
    let missing = answer(404, &[], r#"{"type": "urn:coterie:problem:no-such-document"}"#);
    assert_eq!(reply(&call(Action::Get), &missing), Reply::Outcome(Outcome::Missing));
    let stale = call(Action::StaleRead);
    assert!(matches!(reply(&stale, &missing), Reply::Unexpected(_)), "it states no staleness");
    for filling in [0, 1, 2, 100] {
        assert!(is_body(&body(filling)), "{filling}");
    }
    assert!(!is_body("common words x y") && !is_body("common"));
}

#[test]
fn a_search_for_a_value_finds_its_document_once_or_not_at_all() {
    let search = call(Action::Search { value: value(7, 9) });
    let answered = |body: &str| reply(&search, &answer(200, &[], body));
    assert_eq!(answered(&hits(&[("t-1-2-3", "c7n9", 17)], 1)), found(9, 17));
    assert_eq!(answered(&hits(&[], 0)), Reply::Outcome(Outcome::Missing));
    for (body, why) in [
        (hits(&[("t-1-2-3", "c7n9", 17), ("t-1-2-3", "c7n9", 17)], 2), "found 2 documents"),
        (hits(&[("t-1-2-2", "c7n9", 17)], 1), "another document"),
        (hits(&[("t-1-2-3", "c7n8", 17)], 1), "another document"),
        (hits(&[("nobody", "c7n9", 17)], 1), "no client put"),
        (hits(&[], 1), "a total of 1"),
        (hits(&[], 0).replace("\"failed\":[]", r#""failed":[{"shard":1}]"#), "a partial answer"),
    ] {
        let wrong = answered(&body);
        assert!(matches!(&wrong, Reply::Wrong(what) if what.contains(why)), "{why}: {wrong:?}");
    }
    let late = hits(&[], 0).replace("\"timed_out\":false", "\"timed_out\":true");
    assert_eq!(answered(&late), Reply::Open("timed out".to_owned()));
    let stale = call(Action::StaleSearch { value: value(7, 9) });
    let body = hits(&[], 0);
    assert!(matches!(reply(&stale, &answer(200, &[], &body)), Reply::Unexpected(_)));
    let stated = answer(200, &[(api::STALENESS_MS, "9")], &body);
    assert_eq!(reply(&stale, &stated), Reply::Outcome(Outcome::Missing));
}

#[test]
fn a_search_for_a_group_is_a_read_of_each_document_that_it_shows() {
    let answered = |status, body: &str| listed(Action::Scan, &answer(status, &[], body));
    let other = Key { number: 4, ..KEY };
    let of = |key, put, version| (key, Outcome::Found { value: value(7, put), version });
    let two = [("t-1-2-3", "c7n9", 17), ("t-1-2-4", "c7n8", 16)];
    assert_eq!(answered(200, &hits(&two, 2)), Ok(vec![of(KEY, 9, 17), of(other, 8, 16)]));
    assert!(matches!(answered(200, &hits(&[two[0], two[0]], 2)), Err(Reply::Wrong(_))));
    assert!(matches!(answered(200, &hits(&two, 3)), Err(Reply::Wrong(_))));
    assert!(matches!(answered(503, &hits(&two, 2)), Err(Reply::Open(_))));
    assert!(matches!(answered(200, "{"), Err(Reply::Unexpected(_))));
}

#[test]
fn the_epoch_of_a_claim_is_in_the_answers_to_reads_and_writes() {
    assert_eq!(term(&answer(200, &[(TERM, "4")], "{}")), Some(4));
    assert_eq!(term(&answer(201, &[], r#"{"id": "t-1-2-3", "seq": 17, "term": 4}"#)), Some(4));
    assert_eq!(term(&answer(503, &[], "")), None);
}
