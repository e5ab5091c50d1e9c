//! Automata that select terms of a dictionary: prefixes, wildcard patterns and misspelled words, each in time linear in a term.

use std::cell::Cell;
use std::sync::Arc;

use tantivy::Term;
use tantivy::query::{DfaWrapper, FuzzyTermQuery};
use tantivy::schema::Field;
use tantivy_fst::Automaton;

use super::ast::Piece;
use super::regexp::Regexp;

/// A wildcard pattern over UTF-8 text.
///
/// It is a nondeterministic automaton whose states are the positions in the pattern, as bits.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Byte(u8),
    /// One character.
    One,
    /// Any characters, also none.
    Many,
}

impl Pattern {
    /// The most steps of a pattern: the bits of a state, but for the one after the last step.
    pub(super) const MAX_STEPS: usize = 127;

    /// The pattern of some pieces; `None` if it has more than [`MAX_STEPS`](Self::MAX_STEPS) steps.
    pub(super) fn new(pieces: &[Piece]) -> Option<Self> {
        let mut steps = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => steps.extend(text.bytes().map(Step::Byte)),
                Piece::One => steps.push(Step::One),
                Piece::Many => steps.push(Step::Many),
            }
        }
        (steps.len() <= Self::MAX_STEPS).then_some(Self { steps })
    }

    /// Adds a position, and those reached from it without input.
    fn reach(&self, states: &mut u128, mut position: usize) {
        *states |= 1 << position;
        while self.steps.get(position) == Some(&Step::Many) {
            position += 1;
            *states |= 1 << position;
        }
    }
}

impl Automaton for Pattern {
    type State = u128;

    fn start(&self) -> u128 {
        let mut states = 0;
        self.reach(&mut states, 0);
        states
    }

    fn is_match(&self, states: &u128) -> bool {
        states & (1 << self.steps.len()) != 0
    }

    fn can_match(&self, states: &u128) -> bool {
        *states != 0
    }

    fn will_always_match(&self, states: &u128) -> bool {
        self.steps.last() == Some(&Step::Many) && states & (1 << (self.steps.len() - 1)) != 0
    }

    fn accept(&self, states: &u128, byte: u8) -> u128 {
        let continues = byte & 0xC0 == 0x80;
        let mut next = 0;
        let mut rest = *states;
        while rest != 0 {
            let position = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            // The other bytes of the character that `?` has taken.
            if continues && position > 0 && self.steps[position - 1] == Step::One {
                self.reach(&mut next, position);
            }
            match self.steps.get(position) {
                Some(Step::Byte(expected)) if *expected == byte => self.reach(&mut next, position + 1),
                Some(Step::One) if !continues => self.reach(&mut next, position + 1),
                Some(Step::Many) => self.reach(&mut next, position),
                Some(Step::Byte(_) | Step::One) | None => {}
            }
        }
        next
    }
}

/// What selects terms. All kinds are one type, so that the code that walks dictionaries is compiled once.
pub(super) enum Select {
    Pattern(Pattern),
    Fuzzy(DfaWrapper),
    Regexp(Arc<Regexp>),
}

/// The state of [`Select`].
#[derive(Debug, Clone, Copy)]
pub(super) enum SelectState {
    Pattern(u128),
    Fuzzy(<DfaWrapper as Automaton>::State),
    Regexp(Option<usize>),
}

impl Select {
    /// Words within some edits of a word: insertions, deletions, replacements and, with `transpositions`, swaps of
    /// neighbours. At most 2 edits.
    pub(super) fn fuzzy(
        word: &str,
        distance: u8,
        transpositions: bool,
    ) -> Result<Self, tantivy::TantivyError> {
        // The field is no part of the automaton.
        let term = Term::from_field_text(Field::from_field_id(0), word);
        FuzzyTermQuery::new(term, distance, transpositions).automaton().map(Self::Fuzzy)
    }
}

impl Automaton for Select {
    type State = SelectState;

    fn start(&self) -> SelectState {
        match self {
            Self::Pattern(pattern) => SelectState::Pattern(pattern.start()),
            Self::Fuzzy(dfa) => SelectState::Fuzzy(dfa.start()),
            Self::Regexp(regexp) => SelectState::Regexp(regexp.start()),
        }
    }

    fn is_match(&self, state: &SelectState) -> bool {
        match (self, state) {
            (Self::Pattern(pattern), SelectState::Pattern(state)) => pattern.is_match(state),
            (Self::Fuzzy(dfa), SelectState::Fuzzy(state)) => dfa.is_match(state),
            (Self::Regexp(regexp), SelectState::Regexp(state)) => regexp.is_match(state),
            _ => false,
        }
    }

    fn can_match(&self, state: &SelectState) -> bool {
        match (self, state) {
            (Self::Pattern(pattern), SelectState::Pattern(state)) => pattern.can_match(state),
            (Self::Fuzzy(dfa), SelectState::Fuzzy(state)) => dfa.can_match(state),
            (Self::Regexp(regexp), SelectState::Regexp(state)) => regexp.can_match(state),
            _ => false,
        }
    }

    fn accept(&self, state: &SelectState, byte: u8) -> SelectState {
        match (self, state) {
            (Self::Pattern(pattern), SelectState::Pattern(state)) => {
                SelectState::Pattern(pattern.accept(state, byte))
            }
            (Self::Fuzzy(dfa), SelectState::Fuzzy(state)) => SelectState::Fuzzy(dfa.accept(state, byte)),
            (Self::Regexp(regexp), SelectState::Regexp(state)) => {
                SelectState::Regexp(regexp.accept(state, byte))
            }
            (_, state) => *state,
        }
    }
}

/// Selects terms that start with some bytes and continue as selected.
pub(super) struct Prefixed {
    /// The path and type at the start of terms of JSON fields.
    pub(super) prefix: Vec<u8>,
    pub(super) select: Select,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum PrefixedState {
    /// The number of bytes of the prefix that were seen.
    Prefix(usize),
    Select(SelectState),
    Dead,
}

impl Prefixed {
    fn after_prefix(&self, seen: usize) -> PrefixedState {
        match seen == self.prefix.len() {
            true => PrefixedState::Select(self.select.start()),
            false => PrefixedState::Prefix(seen),
        }
    }
}

impl Automaton for Prefixed {
    type State = PrefixedState;

    fn start(&self) -> PrefixedState {
        self.after_prefix(0)
    }

    fn is_match(&self, state: &PrefixedState) -> bool {
        match state {
            PrefixedState::Select(state) => self.select.is_match(state),
            PrefixedState::Prefix(_) | PrefixedState::Dead => false,
        }
    }

    fn can_match(&self, state: &PrefixedState) -> bool {
        match state {
            PrefixedState::Prefix(_) => true,
            PrefixedState::Select(state) => self.select.can_match(state),
            PrefixedState::Dead => false,
        }
    }

    fn accept(&self, state: &PrefixedState, byte: u8) -> PrefixedState {
        match state {
            PrefixedState::Prefix(seen) if self.prefix[*seen] == byte => self.after_prefix(seen + 1),
            PrefixedState::Prefix(_) | PrefixedState::Dead => PrefixedState::Dead,
            PrefixedState::Select(state) => PrefixedState::Select(self.select.accept(state, byte)),
        }
    }
}

/// Stops a walk over a dictionary after a number of steps.
pub(super) struct Bounded<'a, A> {
    pub(super) inner: &'a A,
    /// How many more bytes may be looked at.
    pub(super) budget: &'a Cell<u64>,
}

impl<A: Automaton> Automaton for Bounded<'_, A> {
    type State = Option<A::State>;

    fn start(&self) -> Self::State {
        Some(self.inner.start())
    }

    fn is_match(&self, state: &Self::State) -> bool {
        state.as_ref().is_some_and(|state| self.inner.is_match(state))
    }

    fn can_match(&self, state: &Self::State) -> bool {
        state.as_ref().is_some_and(|state| self.inner.can_match(state))
    }

    fn accept(&self, state: &Self::State, byte: u8) -> Self::State {
        let left = self.budget.get().checked_sub(1)?;
        self.budget.set(left);
        state.as_ref().map(|state| self.inner.accept(state, byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pieces: &[Piece], text: &str) -> bool {
        let pattern = Pattern::new(pieces).unwrap();
        let mut state = pattern.start();
        for byte in text.bytes() {
            state = pattern.accept(&state, byte);
        }
        assert!(!pattern.will_always_match(&state) || pattern.is_match(&state));
        pattern.is_match(&state)
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    #[test]
    fn wildcards_match_characters_not_bytes() {
        for (pieces, yes, no) in [
            (
                vec![text("te"), Piece::One, text("t")],
                vec!["test", "te\u{fc}t", "te\u{65e5}t"],
                vec!["tet", "teest", "tes"],
            ),
            (vec![Piece::One, Piece::One], vec!["ab", "\u{fc}\u{1f600}"], vec!["a", "abc", "\u{65e5}"]),
            (vec![text("a"), Piece::Many], vec!["a", "ab", "a\u{fc}"], vec!["", "b", "ba"]),
            (
                vec![Piece::Many, text("a"), Piece::Many, text("b")],
                vec!["ab", "xaxb", "aabb"],
                vec!["a", "ba", "abc"],
            ),
            (vec![Piece::Many, Piece::One], vec!["a", "ab\u{65e5}"], vec![""]),
            (
                vec![Piece::Many, Piece::One, text("\u{fc}")],
                vec!["\u{65e5}\u{fc}", "a\u{fc}"],
                vec!["\u{fc}", "a\u{65e5}"],
            ),
        ] {
            for matching in yes {
                assert!(matches(&pieces, matching), "{pieces:?} {matching}");
            }
            for other in no {
                assert!(!matches(&pieces, other), "{pieces:?} {other}");
            }
        }
    }

    #[test]
    fn a_pattern_that_would_be_exponential_as_a_regex_is_linear() {
        let pieces: Vec<_> = (0..50).flat_map(|_| [Piece::Many, text("a")]).chain([text("b")]).collect();
        assert!(!matches(&pieces, &"a".repeat(20_000)));
    }

    #[test]
    fn a_pattern_is_as_long_as_its_states_have_bits() {
        assert!(Pattern::new(&[text(&"a".repeat(127))]).is_some());
        assert!(matches(&[text(&"a".repeat(127))], &"a".repeat(127)));
        assert!(Pattern::new(&[text(&"a".repeat(128))]).is_none());
    }

    #[test]
    fn a_spent_budget_ends_the_walk() {
        let select = Select::Pattern(Pattern::new(&[Piece::Many]).unwrap());
        let prefixed = Prefixed { prefix: b"p".to_vec(), select };
        let budget = Cell::new(3);
        let bounded = Bounded { inner: &prefixed, budget: &budget };
        let mut state = bounded.start();
        for byte in *b"pab" {
            state = bounded.accept(&state, byte);
            assert!(bounded.can_match(&state));
        }
        assert!(bounded.is_match(&state));
        state = bounded.accept(&state, b'c');
        assert!(!bounded.can_match(&state));
    }

    #[test]
    fn terms_of_other_paths_are_not_selected() {
        let select = Select::Pattern(Pattern::new(&[Piece::Many]).unwrap());
        let prefixed = Prefixed { prefix: b"a\0s".to_vec(), select };
        for (term, selected) in
            [("a\0sx", true), ("a\0s", true), ("a\0ix", false), ("b\0sx", false), ("a", false)]
        {
            let state = term.bytes().fold(prefixed.start(), |state, byte| prefixed.accept(&state, byte));
            assert_eq!(prefixed.is_match(&state), selected, "{term:?}");
        }
    }
}
