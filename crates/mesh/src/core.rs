//! Which core's runtime the current thread drives. What a core has of its own, it uses without locks and without other
//! cores' cache lines.

use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Declares that this thread drives the runtime of a core, for as long as it lives. Call it once, before the runtime runs.
pub fn enter(core: usize) {
    CURRENT.set(Some(core));
}

/// The core whose runtime this thread drives; none on the threads of the shared runtime.
pub fn current() -> Option<usize> {
    CURRENT.get()
}
