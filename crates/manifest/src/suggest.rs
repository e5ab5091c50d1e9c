//! Guesses what a misspelled word was meant to be.

/// Longer words are not worth the time.
const LONGEST: usize = 64;

/// The candidate that a word was probably meant to be: `servce` for `service`.
pub fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    let normal = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let word = normal(word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &normal(candidate)), candidate))
        .filter(|(distance, candidate)| {
            let longest = word.chars().count().max(candidate.chars().count());
            *distance <= (longest / 3).max(1) && *distance < longest
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A hint with the guess, if there is one, and all candidates: "did you mean `a`? known keys: a, b".
pub(crate) fn hint(word: &str, what: &str, candidates: &[&str]) -> String {
    let list = format!("{what}: {}", candidates.join(", "));
    match did_you_mean(word, candidates.iter().copied()) {
        Some(guess) => format!("did you mean `{guess}`? {list}"),
        None => list,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let keys = ["id", "service", "listen", "api_gateway"];
        for (word, expected) in [
            ("servce", Some("service")),
            ("Service", Some("service")),
            ("lisent", Some("listen")),
            ("API-Gateway", Some("api_gateway")),
            ("ids", Some("id")),
            ("port", None),
            ("xy", None),
            ("", None),
        ] {
            assert_eq!(did_you_mean(word, keys), expected, "{word}");
        }
        assert_eq!(did_you_mean(&"service".repeat(1000), keys), None);
    }
}
