//! Hints for unknown words.

pub(crate) use types::did_you_mean;

/// A hint with the guess, if there is one, and all candidates: "did you mean `a`? known keys: a, b".
pub(crate) fn hint(word: &str, what: &str, candidates: &[&str]) -> String {
    let list = format!("{what}: {}", candidates.join(", "));
    match did_you_mean(word, candidates.iter().copied()) {
        Some(guess) => format!("did you mean `{guess}`? {list}"),
        None => list,
    }
}
