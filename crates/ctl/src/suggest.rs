//! The hint for a name that does not exist.

/// The name that was probably meant, else a list of all names.
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
    fn a_typo_is_recognised_and_an_unrelated_name_is_not() {
        let names = ["gateway-1", "standby-1"];
        assert_eq!(hint("gatway-1", &names), "did you mean `gateway-1`?");
        assert_eq!(hint("zzz", &names), "there are gateway-1, standby-1");
        assert_eq!(hint("zzz", &[]), "there are none");
    }
}
