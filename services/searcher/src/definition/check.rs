//! Checks what the types of a definition can't express: names, numbers, and what must fit together.

use std::ops::Bound;

use plugin::{SettingsError, SettingsMistake};

use super::synonyms::MAX_RULES;
use super::{
    Definition, Dynamic, FieldDefinition, MAX_DIMS, MAX_FIELDS, MAX_KEYWORD, MAX_NAME, RESERVED, SubField,
    SynonymRule,
};
use crate::document::MAX_PATH;

impl Definition {
    /// Finds all mistakes. Their pointers begin at the definition.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        let mut mistakes = Vec::new();
        let count: usize = self.fields.values().map(|field| 1 + field.sub_fields().len()).sum();
        if count > MAX_FIELDS {
            let message = format!("there are {count} fields, at most {MAX_FIELDS} are allowed");
            mistakes
                .push(SettingsMistake::new("/fields", message).hint("use a `json` field for many fields"));
        }
        for (name, field) in &self.fields {
            self.check_field(name, field, &mut mistakes);
        }
        if let Some(id) = &self.id {
            mistakes.extend(self.check_id(id));
        }
        for (name, boost) in &self.default_fields {
            let at = format!("/default_fields/{}", token(name));
            if let Some(mistake) = self.check_reference(&at, name, self.dynamic == Dynamic::Yes) {
                mistakes.push(SettingsMistake { at_key: true, ..mistake });
            } else if matches!(self.fields.get(name), Some(FieldDefinition::Vector { .. })) {
                let message = format!("field `{name}` is a vector, which has no words");
                mistakes.push(SettingsMistake::new(at, message).hint("search vectors with `knn`"));
            } else if !(boost.is_finite() && *boost > 0.0) {
                let message = format!("a boost above 0 is wanted, found {boost}");
                mistakes.push(SettingsMistake::new(at, message).hint("1 counts a field as much as others"));
            }
        }
        if self.synonyms.len() > MAX_RULES {
            let message = format!("there are {} rules, at most {MAX_RULES} are allowed", self.synonyms.len());
            mistakes.push(SettingsMistake::new("/synonyms", message));
        }
        for (number, rule) in self.synonyms.iter().enumerate() {
            if let Err(message) = SynonymRule::parse(rule) {
                let hint = "write `tv, television` or `usb => universal serial bus`";
                mistakes.push(SettingsMistake::new(format!("/synonyms/{number}"), message).hint(hint));
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(SettingsError { mistakes }) }
    }

    fn check_field(&self, name: &str, field: &FieldDefinition, mistakes: &mut Vec<SettingsMistake>) {
        let at = format!("/fields/{}", token(name));
        let at_key = |mistake: SettingsMistake| SettingsMistake { at_key: true, ..mistake };
        if let Some(problem) = path_problem(name, MAX_NAME) {
            mistakes.push(at_key(SettingsMistake::new(&at, problem)));
        } else if let Some(rest) = name.strip_prefix('_') {
            let mistake = SettingsMistake::new(&at, "names that begin with `_` are the index's own");
            let rest = rest.trim_start_matches('_');
            let hint = (!rest.is_empty()).then(|| format!("write `{rest}`"));
            mistakes.push(at_key(SettingsMistake { hint, ..mistake }));
        } else if let Some((above, outer)) = self.declared_above(name)
            && !matches!(outer, FieldDefinition::Json {})
        {
            let message = format!("`{above}` is {}, so it can't have fields", outer.type_name());
            let hint = format!("make `{above}` a `json` field, or rename one of them");
            mistakes.push(at_key(SettingsMistake::new(&at, message).hint(hint)));
        }
        if let FieldDefinition::Keyword { ignore_above: Some(limit), .. } = field {
            mistakes.extend(check_limit(&at, *limit));
        }
        if let FieldDefinition::Vector { dims, .. } = field
            && !(1..=MAX_DIMS).contains(dims)
        {
            let message = format!("a whole number from 1 to {MAX_DIMS} is wanted, found the number {dims}");
            mistakes.push(SettingsMistake::new(format!("{at}/dims"), message));
        }
        for (sub, field) in field.sub_fields() {
            let at = format!("{at}/fields/{}", token(sub));
            if let Some(problem) = path_problem(sub, MAX_NAME) {
                mistakes.push(at_key(SettingsMistake::new(&at, problem)));
            } else if sub.contains('.') {
                let mistake = SettingsMistake::new(&at, "the name of a sub-field has no dots");
                mistakes.push(at_key(mistake.hint(format!("write `{}`", sub.replace('.', "_")))));
            }
            if let SubField::Keyword { ignore_above: Some(limit), .. } = field {
                mistakes.extend(check_limit(&at, *limit));
            }
        }
    }

    fn check_id(&self, id: &str) -> Option<SettingsMistake> {
        // The id is read from the source, where fields are that are not indexed, too.
        if let Some(mistake) = self.check_reference("/id", id, self.dynamic != Dynamic::Strict) {
            return Some(mistake);
        }
        match self.fields.get(id) {
            Some(
                field @ (FieldDefinition::F64 {}
                | FieldDefinition::Bool {}
                | FieldDefinition::Date {}
                | FieldDefinition::Ip {}
                | FieldDefinition::Json {}
                | FieldDefinition::Vector { .. }),
            ) => {
                let message =
                    format!("field `{id}` is {}; an id is a string or an integer", field.type_name());
                Some(SettingsMistake::new("/id", message).hint("declare the field as `keyword` or `i64`"))
            }
            Some(
                FieldDefinition::Text { .. } | FieldDefinition::Keyword { .. } | FieldDefinition::I64 {},
            )
            | None => None,
        }
    }

    /// Checks the name of a field to which something refers.
    fn check_reference(&self, at: &str, name: &str, may_be_undeclared: bool) -> Option<SettingsMistake> {
        if self.fields.contains_key(name) {
            return None;
        }
        if let Some(problem) = path_problem(name, MAX_PATH) {
            return Some(SettingsMistake::new(at, problem));
        }
        if RESERVED.contains(&name) {
            return Some(SettingsMistake::new(at, format!("`{name}` is no field of documents")));
        }
        match self.declared_above(name) {
            Some((_, FieldDefinition::Json {})) => None,
            None if may_be_undeclared => None,
            _ => {
                let mistake = SettingsMistake::new(at, format!("there is no field `{name}`"));
                Some(match similar(name, self.fields.keys().map(String::as_str)) {
                    Some(similar) => mistake.hint(format!("did you mean `{similar}`?")),
                    None => mistake.hint("declare the field in `fields`"),
                })
            }
        }
    }

    /// The nearest declared field of which a path is a part. Few steps, however many parts the path has: where the names that
    /// sort before it differ from it, no shorter one is skipped that could be meant.
    pub(crate) fn declared_above<'a>(&self, path: &'a str) -> Option<(&'a str, &FieldDefinition)> {
        let (mut above, _) = path.rsplit_once('.')?;
        loop {
            let (name, field) =
                self.fields.range::<str, _>((Bound::Unbounded, Bound::Included(above))).next_back()?;
            if name == above {
                return Some((above, field));
            }
            // Whatever is both part of the path and declared is also a part of this name.
            let common = name.bytes().zip(above.bytes()).take_while(|(one, other)| one == other).count();
            let is_whole = above.as_bytes().get(common) == Some(&b'.');
            let end = if is_whole {
                common
            } else {
                above.as_bytes()[..common].iter().rposition(|byte| *byte == b'.')?
            };
            above = &above[..end];
        }
    }
}

fn check_limit(at: &str, limit: u32) -> Option<SettingsMistake> {
    let message = || format!("a whole number from 1 to {MAX_KEYWORD} is wanted, found the number {limit}");
    let is_right = (1..=MAX_KEYWORD).contains(&(limit as usize));
    (!is_right).then(|| SettingsMistake::new(format!("{at}/ignore_above"), message()))
}

/// A key as a part of a JSON pointer.
fn token(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Why a path of a field can't be used, or `None` if it can.
pub(crate) fn path_problem(path: &str, limit: usize) -> Option<String> {
    if path.is_empty() {
        return Some("the name is empty".to_owned());
    }
    if path.len() > limit {
        return Some(format!("the name has {} bytes, at most {limit} are allowed", path.len()));
    }
    if path.split('.').any(str::is_empty) {
        return Some("a part of the name, between dots, is empty".to_owned());
    }
    if let Some(found) = path.chars().find(|c| c.is_control()) {
        return Some(format!("the name has the control character U+{:04X}", u32::from(found)));
    }
    None
}

/// The name among some that was probably meant.
pub(crate) fn similar<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // No name is that long; a distance takes time with the product of the lengths.
    if name.len() > MAX_NAME {
        return None;
    }
    let near = known.into_iter().map(|known| (strsim::osa_distance(name, known), known));
    let limit = 1 + name.chars().count() / 5;
    near.filter(|(distance, _)| *distance <= limit).min().map(|(_, known)| known.to_owned())
}
