//! The text of a query becomes terms, with synonyms.

use tantivy::Term;

use super::analysis::normalized;
use super::synonyms::tokens;
use super::{IndexSchema, Place, PlaceKind};

/// How many phrases a phrase with synonyms may become.
const MAX_PHRASES: usize = 64;

/// A word of a query, or several that have a synonym together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueryToken {
    /// Where it is in the text. Stop words leave gaps.
    pub(crate) position: usize,
    /// How many positions it takes.
    pub(crate) length: usize,
    /// What it may be, at least one: each is one term, or several, as a phrase. The numbers are the terms' positions from the
    /// first one's.
    pub(crate) alternatives: Vec<Vec<(usize, Term)>>,
}

impl IndexSchema {
    /// The terms of a text in a place, with synonyms. A word may become several tokens, such as `wi-fi`, or the parts of a word
    /// of the analyzers `ngram` and `cjk`: a query should take the tokens of one word as a phrase. No tokens: the text has only
    /// stop words or punctuation.
    ///
    /// In a place with values, the text is one value: one token, whose alternatives are the value's types. None if the place
    /// can't have it.
    pub(crate) fn analyze_query(&self, place: &Place, text: &str) -> Vec<QueryToken> {
        let PlaceKind::Text(analyzer) = place.kind else {
            let alternatives: Vec<_> =
                self.value_terms(place, text).into_iter().map(|term| vec![(0, term)]).collect();
            let token = QueryToken { position: 0, length: 1, alternatives };
            return Some(token).filter(|token| !token.alternatives.is_empty()).into_iter().collect();
        };
        let tokens = tokens(analyzer, text);
        let synonyms = self.synonyms.get(&analyzer);
        let mut analyzed = Vec::with_capacity(tokens.len());
        let mut rest = tokens.as_slice();
        while let Some((position, token)) = rest.first() {
            let found = synonyms.and_then(|synonyms| synonyms.first(rest));
            let (count, alternatives) = match found {
                Some((count, meanings)) => {
                    let sequence = |meaning: &Vec<(usize, String)>| {
                        meaning.iter().map(|(at, term)| (*at, self.text_term(place, term))).collect()
                    };
                    (count, meanings.iter().map(sequence).collect())
                }
                None => (1, vec![vec![(0, self.text_term(place, token))]]),
            };
            let length = rest[count - 1].0 + 1 - position;
            analyzed.push(QueryToken { position: *position, length, alternatives });
            rest = &rest[count..];
        }
        analyzed
    }

    /// The beginning of a word, or a pattern, as terms of a place have it: in lower case without diacritics, but neither stemmed
    /// nor left out. Values are as their field's normalizer makes them.
    pub(crate) fn normalized(&self, place: &Place, text: &str) -> String {
        match place.kind {
            PlaceKind::Text(_) => normalized(text),
            PlaceKind::Values => {
                let normalizer = place.path.as_deref().map(|path| self.normalizer(path));
                normalizer.unwrap_or_default().apply(text).into_owned()
            }
        }
    }
}

/// The phrases that tokens may be, each with the terms' positions from the first one's: one for each choice of alternatives, at
/// most 64, then the rest is left out. For Tantivy's phrase query, which takes at least two terms.
pub(crate) fn phrases(tokens: &[QueryToken]) -> Vec<Vec<(usize, Term)>> {
    let Some(first) = tokens.first() else { return Vec::new() };
    // Each phrase, and by how much its synonyms are longer than the text.
    let mut phrases: Vec<(Vec<(usize, Term)>, isize)> = vec![(Vec::new(), 0)];
    for token in tokens {
        let mut longer = Vec::new();
        for (phrase, shift) in &phrases {
            for alternative in &token.alternatives {
                let start = (token.position - first.position).saturating_add_signed(*shift);
                let mut phrase = phrase.clone();
                phrase.extend(alternative.iter().map(|(at, term)| (start + at, term.clone())));
                let length = alternative.last().map_or(0, |(at, _)| at + 1);
                longer.push((phrase, shift + length.cast_signed() - token.length.cast_signed()));
            }
        }
        longer.truncate(MAX_PHRASES);
        phrases = longer;
    }
    phrases.into_iter().map(|(phrase, _)| phrase).collect()
}
