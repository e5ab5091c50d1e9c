//! A cell of the matrix: a task, and the number of clients.

use std::fmt;

use crate::kv::drive::Task;
use crate::kv::keys::Choice;

/// One combination of the matrix. Rows of the report have its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Work {
    /// The length of values, in bytes.
    pub(crate) value: usize,
    pub(crate) choice: Choice,
    pub(crate) clients: usize,
    pub(crate) task: Task,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, choice, clients: _, task } = self;
        write!(f, "{task} ")?;
        match value {
            1_024.. if value.is_multiple_of(1_024) => write!(f, "{} KiB", value / 1_024)?,
            _ => write!(f, "{value} B")?,
        }
        match choice {
            Choice::Uniform => Ok(()),
            Choice::Zipf => write!(f, ", {choice}"),
        }
    }
}
