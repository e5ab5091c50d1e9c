//! The analyzers: how text becomes terms, in documents and in queries.
//!
//! Words are runs of letters and digits with their combining marks, normalized (NFKC) and in lower case. Diacritics are
//! folded last, after stop words and stemming, so a language's own rules see its own letters. A word of more than 255 bytes
//! is cut to its first 255, in documents and queries alike, so it is still found.
//!
//! `ngram` and `cjk` index more than queries look for: queries use the longest parts only, at positions that make a phrase of
//! them mean the text itself.

mod cjk;
mod fold;
mod ngram;
mod words;

use std::sync::LazyLock;

use tantivy::tokenizer::{Language, Stemmer, StopWordFilter, TextAnalyzer};

use crate::definition::Analyzer;
use cjk::Cjk;
use fold::Fold;
use ngram::Ngrams;
use words::Words;

/// The longest term of text, in bytes.
pub(crate) const MAX_TERM: usize = 255;

/// Whether text is analyzed for a document or for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Document,
    Query,
}

static DOCUMENT: LazyLock<Vec<TextAnalyzer>> = LazyLock::new(|| built(Side::Document));
static QUERY: LazyLock<Vec<TextAnalyzer>> = LazyLock::new(|| built(Side::Query));

fn built(side: Side) -> Vec<TextAnalyzer> {
    Analyzer::ALL.iter().map(|analyzer| build(*analyzer, side)).collect()
}

/// An analyzer, ready to use.
pub(crate) fn analyzer(analyzer: Analyzer, side: Side) -> TextAnalyzer {
    let all = match side {
        Side::Document => &DOCUMENT,
        Side::Query => &QUERY,
    };
    all[analyzer as usize].clone()
}

fn build(analyzer: Analyzer, side: Side) -> TextAnalyzer {
    let Some(language) = language(analyzer) else {
        return match analyzer {
            Analyzer::Ngram => TextAnalyzer::builder(Ngrams::new(side)).build(),
            Analyzer::Cjk => TextAnalyzer::builder(Cjk::new(side)).filter(Fold).build(),
            _ => TextAnalyzer::builder(Words::default()).filter(Fold).build(),
        };
    };
    let words = Words::of(language);
    match StopWordFilter::new(language) {
        Some(stop_words) => TextAnalyzer::builder(words)
            .filter(stop_words)
            .filter(Stemmer::new(language))
            .filter(Fold)
            .build(),
        None => TextAnalyzer::builder(words).filter(Stemmer::new(language)).filter(Fold).build(),
    }
}

fn language(analyzer: Analyzer) -> Option<Language> {
    Some(match analyzer {
        Analyzer::Default | Analyzer::Ngram | Analyzer::Cjk => return None,
        Analyzer::Ar => Language::Arabic,
        Analyzer::Da => Language::Danish,
        Analyzer::De => Language::German,
        Analyzer::El => Language::Greek,
        Analyzer::En => Language::English,
        Analyzer::Es => Language::Spanish,
        Analyzer::Fi => Language::Finnish,
        Analyzer::Fr => Language::French,
        Analyzer::Hu => Language::Hungarian,
        Analyzer::It => Language::Italian,
        Analyzer::Nl => Language::Dutch,
        Analyzer::No => Language::Norwegian,
        Analyzer::Pt => Language::Portuguese,
        Analyzer::Ro => Language::Romanian,
        Analyzer::Ru => Language::Russian,
        Analyzer::Sv => Language::Swedish,
        Analyzer::Ta => Language::Tamil,
        Analyzer::Tr => Language::Turkish,
    })
}

#[cfg(test)]
mod tests;

/// A text in lower case without diacritics, and otherwise as it is.
pub(crate) fn normalized(text: &str) -> String {
    let mut lower = String::new();
    words::normalize(text, false, &mut lower);
    if lower.is_ascii() { lower } else { fold::fold(&lower) }
}
