//! What to say about a name that does not exist.

/// The name that was probably meant, else all there are.
pub(crate) fn hint(word: &str, candidates: &[&str]) -> String {
    match types::did_you_mean(word, candidates.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if candidates.is_empty() => "there are none".to_owned(),
        None => format!("there are {}", candidates.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let names = ["gateway-1", "standby-1"];
        assert_eq!(hint("gatway-1", &names), "did you mean `gateway-1`?");
        assert_eq!(hint("zzz", &names), "there are gateway-1, standby-1");
        assert_eq!(hint("zzz", &[]), "there are none");
    }
}
