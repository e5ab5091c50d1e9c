//! Patterns for names of indexes and paths of fields: `*` is any characters, also dots and none.

/// Whether a pattern matches a whole text, in time linear in both for one `*`, and at most in their product.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut place) = (0, 0);
    // Where to go on if what follows the last `*` does not match: one byte more for the `*`.
    let mut retry: Option<(usize, usize)> = None;
    while place < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, place));
                at += 1;
            }
            Some(byte) if *byte == text[place] => {
                at += 1;
                place += 1;
            }
            _ => match retry {
                Some((after, from)) => {
                    (at, place) = (after, from + 1);
                    retry = Some((after, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_is_any_characters() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab.c", true),
            ("*.c", "ab.c", true),
            ("*", "", true),
            ("a*b*c", "axxbxbc", true),
            ("a*b*c", "axxbxbd", false),
            ("", "", true),
            ("", "a", false),
            ("a*b", "a", false),
            ("ab*ba", "aba", false),
            ("*a*a*", "aa", true),
            ("*a*a*", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(100), &"b".repeat(10_000)));
    }
}
