//! How near vectors are to one. The loops are over blocks of numbers, which the compiler turns into vector instructions.

use crate::definition::Similarity;

/// How many numbers are treated at once.
const LANES: usize = 16;

/// A vector with which others are compared.
#[derive(Debug, Clone)]
pub(crate) struct Target<'a> {
    vector: &'a [f32],
    length: f32,
    similarity: Similarity,
}

impl<'a> Target<'a> {
    pub(crate) fn new(vector: &'a [f32], similarity: Similarity) -> Self {
        let length = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
        Self { vector, length, similarity }
    }

    /// The score of a vector of the same number of dimensions. The same at every shard, and never NaN.
    pub(crate) fn score(&self, vector: &[u8]) -> f32 {
        let (numbers, _) = vector.as_chunks();
        let similarity = match self.similarity {
            Similarity::Cosine => {
                let [dot, square] = sums(numbers, self.vector, |a, b| [a * b, a * a]);
                (dot / (square.sqrt() * self.length)).clamp(-1.0, 1.0)
            }
            Similarity::DotProduct | Similarity::MaxInnerProduct => {
                let [dot] = sums(numbers, self.vector, |a, b| [a * b]);
                dot
            }
            Similarity::L2Norm => {
                let [square] = sums(numbers, self.vector, |a, b| [(a - b) * (a - b)]);
                square.sqrt()
            }
        };
        if similarity.is_nan() { 0.0 } else { self.similarity.score(similarity) }
    }
}

/// Sums over the pairs of two vectors.
#[inline]
fn sums<const N: usize>(one: &[[u8; 4]], other: &[f32], of: impl Fn(f32, f32) -> [f32; N]) -> [f32; N] {
    let ((blocks, rest), (other_blocks, other_rest)) = (one.as_chunks::<LANES>(), other.as_chunks::<LANES>());
    let mut lanes = [[0.0_f32; LANES]; N];
    for (block, other) in blocks.iter().zip(other_blocks) {
        for lane in 0..LANES {
            let added = of(f32::from_le_bytes(block[lane]), other[lane]);
            for (sums, added) in lanes.iter_mut().zip(added) {
                sums[lane] += added;
            }
        }
    }
    for (lane, (number, other)) in rest.iter().zip(other_rest).enumerate() {
        let added = of(f32::from_le_bytes(*number), *other);
        for (sums, added) in lanes.iter_mut().zip(added) {
            sums[lane] += added;
        }
    }
    lanes.map(|lanes| lanes.iter().sum())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(vector: &[f32]) -> Vec<u8> {
        vector.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    proptest! {
        #[test]
        fn scores_are_near_those_of_exact_arithmetic(
            pairs in prop::collection::vec((-10.0_f32..10.0, -10.0_f32..10.0), 1..100),
        ) {
            let (one, other): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
            let pairs: Vec<(f64, f64)> = pairs.iter().map(|(a, b)| (f64::from(*a), f64::from(*b))).collect();
            let sum = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>();
            let (dot, square) = (sum(|(a, b)| a * b), sum(|(a, b)| (a - b) * (a - b)));
            let cosine = dot / (sum(|(a, _)| a * a) * sum(|(_, b)| b * b)).sqrt();
            for (similarity, exact) in [
                (Similarity::Cosine, f64::midpoint(1.0, cosine)),
                (Similarity::L2Norm, 1.0 / (1.0 + square)),
                (Similarity::MaxInnerProduct, if dot < 0.0 { 1.0 / (1.0 - dot) } else { 1.0 + dot }),
            ] {
                if similarity.problem(&one).is_none() && similarity.problem(&other).is_none() {
                    let score = f64::from(Target::new(&one, similarity).score(&bytes(&other)));
                    prop_assert!((score - exact).abs() <= 1e-3 * exact.max(1.0), "{similarity:?} {score} {exact}");
                }
            }
        }

        #[test]
        fn every_vector_that_is_accepted_has_a_finite_score(
            pairs in prop::collection::vec((any::<f32>(), any::<f32>()), 1..40),
        ) {
            let (one, other): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            for name in Similarity::NAMES {
                let similarity = Similarity::of_name(name).unwrap();
                if similarity.problem(&one).is_none() && similarity.problem(&other).is_none() {
                    let score = Target::new(&one, similarity).score(&bytes(&other));
                    prop_assert!(score.is_finite() && score >= 0.0, "{name}: {score}");
                }
            }
        }
    }

    #[test]
    fn a_vector_is_nearest_to_itself() {
        let vector: Vec<f32> = (0..384_u16).map(|at| f32::from(at % 7) - 3.0).collect();
        let score = |similarity| Target::new(&vector, similarity).score(&bytes(&vector));
        assert!((score(Similarity::Cosine) - 1.0).abs() < 1e-6);
        assert_eq!(score(Similarity::L2Norm), 1.0);
    }
}
