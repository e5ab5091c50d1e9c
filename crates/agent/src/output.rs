//! Standard output and standard error, either of which may be closed or full; and input, which may be endless.

use std::io::{self, Read, Write};

use anyhow::Context;

/// The limit for a request, in bytes: one JSON value with the settings of all services.
const MAX_REQUEST: u64 = 64 * 1024 * 1024;

/// Prints a command's result. It is no error if the reader has gone away; any other failure is.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_to(&mut io::stdout().lock(), text)
}

fn print_to(out: &mut impl Write, text: &str) -> anyhow::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("standard output can't be written"),
    }
}

/// Reads all of an input, at most this many bytes: a device may be endless.
pub(crate) fn bounded(input: impl Read, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max_bytes {
        return Err(io::Error::other(format!("it has more than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// Reads the request of a verb from standard input.
pub(crate) fn request() -> anyhow::Result<String> {
    let bytes = bounded(io::stdin().lock(), MAX_REQUEST).context("standard input can't be read")?;
    String::from_utf8(bytes).context("standard input is not UTF-8")
}

/// Prints a line to standard error. If that fails, there is no other place to report it.
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
    fn an_endless_input_is_refused() {
        assert_eq!(bounded(&b"four"[..], 4).unwrap(), b"four");
        assert!(bounded(&b"fours"[..], 4).unwrap_err().to_string().contains("more than 4 bytes"));
        assert!(bounded(io::repeat(b'x'), 4).is_err());
    }

    #[test]
    fn a_full_disk_is_an_error_and_a_reader_that_went_away_is_not() {
        for at_flush in [false, true] {
            assert!(print_to(&mut Broken(io::ErrorKind::BrokenPipe, at_flush), "x").is_ok());
            let error = print_to(&mut Broken(io::ErrorKind::StorageFull, at_flush), "x").unwrap_err();
            assert!(error.to_string().contains("standard output"), "{error}");
        }
    }
}
