//! Rewrites serde's error messages for people who write YAML. Pure.

use types::did_you_mean;

/// A rewritten message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reworded {
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// The unknown key, if that is the mistake.
    pub(super) unknown: Option<String>,
    /// The missing key, if that is the mistake.
    pub(super) missing: Option<String>,
}

/// Rewrites the message of serde's error on JSON. A message of unknown form is kept as it is.
pub(super) fn of(message: &str) -> Reworded {
    // Errors of text that is parsed with `FromStr` end with a position, which is of no use here.
    let message = message.split_once(" at line ").map_or(message, |(message, _)| message);
    let reworded = |message: String| Reworded { message, hint: None, unknown: None, missing: None };
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if message.starts_with("unknown field ")
        && let [word, known @ ..] = &quoted[..]
    {
        return Reworded {
            hint: Some(hint(word, known, "settings")),
            unknown: Some((*word).to_owned()),
            ..reworded(format!("unknown key `{word}`"))
        };
    }
    if message.starts_with("unknown variant ")
        && let [word, known @ ..] = &quoted[..]
    {
        return Reworded {
            hint: Some(hint(word, known, "known")),
            ..reworded(format!("`{word}` is not known here"))
        };
    }
    if message.starts_with("missing field ")
        && let [key] = &quoted[..]
    {
        return Reworded { missing: Some((*key).to_owned()), ..reworded(format!("missing key `{key}`")) };
    }
    if message.starts_with("duplicate field ")
        && let [key] = &quoted[..]
    {
        return reworded(format!("key `{key}` is given twice"));
    }
    let typed = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "));
    match typed {
        Some((found, wanted)) => {
            reworded(format!("{} is wanted, found {}", type_words(wanted), value_words(found)))
        }
        None => reworded(message.to_owned()),
    }
}

fn hint(word: &str, known: &[&str], what: &str) -> String {
    match (did_you_mean(word, known.iter().copied()), known) {
        (Some(closest), _) => format!("did you mean `{closest}`?"),
        (None, []) => "leave it out".to_owned(),
        (None, known) => format!("{what}: {}", known.join(", ")),
    }
}

fn type_words(wanted: &str) -> String {
    let number = |bits: u32, from: i128| {
        let (low, high) = if from == 0 {
            (0, (1_i128 << bits) - 1)
        } else {
            (-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1)
        };
        match bits {
            64.. => "a whole number".to_owned(),
            _ => format!("a whole number from {low} to {high}"),
        }
    };
    match wanted {
        "u8" => number(8, 0),
        "u16" => number(16, 0),
        "u32" => number(32, 0),
        "u64" | "usize" => "a whole number that is not negative".to_owned(),
        "i8" => number(8, -1),
        "i16" => number(16, -1),
        "i32" => number(32, -1),
        "i64" | "isize" => number(64, -1),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a string" | "a borrowed string" | "string" => "text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        "unit" | "null" => "nothing".to_owned(),
        _ if wanted.starts_with("a nonzero ") => "a whole number above 0".to_owned(),
        _ if wanted.starts_with("struct ") || wanted.starts_with("map ") => "a mapping".to_owned(),
        _ if wanted.starts_with("tuple ") => "a list".to_owned(),
        _ if wanted.starts_with("enum ") || wanted.contains("variant") => "one of the known words".to_owned(),
        _ => wanted.to_owned(),
    }
}

fn value_words(found: &str) -> String {
    let inside = |quote: char| Some((found.split_once(quote)?.1).rsplit_once(quote)?.0);
    match found.split(' ').next().unwrap_or_default() {
        "integer" | "floating" => {
            inside('`').map_or_else(|| "a number".to_owned(), |n| format!("the number {n}"))
        }
        "boolean" => inside('`').map_or_else(|| found.to_owned(), |value| format!("`{value}`")),
        "string" => inside('"').map_or_else(|| "text".to_owned(), |text| format!("the text `{text}`")),
        "map" | "struct" => "a mapping".to_owned(),
        "sequence" => "a list".to_owned(),
        "null" | "unit" | "Option" => "nothing".to_owned(),
        _ => found.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_serde_are_reworded_without_names_of_types() {
        for (message, expected) in [
            (
                "invalid type: string \"x\", expected u8",
                "a whole number from 0 to 255 is wanted, found the text `x`",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "a whole number from 0 to 4294967295 is wanted, found the number -1",
            ),
            (
                "invalid type: floating point `1.5`, expected usize",
                "a whole number that is not negative is wanted, found the number 1.5",
            ),
            ("invalid type: null, expected struct Settings", "a mapping is wanted, found nothing"),
            ("invalid type: map, expected a sequence", "a list is wanted, found a mapping"),
            ("invalid type: boolean `true`, expected a string", "text is wanted, found `true`"),
            (
                "invalid value: integer `0`, expected a nonzero u32",
                "a whole number above 0 is wanted, found the number 0",
            ),
            ("missing field `prefix`", "missing key `prefix`"),
            ("unknown variant `any`, expected `primary` or `strong`", "`any` is not known here"),
            ("time unit needed", "time unit needed"),
        ] {
            assert_eq!(of(message).message, expected);
        }
        let unknown = of("unknown field `lisen`, expected one of `listen`, `routes`");
        assert_eq!(unknown.unknown.as_deref(), Some("lisen"));
        assert_eq!(unknown.hint.as_deref(), Some("did you mean `listen`?"));
        let unrelated = of("unknown field `xyz`, expected one of `listen`, `routes`");
        assert_eq!(unrelated.hint.as_deref(), Some("settings: listen, routes"));
        assert_eq!(of("unknown field `x`, there are no fields").hint.as_deref(), Some("leave it out"));
    }
}
