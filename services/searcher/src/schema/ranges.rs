//! Ranges of values, as terms for Tantivy's range query over columns.

use std::ops::Bound;

use tantivy::Term;

use super::addresses::Network;
use super::dates::Moment;
use super::places::{ValueType, bool_term, json_term, number, number_term};
use super::{IndexSchema, Place};

impl IndexSchema {
    /// The ranges that two texts may mean in a place with values, one for each type that both can have; none if there is no
    /// such type, or if both ends are open: then look for [all that have a value](Self::exists_query). A document matches if one
    /// of them does.
    ///
    /// Tantivy 0.27 can't take all of them as they are: in JSON fields, its range query panics if the bounds are numbers of
    /// different types, refuses booleans, and finds too much if the lower bound is above the largest `i64` or the upper one is a
    /// float below 0.
    ///
    /// A date without a time is the whole day: a range that ends with it includes the day, one that begins after it begins
    /// on the next day. So the range that begins and ends with the same text, both included, is what is equal to a date. In the
    /// same way, a network is all of its addresses.
    pub(crate) fn range_bounds(
        &self,
        place: &Place,
        lower: Bound<&str>,
        upper: Bound<&str>,
    ) -> Vec<(Bound<Term>, Bound<Term>)> {
        let types = self.value_type(place);
        let Some(path) = &place.path else {
            return self.own_range(place, lower, upper).into_iter().collect();
        };
        let term = || json_term(place.field, path);
        let mut ranges = Vec::new();
        let is_open = lower == Bound::Unbounded && upper == Bound::Unbounded;
        if is_open {
            return ranges;
        }
        if matches!(types, ValueType::Text | ValueType::Any) {
            let normalizer = self.normalizer(path);
            let text = |text: &str| Some(self.text_term(place, &normalizer.apply(text)));
            ranges.extend(pair(lower, upper, text));
        }
        if types == ValueType::Ip {
            let edge = |bound: Bound<&str>, is_last: bool| {
                map(bound, |text| {
                    let Network { first, last } = Network::parse(text)?;
                    Some(self.text_term(place, &if is_last { last } else { first }.to_term()))
                })
            };
            let lower = edge(lower, matches!(lower, Bound::Excluded(_)));
            let upper = edge(upper, matches!(upper, Bound::Included(_)));
            ranges.extend(lower.zip(upper));
        }
        ranges
            .extend(pair(lower, upper, |text| number(types, text).map(|number| number_term(term(), number))));
        if matches!(types, ValueType::Bool | ValueType::Any) {
            ranges.extend(pair(lower, upper, |text| {
                let is_true: bool = text.parse().ok()?;
                Some(bool_term(term(), is_true))
            }));
        }
        if matches!(types, ValueType::Date | ValueType::Any) {
            let edge = |bound: Bound<&str>, is_last: bool| {
                map(bound, |text| {
                    let moment = Moment::of_text(text).or_else(|| match types {
                        ValueType::Date => Moment::of_millis(text.parse().ok()?),
                        _ => None,
                    })?;
                    let mut term = term();
                    term.append_type_and_fast_value(if is_last { moment.last() } else { moment.first() });
                    Some(term)
                })
            };
            let lower = edge(lower, matches!(lower, Bound::Excluded(_)));
            let upper = edge(upper, matches!(upper, Bound::Included(_)));
            ranges.extend(lower.zip(upper));
        }
        ranges
    }

    /// A range of a field of its own.
    fn own_range(
        &self,
        place: &Place,
        lower: Bound<&str>,
        upper: Bound<&str>,
    ) -> Option<(Bound<Term>, Bound<Term>)> {
        pair(lower, upper, |text| match self.value_type(place) {
            ValueType::Seq => Some(Term::from_field_u64(place.field, text.parse().ok()?)),
            _ => Some(Term::from_field_text(place.field, text)),
        })
    }
}

fn pair(
    lower: Bound<&str>,
    upper: Bound<&str>,
    term: impl Fn(&str) -> Option<Term>,
) -> Option<(Bound<Term>, Bound<Term>)> {
    map(lower, &term).zip(map(upper, &term))
}

fn map(bound: Bound<&str>, term: impl Fn(&str) -> Option<Term>) -> Option<Bound<Term>> {
    Some(match bound {
        Bound::Included(text) => Bound::Included(term(text)?),
        Bound::Excluded(text) => Bound::Excluded(term(text)?),
        Bound::Unbounded => Bound::Unbounded,
    })
}
