//! The kinds of queries, and the words to search for. Pure.

use std::fmt;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::search::corpus::Corpus;

/// The number of queries of each kind; clients repeat them.
const COUNT: usize = 64;
const SEED: u64 = 41;
/// The length of prefixes.
const PREFIX: usize = 4;

/// A kind of query. Each returns ten documents with their sources, and the number of matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// One word
    Term,
    /// Either of two words
    Or,
    /// Both of two words
    And,
    /// Two words that follow each other
    Phrase,
    /// Words that begin with four letters
    Prefix,
    /// Words that differ from a word by one letter at most
    Fuzzy,
    /// One word, and the ten most frequent sections
    Facet,
}

impl Kind {
    /// The name in a query string, and in JSON.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Term => "term",
            Self::Or => "or",
            Self::And => "and",
            Self::Phrase => "phrase",
            Self::Prefix => "prefix",
            Self::Fuzzy => "fuzzy",
            Self::Facet => "facet",
        }
    }

    /// Whether our answer is defined to be Tantivy's, score by score: expansions of prefixes and of fuzzy words score as
    /// constants there.
    pub(crate) fn is_same_in_tantivy(self) -> bool {
        !matches!(self, Self::Prefix | Self::Fuzzy)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Term => "term",
            Self::Or => "two terms, OR",
            Self::And => "two terms, AND",
            Self::Phrase => "phrase",
            Self::Prefix => "prefix",
            Self::Fuzzy => "fuzzy",
            Self::Facet => "term with facet",
        })
    }
}

/// A query: the words, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Query {
    pub(crate) kind: Kind,
    pub(crate) words: Vec<String>,
}

impl Query {
    /// The path and query at a searcher. Words are lower-case letters, so nothing has to be encoded.
    pub(crate) fn ours(&self, index: &str) -> String {
        let words = self.words.join("%20");
        let q = match self.kind {
            Kind::Term | Kind::Or => words,
            Kind::And => format!("{words}&default_operator=and"),
            Kind::Phrase => format!("%22{words}%22"),
            Kind::Prefix => format!("{words}*"),
            Kind::Fuzzy => format!("{words}~1"),
            Kind::Facet => format!("{words}&facets=section"),
        };
        format!("/svc/searcher/{index}/search?q={q}")
    }

    /// The path and query at Tantivy's handler.
    pub(crate) fn tantivys(&self) -> String {
        format!("/search?kind={}&words={}", self.kind.key(), self.words.join(","))
    }
}

/// The queries of a kind: words of all frequencies, as many rare as frequent ones on a logarithmic scale.
pub(crate) fn queries(corpus: &Corpus, kind: Kind) -> Vec<Query> {
    let mut random = StdRng::seed_from_u64(SEED);
    let (least, most) = ((corpus.documents / 10_000).max(2), (corpus.documents / 4).max(4));
    let is_long = !matches!(kind, Kind::Prefix | Kind::Fuzzy);
    let candidates: Vec<&str> = (corpus.words.iter())
        .filter(|(word, count)| (least..=most).contains(count) && (is_long || word.len() > PREFIX))
        .map(|(word, _)| word.as_str())
        .collect();
    let mut choose = || {
        let scale = f64::from(u32::try_from(candidates.len()).unwrap_or(u32::MAX)).ln();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is an index of the list"
        )]
        let at = (random.random::<f64>() * scale).exp() as usize;
        candidates.get(at.saturating_sub(1)).map(|word| (*word).to_owned())
    };
    let mut all = Vec::with_capacity(COUNT);
    for number in 0..COUNT {
        let words = match kind {
            Kind::Term | Kind::Facet => choose().map(|word| vec![word]),
            Kind::Or => two_words(&mut choose).map(Vec::from),
            Kind::Phrase => corpus.phrases.get(number).cloned().map(Vec::from),
            // Words that some document has, too, but other ones where there are enough.
            Kind::And => corpus.phrases.iter().cycle().nth(COUNT + number).cloned().map(Vec::from),
            Kind::Prefix => choose().map(|word| vec![word[..PREFIX].to_owned()]),
            Kind::Fuzzy => choose().map(|word| vec![misspelled(&word)]),
        };
        all.extend(words.map(|words| Query { kind, words }));
    }
    all
}

/// Two different words; `None` if there are none.
fn two_words(choose: &mut impl FnMut() -> Option<String>) -> Option<[String; 2]> {
    const TRIES: usize = 100;
    let first = choose()?;
    let mut others = (0..TRIES).filter_map(|_| choose());
    others.find(|other| *other != first).map(|other| [first.clone(), other])
}

/// The word with another third letter.
fn misspelled(word: &str) -> String {
    let next =
        |letter: char| if letter == 'z' { 'a' } else { char::from(u8::try_from(letter).unwrap_or(b'a') + 1) };
    word.chars().enumerate().map(|(at, letter)| if at == 2 { next(letter) } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::corpus::Source;

    #[tokio::test]
    async fn there_are_queries_of_each_kind_with_words_of_the_corpus() {
        let corpus = Corpus::of(Source::Generated, 5_000).await.unwrap();
        for kind in Kind::value_variants() {
            let kind = *kind;
            let all = queries(&corpus, kind);
            assert_eq!(all.len(), COUNT, "{kind}");
            assert_eq!(all, queries(&corpus, kind), "seeded");
            let words = if matches!(kind, Kind::Or | Kind::And | Kind::Phrase) { 2 } else { 1 };
            assert!(all.iter().all(|query| query.words.len() == words), "{all:?}");
        }
    }

    #[test]
    fn a_query_is_written_for_both() {
        let of = |kind, words: &[&str]| {
            let query = Query { kind, words: words.iter().map(|word| (*word).to_owned()).collect() };
            (query.ours("docs"), query.tantivys())
        };
        let path = "/svc/searcher/docs/search?q=";
        for (kind, words, ours, theirs) in [
            (Kind::Term, &["bad"][..], "bad", "kind=term&words=bad"),
            (Kind::And, &["bad", "cat"], "bad%20cat&default_operator=and", "kind=and&words=bad,cat"),
            (Kind::Phrase, &["bad", "cat"], "%22bad%20cat%22", "kind=phrase&words=bad,cat"),
            (Kind::Fuzzy, &["bads"], "bads~1", "kind=fuzzy&words=bads"),
        ] {
            assert_eq!(of(kind, words), (format!("{path}{ours}"), format!("/search?{theirs}")));
        }
        assert_eq!(misspelled("bazar"), "baaar");
    }
}
