//! The answer to a search, for people. Pure.

use client::{Hit, SearchAnswer};
use serde_json::Value;

use super::{FRAGMENT, TAGS, explanation, text};
use crate::render;

/// The columns that an id may take.
const ID: usize = 40;
/// The fewest columns of the text: on a narrower terminal the lines are longer than it.
const TEXT: usize = 20;
/// Bold and yellow, and plain again.
const STYLE: [&str; 2] = ["\x1b[1;33m", "\x1b[0m"];

/// Where the answer is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) color: bool,
    /// The width of the terminal; `None` without one.
    pub(super) columns: Option<usize>,
    /// How many fields the hits are sorted by.
    pub(super) sort_keys: usize,
}

/// The hits, best first, the explanations of their scores, and the facets; empty if there are none.
pub(super) fn answer(answer: &SearchAnswer, shape: Shape) -> String {
    let mut parts = Vec::new();
    if !answer.hits.is_empty() {
        parts.push(hits(&answer.hits, shape));
    }
    for hit in &answer.hits {
        if let Some(why) = &hit.explanation {
            parts.push(format!("{}\n{}", id(hit, shape), explanation::lines(why)));
        }
    }
    for (field, values) in &answer.facets {
        let rows: Vec<_> =
            values.iter().map(|facet| vec![cell(&facet.value), facet.count.to_string()]).collect();
        parts.push(render::table(&[&field.to_uppercase(), "DOCUMENTS"], &rows));
    }
    parts.join("\n\n")
}

fn hits(hits: &[Hit], shape: Shape) -> String {
    let has_scores = hits.iter().any(|hit| hit.score.is_some());
    let first = |hit: &Hit| match hit.score {
        Some(score) => format!("{score:.2}"),
        None if has_scores => String::new(),
        None => hit.sort.iter().take(shape.sort_keys.max(1)).map(cell).collect::<Vec<_>>().join(", "),
    };
    let header = [if has_scores { "SCORE" } else { "SORT" }, "ID"];
    let left: Vec<_> = hits.iter().map(|hit| vec![first(hit), id(hit, shape)]).collect();
    let longest = |column: usize| {
        let cells = left.iter().map(|row: &Vec<String>| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0) + 2
    };
    let room = match shape.columns {
        Some(columns) => columns.saturating_sub(longest(0) + longest(1)).max(TEXT),
        None => FRAGMENT,
    };
    let row = |(mut row, hit): (Vec<String>, &Hit)| {
        row.push(text::cut(&text::of_hit(hit), room));
        row
    };
    let rows: Vec<_> = left.into_iter().zip(hits).map(row).collect();
    styled(&render::table(&[header[0], header[1], "TEXT"], &rows), shape.color)
}

/// An id in one line: cut on a terminal only, so that programs get whole ones.
fn id(hit: &Hit, shape: Shape) -> String {
    let room = if shape.columns.is_some() { ID } else { usize::MAX };
    text::cut(&hit.id.replace(TAGS, ""), room)
}

/// A value as text without quotes.
fn cell(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// With the words that matched in colour, or without their marks.
fn styled(text: &str, color: bool) -> String {
    let style = if color { STYLE } else { ["", ""] };
    text.replace(TAGS[0], style[0]).replace(TAGS[1], style[1])
}

/// `12 of 340 documents, 3 ms`, and `21 to 30 of 340 documents, 3 ms` without the first 20.
pub(super) fn summary(answer: &SearchAnswer, from: u64) -> String {
    let shown = u64::try_from(answer.hits.len()).unwrap_or(u64::MAX);
    let which = match (from, shown) {
        (0, shown) if shown == answer.total => String::new(),
        (0, shown) => format!("{shown} of "),
        (_, 0) => "none of ".to_owned(),
        (from, shown) => format!("{} to {} of ", from + 1, from.saturating_add(shown)),
    };
    let total = usize::try_from(answer.total).unwrap_or(usize::MAX);
    format!("{which}{}, {} ms", render::count(total, "document"), answer.took_ms)
}

/// Why the answer is incomplete; empty if it is not.
pub(super) fn missing(answer: &SearchAnswer) -> Vec<String> {
    let shards = &answer.shards;
    let mut lines = Vec::new();
    if shards.ok < shards.total || !shards.failed.is_empty() {
        lines.push(format!(
            "incomplete: {} of {} shards answered, and documents of the others may be missing",
            shards.ok, shards.total
        ));
    }
    lines.extend(shards.failed.iter().map(|failed| format!("  - shard {}: {}", failed.shard, failed.reason)));
    if answer.timed_out {
        lines.push("incomplete: the time was up before all documents were looked at".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLAIN: Shape = Shape { color: false, columns: None, sort_keys: 0 };

    fn found(extra: &Value) -> SearchAnswer {
        let mut value = json!({
            "took_ms": 3, "total": 340, "max_score": 9.5, "shards": { "total": 2, "ok": 2, "failed": [] },
            "hits": [
                { "id": "nginx", "score": 9.46, "source": { "name": "nginx" },
                  "highlight": { "description": ["small \u{fdd0}http\u{fdd1} and reverse \u{fdd0}proxy\u{fdd1} server"] } },
                { "id": "squid-with-a-long-name", "score": 8.0, "source": { "description": "Full featured\nweb cache" } },
            ],
        });
        let (into, extra) = (value.as_object_mut().unwrap(), extra.as_object().unwrap());
        into.extend(extra.clone());
        // Documents are kept as text, which a value in memory does not have.
        serde_json::from_str(&value.to_string()).unwrap()
    }

    #[test]
    fn hits_are_ranked_with_the_words_that_matched() {
        assert_eq!(
            answer(&found(&json!({})), PLAIN),
            "\
SCORE  ID                      TEXT
9.46   nginx                   small http and reverse proxy server
8.00   squid-with-a-long-name  Full featured web cache"
        );
        let narrow = Shape { color: true, columns: Some(52), ..PLAIN };
        assert_eq!(
            answer(&found(&json!({})), narrow),
            "\
SCORE  ID                      TEXT
9.46   nginx                   small \x1b[1;33mhttp\x1b[0m and rever…
8.00   squid-with-a-long-name  Full featured web ca…"
        );
    }

    #[test]
    fn facets_and_explanations_follow_the_hits() {
        let extra = json!({
            "hits": [{ "id": "n", "score": 1.5, "explanation": { "value": 1.5, "description": "sum of" } }],
            "facets": { "section": [{ "value": "net", "count": 12 }, { "value": 7, "count": 1 }] },
        });
        assert_eq!(
            answer(&found(&extra), PLAIN),
            "\
SCORE  ID  TEXT
1.50   n

n
  1.500  sum of

SECTION  DOCUMENTS
net      12
7        1"
        );
        assert_eq!(answer(&found(&json!({ "hits": [] })), PLAIN), "");
    }

    #[test]
    fn hits_that_have_no_score_show_what_they_are_sorted_by() {
        let extra = json!({ "hits": [{ "id": "n", "score": null, "sort": [3218736, "net", 17, 0] }] });
        let shape = Shape { sort_keys: 2, ..PLAIN };
        assert_eq!(answer(&found(&extra), shape), "SORT          ID  TEXT\n3218736, net  n");
    }

    #[test]
    fn the_summary_counts_documents() {
        for (extra, from, expected) in [
            (json!({}), 0, "2 of 340 documents, 3 ms"),
            (json!({ "total": 2 }), 0, "2 documents, 3 ms"),
            (json!({}), 20, "21 to 22 of 340 documents, 3 ms"),
            (json!({ "hits": [] }), 400, "none of 340 documents, 3 ms"),
            (json!({ "hits": [], "total": 0 }), 0, "0 documents, 3 ms"),
        ] {
            assert_eq!(summary(&found(&extra), from), expected);
        }
    }

    #[test]
    fn an_incomplete_answer_says_so() {
        assert!(missing(&found(&json!({}))).is_empty());
        let extra = json!({ "timed_out": true,
            "shards": { "total": 2, "ok": 1, "failed": [{ "shard": 1, "reason": "no owner" }] } });
        assert_eq!(
            missing(&found(&extra)),
            [
                "incomplete: 1 of 2 shards answered, and documents of the others may be missing",
                "  - shard 1: no owner",
                "incomplete: the time was up before all documents were looked at"
            ]
        );
    }
}
