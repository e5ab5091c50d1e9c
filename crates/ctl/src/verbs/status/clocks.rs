//! Members whose clocks differ.

use std::collections::BTreeMap;
use std::time::Duration;

use types::NodeId;
use types::api::CLOCK_WARNING_MS;

/// A difference that is worth a note, in milliseconds: above the error that a busy machine causes.
const NOTED_MS: u64 = 250;

/// A warning for each member whose clock is far from most others. `ahead_ms` is by how many milliseconds each is ahead.
pub(super) fn warnings(ahead_ms: &BTreeMap<NodeId, i64>) -> Vec<String> {
    let far = ahead_ms.iter().filter(|(_, ahead)| ahead.unsigned_abs() > CLOCK_WARNING_MS);
    let words = |(id, ahead): (&NodeId, &i64)| {
        let side = if *ahead > 0 { "ahead of" } else { "behind" };
        let by = difference(ahead.unsigned_abs());
        format!(
            "the clock of {id} is {by} {side} those of most other members, and the times in its log are wrong: \
             synchronize it, for example by NTP"
        )
    };
    far.map(words).collect()
}

/// A note that clocks differ, but by too little for a warning; `None` if they agree within the error of the estimate.
pub(super) fn note(ahead_ms: &BTreeMap<NodeId, i64>) -> Option<String> {
    let (least, most) = (ahead_ms.values().min()?, ahead_ms.values().max()?);
    let apart = most.abs_diff(*least);
    (NOTED_MS..=CLOCK_WARNING_MS)
        .contains(&apart)
        .then(|| format!("the clocks of the members differ by up to {}", difference(apart)))
}

/// To a tenth of a second below a minute, else to a second.
fn difference(ms: u64) -> String {
    let rounded = if ms < 60_000 { ms / 100 * 100 } else { ms / 1_000 * 1_000 };
    humantime::format_duration(Duration::from_millis(rounded)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(ahead_ms: &[(&str, i64)]) -> BTreeMap<NodeId, i64> {
        ahead_ms.iter().map(|(id, ahead)| (id.parse().unwrap(), *ahead)).collect()
    }

    #[test]
    fn a_clock_more_than_a_second_off_is_a_warning() {
        let warned = |ahead| warnings(&clocks(&[("a", 0), ("b", ahead)])).pop();
        for (ahead_ms, expected) in [
            (0, None),
            (1_000, None),
            (-1_000, None),
            (30_049, Some("the clock of b is 30s ahead of those of most other members,")),
            (-1_234, Some("the clock of b is 1s 200ms behind those of")),
            (-3_600_999, Some("the clock of b is 1h behind those of")),
            (i64::MIN, Some(" behind those of")),
        ] {
            let said = warned(ahead_ms);
            assert_eq!(said.is_some(), expected.is_some(), "{ahead_ms}: {said:?}");
            assert!(said.unwrap_or_default().contains(expected.unwrap_or_default()), "{ahead_ms}");
        }
    }

    #[test]
    fn clocks_that_agree_are_not_mentioned() {
        let said = |ahead: &[(&str, i64)]| note(&clocks(ahead));
        assert_eq!(said(&[]), None);
        assert_eq!(said(&[("a", 0), ("b", 249)]), None);
        let expected = "the clocks of the members differ by up to 700ms";
        assert_eq!(said(&[("a", -300), ("b", 450), ("c", 0)]).as_deref(), Some(expected));
        assert_eq!(said(&[("a", 0), ("b", 30_000)]), None, "warnings say that");
    }
}
