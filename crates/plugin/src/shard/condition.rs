//! The conditions on which a write takes effect. Independent of HTTP.

/// What must hold for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It has no value.
    Absent,
    /// It has a value.
    Present,
    /// It has the value that this write put.
    Version(u64),
}

impl Condition {
    /// Whether it holds for a key with a value of this version; `None` for a key without a value.
    pub fn holds(self, version: Option<u64>) -> bool {
        match self {
            Self::Absent => version.is_none(),
            Self::Present => version.is_some(),
            Self::Version(wanted) => version == Some(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_for_what_it_names() {
        for (condition, of_nothing, of_it) in [
            (Condition::Absent, true, false),
            (Condition::Present, false, true),
            (Condition::Version(3), false, true),
            (Condition::Version(2), false, false),
            (Condition::Version(4), false, false),
        ] {
            assert_eq!(condition.holds(None), of_nothing, "{condition:?}");
            assert_eq!(condition.holds(Some(3)), of_it, "{condition:?}");
        }
    }
}
