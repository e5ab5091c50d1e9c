//! The smallest parts of a query: words, patterns, phrases and ranges, with their fields.

use std::ops::Bound;

use super::super::QueryError;
use super::super::ast::{Leaf, Matches, Node, Piece, Span};
use super::{Dialect, LITERALLY, MAX_CLAUSES, MAX_PATTERN, Parser, error};
use crate::query::regexp::Regexp;

const MAX_SLOP: u32 = 1000;

impl Parser {
    /// A group, a phrase, a range or a word, with its field.
    pub(super) fn atom(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let at = self.at;
        match self.peek() {
            Some('(') => return self.group(field),
            Some('"') => return self.phrase(field),
            Some('[' | '{') => return self.range(field),
            _ => {}
        }
        let is_elastic = self.dialect == Dialect::Elastic;
        match self.peek() {
            Some('>' | '<') if field.is_some() || is_elastic => return self.comparison(field),
            Some('/') if is_elastic => return self.regexp(field),
            _ => {}
        }
        let pieces = self.word(false)?;
        if self.peek() != Some(':') {
            return self.pattern(field, pieces, at);
        }
        let name = match pieces.as_slice() {
            [Piece::Text(name)] => name.clone(),
            [Piece::Many] if self.text[self.at..].starts_with(&[':', '*']) => {
                self.at += 2;
                return self.all(None, at);
            }
            [] => {
                return error(at, "the name of a field is missing before `:`", LITERALLY);
            }
            _ => {
                return error(
                    at,
                    "the name of a field can't have wildcards",
                    "name several fields: `(title:a OR body:a)`",
                );
            }
        };
        self.at += 1;
        if is_elastic {
            self.skip_space();
            if name == "_exists_" {
                return self.exists(at);
            }
        }
        let field = Some(name.as_str());
        let start = self.at;
        match self.peek() {
            Some('/') if is_elastic => self.regexp(field),
            None | Some(')') => self.value_missing(&name, at),
            Some(c) if c.is_whitespace() => self.value_missing(&name, at),
            Some('(') => self.group(field),
            Some('"') => self.phrase(field),
            Some('[' | '{') => self.range(field),
            Some('>' | '<') => self.comparison(field),
            Some(_) => {
                let pieces = self.word(true)?;
                self.pattern(field, pieces, start)
            }
        }
    }

    fn value_missing<T>(&self, field: &str, at: usize) -> Result<T, QueryError> {
        error(
            at,
            format!("a value is missing after `{field}:`"),
            "write the value without a space after the colon; to search for text with a colon, put it in quotes",
        )
    }

    fn group(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let open = self.at;
        self.at += 1;
        let inner = self.deeper(|parser| parser.sequence(field))?;
        if !self.eat(')') {
            return error(open, "the closing parenthesis is missing", LITERALLY);
        }
        match inner {
            Some(node) => Ok(node),
            None => error(open, "there is nothing between the parentheses", LITERALLY),
        }
    }

    fn phrase(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let start = self.at;
        let text = self.quoted()?;
        let end = self.at;
        let mut slop = 0;
        if self.eat('~') {
            let at = self.at;
            match self.number().parse() {
                Ok(number) if number <= MAX_SLOP => slop = number,
                _ => {
                    return error(
                        at,
                        format!("`~` after a phrase needs a number from 0 to {MAX_SLOP}"),
                        "for example `\"http proxy\"~2`: the words may be two positions apart",
                    );
                }
            }
        }
        if matches!(self.peek(), Some('*' | '?')) {
            return error(self.at, "a phrase can't have wildcards", "search for the words one by one");
        }
        self.leaf(field, Matches::Phrase { text, slop }, start, end)
    }

    /// A regular expression between slashes. A backslash before a slash is no part of it.
    fn regexp(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            match (self.peek(), self.text.get(self.at + 1)) {
                (None, _) => return error(start, "the closing slash is missing", LITERALLY),
                (Some('/'), _) => break,
                (Some('\\'), Some('/')) => {
                    text.push('/');
                    self.at += 1;
                }
                (Some('\\'), Some(next)) => {
                    text.extend(['\\', *next]);
                    self.at += 1;
                }
                (Some(c), _) => text.push(c),
            }
            self.at += 1;
        }
        self.at += 1;
        if let Err(message) = Regexp::new(&text, false) {
            return error(start, format!("the regular expression can't be used: {message}"), LITERALLY);
        }
        self.leaf(field, Matches::Regexp(text), start, self.at)
    }

    /// The field after `_exists_:`.
    fn exists(&mut self, start: usize) -> Result<Node, QueryError> {
        match self.word(true)?.as_slice() {
            [Piece::Text(field)] => self.leaf(Some(field), Matches::Exists, start, self.at),
            _ => error(start, "the name of a field is missing after `_exists_:`", LITERALLY),
        }
    }

    /// A quoted text, from its first quote.
    fn quoted(&mut self) -> Result<String, QueryError> {
        let open = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return error(open, "the closing quote is missing", LITERALLY),
                Some('"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some('\\') => text.push(self.escaped()?),
                Some(c) => {
                    text.push(c);
                    self.at += 1;
                }
            }
        }
    }

    fn escaped(&mut self) -> Result<char, QueryError> {
        self.at += 1;
        match self.peek() {
            Some(c) => {
                self.at += 1;
                Ok(c)
            }
            None => error(
                self.at - 1,
                "a character is missing after the backslash",
                "write two backslashes to search for one",
            ),
        }
    }

    fn range(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let start = self.at;
        if field.is_none() && self.dialect == Dialect::Native {
            return error(
                start,
                "a range needs a field",
                "for example `size:[1 TO 10]`; to search for the character itself, put a backslash before it",
            );
        }
        let lower_included = self.peek() == Some('[');
        self.at += 1;
        let lower = self.range_value(start)?;
        self.skip_space();
        if !matches!(self.text[self.at..], ['T', 'O', next, ..] if next.is_whitespace() || "]}\"".contains(next))
        {
            return error(self.at, "`TO` is missing in the range", "for example `size:[1 TO 10]`");
        }
        self.at += 2;
        let upper = self.range_value(start)?;
        self.skip_space();
        let upper_included = match self.peek() {
            Some(']') => true,
            Some('}') => false,
            _ => return error(start, "the range is not closed", "for example `size:[1 TO 10]`"),
        };
        self.at += 1;
        let bound = |value: Option<String>, included| match value {
            None => Bound::Unbounded,
            Some(value) if included => Bound::Included(value),
            Some(value) => Bound::Excluded(value),
        };
        let matches = match (bound(lower, lower_included), bound(upper, upper_included)) {
            (Bound::Unbounded, Bound::Unbounded) => Matches::Exists,
            (lower, upper) => Matches::Range { lower, upper },
        };
        self.leaf(field, matches, start, self.at)
    }

    /// A side of a range; `None` is `*`.
    fn range_value(&mut self, start: usize) -> Result<Option<String>, QueryError> {
        self.skip_space();
        if self.peek() == Some('"') {
            return self.quoted().map(Some);
        }
        let at = self.at;
        let value = self.raw_value("]}")?;
        let raw = &self.text[at..self.at];
        match raw {
            ['*'] => Ok(None),
            [] | ['T', 'O'] => error(
                start,
                "a side of the range is missing",
                "for example `size:[1 TO 10]`, or `size:[1 TO *]` without an end",
            ),
            _ => Ok(Some(value)),
        }
    }

    /// Everything up to a space or one of some characters.
    fn raw_value(&mut self, ends: &str) -> Result<String, QueryError> {
        let mut value = String::new();
        while let Some(c) = self.peek() {
            if c.is_whitespace() || ends.contains(c) {
                break;
            }
            if c == '\\' {
                value.push(self.escaped()?);
            } else {
                value.push(c);
                self.at += 1;
            }
        }
        Ok(value)
    }

    fn comparison(&mut self, field: Option<&str>) -> Result<Node, QueryError> {
        let start = self.at;
        let greater = self.eat('>');
        if !greater {
            self.at += 1;
        }
        let included = self.eat('=');
        let at = self.at;
        let value = match self.peek() {
            Some('"') => self.quoted()?,
            _ => self.raw_value("()^\"")?,
        };
        if self.at == at {
            return error(
                at,
                "a value is missing after the comparison",
                "for example `size:>100`, without a space",
            );
        }
        let bound = if included { Bound::Included(value) } else { Bound::Excluded(value) };
        let (lower, upper) = match greater {
            true => (bound, Bound::Unbounded),
            false => (Bound::Unbounded, bound),
        };
        self.leaf(field, Matches::Range { lower, upper }, start, self.at)
    }

    /// The pieces of a word; a colon belongs to it only after a field.
    fn word(&mut self, colon: bool) -> Result<Vec<Piece>, QueryError> {
        let mut pieces = Vec::new();
        while let Some(c) = self.peek() {
            if ends_word(c) && !(colon && c == ':') {
                break;
            }
            match c {
                '*' => {
                    if pieces.last() != Some(&Piece::Many) {
                        pieces.push(Piece::Many);
                    }
                    self.at += 1;
                }
                '?' => {
                    pieces.push(Piece::One);
                    self.at += 1;
                }
                _ => {
                    let c = match c {
                        '\\' => self.escaped()?,
                        c => {
                            self.at += 1;
                            c
                        }
                    };
                    match pieces.last_mut() {
                        Some(Piece::Text(text)) => text.push(c),
                        _ => pieces.push(Piece::Text(c.to_string())),
                    }
                }
            }
        }
        Ok(pieces)
    }

    /// A word, prefix, wildcard pattern or misspelled word, with what follows it.
    fn pattern(
        &mut self,
        field: Option<&str>,
        mut pieces: Vec<Piece>,
        start: usize,
    ) -> Result<Node, QueryError> {
        let end = self.at;
        if self.peek() == Some('~') {
            return match pieces.as_slice() {
                [Piece::Text(word)] => {
                    let word = word.clone();
                    self.fuzzy(field, word, start)
                }
                _ => error(
                    end,
                    "`~` needs a word or a phrase before it",
                    "a word with wildcards can't be misspelled as well",
                ),
            };
        }
        if pieces.iter().map(Piece::len).sum::<usize>() > MAX_PATTERN && pieces.len() > 1 {
            return error(start, format!("a pattern may have {MAX_PATTERN} bytes"), "");
        }
        let matches = match pieces.as_mut_slice() {
            [] => {
                let message = match self.peek() {
                    Some(c) => format!("`{c}` is not expected here"),
                    None => "something to search for is missing at the end".to_owned(),
                };
                return error(start, message, LITERALLY);
            }
            [Piece::Many] => return self.all(field, start),
            [Piece::Text(word)] => Matches::Word(std::mem::take(word)),
            [Piece::Text(prefix), Piece::Many] => Matches::Prefix(std::mem::take(prefix)),
            _ => Matches::Wildcard(std::mem::take(&mut pieces)),
        };
        self.leaf(field, matches, start, end)
    }

    fn fuzzy(&mut self, field: Option<&str>, word: String, start: usize) -> Result<Node, QueryError> {
        let end = self.at;
        self.at += 1;
        let distance = match self.number().as_str() {
            "" => None,
            "0" => Some(0),
            "1" => Some(1),
            "2" => Some(2),
            _ => {
                return error(
                    end,
                    "the number of edits after `~` is 0, 1 or 2",
                    "`word~` chooses by the length of the word",
                );
            }
        };
        if word.chars().count() > MAX_PATTERN {
            return error(start, format!("a misspelled word may have {MAX_PATTERN} characters"), "");
        }
        self.leaf(field, Matches::Fuzzy { word, distance }, start, end)
    }

    /// `*`: everything, or everything that has the field.
    fn all(&mut self, field: Option<&str>, start: usize) -> Result<Node, QueryError> {
        match field {
            Some(field) => self.leaf(Some(field), Matches::Exists, start, self.at),
            None => {
                self.count(start)?;
                Ok(Node::All)
            }
        }
    }

    fn leaf(
        &mut self,
        field: Option<&str>,
        matches: Matches,
        start: usize,
        end: usize,
    ) -> Result<Node, QueryError> {
        self.count(start)?;
        let number = self.leaves;
        self.leaves += 1;
        Ok(Node::Leaf(Leaf { number, field: field.map(str::to_owned), matches, span: Span { start, end } }))
    }

    fn count(&mut self, at: usize) -> Result<(), QueryError> {
        if self.clauses == MAX_CLAUSES {
            return error(at, format!("the query has more than {MAX_CLAUSES} clauses"), "");
        }
        self.clauses += 1;
        Ok(())
    }
}

/// Whether a character ends a word, unless it is escaped.
fn ends_word(c: char) -> bool {
    c.is_whitespace() || "\"()[]{}^~:".contains(c)
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::One | Self::Many => 1,
        }
    }
}
