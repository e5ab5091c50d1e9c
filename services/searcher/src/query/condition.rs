//! A condition on one field as Elasticsearch's queries have it, and where in an index it looks.
//!
//! A field that an index does not have matches nothing. A text that was not declared is searched by its words under its name, and as a
//! whole under its name with `.keyword`; its numbers, booleans and dates are under its name.

mod places;
mod range;

use std::ops::Bound;

use super::Piece;
use super::dates::DateReading;

pub(crate) use self::places::base_of_keyword;
pub(super) use self::places::{Picked, Spot, Takes, selections, spots};
pub(super) use self::range::{date_queries, is_day, queries as range_queries};

/// The most words of a text that may be misspelled; further ones are taken as they are.
const MAX_MISSPELLED: u32 = 32;

/// A condition on one field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    /// The number of its first expansion, set when the tree is whole.
    pub(crate) number: u32,
    pub(crate) field: String,
    /// Whether a text that is no value of the field matches nothing, instead of being refused.
    pub(crate) is_lenient: bool,
    pub(crate) test: Test,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test {
    /// One of some values, which are not analyzed.
    Values {
        values: Vec<Scalar>,
        any_case: bool,
    },
    /// The words of a text, or a value.
    Words(Words),
    /// The words of a text, in their order.
    Phrase {
        text: Scalar,
        slop: u32,
        is_last_prefix: bool,
        no_words: NoWords,
    },
    /// Terms that are like a pattern.
    Like {
        pattern: Like,
        any_case: bool,
        /// Whether the pattern is treated as words are: in lower case.
        is_normalized: bool,
    },
    Range {
        lower: Bound<Scalar>,
        upper: Bound<Scalar>,
        dates: DateReading,
    },
    Exists,
}

/// A value as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Whether it is text in JSON, and not a number or a boolean.
    pub(crate) is_text: bool,
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), is_text: true }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Words {
    pub(crate) text: Scalar,
    pub(crate) all: bool,
    /// How many words must match, if not all must.
    pub(crate) minimum: Option<Minimum>,
    pub(crate) fuzzy: Option<Fuzzy>,
    /// Whether the last word is the beginning of one.
    pub(crate) is_last_prefix: bool,
    pub(crate) no_words: NoWords,
}

/// What a text without words matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoWords {
    Nothing,
    All,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Like {
    Prefix(String),
    Wildcard(Vec<Piece>),
    Regexp(String),
    Fuzzy(String, Fuzzy),
}

/// How words may be misspelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fuzzy {
    pub(crate) distance: Distance,
    /// How many characters at the start must be right.
    pub(crate) prefix: usize,
    /// Whether two neighbours in the wrong order are one edit.
    pub(crate) transpositions: bool,
    pub(crate) most: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distance {
    Edits(u8),
    /// One edit from a length on, and two from another.
    Auto(usize, usize),
}

impl Distance {
    pub(super) fn of(self, word: &str) -> u8 {
        match self {
            Self::Edits(edits) => edits,
            Self::Auto(one, two) => {
                let length = word.chars().count();
                u8::from(length >= one) + u8::from(length >= two)
            }
        }
    }
}

/// How many of some clauses must match: `2`, `-1`, `75%`, or by their number, `2<75% 9<-3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Minimum {
    /// Used above so many clauses; ascending.
    rules: Vec<(usize, Rule)>,
    /// What holds without a rule; all clauses if there are rules.
    plain: Option<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    Count(i64),
    Percent(i64),
}

impl Minimum {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let rule = |text: &str| -> Option<Rule> {
            let text = text.trim();
            Some(match text.strip_suffix('%') {
                Some(percent) => Rule::Percent(percent.parse().ok().filter(|p| (-100..=100).contains(p))?),
                None => Rule::Count(text.parse::<i32>().ok()?.into()),
            })
        };
        if !text.contains('<') {
            return Some(Self { rules: Vec::new(), plain: Some(rule(text)?) });
        }
        let mut rules = Vec::new();
        for part in text.split_whitespace() {
            let (above, then) = part.split_once('<')?;
            rules.push((above.parse().ok()?, rule(then)?));
        }
        rules.is_sorted_by_key(|(above, _)| *above).then_some(Self { rules, plain: None })
    }

    /// How many of some clauses must match: at most one more than there are.
    pub(crate) fn of(&self, clauses: usize) -> usize {
        let rule = match self.rules.iter().rev().find(|(above, _)| clauses > *above) {
            Some((_, rule)) => *rule,
            None => match self.plain {
                Some(rule) => rule,
                None => return clauses,
            },
        };
        let all = i64::try_from(clauses).unwrap_or(i64::MAX);
        let least = match rule {
            Rule::Count(count) if count < 0 => all + count,
            Rule::Count(count) => count,
            Rule::Percent(percent) if percent < 0 => all - all * -percent / 100,
            Rule::Percent(percent) => all * percent / 100,
        };
        usize::try_from(least.max(0)).unwrap_or(0).min(clauses + 1)
    }
}

impl Condition {
    /// How many numbers it takes: one for each word that is expanded by itself.
    pub(crate) fn numbers(&self) -> u32 {
        match &self.test {
            Test::Words(Words { text, fuzzy: Some(_), .. }) => {
                let length = u32::try_from(text.text.chars().count()).unwrap_or(u32::MAX);
                // One more for the beginning of a word behind those that may be misspelled.
                length.clamp(1, MAX_MISSPELLED) + 1
            }
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimum_is_a_number_a_share_or_rules_by_number() {
        for (text, clauses, least) in [
            ("2", 4, 2),
            ("5", 4, 5),
            ("9", 4, 5),
            ("-1", 4, 3),
            ("-10", 4, 0),
            ("0", 4, 0),
            ("50%", 3, 1),
            ("75%", 4, 3),
            ("-25%", 4, 3),
            ("-25%", 3, 3),
            ("3<90%", 3, 3),
            ("3<90%", 10, 9),
            ("2<-25% 9<-3", 2, 2),
            ("2<-25% 9<-3", 4, 3),
            ("2<-25% 9<-3", 10, 7),
        ] {
            assert_eq!(Minimum::parse(text).unwrap().of(clauses), least, "{text} of {clauses}");
        }
        for text in ["", "x", "%", "200%", "2<", "9<1 2<1", "1.5", "99999999999"] {
            assert_eq!(Minimum::parse(text), None, "{text}");
        }
    }
}
