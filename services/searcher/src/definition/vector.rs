//! How vectors are compared. Pure.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most numbers of a vector.
pub(crate) const MAX_DIMS: u16 = 4_096;
/// How far the square of a length may be from 1 where it has to be 1; as in Elasticsearch.
const TOLERANCE: f32 = 1e-3;

/// How near two vectors are, as a score that is the greater the nearer they are. The formulas are Elasticsearch's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Similarity {
    /// By their angle: `(1 + cos) / 2`. A vector of zeros is refused.
    #[default]
    Cosine,
    /// By their product: `(1 + dot) / 2`. Only vectors of the length 1 are accepted.
    DotProduct,
    /// By their distance: `1 / (1 + distance * distance)`.
    L2Norm,
    /// By their product, of vectors of any length: `1 + dot`, or `1 / (1 - dot)` if that is below 0.
    MaxInnerProduct,
}

impl Similarity {
    /// The names, as users write them.
    pub(crate) const NAMES: [&str; 4] = ["cosine", "dot_product", "l2_norm", "max_inner_product"];

    pub(crate) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let all = [Self::Cosine, Self::DotProduct, Self::L2Norm, Self::MaxInnerProduct];
        all.into_iter().find(|similarity| similarity.name() == name)
    }

    /// Why a vector can't be compared in this way, or `None` if it can.
    pub(crate) fn problem(self, vector: &[f32]) -> Option<String> {
        let square: f32 = vector.iter().map(|number| number * number).sum();
        if !square.is_finite() {
            return Some("its numbers are too large: their squares sum up to infinity".to_owned());
        }
        match self {
            Self::Cosine if square == 0.0 => Some(
                "it is all zeros, or nearly so, and has no direction, which `cosine` compares".to_owned(),
            ),
            Self::DotProduct if (square - 1.0).abs() > TOLERANCE => Some(format!(
                "its length is {}, but `dot_product` takes only vectors of the length 1",
                square.sqrt()
            )),
            Self::Cosine | Self::DotProduct | Self::L2Norm | Self::MaxInnerProduct => None,
        }
    }

    /// The score for a similarity: a cosine, a product, or a distance.
    pub(crate) fn score(self, similarity: f32) -> f32 {
        match self {
            Self::Cosine | Self::DotProduct => (1.0 + similarity).max(0.0) / 2.0,
            Self::L2Norm => 1.0 / (1.0 + similarity * similarity),
            Self::MaxInnerProduct if similarity < 0.0 => 1.0 / (1.0 - similarity),
            Self::MaxInnerProduct => (1.0 + similarity).min(f32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_are_written() {
        for name in Similarity::NAMES {
            let similarity = Similarity::of_name(name).unwrap();
            assert_eq!(serde_json::to_value(similarity).unwrap(), name);
        }
        assert_eq!(Similarity::of_name("euclid"), None);
    }

    #[test]
    fn scores_are_those_of_elasticsearch() {
        let of = |similarity: Similarity, value: f32| similarity.score(value);
        assert_eq!((of(Similarity::Cosine, 1.0), of(Similarity::Cosine, -1.0)), (1.0, 0.0));
        assert_eq!((of(Similarity::DotProduct, 0.5), of(Similarity::DotProduct, -1.000_5)), (0.75, 0.0));
        assert_eq!((of(Similarity::L2Norm, 0.0), of(Similarity::L2Norm, 3.0)), (1.0, 0.1));
        assert_eq!(of(Similarity::L2Norm, f32::INFINITY), 0.0);
        assert_eq!(
            (of(Similarity::MaxInnerProduct, 3.0), of(Similarity::MaxInnerProduct, -3.0)),
            (4.0, 0.25)
        );
        assert_eq!(of(Similarity::MaxInnerProduct, f32::INFINITY), f32::MAX);
    }

    #[test]
    fn what_has_no_finite_score_is_a_problem() {
        let problem = |similarity: Similarity, vector: &[f32]| similarity.problem(vector).is_some();
        assert!(problem(Similarity::Cosine, &[0.0, -0.0]) && problem(Similarity::Cosine, &[1e-30, 0.0]));
        assert!(!problem(Similarity::Cosine, &[1e-3, 0.0]) && !problem(Similarity::L2Norm, &[0.0]));
        assert!(
            problem(Similarity::DotProduct, &[0.9, 0.0]) && !problem(Similarity::DotProduct, &[0.6, 0.8])
        );
        for name in Similarity::NAMES {
            assert!(problem(Similarity::of_name(name).unwrap(), &[3e38, 3e38]), "{name}");
        }
        assert!(!problem(Similarity::MaxInnerProduct, &[-7.0, 20.0]));
    }
}
