//! The syntax tree of a query, and how it is written as text.

use std::fmt;
use std::ops::Bound;

use super::ParseOptions;

/// A query as a syntax tree, with how its text was understood.
///
/// Its text, by `Display`, parses to the same tree with the same options.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ast {
    pub(super) root: Node,
    pub(super) options: ParseOptions,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Every document.
    All,
    /// At least one clause. Without `Must` clauses, at least one `Should` clause has to match, if there is any; with `MustNot`
    /// clauses only, it matches all documents but those.
    Boolean(Vec<Clause>),
    Boosted(Box<Self>, f32),
    Leaf(Leaf),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Clause {
    pub(super) occur: Occur,
    pub(super) node: Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occur {
    Should,
    Must,
    MustNot,
}

/// A condition on one field, or on the default fields.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaf {
    /// Its place among the leaves, from 0, in the order of the text.
    pub(super) number: u32,
    pub(super) field: Option<String>,
    pub(super) matches: Matches,
    pub(super) span: Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Matches {
    Word(String),
    Phrase {
        text: String,
        slop: u32,
    },
    /// Words that start with this.
    Prefix(String),
    Wildcard(Vec<Piece>),
    Fuzzy {
        word: String,
        /// The number of edits; by the length of the word if absent.
        distance: Option<u8>,
    },
    /// At least one side is bounded.
    Range {
        lower: Bound<String>,
        upper: Bound<String>,
    },
    /// The field has a value.
    Exists,
}

/// A piece of a wildcard pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// `?`: one character.
    One,
    /// `*`: any characters, also none.
    Many,
}

/// Where the word, phrase or range of a leaf was written: positions of characters, from 0; the end is exclusive.
///
/// All spans are equal: where a leaf was written is no part of what it means.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl PartialEq for Span {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Node {
    /// A boolean node, or the node of its only clause.
    pub(super) fn boolean(mut clauses: Vec<Clause>) -> Self {
        match clauses.as_slice() {
            [only] if only.occur != Occur::MustNot => clauses.remove(0).node,
            _ => Self::Boolean(clauses),
        }
    }

    fn visit<'a>(&'a self, each: &mut impl FnMut(&'a Leaf)) {
        match self {
            Self::All => {}
            Self::Boolean(clauses) => clauses.iter().for_each(|clause| clause.node.visit(each)),
            Self::Boosted(node, _) => node.visit(each),
            Self::Leaf(leaf) => each(leaf),
        }
    }
}

impl Ast {
    /// The leaves in the order of their numbers.
    pub(super) fn leaves(&self) -> Vec<&Leaf> {
        let mut leaves = Vec::new();
        self.root.visit(&mut |leaf| leaves.push(leaf));
        leaves
    }
}

impl fmt::Display for Ast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.root)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Leaf(leaf) => write!(f, "{leaf}"),
            Self::Boosted(node, boost) => write!(f, "{node}^{boost}"),
            Self::Boolean(clauses) => {
                let any = clauses.iter().all(|clause| clause.occur == Occur::Should);
                f.write_str("(")?;
                for (index, clause) in clauses.iter().enumerate() {
                    match (index, any) {
                        (0, _) => {}
                        (_, true) => f.write_str(" OR ")?,
                        (_, false) => f.write_str(" ")?,
                    }
                    match clause.occur {
                        Occur::Should => {}
                        Occur::Must => f.write_str("+")?,
                        Occur::MustNot => f.write_str("-")?,
                    }
                    write!(f, "{}", clause.node)?;
                }
                f.write_str(")")
            }
        }
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{}:", Escaped(field))?;
        }
        match &self.matches {
            Matches::Word(word) => write!(f, "{}", Escaped(word)),
            Matches::Phrase { text, slop } => {
                write!(f, "{}", Quoted(text))?;
                match slop {
                    0 => Ok(()),
                    slop => write!(f, "~{slop}"),
                }
            }
            Matches::Prefix(prefix) => write!(f, "{}*", Escaped(prefix)),
            Matches::Wildcard(pieces) => pieces.iter().try_for_each(|piece| match piece {
                Piece::Text(text) => write!(f, "{}", Escaped(text)),
                Piece::One => f.write_str("?"),
                Piece::Many => f.write_str("*"),
            }),
            Matches::Fuzzy { word, distance } => match distance {
                Some(distance) => write!(f, "{}~{distance}", Escaped(word)),
                None => write!(f, "{}~", Escaped(word)),
            },
            Matches::Range { lower, upper } => {
                f.write_str(if matches!(lower, Bound::Excluded(_)) { "{" } else { "[" })?;
                write_bound(f, lower)?;
                f.write_str(" TO ")?;
                write_bound(f, upper)?;
                f.write_str(if matches!(upper, Bound::Excluded(_)) { "}" } else { "]" })
            }
            Matches::Exists => f.write_str("*"),
        }
    }
}

fn write_bound(f: &mut fmt::Formatter<'_>, bound: &Bound<String>) -> fmt::Result {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => write!(f, "{}", Quoted(value)),
        Bound::Unbounded => f.write_str("*"),
    }
}

/// A word in which everything that could mean something else is escaped.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `AND`, `OR`, `NOT` and `TO` are operators only without an escape.
        if matches!(self.0, "AND" | "OR" | "NOT" | "TO") {
            f.write_str("\\")?;
        }
        for c in self.0.chars() {
            if c.is_whitespace() || "\\\"()[]{}:^~*?+-<>=".contains(c) {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        Ok(())
    }
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}
