//! A row of a report: our result, the peer's, and whether the target was met.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::stats::Summary;

/// One measured quantity, ours and the peer's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) nodes: usize,
    pub(crate) unit: String,
    pub(crate) ours: Option<Summary>,
    pub(crate) peer: Peer,
    pub(crate) targets: Vec<Target>,
}

/// The peer's result of the same task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Peer {
    /// The better of its profiles, or its fastest API.
    Measured { profile: String, summary: Summary },
    /// It could not be measured.
    Missing(String),
    /// It has no such task.
    None,
}

/// A target for a row.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Target {
    P50(f64),
    P99(f64),
    Max(f64),
    /// Our p50 divided by the peer's.
    Ratio(f64),
    /// The same, for a quantity where more is better.
    RatioAtLeast(f64),
    /// Our p99 divided by the peer's.
    RatioOfP99(f64),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::P50(limit) => write!(f, "p50 <= {limit}"),
            Self::P99(limit) => write!(f, "p99 <= {limit}"),
            Self::Max(limit) => write!(f, "max <= {limit}"),
            Self::Ratio(limit) => write!(f, "ratio <= {limit}"),
            Self::RatioAtLeast(limit) => write!(f, "ratio >= {limit}"),
            Self::RatioOfP99(limit) => write!(f, "ratio of p99 <= {limit}"),
        }
    }
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, nodes: usize, unit: &str) -> Self {
        Self {
            what: what.into(),
            nodes,
            unit: unit.to_owned(),
            ours: None,
            peer: Peer::None,
            targets: Vec::new(),
        }
    }

    pub(crate) fn ours(self, ours: Option<Summary>) -> Self {
        Self { ours, ..self }
    }

    pub(crate) fn peer(self, peer: Peer) -> Self {
        Self { peer, ..self }
    }

    pub(crate) fn target(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    /// Our p50 divided by the peer's.
    pub(crate) fn ratio(&self) -> Option<f64> {
        self.ratio_of(|summary| summary.p50)
    }

    /// Our p50 divided by that of another run.
    pub(crate) fn ratio_to(&self, other: &Self) -> Option<f64> {
        Some(self.ours.as_ref()?.p50 / other.ours.as_ref()?.p50).filter(|ratio| ratio.is_finite())
    }

    fn ratio_of(&self, of: fn(&Summary) -> f64) -> Option<f64> {
        match (&self.ours, &self.peer) {
            (Some(ours), Peer::Measured { summary, .. }) => Some(of(ours) / of(summary)),
            _ => None,
        }
    }

    /// Whether every target that can be checked is met; `None` if there is none.
    pub(crate) fn is_met(&self) -> Option<bool> {
        let met = |target: &Target| {
            let ours = self.ours.as_ref();
            match target {
                Target::P50(limit) => ours.map(|ours| ours.p50 <= *limit),
                Target::P99(limit) => ours.map(|ours| ours.p99 <= *limit),
                Target::Max(limit) => ours.map(|ours| ours.max <= *limit),
                Target::Ratio(limit) => self.ratio().map(|ratio| ratio <= *limit),
                Target::RatioAtLeast(limit) => self.ratio().map(|ratio| ratio >= *limit),
                Target::RatioOfP99(limit) => {
                    self.ratio_of(|summary| summary.p99).map(|ratio| ratio <= *limit)
                }
            }
        };
        let checked: Vec<bool> = self.targets.iter().filter_map(met).collect();
        (!checked.is_empty()).then(|| checked.into_iter().all(|met| met))
    }
}

impl Peer {
    /// The best of several profiles, each with its samples or the reason why there are none.
    pub(crate) fn best(profiles: Vec<(String, Result<Summary, String>)>) -> Self {
        let mut best: Option<(String, Summary)> = None;
        let mut why = Vec::new();
        for (profile, measured) in profiles {
            match measured {
                Ok(summary) if best.as_ref().is_none_or(|(_, best)| summary.p50 < best.p50) => {
                    best = Some((profile, summary));
                }
                Ok(_) => {}
                Err(reason) => why.push(format!("{profile}: {reason}")),
            }
        }
        match best {
            Some((profile, summary)) => Self::Measured { profile, summary },
            None if why.is_empty() => Self::Missing("not measured".to_owned()),
            None => Self::Missing(why.join("; ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: &[f64], peer: &[f64]) -> Row {
        let peer = Peer::best(vec![("lan".to_owned(), Summary::of(peer).ok_or("absent".to_owned()))]);
        Row::new("x", 5, "ms").ours(Summary::of(ours)).peer(peer)
    }

    #[test]
    fn a_row_is_met_only_if_each_of_its_targets_is() {
        let fast = row(&[10.0, 20.0], &[100.0]).target(Target::P99(20.0));
        assert_eq!(fast.is_met(), Some(true));
        assert_eq!(fast.target(Target::Ratio(0.05)).is_met(), Some(false));
    }

    #[test]
    fn where_more_is_better_the_ratio_has_a_lower_bound() {
        let rate = row(&[900.0], &[1_000.0]);
        assert_eq!(rate.target(Target::RatioAtLeast(1.0)).is_met(), Some(false));
        assert_eq!(row(&[1_000.0], &[1_000.0]).target(Target::RatioAtLeast(1.0)).is_met(), Some(true));
    }

    #[test]
    fn tails_are_compared_with_tails() {
        let steady = |target| row(&[2.0, 3.0], &[1.0, 4.0]).target(target).is_met();
        assert_eq!(steady(Target::Ratio(1.0)), Some(false));
        assert_eq!(steady(Target::RatioOfP99(1.0)), Some(true));
        assert_eq!(steady(Target::RatioOfP99(0.5)), Some(false));
    }

    #[test]
    fn without_a_peer_the_ratio_is_not_checked() {
        let alone = row(&[10.0], &[]).target(Target::Ratio(0.25));
        assert_eq!(alone.is_met(), None);
        assert_eq!(alone.target(Target::P50(10.0)).is_met(), Some(true));
    }

    #[test]
    fn a_row_is_compared_with_the_same_row_of_another_run() {
        let ratio = |ours: &[f64], other: &[f64]| row(ours, &[]).ratio_to(&row(other, &[]));
        assert_eq!(ratio(&[3.0], &[2.0]), Some(1.5));
        assert_eq!(ratio(&[], &[2.0]), None);
        assert_eq!(ratio(&[0.0], &[0.0]), None);
    }

    #[test]
    fn of_two_profiles_the_better_one_is_the_peer() {
        let peer = Peer::best(vec![
            ("local".to_owned(), Ok(Summary::of(&[3.0]).unwrap())),
            ("lan".to_owned(), Ok(Summary::of(&[2.0]).unwrap())),
            ("wan".to_owned(), Err("it did not start".to_owned())),
        ]);
        assert!(matches!(peer, Peer::Measured { profile, .. } if profile == "lan"));
    }
}
