//! The text of a hit in one line of limited width. Pure.

use std::fmt;

use client::Hit;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::TAGS;

/// What a hit shows of its document: the fragment with the most words that matched, else the first text in the document.
pub(super) fn of_hit(hit: &Hit) -> String {
    // The id is shown beside it.
    let fragments = hit.highlight.values().flatten().filter(|fragment| fragment.replace(TAGS, "") != hit.id);
    // Of equal ones the first.
    let best = fragments.rev().max_by_key(|fragment| fragment.matches(TAGS[0]).count());
    if let Some(fragment) = best {
        return fragment.clone();
    }
    let Some(source) = &hit.source else { return String::new() };
    let texts: Texts = serde_json::from_str(source.get()).unwrap_or_default();
    let mut texts = texts.0.into_iter().filter(|text| *text != hit.id).peekable();
    let first = texts.peek().cloned();
    // A keyword says less than a sentence.
    texts.find(|text| text.trim().contains(' ')).or(first).unwrap_or_default()
}

/// The text in one line, cut to this many columns. The marks of words that matched have no width, and each that is open
/// where the text is cut is closed.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let mut line = String::new();
    let (mut used, mut is_marked) = (0, false);
    let mut chars = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).peekable();
    while let Some(c) = chars.next() {
        if TAGS.contains(&c) {
            is_marked = c == TAGS[0];
            line.push(c);
            continue;
        }
        if c == ' ' && line.ends_with(' ') {
            continue;
        }
        let is_last = chars.clone().all(|c| TAGS.contains(&c));
        let room = columns.saturating_sub(usize::from(!is_last));
        if used + width(c) > room {
            line.truncate(line.trim_end().len());
            line.push('…');
            break;
        }
        used += width(c);
        line.push(c);
    }
    if is_marked && !line.ends_with(TAGS[1]) {
        line.push(TAGS[1]);
    }
    line
}

/// The columns that a character takes on a terminal: two if it is East Asian wide (Unicode, UAX 11) or an emoji, none if
/// it combines with the one before it.
fn width(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// All texts of a JSON value, in the order in which they stand there.
#[derive(Debug, Default)]
struct Texts(Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Texts::default())
    }
}

impl<'de> Visitor<'de> for Texts {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_str<E>(mut self, text: &str) -> Result<Self, E> {
        if !text.trim().is_empty() {
            self.0.push(text.to_owned());
        }
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((_, inner)) = map.next_entry::<IgnoredAny, Self>()? {
            self.0.extend(inner.0);
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self, A::Error> {
        while let Some(inner) = seq.next_element::<Self>()? {
            self.0.extend(inner.0);
        }
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(json: &str) -> Hit {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_hit_shows_its_best_fragment_else_its_first_sentence_else_its_first_word() {
        for (json, expected) in [
            (
                "{\"id\":\"a\",\"highlight\":{\"d\":[\"\u{fdd0}http\u{fdd1} \u{fdd0}proxy\u{fdd1}\"],\"a\":[\"\u{fdd0}http\u{fdd1}\"]}}",
                "\u{fdd0}http\u{fdd1} \u{fdd0}proxy\u{fdd1}",
            ),
            ("{\"id\":\"ab\",\"source\":\"c d\",\"highlight\":{\"name\":[\"a\u{fdd0}b\u{fdd1}\"]}}", "c d"),
            (r#"{"id":"a","source":{"z":"a","n":1.5,"b":null,"y":["net",{"x":"a b"}],"c":"c d"}}"#, "a b"),
            (r#"{"id":"a","source":{"z":"a","y":"net","t":true}}"#, "net"),
            (r#"{"id":"a","source":{"z":"a"}}"#, ""),
            (r#"{"id":"a"}"#, ""),
        ] {
            assert_eq!(of_hit(&hit(json)), expected, "{json}");
        }
    }

    #[test]
    fn a_text_is_one_line_that_fits_and_closes_its_marks() {
        for (text, columns, expected) in [
            ("short", 5, "short"),
            ("longer", 5, "long…"),
            ("two words", 5, "two…"),
            ("  a\n\n b\tc \u{1b}[2J", 20, "a b c [2J"),
            ("a \u{fdd0}marked\u{fdd1} word", 5, "a \u{fdd0}ma…\u{fdd1}"),
            ("a \u{fdd0}b\u{fdd1}", 3, "a \u{fdd0}b\u{fdd1}"),
            ("検索エンジン", 6, "検索…"),
            ("検索", 4, "検索"),
            ("x", 0, "…"),
        ] {
            assert_eq!(cut(text, columns), expected, "{text:?} {columns}");
        }
    }
}
