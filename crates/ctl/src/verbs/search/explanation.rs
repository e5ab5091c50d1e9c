//! The explanation of a score as an indented list. Pure.

use serde_json::Value;

/// Levels that are shown; scores of a usual query have fewer.
const DEPTH: usize = 32;

/// A line for each part of the score: its value, and what it is.
pub(super) fn lines(explanation: &Value) -> String {
    let mut text = String::new();
    add(explanation, 1, &mut text);
    text.trim_end().to_owned()
}

fn add(part: &Value, level: usize, text: &mut String) {
    let indent = "  ".repeat(level);
    let Some((value, description)) = part.get("value").zip(part.get("description").and_then(Value::as_str))
    else {
        text.push_str(&format!("{indent}{part}\n"));
        return;
    };
    let value = value.as_f64().map_or_else(|| value.to_string(), |value| format!("{value:.3}"));
    text.push_str(&format!("{indent}{value}  {}\n", crate::render::clean(description)));
    let details = part.get("details").and_then(Value::as_array);
    for detail in details.into_iter().flatten().filter(|_| level < DEPTH) {
        add(detail, level + 1, text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_of_a_score_are_indented_below_it() {
        let explanation = json!({ "value": 3.25, "description": "sum of", "details": [
            { "value": 3, "description": "TermQuery, product of\n" }, { "note": "unknown" }] });
        assert_eq!(
            lines(&explanation),
            "  3.250  sum of\n    3.000  TermQuery, product of \n    {\"note\":\"unknown\"}"
        );
    }
}
