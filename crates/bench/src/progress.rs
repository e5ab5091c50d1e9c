//! What is said while it runs, on standard error.

/// Says on standard error what goes on.
pub(crate) fn progress(text: &str) {
    use std::io::Write;
    // Nobody may be listening.
    let _ = writeln!(std::io::stderr(), "{text}");
}
