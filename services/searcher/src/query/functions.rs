//! Functions that change scores: of a number in a document, or of its distance from an origin. Pure.

use super::ast::Node;

/// A query whose scores are combined with those of functions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Functions {
    pub(crate) query: Node,
    pub(crate) functions: Vec<Function>,
    /// How the values of several functions are combined.
    pub(crate) score_mode: Combine,
    /// How their value is combined with the query's score; `First` is the value alone.
    pub(crate) boost_mode: Combine,
    /// The largest value of the functions.
    pub(crate) max_boost: f32,
}

/// A function for the documents that its filter matches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Function {
    pub(crate) filter: Option<Node>,
    pub(crate) weight: f32,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Combine {
    Multiply,
    Sum,
    Average,
    First,
    Max,
    Min,
}

/// The value of a function before its weight.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    One,
    /// A number of the document, times a factor, modified.
    Field {
        field: String,
        factor: f64,
        modifier: Modifier,
        /// The number of documents that have none; without it their value is 1.
        missing: Option<f64>,
    },
    /// Falls with the distance from the origin. Documents without the field have 1.
    Decay {
        field: String,
        shape: Shape,
        /// Dates are in milliseconds since 1970.
        origin: f64,
        /// The distance behind the offset at which the value is `decay`.
        scale: f64,
        offset: f64,
        decay: f64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Gauss,
    Exponential,
    Linear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Modifier {
    None,
    Log,
    Log1p,
    Log2p,
    Ln,
    Ln1p,
    Ln2p,
    Square,
    Sqrt,
    Reciprocal,
}

impl Value {
    /// The field that the function looks at.
    pub(crate) fn field(&self) -> Option<&str> {
        match self {
            Self::One => None,
            Self::Field { field, .. } | Self::Decay { field, .. } => Some(field),
        }
    }

    /// The value for the numbers of a document, of which dates are in milliseconds.
    pub(super) fn of(&self, mut numbers: impl Iterator<Item = f64>) -> f64 {
        match self {
            Self::One => 1.0,
            Self::Field { factor, modifier, missing, .. } => match numbers.next().or(*missing) {
                Some(number) => modifier.apply(number * factor),
                None => 1.0,
            },
            Self::Decay { shape, origin, scale, offset, decay, .. } => {
                let distance = |number: f64| ((number - origin).abs() - offset).max(0.0);
                match numbers.map(distance).min_by(f64::total_cmp) {
                    Some(distance) => shape.apply(distance, *scale, *decay),
                    None => 1.0,
                }
            }
        }
    }
}

impl Shape {
    fn apply(self, distance: f64, scale: f64, decay: f64) -> f64 {
        match self {
            Self::Gauss => (decay.ln() * (distance / scale).powi(2)).exp(),
            Self::Exponential => (decay.ln() * distance / scale).exp(),
            Self::Linear => {
                let end = scale / (1.0 - decay);
                ((end - distance) / end).max(0.0)
            }
        }
    }
}

impl Modifier {
    fn apply(self, number: f64) -> f64 {
        match self {
            Self::None => number,
            Self::Log => number.log10(),
            Self::Log1p => (number + 1.0).log10(),
            Self::Log2p => (number + 2.0).log10(),
            Self::Ln => number.ln(),
            Self::Ln1p => (number + 1.0).ln(),
            Self::Ln2p => (number + 2.0).ln(),
            Self::Square => number * number,
            Self::Sqrt => number.sqrt(),
            Self::Reciprocal => 1.0 / number,
        }
    }
}

impl Combine {
    /// The value of some functions with their weights; 1 if there are none.
    pub(super) fn all(self, values: &[(f64, f64)]) -> f64 {
        let weighted = values.iter().map(|(value, weight)| value * weight);
        match self {
            _ if values.is_empty() => 1.0,
            Self::Multiply => weighted.product(),
            Self::Sum => weighted.sum(),
            Self::Average => {
                let weights: f64 = values.iter().map(|(_, weight)| weight).sum();
                if weights == 0.0 { 1.0 } else { weighted.sum::<f64>() / weights }
            }
            Self::First => weighted.take(1).sum(),
            Self::Max => weighted.fold(f64::MIN, f64::max),
            Self::Min => weighted.fold(f64::MAX, f64::min),
        }
    }

    /// A score with the value of the functions.
    pub(super) fn pair(self, score: f64, value: f64) -> f64 {
        match self {
            Self::Multiply => score * value,
            Self::Sum => score + value,
            Self::Average => f64::midpoint(score, value),
            Self::First => value,
            Self::Max => score.max(value),
            Self::Min => score.min(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() < 1e-9
    }

    #[test]
    fn a_decay_is_one_up_to_the_offset_and_the_decay_at_the_scale() {
        for shape in [Shape::Gauss, Shape::Exponential, Shape::Linear] {
            let value = Value::Decay {
                field: String::new(),
                shape,
                origin: 10.0,
                scale: 4.0,
                offset: 2.0,
                decay: 0.3,
            };
            let at = |number: f64| value.of([number].into_iter());
            assert!(is_near(at(10.0), 1.0) && is_near(at(12.0), 1.0) && is_near(at(8.0), 1.0), "{shape:?}");
            assert!(is_near(at(16.0), 0.3) && is_near(at(4.0), 0.3), "{shape:?}");
            assert!(at(13.0) < 1.0 && at(1e9) < 1e-9, "{shape:?}");
            assert!(is_near(value.of(std::iter::empty()), 1.0));
        }
    }

    #[test]
    fn values_are_combined_with_their_weights() {
        let values = [(2.0, 1.0), (3.0, 3.0)];
        for (combine, value, pair) in [
            (Combine::Multiply, 18.0, 6.0),
            (Combine::Sum, 11.0, 5.0),
            (Combine::Average, 11.0 / 4.0, 2.5),
            (Combine::First, 2.0, 3.0),
            (Combine::Max, 9.0, 3.0),
            (Combine::Min, 2.0, 2.0),
        ] {
            assert!(is_near(combine.all(&values), value), "{combine:?}");
            assert!(is_near(combine.pair(2.0, 3.0), pair), "{combine:?}");
            assert!(is_near(combine.all(&[]), 1.0));
        }
        let value =
            Value::Field { field: String::new(), factor: 2.0, modifier: Modifier::Log1p, missing: Some(4.5) };
        assert!(is_near(value.of(std::iter::empty()), 1.0) && is_near(value.of([49.5].into_iter()), 2.0));
    }
}
