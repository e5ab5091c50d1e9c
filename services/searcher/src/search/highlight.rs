//! Fragments of a hit's text with the matching words marked.
//!
//! Text comes from the stored document and is analyzed as it was for the index; a token is marked if the query has its term,
//! which includes the terms that prefixes and misspelled words were expanded to. Text is escaped for HTML if `pre` is a tag, as
//! it is by default; with any other mark, such as a colour of a terminal, it stays as it is.

mod options;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use tantivy::query::Query;
use tantivy::schema::{Field, Type};
use tantivy::tokenizer::TextAnalyzer;

pub(crate) use self::options::HighlightOptions;
use crate::definition::Analyzer;
use crate::document::{Reading, Scalar, read};
use crate::glob;
use crate::schema::{IndexSchema, PlaceKind};

/// The longest text that is analyzed for highlights, in bytes.
const LONGEST: usize = 1 << 20;

/// Highlights hits of one search.
pub(super) struct Highlighter<'a> {
    options: &'a HighlightOptions,
    schema: &'a IndexSchema,
    /// The words that are marked, by the field and the path in it.
    words: BTreeMap<(Field, Option<String>), BTreeSet<String>>,
    analyzers: BTreeMap<Analyzer, TextAnalyzer>,
}

impl<'a> Highlighter<'a> {
    pub(super) fn new(options: &'a HighlightOptions, schema: &'a IndexSchema, query: &dyn Query) -> Self {
        let mut words: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        query.query_terms(&mut |term, _| {
            let place = match term.typ() {
                Type::Str => term.value().as_str().map(|word| (None, word.to_owned())),
                Type::Json => json_word(term.serialized_value_bytes()),
                _ => None,
            };
            if let Some((path, word)) = place {
                words.entry((term.field(), path)).or_default().insert(word);
            }
        });
        Self { options, schema, words, analyzers: BTreeMap::new() }
    }

    /// The fragments of a document, by field. Fields without a match are left out.
    pub(super) fn highlight(&mut self, source: &str) -> BTreeMap<String, Vec<String>> {
        let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let wanted = &self.options.fields;
        let gathered = read(source, Reading::Lenient, |path, value| {
            if let Scalar::Text(text) = value
                && (wanted.is_empty() || wanted.iter().any(|field| glob::matches(field, path)))
            {
                texts.entry(path.to_owned()).or_default().push(text.into_owned());
            }
            Ok(())
        });
        if gathered.is_err() {
            return BTreeMap::new();
        }
        let marked = texts.into_iter().map(|(path, texts)| {
            let fragments = self.fragments(&path, &texts);
            (path, fragments)
        });
        marked.filter(|(_, fragments)| !fragments.is_empty()).collect()
    }

    fn fragments(&mut self, path: &str, texts: &[String]) -> Vec<String> {
        let places = self.schema.places(path).unwrap_or_default();
        let mut fragments = Vec::new();
        for place in places {
            let PlaceKind::Text(analyzer) = place.kind else { continue };
            let mut words: Vec<&BTreeSet<String>> = Vec::new();
            words.extend(self.words.get(&(place.field, place.path.clone())));
            if place.path.is_some() && !self.schema.definition.fields.contains_key(path) {
                // Dynamic text is searched there if a query names no field.
                words.extend(self.words.get(&(self.schema.all, None)));
            }
            if words.is_empty() {
                continue;
            }
            let tokens = self.analyzers.entry(analyzer).or_insert_with(|| IndexSchema::analyzer(analyzer));
            for text in texts.iter().filter(|text| text.len() <= LONGEST) {
                fragments.extend(find(tokens, text, &words, self.options));
            }
        }
        // The fragments with most matches, in the order of the text.
        if self.options.number_of_fragments > 0 && fragments.len() > self.options.number_of_fragments {
            let mut order: Vec<usize> = (0..fragments.len()).collect();
            order.sort_by_key(|&at| std::cmp::Reverse(fragments[at].0));
            order.truncate(self.options.number_of_fragments);
            order.sort_unstable();
            return order.into_iter().map(|at| std::mem::take(&mut fragments[at].1)).collect();
        }
        fragments.into_iter().map(|(_, text)| text).collect()
    }
}

/// The path and the word of a term in a JSON field: the path with its steps divided by `\x01`, a zero, the type, the word.
fn json_word(bytes: &[u8]) -> Option<(Option<String>, String)> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let (path, rest) = bytes.split_at(end);
    let (kind, word) = rest.get(1..)?.split_first()?;
    if *kind != Type::Str.to_code() {
        return None;
    }
    let path = String::from_utf8(path.to_vec()).ok()?.replace('\u{1}', ".");
    Some((Some(path), String::from_utf8(word.to_vec()).ok()?))
}

/// The fragments of a text with the number of matches in each.
fn find(
    analyzer: &mut TextAnalyzer,
    text: &str,
    words: &[&BTreeSet<String>],
    options: &HighlightOptions,
) -> Vec<(usize, String)> {
    let mut matches: Vec<Range<usize>> = Vec::new();
    let mut tokens = analyzer.token_stream(text);
    tokens.process(&mut |token| {
        let is_text = token.offset_from < token.offset_to
            && text.is_char_boundary(token.offset_from)
            && text.is_char_boundary(token.offset_to);
        if is_text && words.iter().any(|words| words.contains(&token.text)) {
            matches.push(token.offset_from..token.offset_to);
        }
    });
    matches.sort_by_key(|range| (range.start, range.end));
    let mut marks: Vec<Range<usize>> = Vec::new();
    for range in matches {
        match marks.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => marks.push(range),
        }
    }
    if marks.is_empty() {
        return Vec::new();
    }
    if options.number_of_fragments == 0 {
        return vec![(marks.len(), marked(text, 0..text.len(), &marks, options))];
    }
    let groups = group(text, &marks, options.fragment_size);
    let fragment = |(window, marks): (Range<usize>, Range<usize>), all: &[Range<usize>]| {
        (marks.len(), marked(text, window, &all[marks], options))
    };
    groups.into_iter().map(|window| fragment(window, &marks)).collect()
}

/// Groups marks that fit into a fragment, each with the part of the text that is shown.
fn group(text: &str, marks: &[Range<usize>], size: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let length = |range: Range<usize>| text[range].chars().count();
    let mut groups = Vec::new();
    let (mut first, mut shown) = (0, 0);
    while let Some(mark) = marks.get(first) {
        let mut end = first + 1;
        while marks.get(end).is_some_and(|next| length(mark.start..next.end) <= size) {
            end += 1;
        }
        let matched = mark.start..marks[end - 1].end;
        let spare = size.saturating_sub(length(matched.clone()));
        let start = before(text, shown, matched.start, spare / 2);
        let spare = spare - length(start..matched.start).min(spare);
        let limit = marks.get(end).map_or(text.len(), |next| next.start);
        let stop = after(text, matched.end, limit, spare);
        groups.push((start..stop, first..end));
        (first, shown) = (end, stop);
    }
    groups
}

/// The start of a fragment: some characters before a match, at the beginning of a word if there is one.
fn before(text: &str, from: usize, to: usize, characters: usize) -> usize {
    let part = &text[from..to];
    let Some((cut, _)) = part.char_indices().rev().take(characters).last() else { return to };
    if cut == 0 {
        return from;
    }
    let word = part[cut..].find(char::is_whitespace).map(|at| cut + at);
    word.map_or(to, |space| {
        from + part[space..].find(|c: char| !c.is_whitespace()).map_or(part.len(), |at| space + at)
    })
}

/// The end of a fragment: some characters after a match, at the end of a word if there is one.
fn after(text: &str, from: usize, to: usize, characters: usize) -> usize {
    let part = &text[from..to];
    match part.char_indices().nth(characters) {
        None => to,
        Some((cut, _)) => from + part[..cut].rfind(char::is_whitespace).unwrap_or(0),
    }
}

fn marked(text: &str, window: Range<usize>, marks: &[Range<usize>], options: &HighlightOptions) -> String {
    let is_html = options.is_html();
    let mut out = String::with_capacity(window.len() + marks.len() * 16);
    let mut at = window.start;
    for mark in marks {
        push(&mut out, &text[at..mark.start], is_html);
        out.push_str(&options.pre);
        push(&mut out, &text[mark.clone()], is_html);
        out.push_str(&options.post);
        at = mark.end;
    }
    push(&mut out, &text[at..window.end], is_html);
    out.trim().to_owned()
}

fn push(out: &mut String, text: &str, is_html: bool) {
    if !is_html {
        out.push_str(text);
        return;
    }
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
}
