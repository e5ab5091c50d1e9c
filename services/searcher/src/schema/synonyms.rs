//! Synonyms, analyzed.

use std::collections::BTreeMap;

use super::analysis::{Side, analyzer};
use crate::definition::{Analyzer, Definition, FieldDefinition, SubField, SynonymRule};

/// Terms, each with its position from the first one's.
pub(super) type Sequence = Vec<(usize, String)>;

/// The synonyms of an index, for one analyzer.
#[derive(Debug, Clone, Default)]
pub(super) struct Synonyms {
    /// What each sequence of terms means, by its first term; longer sequences first.
    by_first: BTreeMap<String, Vec<(Sequence, Vec<Sequence>)>>,
}

impl Synonyms {
    /// The synonyms for each analyzer that the index uses. Parts of words have none.
    pub(super) fn of_all(definition: &Definition) -> BTreeMap<Analyzer, Self> {
        let rules: Vec<_> =
            definition.synonyms.iter().filter_map(|rule| SynonymRule::parse(rule).ok()).collect();
        if rules.is_empty() {
            return BTreeMap::new();
        }
        let sub_fields = definition.fields.values().flat_map(|field| field.sub_fields().values());
        let of_sub_fields = sub_fields.filter_map(|field| match field {
            SubField::Text { analyzer } => Some(*analyzer),
            SubField::Keyword { .. } => None,
        });
        let declared = definition.fields.values().filter_map(|field| match field {
            FieldDefinition::Text { analyzer, .. } => Some(*analyzer),
            FieldDefinition::Keyword { .. }
            | FieldDefinition::I64 {}
            | FieldDefinition::F64 {}
            | FieldDefinition::Bool {}
            | FieldDefinition::Date {}
            | FieldDefinition::Ip {}
            | FieldDefinition::Json {}
            | FieldDefinition::Vector { .. } => None,
        });
        let analyzers = declared
            .chain(of_sub_fields)
            .chain([Analyzer::Default])
            .filter(|analyzer| *analyzer != Analyzer::Ngram);
        let mut all = BTreeMap::new();
        for analyzer in analyzers {
            all.entry(analyzer).or_insert_with(|| Self::new(analyzer, &rules));
        }
        all
    }

    fn new(analyzer: Analyzer, rules: &[SynonymRule]) -> Self {
        let mut meanings: BTreeMap<Sequence, Vec<Sequence>> = BTreeMap::new();
        for rule in rules {
            let to: Vec<_> = rule.to.iter().map(|text| sequence(analyzer, text)).collect();
            for from in rule.from.iter().map(|text| sequence(analyzer, text)) {
                // A text of stop words only means nothing.
                if from.is_empty() {
                    continue;
                }
                let meanings = meanings.entry(from.clone()).or_default();
                // The text itself comes first.
                let own = to.iter().filter(|to| **to == from);
                for to in own.chain(&to).filter(|to| !to.is_empty()) {
                    if !meanings.contains(to) {
                        meanings.push(to.clone());
                    }
                }
            }
        }
        let mut by_first: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (from, to) in meanings.into_iter().filter(|(_, to)| !to.is_empty()) {
            by_first.entry(from[0].1.clone()).or_default().push((from, to));
        }
        for rules in by_first.values_mut() {
            rules.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
        }
        Self { by_first }
    }

    /// What the first tokens mean: how many they are, and their meanings.
    pub(super) fn first(&self, tokens: &[(usize, String)]) -> Option<(usize, &[Sequence])> {
        let (start, first) = tokens.first()?;
        let rules = self.by_first.get(first)?;
        rules.iter().find_map(|(from, to)| {
            let is_match = tokens.len() >= from.len()
                && from
                    .iter()
                    .zip(tokens)
                    .all(|((offset, term), (position, token))| term == token && *position == start + offset);
            is_match.then_some((from.len(), to.as_slice()))
        })
    }
}

/// The terms of a text, with their positions from the first one's.
fn sequence(analyzer: Analyzer, text: &str) -> Sequence {
    let mut sequence = tokens(analyzer, text);
    let start = sequence.first().map_or(0, |(position, _)| *position);
    for (position, _) in &mut sequence {
        *position -= start;
    }
    sequence
}

/// The tokens of a query's text, with their positions.
pub(super) fn tokens(name: Analyzer, text: &str) -> Sequence {
    let mut tokens = Vec::new();
    analyzer(name, Side::Query)
        .token_stream(text)
        .process(&mut |token| tokens.push((token.position, token.text.clone())));
    tokens
}
