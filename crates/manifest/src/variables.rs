//! Replaces `${VAR}` and `${VAR:-default}` in the values of a tree; `$$` is a dollar sign.
//!
//! Variables are replaced after parsing, so a value can never add keys or lists to the file.

use std::collections::BTreeSet;

use crate::mistake::Mistake;
use crate::render::quoted;
use crate::tree::{Node, Position, Value, Writing};

/// The limit for all replaced text together, in bytes.
const MAX_REPLACED: usize = 1024 * 1024;
/// A variable in a text of more bytes is shown at the position of the text: counting characters would take too long.
const MAX_COUNTED: usize = 4096;

/// Looks up the value of a variable, usually in the environment.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces the variables in all values; keys stay as they are. Returns the positions of values with a bad variable, so
/// that they are not reported a second time.
pub(crate) fn substitute(
    node: &mut Node,
    variables: Variables<'_>,
    mistakes: &mut Vec<Mistake>,
) -> BTreeSet<Position> {
    let mut substitution = Substitution { variables, mistakes, failed: BTreeSet::new(), left: MAX_REPLACED };
    substitution.walk(node);
    substitution.failed
}

struct Substitution<'a> {
    variables: Variables<'a>,
    mistakes: &'a mut Vec<Mistake>,
    failed: BTreeSet<Position>,
    left: usize,
}

impl Substitution<'_> {
    fn walk(&mut self, node: &mut Node) {
        match &mut node.value {
            Value::Sequence(items) => items.iter_mut().for_each(|item| self.walk(item)),
            Value::Mapping(entries) => entries.iter_mut().for_each(|(_, value)| self.walk(value)),
            Value::String(text) if text.contains('$') => {
                let before = self.mistakes.len();
                *text = self.replace(text, node.at);
                if self.mistakes.len() > before {
                    self.failed.insert(node.at);
                }
                if node.writing == Writing::Plain {
                    node.writing = Writing::Replaced;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn replace(&mut self, text: &str, at: Position) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find('$') {
            let (before, from_dollar) = rest.split_at(start);
            out.push_str(before);
            if let Some(after) = from_dollar.strip_prefix("$$") {
                out.push('$');
                rest = after;
            } else if let Some(after) = from_dollar.strip_prefix("${") {
                let place = place(text, text.len() - from_dollar.len(), at);
                let Some((inside, after)) = after.split_once('}') else {
                    let message = format!("{} has no closing `}}`", quoted(from_dollar));
                    let hint = "write `$$` for a dollar sign";
                    self.mistakes.push(Mistake::new(place, message).hint(hint));
                    return out;
                };
                let place = sized(place, inside);
                out.push_str(&self.value(inside, place));
                rest = after;
            } else {
                out.push('$');
                rest = &from_dollar[1..];
            }
        }
        out.push_str(rest);
        out
    }

    /// The value for the text between `${` and `}`; empty if that is a mistake.
    fn value(&mut self, inside: &str, at: Position) -> String {
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if !is_name(name) {
            let message = format!("{} is not a variable", quoted(&format!("${{{inside}}}")));
            let hint = "write `${NAME}` or `${NAME:-default}`, and `$$` for a dollar sign";
            self.mistakes.push(Mistake::new(at, message).hint(hint));
            return String::new();
        }
        if default.is_some_and(|default| default.contains("${")) {
            let message = format!("the default of `{name}` has a variable in it");
            let hint = "a default is plain text up to the next `}`";
            self.mistakes.push(Mistake::new(at, message).hint(hint));
            return String::new();
        }
        let set = (self.variables)(name).filter(|value| default.is_none() || !value.is_empty());
        let Some(value) = set.or_else(|| default.map(str::to_owned)) else {
            let message = format!("variable {} is not set", quoted(name));
            let hint = format!("set it, or give a default: `${{{name}:-…}}`");
            self.mistakes.push(Mistake::new(at, message).hint(hint));
            return String::new();
        };
        let Some(left) = self.left.checked_sub(value.len()) else {
            if self.left > 0 {
                let message = format!("the values of all variables have more than {MAX_REPLACED} bytes");
                self.mistakes.push(Mistake::new(at, message));
            }
            self.left = 0;
            return String::new();
        };
        self.left = left;
        value
    }
}

fn is_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

/// The position of a part of a text, if the text is in the file unchanged (plain or in simple quotes); else the position
/// of the text.
fn place(text: &str, start: usize, at: Position) -> Position {
    if text.len() > MAX_COUNTED {
        return at;
    }
    let count = |text: &str| u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
    let all = count(text);
    let quote = match at.len.checked_sub(all) {
        Some(0) => 0,
        Some(2) => 1,
        _ => return at,
    };
    let before = count(&text[..start]);
    Position {
        line: at.line,
        column: at.column.saturating_add(before).saturating_add(quote),
        len: all - before,
    }
}

/// The position with the length of the variable that begins there, or with that of the text if it is shorter.
fn sized(at: Position, inside: &str) -> Position {
    let len = u32::try_from(inside.chars().count() + 3).unwrap_or(u32::MAX);
    Position { len: at.len.min(len), ..at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(yaml: &str) -> (serde_json::Value, Vec<String>) {
        let mut tree = crate::yaml::parse_tree(yaml).unwrap().0;
        let mut mistakes = Vec::new();
        let variables = |name: &str| match name {
            "PORT" => Some("8080".to_owned()),
            "NAME" => Some("demo".to_owned()),
            "EVIL" => Some("x\nnodes: [{id: evil}]".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        substitute(&mut tree, &variables, &mut mistakes);
        let mistakes = mistakes.into_iter().map(|mistake| {
            format!("{}:{}+{} {}", mistake.at.line, mistake.at.column, mistake.at.len, mistake.message)
        });
        (tree.to_json(), mistakes.collect())
    }

    #[test]
    fn a_variable_is_replaced_by_its_value_or_its_default() {
        for (text, expected) in [
            ("${NAME}", "demo"),
            ("a-${NAME}-${NAME}", "a-demo-demo"),
            ("${NONE:-other}", "other"),
            ("${EMPTY:-other}", "other"),
            ("${EMPTY}", ""),
            ("${NONE:-}", ""),
            ("$${NAME}", "${NAME}"),
            ("5$ and $x", "5$ and $x"),
        ] {
            let (json, mistakes) = replaced(&format!("\"{text}\""));
            assert_eq!((json, mistakes), (expected.into(), Vec::new()), "{text}");
        }
    }

    #[test]
    fn a_variable_without_quotes_may_be_a_number_and_with_quotes_is_text() {
        let (json, _) = replaced("a: ${PORT}\nb: \"${PORT}\"\nc: ${NONE:-true}\nd: ${PORT}/tcp");
        let expected = serde_json::json!({"a": 8080, "b": "8080", "c": true, "d": "8080/tcp"});
        assert_eq!(json, expected);
    }

    #[test]
    fn a_value_never_adds_structure() {
        let (json, mistakes) = replaced("a: ${EVIL}");
        assert_eq!(json["a"], "x\nnodes: [{id: evil}]");
        assert!(json.get("nodes").is_none());
        assert_eq!(mistakes, Vec::<String>::new());
    }

    #[test]
    fn every_bad_variable_is_a_mistake_at_its_own_position() {
        let (_, mistakes) = replaced("a: x${NONE}y${ALSO}\nb: '${no way}'\nc: ${PORT\nd: ${A:-${B}}");
        assert_eq!(
            mistakes,
            [
                "1:5+7 variable `NONE` is not set",
                "1:13+7 variable `ALSO` is not set",
                "2:5+9 `${no way}` is not a variable",
                "3:4+6 `${PORT` has no closing `}`",
                "4:4+9 the default of `A` has a variable in it",
            ]
        );
    }

    #[test]
    fn many_copies_of_a_long_value_are_refused() {
        let mut tree = crate::yaml::parse_tree(&format!("[{}]", "'${LONG}',".repeat(100))).unwrap().0;
        let mut mistakes = Vec::new();
        substitute(&mut tree, &|_| Some("x".repeat(100_000)), &mut mistakes);
        assert_eq!(mistakes.len(), 1);
    }
}
