//! Parts of a JSON text: `filter_path`, and the fields of a source. Numbers stay as they were written. Pure.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::glob::matches;

/// What to keep: paths whose parts may have `*`; `**` stands for any number of parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Filter {
    includes: Vec<Vec<String>>,
    excludes: Vec<Vec<String>>,
}

impl Filter {
    /// The filter of `filter_path`: patterns to keep, and patterns after `-` to leave out.
    pub(crate) fn of_path(text: &str) -> Self {
        let mut filter = Self::default();
        for pattern in text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty()) {
            match pattern.strip_prefix('-') {
                Some(pattern) => filter.excludes.push(parts(pattern)),
                None => filter.includes.push(parts(pattern)),
            }
        }
        filter
    }

    /// The filter of a source. There, a part `*` before others stands for any number of parts.
    pub(crate) fn of_source<'a>(
        includes: impl IntoIterator<Item = &'a str>,
        excludes: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let source_parts = |pattern: &str| {
            let mut parts = parts(pattern);
            if let Some((_, before)) = parts.split_last_mut() {
                before.iter_mut().filter(|part| *part == "*").for_each(|part| part.push('*'));
            }
            parts
        };
        Self {
            includes: includes.into_iter().map(source_parts).collect(),
            excludes: excludes.into_iter().map(source_parts).collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.includes.is_empty() && self.excludes.is_empty()
    }

    /// What is kept of a valid JSON text: an empty object if nothing is.
    pub(crate) fn apply(&self, json: &str) -> String {
        let includes: Vec<&[String]> = self.includes.iter().map(Vec::as_slice).collect();
        let excludes: Vec<&[String]> = self.excludes.iter().map(Vec::as_slice).collect();
        let all = self.includes.is_empty();
        kept(json, (!all).then_some(&includes[..]), &excludes).unwrap_or_else(|| "{}".to_owned())
    }
}

fn parts(pattern: &str) -> Vec<String> {
    pattern.split('.').map(str::to_owned).collect()
}

/// What is left of the patterns below a key, and whether one of them ends there.
fn below<'a>(patterns: &[&'a [String]], key: &str) -> (Vec<&'a [String]>, bool) {
    let (mut left, mut ends) = (Vec::new(), false);
    for &pattern in patterns {
        let mut pattern = pattern;
        while let [first, rest @ ..] = pattern {
            if first == "**" {
                left.push(pattern);
                if rest.is_empty() {
                    ends = true;
                }
                // It may also stand for no part.
                pattern = rest;
                continue;
            }
            if matches(first, key) {
                if rest.is_empty() {
                    ends = true;
                } else {
                    left.push(rest);
                }
            }
            break;
        }
    }
    (left, ends)
}

/// What is kept of a value: `None` includes everything.
fn kept(json: &str, includes: Option<&[&[String]]>, excludes: &[&[String]]) -> Option<String> {
    if includes.is_none() && excludes.is_empty() {
        return Some(json.to_owned());
    }
    match json.trim_ascii_start().as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(json).ok()?;
            let is_empty = members.is_empty();
            let mut text = String::from("{");
            for (key, value) in members {
                let (excludes, is_excluded) = below(excludes, &key);
                if is_excluded {
                    continue;
                }
                let value = match includes {
                    None => kept(value.get(), None, &excludes),
                    Some(includes) => match below(includes, &key) {
                        (_, true) => kept(value.get(), None, &excludes),
                        (left, false) if left.is_empty() => None,
                        (left, false) => kept(value.get(), Some(&left), &excludes),
                    },
                };
                if let Some(value) = value {
                    if text.len() > 1 {
                        text.push(',');
                    }
                    text.push_str(&serde_json::to_string(&key).expect("a string is written to memory"));
                    text.push(':');
                    text.push_str(&value);
                }
            }
            let is_kept = text.len() > 1 || (is_empty && includes.is_none());
            text.push('}');
            is_kept.then_some(text)
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            let is_empty = elements.is_empty();
            let elements = elements.iter().filter_map(|element| kept(element.get(), includes, excludes));
            let elements: Vec<String> = elements.collect();
            let is_kept = !elements.is_empty() || (is_empty && includes.is_none());
            is_kept.then(|| format!("[{}]", elements.join(",")))
        }
        _ => includes.is_none().then(|| json.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str =
        r#"{"took":1,"hits":{"total":{"value":2},"hits":[{"_id":"a","_source":{"n":1.50}},{"_id":"b"}]}}"#;

    #[test]
    fn paths_select_parts_of_an_answer() {
        for (filter, kept) in [
            ("", ANSWER),
            ("took", r#"{"took":1}"#),
            ("hits.total", r#"{"hits":{"total":{"value":2}}}"#),
            ("hits.hits._id", r#"{"hits":{"hits":[{"_id":"a"},{"_id":"b"}]}}"#),
            ("**.n", r#"{"hits":{"hits":[{"_source":{"n":1.50}}]}}"#),
            ("t*", r#"{"took":1}"#),
            ("-hits", r#"{"took":1}"#),
            ("hits.hits,-**._source", r#"{"hits":{"hits":[{"_id":"a"},{"_id":"b"}]}}"#),
            ("nothing", "{}"),
            ("took.x", "{}"),
        ] {
            assert_eq!(Filter::of_path(filter).apply(ANSWER), kept, "{filter}");
        }
    }

    #[test]
    fn fields_select_parts_of_a_source() {
        let source = r#"{"a":{"b":1,"c":{"b":2}},"d":[]}"#;
        for (includes, excludes, kept) in [
            (&["a.b"][..], &[][..], r#"{"a":{"b":1}}"#),
            (&["a"], &["a.c"], r#"{"a":{"b":1}}"#),
            (&["*.b"], &[], r#"{"a":{"b":1,"c":{"b":2}}}"#),
            (&["a.*"], &[], r#"{"a":{"b":1,"c":{"b":2}}}"#),
            (&[], &["a"], r#"{"d":[]}"#),
        ] {
            let filter = Filter::of_source(includes.iter().copied(), excludes.iter().copied());
            assert_eq!(filter.apply(source), kept, "{includes:?} {excludes:?}");
        }
    }
}
