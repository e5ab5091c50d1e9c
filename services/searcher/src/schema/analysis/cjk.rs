//! Pairs of characters in runs of Chinese, Japanese and Korean text, and words elsewhere. Documents also have the single
//! characters, so a query of one character finds all that have it.

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

use super::Side;
use super::words::{is_part, normalize};

#[derive(Clone)]
pub(super) struct Cjk {
    side: Side,
    token: Token,
}

impl Cjk {
    pub(super) fn new(side: Side) -> Self {
        Self { side, token: Token::default() }
    }
}

impl Tokenizer for Cjk {
    type TokenStream<'a> = CjkStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> CjkStream<'a> {
        self.token.reset();
        CjkStream { side: self.side, text, at: 0, place: Between, token: &mut self.token }
    }
}

/// Where the stream is.
#[derive(Clone, Copy, PartialEq)]
enum InRun {
    /// Not in a run of CJK characters.
    Between,
    /// At the first character of a run.
    First,
    /// At a later character of a run.
    Later,
    /// At a character of a run whose own token was the last one.
    Pair,
}
use InRun::{Between, First, Later, Pair};

pub(super) struct CjkStream<'a> {
    side: Side,
    text: &'a str,
    at: usize,
    place: InRun,
    token: &'a mut Token,
}

fn is_cjk(c: char) -> bool {
    matches!(c,
        '\u{1100}'..='\u{11ff}' // Hangul Jamo
        | '\u{3005}'..='\u{3007}' // iteration marks, zero
        | '\u{3041}'..='\u{30ff}' // Hiragana, Katakana
        | '\u{3105}'..='\u{318f}' // Bopomofo, Hangul compatibility Jamo
        | '\u{31f0}'..='\u{31ff}' // Katakana extensions
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' // ideographs
        | '\u{ac00}'..='\u{d7ff}' // Hangul
        | '\u{f900}'..='\u{faff}' // compatibility ideographs
        | '\u{ff66}'..='\u{ff9f}' // half-width Katakana
        | '\u{20000}'..='\u{323af}') // more ideographs
        && is_part(c)
}

impl CjkStream<'_> {
    fn emit(&mut self, length: usize, is_next: bool) {
        let text = &self.text[self.at..self.at + length];
        self.token.offset_from = self.at;
        self.token.offset_to = self.at + length;
        if is_next {
            self.token.position = self.token.position.wrapping_add(1);
        }
        self.token.text.clear();
        normalize(text, false, &mut self.token.text);
    }
}

impl TokenStream for CjkStream<'_> {
    fn advance(&mut self) -> bool {
        loop {
            let mut chars = self.text[self.at..].chars();
            let Some(first) = chars.next() else { return false };
            let one = first.len_utf8();
            if !is_cjk(first) {
                self.place = Between;
                if !first.is_alphanumeric() {
                    self.at += one;
                    continue;
                }
                let rest = &self.text[self.at..];
                let length = rest.find(|c| !is_part(c) || is_cjk(c)).unwrap_or(rest.len());
                self.emit(length, true);
                self.at += length;
                return true;
            }
            let pair = chars.next().filter(|second| is_cjk(*second)).map(|second| one + second.len_utf8());
            if self.place == Between {
                self.place = First;
            }
            match (self.place, self.side, pair) {
                (Pair, _, Some(pair)) => {
                    self.emit(pair, false);
                    self.at += one;
                    self.place = Later;
                    return true;
                }
                (First | Later, Side::Document, Some(_)) => {
                    self.emit(one, true);
                    self.place = Pair;
                    return true;
                }
                (First | Later, Side::Query, Some(pair)) => {
                    self.emit(pair, true);
                    self.at += one;
                    self.place = Later;
                    return true;
                }
                (First, _, None) | (Later, Side::Document, None) => {
                    self.emit(one, true);
                    self.at += one;
                    self.place = Between;
                    return true;
                }
                (Later, Side::Query, None) | (Pair, _, None) | (Between, _, _) => {
                    // The last character has a position in documents.
                    self.token.position = self.token.position.wrapping_add(1);
                    self.at += one;
                    self.place = Between;
                }
            }
        }
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}
