//! `query_string`: the text is parsed as native queries are, and its leaves become conditions.

use std::ops::Bound;

use serde_json::Value;

use super::compound::tie_breaker;
use super::keys::{Keys, checked_field, shortened};
use super::words::{AUTO, MAX_EXPANSIONS, condition, default_leaf, distance, fields};
use super::{DslError, DslErrorKind, boosted};
use crate::query::condition::{Distance, Fuzzy, Like, NoWords, Scalar, Test, Words};
use crate::query::dates::{DateReading, zone};
use crate::query::{self, Bool, Leaf, Matches, Node, Occur};

const NAME: &str = "query_string";

const KNOWN: [&str; 22] = [
    "query",
    "default_field",
    "fields",
    "default_operator",
    "type",
    "analyze_wildcard",
    "allow_leading_wildcard",
    "lenient",
    "boost",
    "tie_breaker",
    "fuzziness",
    "fuzzy_prefix_length",
    "fuzzy_max_expansions",
    "fuzzy_transpositions",
    "phrase_slop",
    "minimum_should_match",
    "time_zone",
    "auto_generate_synonyms_phrase_query",
    "enable_position_increments",
    "max_determinized_states",
    "escape",
    "quote_field_suffix",
];

/// How the leaves are understood.
struct Options {
    /// All default fields, if there are none.
    fields: Option<Vec<(String, f32)>>,
    all_words: bool,
    is_lenient: bool,
    tie_breaker: f32,
    fuzzy: Fuzzy,
    slop: u32,
    dates: DateReading,
}

pub(super) fn read(body: &Value, now: i64) -> Result<Node, DslError> {
    let keys = Keys::of(NAME, body, &KNOWN)?;
    keys.only("type", &["best_fields"])?;
    keys.only("allow_leading_wildcard", &["true"])?;
    keys.only("auto_generate_synonyms_phrase_query", &["true"])?;
    keys.only("enable_position_increments", &["true"])?;
    keys.only("escape", &["false"])?;
    keys.only("quote_field_suffix", &[""])?;
    keys.flag("analyze_wildcard")?;
    let text = keys.needed("query", keys.scalar("query")?)?.text;
    let listed = match keys.raw("fields") {
        None => None,
        Some(Value::Array(list)) if list.is_empty() => None,
        Some(Value::Array(list)) => Some(fields(NAME, list)?),
        Some(_) => return Err(keys.wrong("fields", "an array")),
    };
    let named = match keys.text("default_field")? {
        None => None,
        Some("*") => Some(None),
        Some(field) => Some(Some(vec![(checked_field(NAME, field)?, 1.0)])),
    };
    if listed.is_some() && named.is_some() {
        let reason = "addValidationError: cannot use [fields] parameter in conjunction with [default_field]";
        return Err(DslError::illegal(reason));
    }
    let fields = listed.or(named).flatten();
    let mut dates = DateReading::plain(now);
    if let Some(text) = keys.text("time_zone")? {
        dates.zone = zone(text).ok_or_else(|| keys.wrong("time_zone", "an offset such as +01:00, or UTC"))?;
    }
    let fuzzy = Fuzzy {
        distance: distance(&keys, "fuzziness")?.unwrap_or(AUTO),
        prefix: keys.whole("fuzzy_prefix_length", 1_000)?.unwrap_or(0),
        transpositions: keys.flag("fuzzy_transpositions")?.unwrap_or(true),
        most: keys.whole("fuzzy_max_expansions", usize::MAX)?.unwrap_or(MAX_EXPANSIONS).min(MAX_EXPANSIONS),
    };
    let options = Options {
        is_lenient: keys.flag("lenient")?.unwrap_or(fields.is_none() && !has_field(&text)),
        fields,
        all_words: keys.word("default_operator", &[("or", false), ("and", true)])?.unwrap_or(false),
        tie_breaker: tie_breaker(&keys)?.unwrap_or(0.0),
        fuzzy,
        slop: u32::try_from(keys.whole("phrase_slop", 1_000)?.unwrap_or(0)).unwrap_or(u32::MAX),
        dates,
    };
    if text.trim().is_empty() {
        return Ok(Node::Nothing);
    }
    let root = query::parse_elastic(&text, options.all_words).map_err(|error| DslError {
        kind: DslErrorKind::Query,
        reason: match error.at {
            Some(at) => {
                format!("Failed to parse query [{}]: at character {at}: {}", shortened(&text), error.message)
            }
            None => format!("Failed to parse query: {}", error.message),
        },
    })?;
    let root = match (options.node(root)?, keys.minimum()?) {
        (Node::Boolean(clauses), Some(minimum))
            if clauses.iter().all(|clause| clause.occur == Occur::Should) =>
        {
            let should = clauses.into_iter().map(|clause| clause.node).collect();
            Node::Bool(Bool { should, minimum: Some(minimum), ..Bool::default() })
        }
        (root, _) => root,
    };
    keys.boosted(root)
}

/// Whether a text may name a field, whose values are then not taken leniently.
fn has_field(text: &str) -> bool {
    text.contains(':')
}

impl Options {
    /// The tree with conditions instead of leaves.
    fn node(&self, node: Node) -> Result<Node, DslError> {
        Ok(match node {
            Node::Leaf(leaf) => return self.leaf(leaf),
            Node::Boolean(clauses) => {
                let clause = |mut clause: query::Clause| {
                    clause.node = self.node(clause.node)?;
                    Ok(clause)
                };
                Node::Boolean(clauses.into_iter().map(clause).collect::<Result<_, _>>()?)
            }
            Node::Boosted(node, boost) => Node::Boosted(Box::new(self.node(*node)?), boost),
            node => node,
        })
    }

    fn leaf(&self, leaf: Leaf) -> Result<Node, DslError> {
        let fields = match leaf.field {
            Some(field) => vec![(checked_field(NAME, &field)?, 1.0)],
            None => match &self.fields {
                Some(fields) => fields.clone(),
                None => return everywhere(leaf.matches),
            },
        };
        let mut nodes: Vec<Node> = fields
            .into_iter()
            .map(|(field, boost)| boosted(condition(field, self.is_lenient, self.test(&leaf.matches)), boost))
            .collect();
        Ok(match nodes.len() {
            1 => nodes.remove(0),
            _ => Node::Best(nodes, self.tie_breaker),
        })
    }

    fn test(&self, matches: &Matches) -> Test {
        let words = |text: &str, fuzzy: Option<Fuzzy>| {
            Test::Words(Words {
                text: text.into(),
                all: self.all_words,
                minimum: None,
                fuzzy,
                is_last_prefix: false,
                no_words: NoWords::Nothing,
            })
        };
        let like = |pattern: Like| Test::Like { pattern, any_case: false, is_normalized: true };
        let bound =
            |bound: &Bound<String>| bound.as_ref().map(|text| Scalar { text: text.clone(), is_text: true });
        match matches {
            Matches::Word(text) => words(text, None),
            Matches::Phrase { text, slop } => Test::Phrase {
                text: text.as_str().into(),
                slop: if *slop == 0 { self.slop } else { *slop },
                is_last_prefix: false,
                no_words: NoWords::Nothing,
            },
            Matches::Prefix(text) => like(Like::Prefix(text.clone())),
            Matches::Wildcard(pieces) => like(Like::Wildcard(pieces.clone())),
            Matches::Regexp(text) => {
                Test::Like { pattern: Like::Regexp(text.clone()), any_case: false, is_normalized: false }
            }
            Matches::Fuzzy { word, distance } => {
                let distance = distance.map_or(self.fuzzy.distance, Distance::Edits);
                words(word, Some(Fuzzy { distance, ..self.fuzzy }))
            }
            Matches::Range { lower, upper } => {
                Test::Range { lower: bound(lower), upper: bound(upper), dates: self.dates.clone() }
            }
            Matches::Exists => Test::Exists,
        }
    }
}

/// A leaf in the default fields, which have text.
fn everywhere(matches: Matches) -> Result<Node, DslError> {
    match matches {
        Matches::Range { .. } => Err(DslError::illegal("[query_string] query: a range needs a field")),
        Matches::Regexp(_) => {
            Err(DslError::illegal("[query_string] query: a regular expression needs a field"))
        }
        matches => Ok(default_leaf(matches)),
    }
}
