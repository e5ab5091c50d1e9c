//! How much a query that has only words looks at.

use tantivy::{Searcher, TantivyError};

use super::ast::{Ast, Bool, Matches, Node, Occur};
use super::condition::{Test, Words, spots};
use super::place::{places, selection};
use crate::schema::{IndexSchema, Place, PlaceKind};

/// The number of postings of a query's words at a shard. `None` if the query is more than words and phrases in text, or if a
/// word is unknown here.
pub(super) fn postings(
    ast: &Ast,
    schema: &IndexSchema,
    searcher: &Searcher,
) -> Result<Option<u64>, TantivyError> {
    let mut texts: Vec<(&str, Vec<Place>)> = Vec::new();
    if !has_only_words(&ast.root) {
        return Ok(None);
    }
    for leaf in ast.leaves() {
        let (Matches::Word(text) | Matches::Phrase { text, .. }) = &leaf.matches else {
            return Ok(None);
        };
        let places = places(leaf, &ast.options, schema).unwrap_or_default();
        if places.iter().any(|(place, _)| selection(leaf, &ast.options, schema, place).is_some()) {
            return Ok(None);
        }
        texts.push((text, places.into_iter().map(|(place, _)| place).collect()));
    }
    for condition in ast.conditions() {
        let text = match &condition.test {
            Test::Words(Words { text, fuzzy: None, is_last_prefix: false, .. })
            | Test::Phrase { text, is_last_prefix: false, .. } => &text.text,
            _ => return Ok(None),
        };
        texts.push((text, spots(&condition.field, schema).into_iter().map(|spot| spot.place).collect()));
    }
    let mut all = 0;
    for (text, places) in texts {
        let mut of_text = 0;
        for place in places {
            if place.kind == PlaceKind::Values {
                return Ok(None);
            }
            let tokens = schema.analyze_query(&place, text);
            for (_, term) in tokens.iter().flat_map(|token| &token.alternatives).flatten() {
                of_text += searcher.doc_freq(term)?;
            }
        }
        if of_text == 0 {
            return Ok(None);
        }
        all += of_text;
    }
    Ok(Some(all))
}

fn has_only_words(node: &Node) -> bool {
    match node {
        Node::Leaf(_) | Node::Condition(_) => true,
        Node::Boosted(node, _) => has_only_words(node),
        Node::Boolean(clauses) => {
            clauses.iter().all(|clause| clause.occur != Occur::MustNot && has_only_words(&clause.node))
        }
        Node::Best(nodes, _) => nodes.iter().all(has_only_words),
        Node::Bool(Bool { must, filter, should, must_not, minimum: _ }) => {
            let is_scored = filter.is_empty() && must_not.is_empty();
            is_scored && must.iter().chain(should).all(has_only_words)
        }
        Node::All | Node::Nothing | Node::Constant(_) | Node::Functions(_) => false,
    }
}
