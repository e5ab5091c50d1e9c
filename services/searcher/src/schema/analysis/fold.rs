//! Folds diacritics: `é` becomes `e`, `ß` becomes `ss`.

use tantivy::tokenizer::{Token, TokenFilter, TokenStream, Tokenizer};
use unicode_normalization::UnicodeNormalization;

use super::words::cut;

/// A text in lower case without diacritics. Marks of scripts in which they are letters, such as the vowel signs of Tamil,
/// stay.
pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let marks = '\u{300}'..='\u{36f}';
    for letter in text.nfd().filter(|letter| !marks.contains(letter)) {
        match base(letter) {
            Some(base) => folded.push_str(base),
            None => folded.push(letter),
        }
    }
    // Hangul was taken apart, too.
    folded.nfc().collect()
}

/// The base letters of Latin letters that Unicode does not decompose.
fn base(letter: char) -> Option<&'static str> {
    Some(match letter {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'ø' => "o",
        'đ' | 'ð' => "d",
        'ħ' => "h",
        'ı' => "i",
        'ł' => "l",
        'ŋ' => "n",
        'þ' => "th",
        'ŧ' => "t",
        _ => return None,
    })
}

/// The filter of tokens.
#[derive(Clone)]
pub(super) struct Fold;

#[derive(Clone)]
pub(super) struct FoldTokenizer<T>(T);

pub(super) struct FoldStream<T>(T);

impl TokenFilter for Fold {
    type Tokenizer<T: Tokenizer> = FoldTokenizer<T>;

    fn transform<T: Tokenizer>(self, tokenizer: T) -> FoldTokenizer<T> {
        FoldTokenizer(tokenizer)
    }
}

impl<T: Tokenizer> Tokenizer for FoldTokenizer<T> {
    type TokenStream<'a> = FoldStream<T::TokenStream<'a>>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Self::TokenStream<'a> {
        FoldStream(self.0.token_stream(text))
    }
}

impl<T: TokenStream> TokenStream for FoldStream<T> {
    fn advance(&mut self) -> bool {
        while self.0.advance() {
            let text = &mut self.0.token_mut().text;
            if !text.is_ascii() {
                *text = fold(text);
                cut(text);
            }
            // Nothing is left of a word of marks alone, such as the letters that medieval scribes wrote above others.
            if !text.is_empty() {
                return true;
            }
        }
        false
    }

    fn token(&self) -> &Token {
        self.0.token()
    }

    fn token_mut(&mut self) -> &mut Token {
        self.0.token_mut()
    }
}
