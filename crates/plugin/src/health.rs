//! The health of a service whose parts have a health each: all troubles are named, not only the first. Pure.

use types::Reason;

use crate::Health;

/// How many parts are named.
const NAMED: usize = 4;
/// How many characters their texts have together: gossip carries no longer reason.
const LENGTH: usize = 560;

impl Health {
    /// `Failed` if a part has failed, else `Degraded` with what every part says, else `Ready`. The code is that of the first
    /// part that is degraded.
    pub fn together(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut reasons: Vec<Reason> = Vec::new();
        for part in parts {
            match part {
                Self::Ready => {}
                Self::Degraded(reason) => reasons.push(reason),
                Self::Failed(_) => return part,
            }
        }
        if reasons.len() < 2 {
            return reasons.pop().map_or(Self::Ready, Self::Degraded);
        }
        let more = reasons.len().saturating_sub(NAMED);
        reasons.truncate(NAMED);
        let texts: Vec<_> = reasons.iter().map(|reason| reason.text.as_str()).collect();
        let texts = fitting(&texts);
        let mut text = texts.join("; ");
        if more > 0 {
            text += &format!("; and {more} more");
        }
        let first = reasons.swap_remove(0);
        Self::Degraded(Reason::new(first.code, text))
    }
}

/// The texts, each cut to its part of the length if they are too long together.
fn fitting(texts: &[&str]) -> Vec<String> {
    let length: usize = texts.iter().map(|text| text.chars().count()).sum();
    let each = LENGTH / texts.len().max(1);
    let cut = |text: &&str| match text.char_indices().nth(each) {
        Some((end, _)) if length > LENGTH => format!("{}…", &text[..end]),
        Some(_) | None => (*text).to_owned(),
    };
    texts.iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use types::ReasonCode;

    use super::*;

    fn degraded(text: impl Into<String>) -> Health {
        Health::degraded(ReasonCode::new("a"), text)
    }

    #[test]
    fn every_trouble_is_named_and_a_failure_counts_more() {
        assert_eq!(Health::together([]), Health::Ready);
        assert_eq!(Health::together([Health::Ready, degraded("x"), Health::Ready]), degraded("x"));
        let other = Health::degraded(ReasonCode::new("b"), "y");
        assert_eq!(Health::together([degraded("x"), Health::Ready, other]), degraded("x; y"));
        let failed = Health::failed(ReasonCode::new("c"), "z");
        assert_eq!(Health::together([degraded("x"), failed.clone()]), failed);
        let many = (0..NAMED + 3).map(|number| degraded(number.to_string()));
        assert_eq!(Health::together(many), degraded("0; 1; 2; 3; and 3 more"));
    }

    #[test]
    fn a_long_text_hides_no_other() {
        let long = "ä".repeat(2_000);
        let Health::Degraded(reason) = Health::together([degraded(long.as_str()), degraded("the log")])
        else {
            panic!("it is degraded")
        };
        assert!(reason.text.ends_with("ä…; the log"), "{}", reason.text);
        assert!(reason.text.chars().count() < 600);
        assert_eq!(Health::together([degraded(long.as_str())]), degraded(long), "alone it is whole");
    }
}
