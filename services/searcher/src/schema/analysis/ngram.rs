//! Parts of two and three characters of each word, where a word is what stands between spaces. A token's position is its
//! first character's, so a phrase of the parts of a text, with all three characters of each, finds that text anywhere.

use std::collections::VecDeque;
use std::str::CharIndices;

use tantivy::tokenizer::{Token, TokenStream, Tokenizer};

use super::Side;
use super::fold::fold;

#[derive(Clone)]
pub(super) struct Ngrams {
    side: Side,
    token: Token,
}

impl Ngrams {
    pub(super) fn new(side: Side) -> Self {
        Self { side, token: Token::default() }
    }
}

impl Tokenizer for Ngrams {
    type TokenStream<'a> = NgramStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> NgramStream<'a> {
        self.token.reset();
        NgramStream {
            side: self.side,
            chars: Folded { chars: text.char_indices(), pending: VecDeque::new() },
            window: VecDeque::with_capacity(4),
            is_end_of_word: false,
            is_first: true,
            last: 0,
            position: 0,
            token: &mut self.token,
        }
    }
}

/// A folded character, and the bytes of the text that it stands for.
#[derive(Clone, Copy)]
struct Piece {
    c: char,
    from: usize,
    to: usize,
}

/// The characters of a text in lower case and without diacritics.
struct Folded<'a> {
    chars: CharIndices<'a>,
    pending: VecDeque<Piece>,
}

impl Iterator for Folded<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.pending.pop_front() {
                return Some(piece);
            }
            let (from, c) = self.chars.next()?;
            let to = from + c.len_utf8();
            if c.is_ascii() {
                return Some(Piece { c: c.to_ascii_lowercase(), from, to });
            }
            let lower: String = c.to_lowercase().collect();
            self.pending.extend(fold(&lower).chars().map(|c| Piece { c, from, to }));
        }
    }
}

pub(super) struct NgramStream<'a> {
    side: Side,
    chars: Folded<'a>,
    /// The next characters of the word, at most three.
    window: VecDeque<Piece>,
    is_end_of_word: bool,
    /// Whether the window is at the start of a word.
    is_first: bool,
    /// The length of the last token at this position.
    last: usize,
    position: usize,
    token: &'a mut Token,
}

impl NgramStream<'_> {
    fn fill(&mut self) {
        while self.window.len() < 3 && !self.is_end_of_word {
            match self.chars.next() {
                Some(piece) if !piece.c.is_whitespace() => self.window.push_back(piece),
                _ => self.is_end_of_word = true,
            }
        }
    }

    /// The length of the next token at this position.
    fn length(&self) -> Option<usize> {
        let lengths: &[usize] = match (self.window.len(), self.side) {
            (1, _) if self.is_first => &[1],
            (2, Side::Query) if self.is_first => &[2],
            (2, Side::Document) => &[2],
            (3, Side::Query) => &[3],
            (3, Side::Document) => &[2, 3],
            _ => &[],
        };
        lengths.iter().copied().find(|length| *length > self.last)
    }
}

impl TokenStream for NgramStream<'_> {
    fn advance(&mut self) -> bool {
        loop {
            self.fill();
            if let Some(length) = self.length() {
                self.last = length;
                self.token.text.clear();
                self.token.text.extend(self.window.iter().take(length).map(|piece| piece.c));
                self.token.offset_from = self.window[0].from;
                self.token.offset_to = self.window[length - 1].to;
                self.token.position = self.position;
                return true;
            }
            self.last = 0;
            self.position += 1;
            if self.window.pop_front().is_some() {
                self.is_first = false;
            } else if self.chars.pending.is_empty() && self.chars.chars.as_str().is_empty() {
                return false;
            } else {
                self.is_end_of_word = false;
                self.is_first = true;
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
