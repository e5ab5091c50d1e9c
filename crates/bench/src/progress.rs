//! Progress messages on standard error.

/// Writes a line to standard error.
pub(crate) fn progress(text: &str) {
    use std::io::Write;
    // Standard error may be closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
