//! Did you mean: suggests a correction of a misspelled word. Pure.

/// Longer words are not compared: it would take too long.
const LONGEST: usize = 64;

/// The most likely candidate for a misspelled word: `service` for `servce`.
///
/// Up to a third of the longer word may differ (Damerau-Levenshtein distance), in one letter at least; case, spaces and
/// the kind of dash do not count.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_word_is_corrected_and_another_word_is_not() {
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
