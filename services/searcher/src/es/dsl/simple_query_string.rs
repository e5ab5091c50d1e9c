//! `simple_query_string`: a text that is never wrong. What can't be understood is taken for words.

use serde_json::Value;

use super::DslError;
use super::boosted;
use super::keys::Keys;
use super::words::{MAX_EXPANSIONS, condition, default_leaf, fields};
use crate::query::condition::{Distance, Fuzzy, Like, NoWords, Test, Words};
use crate::query::{Bool, MAX_PATTERN, Matches, Node};

const NAME: &str = "simple_query_string";
/// The longest text, in bytes.
const MAX_TEXT: usize = 64 << 10;
/// The most words and phrases; the rest is left out.
const MAX_CLAUSES: usize = 1_024;
const MAX_DEPTH: usize = 20;

const KNOWN: [&str; 12] = [
    "query",
    "fields",
    "default_operator",
    "flags",
    "analyze_wildcard",
    "lenient",
    "minimum_should_match",
    "boost",
    "fuzzy_prefix_length",
    "fuzzy_max_expansions",
    "fuzzy_transpositions",
    "auto_generate_synonyms_phrase_query",
];

pub(super) fn read(body: &Value) -> Result<Node, DslError> {
    let keys = Keys::of(NAME, body, &KNOWN)?;
    keys.only("flags", &["ALL"])?;
    keys.only("auto_generate_synonyms_phrase_query", &["true"])?;
    keys.flag("analyze_wildcard")?;
    let text = keys.needed("query", keys.scalar("query")?)?.text;
    if text.len() > MAX_TEXT {
        return Err(DslError::illegal(format!("[{NAME}] query: a text may have {MAX_TEXT} bytes")));
    }
    let listed = match keys.raw("fields") {
        None => None,
        Some(Value::Array(list)) => fields(NAME, list)?,
        Some(_) => return Err(keys.wrong("fields", "an array")),
    };
    let mut parser = Parser {
        text: text.chars().collect(),
        at: 0,
        clauses: 0,
        depth: 0,
        all_words: keys.word("default_operator", &[("or", false), ("and", true)])?.unwrap_or(false),
        fields: listed,
        is_lenient: keys.flag("lenient")?.unwrap_or(false),
        fuzzy: Fuzzy {
            distance: Distance::Edits(0),
            prefix: keys.whole("fuzzy_prefix_length", 1_000)?.unwrap_or(0),
            transpositions: keys.flag("fuzzy_transpositions")?.unwrap_or(true),
            most: keys
                .whole("fuzzy_max_expansions", usize::MAX)?
                .unwrap_or(MAX_EXPANSIONS)
                .min(MAX_EXPANSIONS),
        },
    };
    let mut root = parser.sequence().unwrap_or(Node::Nothing);
    if let (Node::Bool(all), Some(minimum)) = (&mut root, keys.minimum()?)
        && !all.should.is_empty()
    {
        all.minimum = Some(minimum);
    }
    keys.boosted(root)
}

struct Parser {
    text: Vec<char>,
    at: usize,
    clauses: usize,
    depth: usize,
    all_words: bool,
    fields: Option<Vec<(String, f32)>>,
    is_lenient: bool,
    fuzzy: Fuzzy,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    /// Clauses up to the end, or to a closing parenthesis if this is in one.
    fn sequence(&mut self) -> Option<Node> {
        let (mut all, mut joined_by) = (None, None);
        let (mut operator, mut is_not) = (None, false);
        while let Some(c) = self.peek() {
            let node = match c {
                ')' => {
                    self.at += 1;
                    if self.depth > 0 {
                        break;
                    }
                    continue;
                }
                '(' if self.depth < MAX_DEPTH => {
                    self.at += 1;
                    self.depth += 1;
                    let inner = self.sequence();
                    self.depth -= 1;
                    inner
                }
                // It is too deep: what is in it belongs to the clause around it.
                '(' => {
                    self.at += 1;
                    continue;
                }
                '"' => self.phrase(),
                '+' | '|' => {
                    // Only between two clauses.
                    operator = all.is_some().then_some(c == '+');
                    self.at += 1;
                    continue;
                }
                '-' => {
                    is_not = !is_not;
                    self.at += 1;
                    continue;
                }
                c if c.is_whitespace() => {
                    self.at += 1;
                    continue;
                }
                _ => self.word(),
            };
            let Some(node) = node else { continue };
            let node = match std::mem::take(&mut is_not) {
                false => node,
                true => Node::Bool(Bool { must: vec![Node::All], must_not: vec![node], ..Bool::default() }),
            };
            let is_and = operator.take().unwrap_or(self.all_words);
            all = Some(match all {
                None => node,
                Some(before) => join(before, node, is_and, &mut joined_by),
            });
        }
        all
    }

    fn phrase(&mut self) -> Option<Node> {
        self.at += 1;
        let mut text = String::new();
        let mut is_closed = false;
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '"' => {
                    is_closed = true;
                    break;
                }
                '\\' => text.extend(self.escaped()),
                c => text.push(c),
            }
        }
        if !is_closed {
            return self.leaf(Matches::Word(text));
        }
        let slop = self.tilde().map_or(0, |slop| slop.unwrap_or(0).min(1_000));
        self.leaf(Matches::Phrase { text, slop })
    }

    fn escaped(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    /// `~` with a number behind it, if it has one.
    fn tilde(&mut self) -> Option<Option<u32>> {
        if self.peek() != Some('~') {
            return None;
        }
        self.at += 1;
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        Some(self.text[start..self.at].iter().collect::<String>().parse().ok())
    }

    fn word(&mut self) -> Option<Node> {
        let mut text = String::new();
        while let Some(c) = self.peek() {
            if c.is_whitespace() || "\"()|+".contains(c) {
                break;
            }
            let next = self.text.get(self.at + 1);
            let ends = |c: Option<&char>| c.is_none_or(|c| c.is_whitespace() || "\"()|+".contains(*c));
            if c == '*' && ends(next) && !text.is_empty() {
                self.at += 1;
                if text.len() > MAX_PATTERN {
                    return self.leaf(Matches::Word(text));
                }
                return self.leaf(Matches::Prefix(text));
            }
            if c == '~' && !text.is_empty() && next.is_none_or(|c| c.is_ascii_digit() || ends(Some(c))) {
                let distance = self.tilde().flatten().map_or(2, |edits| edits.min(2));
                if text.chars().count() > MAX_PATTERN {
                    return self.leaf(Matches::Word(text));
                }
                let distance = u8::try_from(distance).ok();
                return self.leaf(Matches::Fuzzy { word: text, distance });
            }
            self.at += 1;
            match c {
                '\\' => text.extend(self.escaped()),
                c => text.push(c),
            }
        }
        self.leaf(Matches::Word(text))
    }

    fn leaf(&mut self, matches: Matches) -> Option<Node> {
        self.clauses += 1;
        let is_empty = matches!(&matches, Matches::Word(text) if text.trim().is_empty());
        if self.clauses > MAX_CLAUSES || is_empty {
            return None;
        }
        let Some(fields) = &self.fields else {
            return Some(default_leaf(matches));
        };
        let test = match matches {
            Matches::Phrase { text, slop } => Test::Phrase {
                text: text.as_str().into(),
                slop,
                is_last_prefix: false,
                no_words: NoWords::Nothing,
            },
            Matches::Prefix(text) => {
                Test::Like { pattern: Like::Prefix(text), any_case: false, is_normalized: true }
            }
            Matches::Fuzzy { word, distance } => self.words(&word, distance),
            Matches::Word(word) => self.words(&word, None),
            Matches::Wildcard(_) | Matches::Range { .. } | Matches::Exists | Matches::Regexp(_) => {
                return None;
            }
        };
        let nodes = fields
            .iter()
            .map(|(field, boost)| boosted(condition(field.clone(), self.is_lenient, test.clone()), *boost));
        Some(Node::Best(nodes.collect(), 0.0))
    }

    fn words(&self, word: &str, distance: Option<u8>) -> Test {
        Test::Words(Words {
            text: word.into(),
            all: self.all_words,
            minimum: None,
            fuzzy: distance.map(|edits| Fuzzy { distance: Distance::Edits(edits), ..self.fuzzy }),
            is_last_prefix: false,
            no_words: NoWords::Nothing,
        })
    }
}

/// Two clauses; several in a row with the same operator are siblings.
fn join(before: Node, node: Node, is_and: bool, joined_by: &mut Option<bool>) -> Node {
    let is_same = joined_by.replace(is_and) == Some(is_and);
    let mut clauses = match before {
        Node::Bool(all) if is_same => all,
        before if is_and => Bool { must: vec![before], ..Bool::default() },
        before => Bool { should: vec![before], ..Bool::default() },
    };
    if is_and {
        clauses.must.push(node);
    } else {
        clauses.should.push(node);
    }
    Node::Bool(clauses)
}
