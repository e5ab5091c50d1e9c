//! Regular expressions as Lucene writes them, as deterministic automata of bounded size. They match whole terms.
//!
//! `^` and `$` are characters like others. Complements (`~`), intersections (`&`), intervals (`<1-9>`) and the empty language (`#`)
//! are refused.

use std::fmt;

use tantivy_fst::{Automaton, Regex};

/// The longest expression, in characters.
const MAX_LENGTH: usize = 1_000;
/// The largest expression with its repetitions written out, in characters, about: what an automaton costs grows with it.
const MAX_SIZE: usize = 2_000;
const MAX_DEPTH: u32 = 50;
/// What a set of characters counts for.
const SET: usize = 10;

/// A compiled expression.
pub(crate) struct Regexp(Regex);

impl fmt::Debug for Regexp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Regexp").finish_non_exhaustive()
    }
}

impl Regexp {
    /// Compiles an expression; the error says what is wrong with it.
    pub(crate) fn new(text: &str, any_case: bool) -> Result<Self, String> {
        let text: Vec<char> = text.chars().collect();
        if text.len() > MAX_LENGTH {
            return Err(format!("it has more than {MAX_LENGTH} characters"));
        }
        let mut translator = Translator { text, at: 0, depth: 0, out: String::new() };
        translator.out.push_str(if any_case { "(?is)" } else { "(?s)" });
        let size = translator.alternatives()?;
        if translator.at < translator.text.len() {
            return Err(format!("`)` at character {} closes nothing", translator.at));
        }
        if size > MAX_SIZE {
            return Err("it is too large".to_owned());
        }
        Regex::new(&translator.out).map(Self).map_err(|_| "it is too complex, or not supported".to_owned())
    }

    /// Compiles a pattern in which `?` is one character and `*` any, in any case.
    pub(crate) fn of_pieces(pieces: &[super::Piece]) -> Result<Self, String> {
        let mut out = "(?is)".to_owned();
        for piece in pieces {
            match piece {
                super::Piece::Text(text) => text.chars().for_each(|c| push(&mut out, c)),
                super::Piece::One => out.push('.'),
                super::Piece::Many => out.push_str(".*"),
            }
        }
        Regex::new(&out).map(Self).map_err(|_| "it is too complex".to_owned())
    }
}

impl Automaton for Regexp {
    type State = Option<usize>;

    fn start(&self) -> Option<usize> {
        self.0.start()
    }

    fn is_match(&self, state: &Option<usize>) -> bool {
        self.0.is_match(state)
    }

    fn can_match(&self, state: &Option<usize>) -> bool {
        self.0.can_match(state)
    }

    fn accept(&self, state: &Option<usize>, byte: u8) -> Option<usize> {
        self.0.accept(state, byte)
    }
}

/// Writes an expression in the syntax of Rust's.
struct Translator {
    text: Vec<char>,
    at: usize,
    depth: u32,
    out: String,
}

/// A character that stands for itself.
fn push(out: &mut String, c: char) {
    if c.is_alphanumeric() {
        out.push(c);
    } else {
        out.push_str(&format!("\\x{{{:x}}}", u32::from(c)));
    }
}

impl Translator {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    /// Each function returns about how many characters its part has with all repetitions written out.
    fn alternatives(&mut self) -> Result<usize, String> {
        let mut size = self.sequence()?;
        while self.peek() == Some('|') {
            self.at += 1;
            self.out.push('|');
            size += self.sequence()?;
        }
        Ok(size)
    }

    fn sequence(&mut self) -> Result<usize, String> {
        let mut size = 0;
        while let Some(c) = self.peek().filter(|c| !matches!(c, '|' | ')')) {
            let start = self.out.len();
            let mut part = self.atom(c)?;
            // Repetitions of repetitions are grouped, so that Rust takes no `*?` for lazy.
            while let Some(factor) = self.repetition(start)? {
                part = part.saturating_mul(factor).saturating_add(1);
            }
            size += part;
            if size > MAX_SIZE {
                return Err("it is too large".to_owned());
            }
        }
        Ok(size)
    }

    fn repetition(&mut self, start: usize) -> Result<Option<usize>, String> {
        let (text, factor) = match self.peek() {
            Some(c @ ('?' | '*' | '+')) => {
                self.at += 1;
                (c.to_string(), 1)
            }
            Some('{') => {
                let open = self.at;
                self.at += 1;
                let least = self.number();
                let most = match self.peek() {
                    Some(',') => {
                        self.at += 1;
                        Some(self.number())
                    }
                    _ => None,
                };
                let wrong = || format!("the repetition at character {open} is not {{n}}, {{n,}} or {{n,m}}");
                let least = least.ok_or_else(wrong)?;
                if self.next() != Some('}') {
                    return Err(wrong());
                }
                match most {
                    None => (format!("{{{least}}}"), least),
                    Some(None) => (format!("{{{least},}}"), least + 1),
                    Some(Some(most)) if most >= least => (format!("{{{least},{most}}}"), most),
                    Some(Some(_)) => return Err(wrong()),
                }
            }
            _ => return Ok(None),
        };
        self.out.insert_str(start, "(?:");
        self.out.push(')');
        self.out.push_str(&text);
        Ok(Some(factor.max(1)))
    }

    fn number(&mut self) -> Option<usize> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let digits: String = self.text[start..self.at].iter().collect();
        digits.parse().ok().filter(|number| *number <= MAX_SIZE)
    }

    fn atom(&mut self, c: char) -> Result<usize, String> {
        let at = self.at;
        self.at += 1;
        match c {
            '(' => {
                if self.depth == MAX_DEPTH {
                    return Err(format!("it is nested more than {MAX_DEPTH} deep"));
                }
                self.depth += 1;
                self.out.push_str("(?:");
                let size = self.alternatives()?;
                self.depth -= 1;
                if self.next() != Some(')') {
                    return Err(format!("the parenthesis at character {at} is not closed"));
                }
                self.out.push(')');
                Ok(size)
            }
            '.' => {
                self.out.push('.');
                Ok(SET)
            }
            '@' => {
                self.out.push_str("(?:.*)");
                Ok(SET)
            }
            '[' => self.set(at),
            '"' => {
                let mut size = 0;
                self.out.push_str("(?:");
                loop {
                    match self.next() {
                        Some('"') => break,
                        Some(c) => push(&mut self.out, c),
                        None => return Err(format!("the quote at character {at} is not closed")),
                    }
                    size += 1;
                }
                self.out.push(')');
                Ok(size)
            }
            '\\' => self.escape(),
            '~' | '&' | '<' | '#' => {
                Err(format!("`{c}` at character {at} is not supported; `\\{c}` is the character itself"))
            }
            '?' | '*' | '+' | '{' => Err(format!("`{c}` at character {at} repeats nothing")),
            c => {
                push(&mut self.out, c);
                Ok(1)
            }
        }
    }

    fn escape(&mut self) -> Result<usize, String> {
        let set = match self.next() {
            Some('d') => "[0-9]",
            Some('D') => "[^0-9]",
            Some('w') => "[0-9A-Za-z_]",
            Some('W') => "[^0-9A-Za-z_]",
            Some('s') => "[ \\t\\n\\r]",
            Some('S') => "[^ \\t\\n\\r]",
            Some(c) => {
                push(&mut self.out, c);
                return Ok(1);
            }
            None => return Err("a character is missing after the backslash at the end".to_owned()),
        };
        self.out.push_str(set);
        Ok(SET)
    }

    fn set(&mut self, open: usize) -> Result<usize, String> {
        let closed = || format!("the set at character {open} is not closed");
        self.out.push('[');
        if self.peek() == Some('^') {
            self.at += 1;
            self.out.push('^');
        }
        let mut count = 0;
        loop {
            let first = match self.next().ok_or_else(closed)? {
                ']' if count > 0 => break,
                '\\' => self.next().ok_or_else(closed)?,
                c => c,
            };
            count += 1;
            push(&mut self.out, first);
            let is_range = self.peek() == Some('-') && self.text.get(self.at + 1).is_some_and(|c| *c != ']');
            if is_range {
                self.at += 1;
                let last = match self.next().ok_or_else(closed)? {
                    '\\' => self.next().ok_or_else(closed)?,
                    c => c,
                };
                if last < first {
                    return Err(format!("the range `{first}-{last}` ends before it begins"));
                }
                self.out.push('-');
                push(&mut self.out, last);
            }
        }
        self.out.push(']');
        Ok(SET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, any_case: bool, text: &str) -> bool {
        let regexp = Regexp::new(expression, any_case).unwrap();
        regexp.is_match(&text.bytes().fold(regexp.start(), |state, byte| regexp.accept(&state, byte)))
    }

    #[test]
    fn expressions_match_whole_terms_as_lucene_does() {
        for (expression, yes, no) in [
            (".*event", vec!["pushevent", "event"], vec!["events"]),
            ("red$", vec!["red$"], vec!["red"]),
            ("^a", vec!["^a"], vec!["a"]),
            ("a|b(c|d)*", vec!["a", "b", "bcd"], vec!["ab", "bca"]),
            ("a{2,3}", vec!["aa", "aaa"], vec!["a", "aaaa"]),
            ("[a-c^]+", vec!["abc^"], vec!["d"]),
            ("[^a-c]", vec!["d", "\u{fc}"], vec!["a", "dd"]),
            ("\"a.b\"", vec!["a.b"], vec!["axb"]),
            ("a\\.b", vec!["a.b"], vec!["axb"]),
            ("@", vec!["", "x y"], vec![]),
            ("a\\#?", vec!["a", "a#"], vec!["ab"]),
            ("\\d+", vec!["12"], vec!["1a"]),
            (".", vec!["\u{65e5}", "\n"], vec!["ab"]),
            ("a*?", vec!["", "aa"], vec!["b"]),
            ("()", vec![""], vec!["a"]),
        ] {
            for text in yes {
                assert!(matches(expression, false, text), "{expression} {text}");
            }
            for text in no {
                assert!(!matches(expression, false, text), "{expression} {text}");
            }
        }
        assert!(matches("RUST.*", true, "rustlang") && !matches("RUST.*", false, "rustlang"));
    }

    #[test]
    fn what_is_wrong_too_large_or_not_supported_is_refused() {
        for expression in [
            "(",
            ")",
            "[a",
            "[b-a]",
            "*a",
            "a{2",
            "a{3,2}",
            "a~b",
            "a&b",
            "<1-9>",
            "\"a",
            "a\\",
            "(a{100}){100}",
            "(.*a.{30}|b)",
        ] {
            assert!(Regexp::new(expression, false).is_err(), "{expression}");
        }
        assert!(Regexp::new(&"(".repeat(500), false).is_err());
        assert!(Regexp::new(&"a".repeat(1_001), false).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_expression_is_compiled_or_refused(expression in "[a-c.*+?|(){}\\[\\]\\\\^$\"@#~&<0-9,-]{0,24}", any_case: bool) {
            let _ = Regexp::new(&expression, any_case);
        }
    }
}
