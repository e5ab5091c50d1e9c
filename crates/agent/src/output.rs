//! Standard output and standard error, either of which may be closed or full.

use std::io::{self, Write};

use anyhow::Context;

/// Prints a command's result. A reader that went away wants no more of it; any other failure is an error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_to(&mut io::stdout().lock(), text)
}

fn print_to(out: &mut impl Write, text: &str) -> anyhow::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("standard output can't be written"),
    }
}

/// A line on standard error; if that can't be written, nobody can be told.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails with this error at the first write, or at the first flush.
    struct Broken(io::ErrorKind, bool);

    impl Write for Broken {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1 { Ok(bytes.len()) } else { Err(self.0.into()) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_and_a_full_disk_is_one() {
        for at_flush in [false, true] {
            assert!(print_to(&mut Broken(io::ErrorKind::BrokenPipe, at_flush), "x").is_ok());
            let error = print_to(&mut Broken(io::ErrorKind::StorageFull, at_flush), "x").unwrap_err();
            assert!(error.to_string().contains("standard output"), "{error}");
        }
    }
}
