//! The names of the analyzers. What they do is in `schema/analysis.rs`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How text becomes terms. A language's analyzer leaves out its stop words, if tantivy has a list, and stems words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Analyzer {
    /// Words, in lower case and without diacritics.
    #[default]
    Default,
    /// Arabic.
    Ar,
    /// Danish.
    Da,
    /// German.
    De,
    /// Greek.
    El,
    /// English.
    En,
    /// Spanish.
    Es,
    /// Finnish.
    Fi,
    /// French.
    Fr,
    /// Hungarian.
    Hu,
    /// Italian.
    It,
    /// Dutch.
    Nl,
    /// Norwegian.
    #[serde(alias = "nb")]
    No,
    /// Portuguese.
    Pt,
    /// Romanian.
    Ro,
    /// Russian.
    Ru,
    /// Swedish.
    Sv,
    /// Tamil.
    Ta,
    /// Turkish.
    Tr,
    /// All parts of two and three characters, for finding any part of a word.
    Ngram,
    /// Pairs of characters in Chinese, Japanese and Korean text, words elsewhere.
    Cjk,
}

impl Analyzer {
    /// All analyzers, in the order of the enum.
    pub(crate) const ALL: [Self; 21] = [
        Self::Default,
        Self::Ar,
        Self::Da,
        Self::De,
        Self::El,
        Self::En,
        Self::Es,
        Self::Fi,
        Self::Fr,
        Self::Hu,
        Self::It,
        Self::Nl,
        Self::No,
        Self::Pt,
        Self::Ro,
        Self::Ru,
        Self::Sv,
        Self::Ta,
        Self::Tr,
        Self::Ngram,
        Self::Cjk,
    ];

    /// The name, as users write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Ar => "ar",
            Self::Da => "da",
            Self::De => "de",
            Self::El => "el",
            Self::En => "en",
            Self::Es => "es",
            Self::Fi => "fi",
            Self::Fr => "fr",
            Self::Hu => "hu",
            Self::It => "it",
            Self::Nl => "nl",
            Self::No => "no",
            Self::Pt => "pt",
            Self::Ro => "ro",
            Self::Ru => "ru",
            Self::Sv => "sv",
            Self::Ta => "ta",
            Self::Tr => "tr",
            Self::Ngram => "ngram",
            Self::Cjk => "cjk",
        }
    }
}
