//! Mistakes in a file: position, message and hint.

use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};

use crate::render::render;
use crate::tree::Position;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where it is.
    pub at: Position,
    /// What is wrong, lowercase and without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Related positions, each with a note.
    pub related: Vec<(Position, String)>,
}

impl Mistake {
    /// A mistake without a hint.
    pub fn new(at: Position, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), hint: None, related: Vec::new() }
    }

    /// Adds a hint on what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a related position.
    #[must_use]
    pub fn related(mut self, at: Position, note: impl Into<String>) -> Self {
        self.related.push((at, note.into()));
        self
    }
}

/// All mistakes in a file, printed like a compiler's errors. Correct them all, then try again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", render(.file, .source_text, .list))]
pub struct Mistakes {
    file: String,
    source_text: String,
    list: Vec<Mistake>,
}

impl Mistakes {
    /// The mistakes in a file with this name and text. They are sorted by position.
    pub fn new(file: impl Into<String>, source: impl Into<String>, mut list: Vec<Mistake>) -> Self {
        list.sort_by_key(|mistake| (mistake.at.line, mistake.at.column));
        Self { file: file.into(), source_text: source.into(), list }
    }

    /// The name of the file, as it was given.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The mistakes in the order of the file.
    pub fn list(&self) -> &[Mistake] {
        &self.list
    }
}

/// A list of `{file, line, column, message, hint, related}`.
impl Serialize for Mistakes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.list.len()))?;
        for mistake in &self.list {
            seq.serialize_element(&MistakeBody {
                file: &self.file,
                line: mistake.at.line,
                column: mistake.at.column,
                message: &mistake.message,
                hint: mistake.hint.as_deref(),
                related: mistake
                    .related
                    .iter()
                    .map(|(at, note)| RelatedBody { line: at.line, column: at.column, note })
                    .collect(),
            })?;
        }
        seq.end()
    }
}

#[derive(Serialize)]
struct MistakeBody<'a> {
    file: &'a str,
    line: u32,
    column: u32,
    message: &'a str,
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    related: Vec<RelatedBody<'a>>,
}

#[derive(Serialize)]
struct RelatedBody<'a> {
    line: u32,
    column: u32,
    note: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32, column: u32, len: u32) -> Position {
        Position { line, column, len }
    }

    #[test]
    fn mistakes_are_sorted_by_position_and_counted() {
        let list = vec![Mistake::new(at(2, 1, 1), "second"), Mistake::new(at(1, 1, 1), "first")];
        let text = Mistakes::new("a.yaml", "x\ny\n", list).to_string();
        assert!(text.find("first") < text.find("second"), "{text}");
        assert!(text.ends_with("2 mistakes in a.yaml"), "{text}");
    }

    #[test]
    fn programs_read_the_same_mistakes_as_json() {
        let list = vec![Mistake::new(at(2, 3, 1), "wrong").hint("right")];
        let json = serde_json::to_value(Mistakes::new("a.yaml", "", list)).unwrap();
        assert_eq!(
            json,
            serde_json::json!([{"file": "a.yaml", "line": 2, "column": 3, "message": "wrong", "hint": "right"}])
        );
    }
}
