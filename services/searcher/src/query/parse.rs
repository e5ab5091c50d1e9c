//! Parses the text of a query: one pass from left to right, without going back.
//!
//! From the loosest to the tightest: clauses side by side, `OR`, `AND`, then `NOT`, `+` and `-`. So `a b AND c` is `a (b AND c)`.

mod atom;

use super::ast::{Ast, Clause, Node, Occur};
use super::{ParseOptions, QueryError};

/// The longest text of a query, in bytes.
const MAX_TEXT: usize = 64 << 10;
/// The most words, phrases and ranges in a query.
const MAX_CLAUSES: u32 = 1024;
/// The deepest nesting of parentheses and `NOT`.
const MAX_DEPTH: u32 = 50;
pub(crate) const MAX_BOOST: f32 = 1e6;
/// The longest word that may be misspelled, in characters, and the longest wildcard pattern, in bytes.
pub(crate) const MAX_PATTERN: usize = 100;

pub(super) fn parse(text: &str, options: &ParseOptions) -> Result<Ast, QueryError> {
    let root = parse_tree(text, options.all_words, Dialect::Native)?;
    Ok(Ast { root, options: options.clone() })
}

/// What is understood beside the common grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Native,
    /// Elasticsearch's `query_string`: `&&`, `||` and `!`, regular expressions between slashes, `_exists_:field`, ranges without a
    /// field, and spaces after the colon of a field.
    Elastic,
}

pub(super) fn parse_tree(text: &str, all_words: bool, dialect: Dialect) -> Result<Node, QueryError> {
    if text.len() > MAX_TEXT {
        return Err(QueryError {
            message: format!("the query has {} bytes; at most {MAX_TEXT} are allowed", text.len()),
            at: None,
            hint: None,
        });
    }
    let mut parser =
        Parser { text: text.chars().collect(), at: 0, clauses: 0, leaves: 0, depth: 0, all_words, dialect };
    let root = match parser.sequence(None)? {
        Some(root) => root,
        None if parser.peek().is_none() => Node::All,
        None => return Err(parser.unbalanced()),
    };
    if parser.peek().is_some() {
        return Err(parser.unbalanced());
    }
    Ok(root)
}

struct Parser {
    text: Vec<char>,
    at: usize,
    clauses: u32,
    leaves: u32,
    depth: u32,
    all_words: bool,
    dialect: Dialect,
}

/// A node and the sign before it.
struct Operand {
    sign: Option<Occur>,
    node: Node,
    at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    And,
    Or,
    Not,
}

impl Operator {
    fn name(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::Or => "OR",
            Self::Not => "NOT",
        }
    }
}

fn error<T>(at: usize, message: impl Into<String>, hint: &str) -> Result<T, QueryError> {
    Err(QueryError {
        message: message.into(),
        at: Some(at),
        hint: (!hint.is_empty()).then(|| hint.to_owned()),
    })
}

const LITERALLY: &str =
    "to search for the character itself, put a backslash before it, or put the text in quotes";

impl Parser {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn eat(&mut self, c: char) -> bool {
        let eaten = self.peek() == Some(c);
        self.at += usize::from(eaten);
        eaten
    }

    fn unbalanced(&self) -> QueryError {
        QueryError {
            message: "this parenthesis closes nothing".to_owned(),
            at: Some(self.at),
            hint: Some(LITERALLY.to_owned()),
        }
    }

    fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T, QueryError>) -> Result<T, QueryError> {
        if self.depth == MAX_DEPTH {
            return error(self.at, format!("it is nested more than {MAX_DEPTH} deep"), "");
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Clauses side by side, up to the end or a closing parenthesis; `None` if there is none.
    fn sequence(&mut self, field: Option<&str>) -> Result<Option<Node>, QueryError> {
        let mut clauses = Vec::new();
        loop {
            self.skip_space();
            if matches!(self.peek(), None | Some(')')) {
                break;
            }
            let operand = self.disjunction(field)?;
            let plain = if self.all_words { Occur::Must } else { Occur::Should };
            clauses.push(Clause { occur: operand.sign.unwrap_or(plain), node: operand.node });
        }
        Ok((!clauses.is_empty()).then(|| Node::boolean(clauses)))
    }

    fn disjunction(&mut self, field: Option<&str>) -> Result<Operand, QueryError> {
        let first = self.conjunction(field)?;
        if self.operator() != Some(Operator::Or) {
            return Ok(first);
        }
        let at = first.at;
        let mut operands = vec![first];
        while self.operator() == Some(Operator::Or) {
            self.operand_follows(Operator::Or)?;
            operands.push(self.conjunction(field)?);
        }
        let mut clauses = Vec::with_capacity(operands.len());
        for operand in operands {
            let node = match operand.sign {
                None | Some(Occur::Should) => operand.node,
                Some(Occur::MustNot) => not(operand.node),
                Some(Occur::Must) => {
                    return error(
                        operand.at,
                        "`+` can't be combined with `OR`",
                        "put parentheses around the alternatives: `+a (b OR c)`",
                    );
                }
            };
            clauses.push(Clause { occur: Occur::Should, node });
        }
        Ok(Operand { sign: None, node: Node::boolean(clauses), at })
    }

    fn conjunction(&mut self, field: Option<&str>) -> Result<Operand, QueryError> {
        let first = self.operand(field)?;
        if self.operator() != Some(Operator::And) {
            return Ok(first);
        }
        let at = first.at;
        let mut operands = vec![first];
        while self.operator() == Some(Operator::And) {
            self.operand_follows(Operator::And)?;
            operands.push(self.operand(field)?);
        }
        let clauses = operands
            .into_iter()
            .map(|operand| Clause { occur: operand.sign.unwrap_or(Occur::Must), node: operand.node });
        Ok(Operand { sign: None, node: Node::boolean(clauses.collect()), at })
    }

    /// The operator at the present position, after spaces.
    fn operator(&mut self) -> Option<Operator> {
        self.skip_space();
        if self.dialect == Dialect::Elastic {
            match self.text[self.at..] {
                ['&', '&', ..] => return Some(Operator::And),
                ['|', '|', ..] => return Some(Operator::Or),
                _ => {}
            }
        }
        [Operator::And, Operator::Or, Operator::Not].into_iter().find(|operator| {
            let name = operator.name();
            let rest = &self.text[self.at..];
            rest.len() >= name.len()
                && rest.iter().copied().zip(name.chars()).all(|(a, b)| a == b)
                && rest.get(name.len()).is_none_or(|&next| next.is_whitespace() || "\"()[]{}".contains(next))
        })
    }

    /// Skips an operator, and checks that something follows.
    fn operand_follows(&mut self, operator: Operator) -> Result<(), QueryError> {
        let at = self.at;
        self.at += if matches!(self.peek(), Some('&' | '|')) { 2 } else { operator.name().len() };
        self.skip_space();
        match self.peek() {
            None | Some(')') => error(
                at,
                format!("something to search for is missing after `{}`", operator.name()),
                "write `and`, `or` and `not` in lower case to search for these words",
            ),
            Some(_) => Ok(()),
        }
    }

    fn operand(&mut self, field: Option<&str>) -> Result<Operand, QueryError> {
        self.skip_space();
        let at = self.at;
        match self.operator() {
            Some(Operator::Not) => {
                self.operand_follows(Operator::Not)?;
                let inner = self.deeper(|parser| parser.operand(field))?;
                let node = match inner.sign {
                    Some(Occur::MustNot) => not(inner.node),
                    _ => inner.node,
                };
                return Ok(Operand { sign: Some(Occur::MustNot), node, at });
            }
            Some(operator) => {
                return error(
                    at,
                    format!("something to search for is missing before `{}`", operator.name()),
                    "write `and`, `or` and `not` in lower case to search for these words",
                );
            }
            None => {}
        }
        let sign = match self.peek() {
            Some('+') => Some(Occur::Must),
            Some('-') => Some(Occur::MustNot),
            Some('!') if self.dialect == Dialect::Elastic => Some(Occur::MustNot),
            _ => None,
        };
        // A sign before a space is text: `a - b`.
        let alone = self.text.get(self.at + 1).is_none_or(|&next| next.is_whitespace() || next == ')');
        let sign = sign.filter(|_| !alone);
        self.at += usize::from(sign.is_some());
        if sign.is_some()
            && let Some(operator) = self.operator()
        {
            return error(self.at, format!("`{}` can't follow a sign", operator.name()), LITERALLY);
        }
        let mut node = self.atom(field)?;
        while self.peek() == Some('^') {
            node = self.boost(node)?;
        }
        match self.peek() {
            Some(c) if !self.may_follow(c) => {
                error(self.at, format!("`{c}` is not expected here"), LITERALLY)
            }
            _ => Ok(Operand { sign, node, at }),
        }
    }

    /// Whether an operand may be followed by a character: not by a letter after a number such as in `a~1b`.
    fn may_follow(&self, c: char) -> bool {
        match self.text.get(self.at.wrapping_sub(1)) {
            Some(')' | '"') => !"]}:~^*?".contains(c),
            _ => c.is_whitespace() || "\"()".contains(c),
        }
    }

    fn boost(&mut self, node: Node) -> Result<Node, QueryError> {
        let at = self.at;
        self.at += 1;
        let number = self.number();
        let (node, before) = match node {
            Node::Boosted(node, before) => (*node, before),
            node => (node, 1.0),
        };
        match number.parse::<f32>().map(|boost| boost * before) {
            Ok(boost) if (0.0..=MAX_BOOST).contains(&boost) => Ok(Node::Boosted(Box::new(node), boost)),
            _ => error(
                at,
                format!("`^` needs a number from 0 to {MAX_BOOST}"),
                "for example `title:tantivy^2`",
            ),
        }
    }

    fn number(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit() || c == '.') {
            self.at += 1;
        }
        self.text[start..self.at].iter().collect()
    }
}

fn not(node: Node) -> Node {
    Node::Boolean(vec![Clause { occur: Occur::MustNot, node }])
}

#[cfg(test)]
mod tests;
