//! Reads the members of a search, and reports all mistakes at once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use plugin::shard::ReadLevel;
use serde_json::Value;
use serde_json::value::RawValue;

use super::members::{Members, Mistakes, shortened};
use super::{
    DEFAULT_SIZE, DEFAULT_TIMEOUT, Dsl, Knn, MAX_FACET, MAX_SIZE, MAX_TIMEOUT, MAX_WINDOW, Rrf,
    SearchRequest, SourceFilter,
};
use crate::query::{self, Ast, ParseOptions, QueryError};
use crate::search::aggregations::Aggregations;
use crate::search::highlight::HighlightOptions;
use crate::search::sort::{Cursor, SortKey};

/// The members of a search.
pub(super) const MEMBERS: [&str; 20] = [
    "q",
    "filter",
    "fields",
    "default_operator",
    "typos",
    "size",
    "from",
    "sort",
    "search_after",
    "highlight",
    "facets",
    "aggs",
    "knn",
    "rrf",
    "explain",
    "source",
    "did_you_mean",
    "consistency",
    "timeout",
    "allow_partial",
];

impl SearchRequest {
    /// A request in JSON, as in `POST /{index}/search`. Unknown members are refused with a did-you-mean. An empty body
    /// searches for everything.
    pub(crate) fn from_json(body: &[u8]) -> Result<Self, QueryError> {
        Self::from_members(&read_members(body)?)
    }

    /// A request from another member, as [`to_json`](Self::to_json) writes it.
    pub(crate) fn from_wire(body: &[u8]) -> Result<Self, QueryError> {
        let mut members = read_members(body)?;
        let dsl = match members.take("dsl") {
            None => None,
            Some(raw) => Some(serde_json::from_str(raw.get()).map_err(|error| QueryError {
                message: format!("`dsl`: {error}"),
                at: None,
                hint: None,
            })?),
        };
        let index = members.take("index").map(|raw| serde_json::from_str(raw.get())).transpose();
        let index = index.map_err(|error| QueryError {
            message: format!("`index`: {error}"),
            at: None,
            hint: None,
        })?;
        Self::read(&members, dsl, index)
    }

    pub(super) fn from_members(members: &Members) -> Result<Self, QueryError> {
        Self::read(members, None, None)
    }

    fn read(members: &Members, dsl: Option<Dsl>, index: Option<u16>) -> Result<Self, QueryError> {
        let mut mistakes = Mistakes::default();
        members.check_names(&MEMBERS, &mut mistakes);
        let q: Option<String> = members.read("q", "text", &mut mistakes);
        let filter = texts(members, "filter", &mut mistakes);
        let options = ParseOptions {
            fields: fields(members, &mut mistakes),
            all_words: choice(members, "default_operator", ["or", "and"], &mut mistakes),
            typos: choice(members, "typos", ["off", "auto"], &mut mistakes),
        };
        let most = if dsl.is_some() || index.is_some() { MAX_WINDOW } else { MAX_SIZE };
        let (size, from) = window(members, most, &mut mistakes);
        let sort = or_mistake(members.raw("sort").map(SortKey::read_all), &mut mistakes).unwrap_or_default();
        let after = members.raw("search_after").map(|raw| Cursor::read(raw, &sort));
        let search_after = or_mistake(after, &mut mistakes);
        if search_after.is_some() && from > 0 {
            let hint = "leave `from` out".to_owned();
            mistakes.add("`from` can't be used with `search_after`".to_owned(), Some(hint));
        }
        let highlight = members.raw("highlight").map(HighlightOptions::read);
        let aggs: Option<Value> = members.read("aggs", "an object", &mut mistakes);
        let aggs = aggs.map(|aggs| Aggregations::read(&aggs, dsl.as_ref()));
        let knn = members.raw("knn").map(|raw| Knn::read_all(raw, dsl.as_ref()));
        let rrf = members.raw("rrf").map(Rrf::read);
        let ast = Some(match &dsl {
            Some(dsl) => dsl.ast(),
            None => query::parse(q.as_deref().unwrap_or_default(), &options),
        });
        let request = Self {
            filters: filters(&filter, &mut mistakes),
            filter,
            ast: or_mistake(ast, &mut mistakes).unwrap_or_else(match_all),
            q,
            fields: options.fields,
            all_words: options.all_words,
            typos: options.typos,
            size,
            from,
            sort,
            search_after,
            highlight: or_mistake(highlight, &mut mistakes).flatten(),
            facets: facets(members, &mut mistakes),
            aggs: or_mistake(aggs, &mut mistakes).unwrap_or_default(),
            knn: or_mistake(knn, &mut mistakes).unwrap_or_default(),
            rrf: or_mistake(rrf, &mut mistakes),
            explain: flag(members, "explain", &mut mistakes).unwrap_or(false),
            source: source(members, &mut mistakes),
            did_you_mean: flag(members, "did_you_mean", &mut mistakes).unwrap_or(true),
            consistency: consistency(members, &mut mistakes),
            timeout: timeout(members, &mut mistakes),
            allow_partial: flag(members, "allow_partial", &mut mistakes).unwrap_or(true),
            dsl,
            index,
        };
        or_mistake(Some(request.check_knn()), &mut mistakes);
        mistakes.into_result()?;
        Ok(request)
    }
}

fn read_members(body: &[u8]) -> Result<Members, QueryError> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| QueryError {
        message: format!("the body is not a JSON object: {error}"),
        at: None,
        hint: Some("send for example {\"q\": \"http proxy\"}".to_owned()),
    })
}

fn match_all() -> Ast {
    query::parse("", &ParseOptions::default()).expect("an empty text matches everything")
}

fn or_mistake<T>(result: Option<Result<T, QueryError>>, mistakes: &mut Mistakes) -> Option<T> {
    result.and_then(|result| result.map_err(|error| mistakes.push(error)).ok())
}

fn flag(members: &Members, name: &str, mistakes: &mut Mistakes) -> Option<bool> {
    members.read(name, "true or false", mistakes)
}

/// Parses filters: all words of each must match.
pub(in crate::search) fn parse_filter(text: &str) -> Result<Ast, QueryError> {
    query::parse(text, &ParseOptions { all_words: true, ..ParseOptions::default() })
}

fn filters(texts: &[String], mistakes: &mut Mistakes) -> Vec<Ast> {
    let parsed = texts.iter().map(|text| {
        let named =
            |error: QueryError| QueryError { message: format!("`filter`: {}", error.message), ..error };
        parse_filter(text).map_err(|error| mistakes.push(named(error))).ok()
    });
    parsed.collect::<Vec<_>>().into_iter().flatten().collect()
}

fn texts(members: &Members, name: &str, mistakes: &mut Mistakes) -> Vec<String> {
    let what = "text or a list of texts";
    match members.raw(name) {
        Some(raw) if raw.get().starts_with('"') => {
            members.read(name, what, mistakes).map_or_else(Vec::new, |text| vec![text])
        }
        _ => members.read(name, what, mistakes).unwrap_or_default(),
    }
}

fn window(members: &Members, most: usize, mistakes: &mut Mistakes) -> (usize, usize) {
    let size = whole(members, "size", 0..=most, mistakes).unwrap_or(DEFAULT_SIZE);
    let from = whole(members, "from", 0..=usize::MAX, mistakes).unwrap_or(0);
    if from.saturating_add(size) > MAX_WINDOW {
        mistakes.add(
            format!("`from` and `size` together are at most {MAX_WINDOW}"),
            Some("use `search_after` with the `next` of the last answer".to_owned()),
        );
    }
    (size, from)
}

fn fields(members: &Members, mistakes: &mut Mistakes) -> BTreeMap<String, f32> {
    let what = "a list of fields or an object of fields with boosts";
    let fields: BTreeMap<String, f32> = map_or_list(members, "fields", what, 1.0, mistakes);
    for (field, boost) in &fields {
        if !(boost.is_finite() && *boost > 0.0) {
            mistakes.add(format!("`fields`: the boost of `{field}` is a number above 0, not {boost}"), None);
        }
    }
    fields
}

/// Reads an object with a number for each field, or a list of fields that all get the default.
fn map_or_list<T: serde::de::DeserializeOwned + Copy>(
    members: &Members,
    name: &str,
    what: &str,
    default: T,
    mistakes: &mut Mistakes,
) -> BTreeMap<String, T> {
    match members.raw(name) {
        Some(raw) if raw.get().starts_with('[') => {
            let list: Vec<String> = members.read(name, what, mistakes).unwrap_or_default();
            list.into_iter().map(|field| (field, default)).collect()
        }
        _ => members.read(name, what, mistakes).unwrap_or_default(),
    }
}

/// Whether a member has the second of two words; the first is the default.
fn choice(members: &Members, name: &str, words: [&str; 2], mistakes: &mut Mistakes) -> bool {
    let what = format!("\"{}\" or \"{}\"", words[0], words[1]);
    let Some(word) = members.read::<String>(name, &what, mistakes) else { return false };
    if !words.contains(&word.as_str()) {
        mistakes.add(format!("`{name}` is {what}, not {}", shortened(&word)), None);
    }
    word == words[1]
}

fn whole(
    members: &Members,
    name: &str,
    range: RangeInclusive<usize>,
    mistakes: &mut Mistakes,
) -> Option<usize> {
    let what = match *range.end() {
        usize::MAX => format!("a whole number from {}", range.start()),
        end => format!("a whole number from {} to {end}", range.start()),
    };
    let number: usize = members.read(name, &what, mistakes)?;
    if !range.contains(&number) {
        mistakes.add(format!("`{name}` is {what}, not `{number}`"), None);
    }
    Some(number)
}

fn facets(members: &Members, mistakes: &mut Mistakes) -> BTreeMap<String, u32> {
    const DEFAULT: u32 = 10;
    let what = "a list of fields or an object of fields with numbers of values";
    let facets = map_or_list(members, "facets", what, DEFAULT, mistakes);
    for (field, size) in &facets {
        if !(1..=MAX_FACET).contains(size) {
            mistakes
                .add(format!("`facets`: the number of values of `{field}` is from 1 to {MAX_FACET}"), None);
        }
    }
    facets
}

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SourcePatterns {
    includes: Vec<String>,
    excludes: Vec<String>,
}

fn source(members: &Members, mistakes: &mut Mistakes) -> SourceFilter {
    match members.raw("source").map(RawValue::get) {
        None | Some("true") => SourceFilter::All,
        Some("false") => SourceFilter::None,
        Some(text) if text.starts_with('{') => {
            let what = "true, false, a list of paths, or an object with `includes` and `excludes`";
            let patterns: Option<SourcePatterns> = members.read("source", what, mistakes);
            let SourcePatterns { includes, excludes } = patterns.unwrap_or_default();
            SourceFilter::Patterns { includes, excludes }
        }
        Some(_) => {
            let what = "true, false or a list of paths";
            SourceFilter::Paths(members.read("source", what, mistakes).unwrap_or_default())
        }
    }
}

fn consistency(members: &Members, mistakes: &mut Mistakes) -> Option<ReadLevel> {
    let word: String = members.read("consistency", "strong, primary or any", mistakes)?;
    let level = word.parse::<ReadLevel>();
    level.map_err(|error| mistakes.add(format!("`consistency` {error}"), None)).ok()
}

fn timeout(members: &Members, mistakes: &mut Mistakes) -> Duration {
    let what = "a duration such as \"500ms\"";
    let Some(text) = members.read::<String>("timeout", what, mistakes) else { return DEFAULT_TIMEOUT };
    match humantime::parse_duration(&text) {
        Ok(timeout) if !timeout.is_zero() && timeout <= MAX_TIMEOUT => return timeout,
        Ok(_) => {
            mistakes.add(format!("`timeout` is above 0 and at most {MAX_TIMEOUT:?}, not `{text}`"), None);
        }
        Err(error) => mistakes.add(format!("`timeout` is {what}, not {}: {error}", shortened(&text)), None),
    }
    DEFAULT_TIMEOUT
}
