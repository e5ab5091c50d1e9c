//! Words: runs of letters and digits with their combining marks, in lower case.

use tantivy::tokenizer::{Language, Token, TokenStream, Tokenizer};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use super::MAX_TERM;

#[derive(Clone, Default)]
pub(super) struct Words {
    /// Whether `I` is the capital of `ı`.
    is_turkish: bool,
    token: Token,
}

impl Words {
    pub(super) fn of(language: Language) -> Self {
        Self { is_turkish: language == Language::Turkish, token: Token::default() }
    }
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { text, at: 0, is_turkish: self.is_turkish, token: &mut self.token }
    }
}

pub(super) struct WordStream<'a> {
    text: &'a str,
    at: usize,
    is_turkish: bool,
    token: &'a mut Token,
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let Some(start) = rest.find(char::is_alphanumeric) else {
            self.at = self.text.len();
            return false;
        };
        let word = &rest[start..];
        let word = &word[..word.find(|c| !is_part(c)).unwrap_or(word.len())];
        self.token.offset_from = self.at + start;
        self.token.offset_to = self.token.offset_from + word.len();
        self.token.position = self.token.position.wrapping_add(1);
        self.at = self.token.offset_to;
        self.token.text.clear();
        normalize(word, self.is_turkish, &mut self.token.text);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// Whether a character continues a word.
pub(super) fn is_part(c: char) -> bool {
    c.is_alphanumeric() || (!c.is_ascii() && is_combining_mark(c))
}

/// Appends a word in lower case and NFKC, cut to the longest term.
pub(super) fn normalize(word: &str, is_turkish: bool, text: &mut String) {
    if word.is_ascii() && !is_turkish {
        text.push_str(&word[..word.len().min(MAX_TERM)]);
        text.make_ascii_lowercase();
        return;
    }
    // NFKC makes a character at most 18 times as long, and case mapping three times; the bound keeps a huge word cheap.
    for c in word.nfkc().take(MAX_TERM) {
        match c {
            'I' if is_turkish => text.push('ı'),
            'İ' if is_turkish => text.push('i'),
            c => text.extend(c.to_lowercase()),
        }
    }
    cut(text);
}

/// Cuts a term to the longest length.
pub(super) fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(MAX_TERM));
}
