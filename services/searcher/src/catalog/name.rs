//! Names of indexes: Elasticsearch's rules, so that its clients' names work unchanged. Pure.

/// The longest name, in bytes.
const MAX_LEN: usize = 255;
/// The path of Elasticsearch's API below the service.
const RESERVED: [&str; 1] = ["es"];

/// Why a name is refused. Choose another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("the name of an index is not empty")]
    Empty,
    #[error("the name has {0} bytes; at most {MAX_LEN} are allowed")]
    TooLong(usize),
    #[error("the name is no UTF-8, or its percent-encoding is wrong")]
    Encoding,
    #[error("the name is `{0}`, which means a folder in a path")]
    Dots(String),
    #[error("the name begins with `{0}`")]
    Beginning(char),
    #[error("the name has `{}`, which is not allowed in it", .0.escape_default())]
    Character(char),
    #[error("the name has `{0}`, which is not in lower case")]
    UpperCase(char),
    #[error("the name `{0}` is reserved")]
    Reserved(String),
}

/// What a name must be.
pub(crate) const NAME_RULE: &str = "a name is in lower case, has at most 255 bytes, begins with none of `-_+`, has none of \
     `\\/*?\"<>|,#:`, no space and no control character, and is not `.`, `..` or `es`";

/// Checks the name of an index.
pub(crate) fn check_name(name: &str) -> Result<(), NameError> {
    match name {
        "" => return Err(NameError::Empty),
        "." | ".." => return Err(NameError::Dots(name.to_owned())),
        _ => {}
    }
    if name.len() > MAX_LEN {
        return Err(NameError::TooLong(name.len()));
    }
    if let Some(first) = name.chars().next().filter(|first| "-_+".contains(*first)) {
        return Err(NameError::Beginning(first));
    }
    let is_forbidden =
        |char: &char| "\\/*?\"<>|,#:".contains(*char) || char.is_whitespace() || char.is_control();
    if let Some(wrong) = name.chars().find(is_forbidden) {
        return Err(NameError::Character(wrong));
    }
    if let Some(upper) = name.chars().find(|char| !char.to_lowercase().eq([*char])) {
        return Err(NameError::UpperCase(upper));
    }
    if RESERVED.contains(&name) {
        return Err(NameError::Reserved(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_rule_is_checked_and_named() {
        for name in [
            "packages",
            "logs-2026.11.29",
            "a_b+c",
            "größe",
            "日本",
            ".hidden",
            "a..b",
            "1",
            &"a".repeat(255),
        ] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for (name, error) in [
            ("", NameError::Empty),
            (".", NameError::Dots(".".to_owned())),
            ("..", NameError::Dots("..".to_owned())),
            ("../x", NameError::Character('/')),
            ("-a", NameError::Beginning('-')),
            ("_a", NameError::Beginning('_')),
            ("+a", NameError::Beginning('+')),
            ("a b", NameError::Character(' ')),
            ("a\u{a0}b", NameError::Character('\u{a0}')),
            ("a\0", NameError::Character('\0')),
            ("a:b", NameError::Character(':')),
            ("a,b", NameError::Character(',')),
            ("a*", NameError::Character('*')),
            ("Packages", NameError::UpperCase('P')),
            ("Ä", NameError::UpperCase('Ä')),
            ("es", NameError::Reserved("es".to_owned())),
            (&"a".repeat(256), NameError::TooLong(256)),
            (&"ü".repeat(128), NameError::TooLong(256)),
        ] {
            assert_eq!(check_name(name), Err(error), "{name}");
        }
        assert_eq!(
            check_name("a\0").unwrap_err().to_string(),
            "the name has `\\u{0}`, which is not allowed in it"
        );
    }

    proptest! {
        #[test]
        fn no_name_can_leave_its_path(name in ".{0,20}") {
            if check_name(&name).is_ok() {
                prop_assert!(!name.contains(['/', '\\', '?', '#', '*']) && name != ".." && name != ".");
                prop_assert!(!name.starts_with('_'));
            }
        }
    }
}
