//! Queries for the words of a text: `match` and its kin.

use serde_json::Value;

use super::compound::tie_breaker;
use super::keys::{Field, Keys, checked_field, scalar};
use super::{DslError, boosted};
use crate::query::condition::{Condition, Distance, Fuzzy, NoWords, Scalar, Test, Words};
use crate::query::{Bool, Leaf, Matches, Node, Span};

/// The most terms that a misspelled word is expanded to.
pub(super) const MAX_EXPANSIONS: usize = 50;
const MAX_SLOP: usize = 1_000;

/// The keys for words that may be misspelled.
const OF_FUZZY: [&str; 5] =
    ["fuzziness", "prefix_length", "max_expansions", "fuzzy_transpositions", "fuzzy_rewrite"];
const OF_WORDS: [&str; 6] = [
    "query",
    "operator",
    "minimum_should_match",
    "zero_terms_query",
    "lenient",
    "auto_generate_synonyms_phrase_query",
];

pub(super) fn condition(field: String, is_lenient: bool, test: Test) -> Node {
    Node::Condition(Condition { number: 0, field, is_lenient, test })
}

pub(super) fn of_match(body: &Value) -> Result<Node, DslError> {
    const NAME: &str = "match";
    let known = [&OF_WORDS[..], &OF_FUZZY, &["boost"]].concat();
    let (field, body) = Keys::of_field(NAME, body, &known)?;
    let (text, keys) = body.value(NAME, "query")?;
    let words = words(text, keys, false)?;
    finish(condition(field, lenient(keys)?, Test::Words(words)), keys)
}

pub(super) fn of_bool_prefix(body: &Value) -> Result<Node, DslError> {
    const NAME: &str = "match_bool_prefix";
    let known = [&["query", "operator", "minimum_should_match", "boost"][..], &OF_FUZZY].concat();
    let (field, body) = Keys::of_field(NAME, body, &known)?;
    let (text, keys) = body.value(NAME, "query")?;
    let words = words(text, keys, true)?;
    finish(condition(field, false, Test::Words(words)), keys)
}

pub(super) fn of_phrase(name: &'static str, body: &Value) -> Result<Node, DslError> {
    let is_last_prefix = name == "match_phrase_prefix";
    let known = ["query", "slop", "zero_terms_query", "boost", "max_expansions"];
    let known = if is_last_prefix { &known[..] } else { &known[..4] };
    let (field, body) = Keys::of_field(name, body, known)?;
    let (text, keys) = body.value(name, "query")?;
    finish(condition(field, false, phrase(text, keys, is_last_prefix)?), keys)
}

fn finish(node: Node, keys: Option<&Keys<'_>>) -> Result<Node, DslError> {
    keys.map_or(Ok(node.clone()), |keys| keys.boosted(node))
}

fn lenient(keys: Option<&Keys<'_>>) -> Result<bool, DslError> {
    Ok(keys.map(|keys| keys.flag("lenient")).transpose()?.flatten().unwrap_or(false))
}

fn phrase(text: Scalar, keys: Option<&Keys<'_>>, is_last_prefix: bool) -> Result<Test, DslError> {
    let slop = keys.map(|keys| keys.whole("slop", MAX_SLOP)).transpose()?.flatten().unwrap_or(0);
    if let Some(keys) = keys {
        keys.whole("max_expansions", usize::MAX)?;
    }
    let slop = u32::try_from(slop).unwrap_or(u32::MAX);
    Ok(Test::Phrase { text, slop, is_last_prefix, no_words: no_words(keys)? })
}

fn no_words(keys: Option<&Keys<'_>>) -> Result<NoWords, DslError> {
    let words = [("none", NoWords::Nothing), ("all", NoWords::All)];
    let found = keys.map(|keys| keys.word("zero_terms_query", &words)).transpose()?.flatten();
    Ok(found.unwrap_or(NoWords::Nothing))
}

fn words(text: Scalar, keys: Option<&Keys<'_>>, is_last_prefix: bool) -> Result<Words, DslError> {
    let no_words = no_words(keys)?;
    let Some(keys) = keys else {
        return Ok(Words { text, all: false, minimum: None, fuzzy: None, is_last_prefix, no_words });
    };
    keys.only("auto_generate_synonyms_phrase_query", &["true"])?;
    let all = keys.word("operator", &[("or", false), ("and", true)])?.unwrap_or(false);
    Ok(Words {
        text,
        all,
        minimum: keys.minimum()?,
        fuzzy: fuzzy(keys, "fuzzy_transpositions")?,
        is_last_prefix,
        no_words,
    })
}

/// How words may be misspelled, if they may.
pub(super) fn fuzzy(keys: &Keys<'_>, transpositions: &str) -> Result<Option<Fuzzy>, DslError> {
    keys.only("fuzzy_rewrite", &[])?;
    let prefix = keys.whole("prefix_length", 1_000)?.unwrap_or(0);
    let most = keys.whole("max_expansions", usize::MAX)?.unwrap_or(MAX_EXPANSIONS).min(MAX_EXPANSIONS);
    let transpositions = keys.flag(transpositions)?.unwrap_or(true);
    let distance = distance(keys, "fuzziness")?;
    Ok(distance.map(|distance| Fuzzy { distance, prefix, transpositions, most }))
}

pub(super) const AUTO: Distance = Distance::Auto(3, 6);

pub(super) fn distance(keys: &Keys<'_>, key: &str) -> Result<Option<Distance>, DslError> {
    let Some(value) = keys.scalar(key)? else { return Ok(None) };
    let wrong = || keys.wrong(key, "0, 1, 2, AUTO, or AUTO with two lengths such as AUTO:3,6");
    let text = value.text.to_ascii_uppercase();
    let distance = match text.strip_prefix("AUTO") {
        Some("") => AUTO,
        Some(lengths) => {
            let (one, two) = lengths.strip_prefix(':').and_then(|l| l.split_once(',')).ok_or_else(wrong)?;
            let (one, two) =
                (one.trim().parse().map_err(|_| wrong())?, two.trim().parse().map_err(|_| wrong())?);
            if one > two {
                return Err(wrong());
            }
            Distance::Auto(one, two)
        }
        None => match text.parse::<f64>() {
            Ok(0.0) => Distance::Edits(0),
            Ok(1.0) => Distance::Edits(1),
            Ok(2.0) => Distance::Edits(2),
            _ => return Err(wrong()),
        },
    };
    Ok(Some(distance))
}

/// Fields with their boosts, such as `title^3`; `None` for all.
pub(super) fn fields(name: &str, list: &[Value]) -> Result<Option<Vec<(String, f32)>>, DslError> {
    let mut fields = Vec::new();
    for field in list {
        let text = field.as_str();
        let text = text.ok_or_else(|| DslError::parsing(format!("[{name}] query: [fields] are texts")))?;
        let (field, boost) = match text.rsplit_once('^') {
            Some((field, boost)) => (field, boost.parse::<f32>().ok().filter(|boost| *boost >= 0.0)),
            None => (text, Some(1.0)),
        };
        let Some(boost) = boost.filter(|boost| *boost <= crate::query::MAX_BOOST) else {
            return Err(DslError::illegal(format!("[{name}] query: the boost of [{text}] is no number")));
        };
        if field == "*" {
            return Ok(None);
        }
        fields.push((checked_field(name, field)?, boost));
    }
    Ok((!fields.is_empty()).then_some(fields))
}

/// A leaf in the default fields.
pub(super) fn default_leaf(matches: Matches) -> Node {
    Node::Leaf(Leaf { number: 0, field: None, matches, span: Span::default() })
}

pub(super) fn of_several(body: &Value) -> Result<Node, DslError> {
    const NAME: &str = "multi_match";
    let more = ["fields", "type", "tie_breaker", "slop", "boost"];
    let known = [&OF_WORDS[..], &OF_FUZZY, &more].concat();
    let keys = Keys::of(NAME, body, &known)?;
    let text = keys.needed("query", keys.raw("query"))?;
    let text = scalar(NAME, text)?;
    let fields = match keys.raw("fields") {
        None => None,
        Some(Value::Array(list)) => fields(NAME, list)?,
        Some(one) => fields(NAME, std::slice::from_ref(one))?,
    };
    let kinds = [
        ("best_fields", Kind::BestFields),
        ("most_fields", Kind::MostFields),
        ("phrase", Kind::Phrase),
        ("phrase_prefix", Kind::PhrasePrefix),
        ("bool_prefix", Kind::BoolPrefix),
    ];
    if keys.raw("type").and_then(Value::as_str) == Some("cross_fields") {
        let reason = "[multi_match] query does not support the type [cross_fields]: use [best_fields], or one field with all text";
        return Err(DslError::illegal(reason));
    }
    let kind = keys.word("type", &kinds)?.unwrap_or(Kind::BestFields);
    let words = words(text.clone(), Some(&keys), kind == Kind::BoolPrefix)?;
    let test = match kind {
        Kind::BestFields | Kind::MostFields | Kind::BoolPrefix => Test::Words(words.clone()),
        Kind::Phrase => phrase(text.clone(), Some(&keys), false)?,
        Kind::PhrasePrefix => phrase(text.clone(), Some(&keys), true)?,
    };
    let tie_breaker = tie_breaker(&keys)?;
    let Some(fields) = fields else {
        return keys.boosted(everywhere(kind, &text.text, &words)?);
    };
    let is_lenient = keys.flag("lenient")?.unwrap_or(false);
    let nodes = fields
        .into_iter()
        .map(|(field, boost)| boosted(condition(field, is_lenient, test.clone()), boost))
        .collect();
    let default = if matches!(kind, Kind::MostFields | Kind::BoolPrefix) { 1.0 } else { 0.0 };
    keys.boosted(Node::Best(nodes, tie_breaker.unwrap_or(default)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    BestFields,
    MostFields,
    Phrase,
    PhrasePrefix,
    BoolPrefix,
}

/// Without fields: in the default fields of the index.
fn everywhere(kind: Kind, text: &str, words: &Words) -> Result<Node, DslError> {
    match kind {
        Kind::Phrase => Ok(default_leaf(Matches::Phrase { text: text.to_owned(), slop: 0 })),
        Kind::BestFields if words.fuzzy.is_none() => {
            let leaves = text.split_whitespace().map(|word| default_leaf(Matches::Word(word.to_owned())));
            let leaves: Vec<_> = leaves.collect();
            if leaves.is_empty() {
                return Ok(if words.no_words == NoWords::All { Node::All } else { Node::Nothing });
            }
            Ok(Node::Bool(match words.all {
                true => Bool { must: leaves, ..Bool::default() },
                false => Bool { should: leaves, minimum: words.minimum.clone(), ..Bool::default() },
            }))
        }
        Kind::BestFields | Kind::MostFields | Kind::PhrasePrefix | Kind::BoolPrefix => {
            Err(DslError::illegal("[multi_match] query of this kind needs [fields]"))
        }
    }
}

impl<'a> From<Field<'a>> for Option<Keys<'a>> {
    fn from(field: Field<'a>) -> Self {
        match field {
            Field::Keys(keys) => Some(keys),
            Field::Value(_) => None,
        }
    }
}
