//! Data goes to stdout, everything else to stderr. A reader that goes away is not an error.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::ValueEnum;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::tcgetwinsize;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::hints;

/// How often an idle stream checks whether it still has a reader.
const READER_CHECK: Duration = Duration::from_millis(500);

/// A shorter wait is not reported.
const SILENCE: Duration = Duration::from_secs(1);

/// How data is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
    /// The names alone, one a line.
    Name,
}

/// How a stream is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamFormat {
    /// A line of text each.
    #[default]
    Table,
    /// A JSON value a line.
    Json,
}

/// Whether to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The option of every verb that prints data.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct OutputArg {
    /// How to print the data: table, json, yaml, or name for the names alone
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        hide_possible_values = true
    )]
    pub(crate) output: Format,
}

/// The option of every verb that prints a stream.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct StreamOutputArg {
    /// How to print each item: table for a line of text, json for a JSON value a line
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        hide_possible_values = true
    )]
    pub(crate) output: StreamFormat,
}

/// Standard output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    /// Whether colours are wanted.
    pub(crate) color: bool,
    /// How wide the terminal is, in characters; none where it is no terminal.
    pub(crate) columns: Option<usize>,
}

impl Out {
    pub(crate) fn new(choice: ColorChoice) -> Self {
        let stdout = io::stdout();
        let size = stdout.is_terminal().then(|| tcgetwinsize(&stdout).ok()).flatten();
        let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        Self { color: wants_color(choice, is_plain(), stdout.is_terminal()), columns }
    }

    /// A line of text, or several.
    pub(crate) fn line(self, text: &str) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            stdout.write_all(b"\n")?;
        }
        stdout.flush()
    }

    /// A value as one line of JSON.
    pub(crate) fn json_line(self, value: &impl Serialize) -> anyhow::Result<()> {
        Ok(self.line(&serde_json::to_string(value)?)?)
    }

    /// Data in the requested format; the table and the names are made only if needed.
    pub(crate) fn data<T: Serialize>(
        self,
        format: Format,
        data: &T,
        table: impl FnOnce(&T) -> String,
        names: impl FnOnce(&T) -> Vec<String>,
    ) -> anyhow::Result<()> {
        let text = match format {
            Format::Table => table(data),
            Format::Json => serde_json::to_string_pretty(data)?,
            Format::Yaml => manifest::yaml::to_yaml(data)?,
            Format::Name => names(data).join("\n"),
        };
        if !text.is_empty() {
            self.line(&text)?;
        }
        Ok(())
    }
}

/// Returns when standard output has no reader any more, with the error that a write would give. Cancel-safe.
pub(crate) async fn reader_gone() -> io::Error {
    loop {
        sleep(READER_CHECK).await;
        let stdout = io::stdout();
        let mut ends = [PollFd::new(&stdout, PollFlags::empty())];
        // A pipe without a reader polls as an error, a closed terminal as a hang-up.
        let polled = poll(&mut ends, Some(&Timespec::default()));
        if polled.is_ok() && ends[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            return io::ErrorKind::BrokenPipe.into();
        }
    }
}

/// Whether the environment says that colours are not wanted, or that the terminal has none.
pub(crate) fn is_plain() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || is_dumb()
}

/// Whether the terminal does not understand escape sequences.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|value| value == "dumb")
}

fn wants_color(choice: ColorChoice, is_plain: bool, is_terminal: bool) -> bool {
    match choice {
        ColorChoice::Auto => is_terminal && !is_plain,
        ColorChoice::Always => true,
        ColorChoice::Never => false,
    }
}

/// A line for people, on stderr, with commands as the user would type them. Write errors are ignored.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(&hints::as_typed(text)));
}

/// Text that may come from elsewhere, safe for a terminal; line breaks are kept.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// One line on stderr that each update overwrites; only on a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    is_terminal: bool,
    shown: String,
    began: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal() && !is_dumb(),
            shown: String::new(),
            began: Instant::now(),
        }
    }

    pub(crate) fn show(&mut self, text: &str) {
        if self.is_terminal && self.shown != text {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K{text}");
            text.clone_into(&mut self.shown);
        }
    }

    /// Shows what is waited for; without a terminal, as a separate line once the wait has taken a second.
    pub(crate) fn wait_for(&mut self, text: &str) {
        self.show(text);
        if !self.is_terminal && self.began.elapsed() >= SILENCE && self.shown != text {
            say(text);
            text.clone_into(&mut self.shown);
        }
    }

    pub(crate) fn clear(&mut self) {
        if self.is_terminal && !self.shown.is_empty() {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K");
            self.shown.clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_control_the_terminal() {
        assert_eq!(printable("a\n\u{1b}[2Jb\u{9b}"), "a\n\u{fffd}[2Jb\u{fffd}");
    }

    #[test]
    fn colour_needs_a_terminal_and_no_setting_against_it() {
        for (choice, no_color, terminal, expected) in [
            (ColorChoice::Auto, false, true, true),
            (ColorChoice::Auto, true, true, false),
            (ColorChoice::Auto, false, false, false),
            (ColorChoice::Always, true, false, true),
            (ColorChoice::Never, false, true, false),
        ] {
            assert_eq!(wants_color(choice, no_color, terminal), expected);
        }
    }
}
