//! The syntax tree of a query, and how it is written as text.

use std::fmt;
use std::ops::Bound;

use super::ParseOptions;
use super::condition::{Condition, Minimum};
use super::functions::Functions;

/// A query as a syntax tree, with how its text was understood.
///
/// Its text, by `Display`, parses to the same tree with the same options.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ast {
    pub(super) root: Node,
    pub(super) options: ParseOptions,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// Every document.
    All,
    /// No document.
    Nothing,
    /// At least one clause. Without `Must` clauses, at least one `Should` clause has to match, if there is any; with `MustNot`
    /// clauses only, it matches all documents but those.
    Boolean(Vec<Clause>),
    Boosted(Box<Self>, f32),
    Leaf(Leaf),
    /// As Elasticsearch combines clauses: words without terms match nothing.
    Bool(Bool),
    /// What matches scores 1.
    Constant(Box<Self>),
    /// The best of several, and a part of the others.
    Best(Vec<Self>, f32),
    Functions(Box<Functions>),
    Condition(Condition),
}

/// Clauses as Elasticsearch combines them. Filters do not score.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Bool {
    pub(crate) must: Vec<Node>,
    pub(crate) filter: Vec<Node>,
    pub(crate) should: Vec<Node>,
    pub(crate) must_not: Vec<Node>,
    /// How many `should` clauses must match; one, if there is nothing else that must.
    pub(crate) minimum: Option<Minimum>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Clause {
    pub(crate) occur: Occur,
    pub(crate) node: Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occur {
    Should,
    Must,
    MustNot,
}

/// A condition on one field, or on the default fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Leaf {
    /// Its place among the leaves, from 0, in the order of the text.
    pub(crate) number: u32,
    pub(crate) field: Option<String>,
    pub(crate) matches: Matches,
    pub(crate) span: Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Matches {
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
    /// A regular expression as Lucene writes it.
    Regexp(String),
}

/// A piece of a wildcard pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
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
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
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

    /// The nodes directly in this one.
    fn children(&self) -> Vec<&Self> {
        match self {
            Self::All | Self::Nothing | Self::Leaf(_) | Self::Condition(_) => Vec::new(),
            Self::Boolean(clauses) => clauses.iter().map(|clause| &clause.node).collect(),
            Self::Boosted(node, _) | Self::Constant(node) => vec![node],
            Self::Best(nodes, _) => nodes.iter().collect(),
            Self::Bool(all) => {
                let (must, should) = (all.must.iter().chain(&all.filter), all.should.iter());
                must.chain(should).chain(&all.must_not).collect()
            }
            Self::Functions(functions) => {
                let filters = functions.functions.iter().filter_map(|function| function.filter.as_ref());
                std::iter::once(&functions.query).chain(filters).collect()
            }
        }
    }

    fn children_mut(&mut self) -> Vec<&mut Self> {
        match self {
            Self::All | Self::Nothing | Self::Leaf(_) | Self::Condition(_) => Vec::new(),
            Self::Boolean(clauses) => clauses.iter_mut().map(|clause| &mut clause.node).collect(),
            Self::Boosted(node, _) | Self::Constant(node) => vec![node],
            Self::Best(nodes, _) => nodes.iter_mut().collect(),
            Self::Bool(all) => {
                let (must, should) = (all.must.iter_mut().chain(&mut all.filter), all.should.iter_mut());
                must.chain(should).chain(&mut all.must_not).collect()
            }
            Self::Functions(functions) => {
                let filters = functions.functions.iter_mut().filter_map(|function| function.filter.as_mut());
                std::iter::once(&mut functions.query).chain(filters).collect()
            }
        }
    }

    /// Visits this node and all below it.
    fn visit<'a>(&'a self, each: &mut impl FnMut(&'a Self)) {
        each(self);
        for child in self.children() {
            child.visit(each);
        }
    }

    /// Numbers the leaves and conditions in their order, from the next number.
    fn number(&mut self, next: &mut u32) {
        match self {
            Self::Leaf(leaf) => {
                leaf.number = *next;
                *next += 1;
            }
            Self::Condition(condition) => {
                condition.number = *next;
                *next += condition.numbers();
            }
            other => other.children_mut().into_iter().for_each(|child| child.number(next)),
        }
    }
}

impl Ast {
    /// The leaves in the order of their numbers.
    pub(super) fn leaves(&self) -> Vec<&Leaf> {
        let mut leaves = Vec::new();
        self.root.visit(&mut |node| {
            if let Node::Leaf(leaf) = node {
                leaves.push(leaf);
            }
        });
        leaves
    }

    /// The conditions in the order of their numbers.
    pub(super) fn conditions(&self) -> Vec<&Condition> {
        let mut conditions = Vec::new();
        self.root.visit(&mut |node| {
            if let Node::Condition(condition) = node {
                conditions.push(condition);
            }
        });
        conditions
    }

    /// All functions of scores.
    pub(super) fn functions(&self) -> Vec<&Functions> {
        let mut functions = Vec::new();
        self.root.visit(&mut |node| {
            if let Node::Functions(found) = node {
                functions.push(found.as_ref());
            }
        });
        functions
    }

    /// The query that a tree is; its leaves get their numbers.
    pub(crate) fn of_tree(mut root: Node) -> Self {
        root.number(&mut 0);
        Self { root, options: ParseOptions::default() }
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
            // Not written as text by any user: for messages only.
            Self::Nothing
            | Self::Bool(_)
            | Self::Constant(_)
            | Self::Best(..)
            | Self::Functions(_)
            | Self::Condition(_) => write!(f, "{self:?}"),
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
            Matches::Regexp(text) => write!(f, "/{text}/"),
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
