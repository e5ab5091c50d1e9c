//! Compares texts with files in `tests/golden`; `UPDATE_GOLDEN=1` rewrites the files.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::Machine;
use crate::machine::repository;

/// Numbers as long as Unix milliseconds are generations of nodes.
const UNIX_MS_DIGITS: usize = 13;

/// Compares a text with `tests/golden/{name}.txt`.
pub fn golden(name: &str, text: &str) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().context("it is in a folder")?)?;
        return Ok(std::fs::write(&path, text)?);
    }
    let expected = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}; UPDATE_GOLDEN=1 writes it", path.display()))?;
    ensure!(
        expected == text,
        "{} says:\n{expected}\n--- but this is printed (UPDATE_GOLDEN=1 accepts it):\n{text}",
        path.display()
    );
    Ok(())
}

impl Machine {
    /// The text without the parts that differ from run to run: folders, the cluster's name, ports, process ids, times.
    /// Blanks between columns shrink to two, since a column's width depends on the times in it.
    pub fn normal(&self, text: &str) -> String {
        let text = text
            .replace(&self.folder().display().to_string(), "DIR")
            .replace(&repository().display().to_string(), "REPO")
            .replace(self.cluster(), "CLUSTER");
        let lines = text.lines().map(|line| same_blanks(&without_numbers(line)));
        lines.map(|line| line + "\n").collect()
    }
}

/// Replaces ports, process ids and durations.
fn without_numbers(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, number) = rest.split_at(at);
        out.push_str(before);
        let is_word =
            out.ends_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'));
        let digits = number.len() - number.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (name, length) = if out.ends_with("127.0.0.1:") {
            ("PORT", digits)
        } else if out.ends_with("process ") || out.ends_with("pid ") {
            ("PID", digits)
        } else if digits >= UNIX_MS_DIGITS {
            ("UNIX_MS", digits)
        } else if let Some(length) = time(number).filter(|_| !is_word) {
            ("TIME", length)
        } else {
            (&number[..digits], digits)
        };
        out.push_str(name);
        rest = &number[length..];
    }
    out + rest
}

/// The length of the duration that a text begins with: `12s`, `3m12s`, `0.61 s`.
fn time(text: &str) -> Option<usize> {
    let mut end = 0;
    loop {
        let rest = &text[end..];
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        if number == 0 {
            break;
        }
        let blank = usize::from(rest[number..].starts_with(' '));
        let unit = rest[number + blank..].chars().take_while(char::is_ascii_alphabetic).count();
        if !matches!(&rest[number + blank..number + blank + unit], "ms" | "s" | "m" | "h" | "d") {
            return None;
        }
        end += number + blank + unit;
    }
    (end > 0).then_some(end)
}

fn same_blanks(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let (indent, rest) = line.split_at(indent);
    let mut out = indent.to_owned();
    for (at, column) in rest.split("  ").map(str::trim).filter(|column| !column.is_empty()).enumerate() {
        out.push_str(if at == 0 { "" } else { "  " });
        out.push_str(column);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_differ_from_run_to_run_are_left_out() {
        let line = "node-1   http://127.0.0.1:10000   3m12s    process 77 after 0.61 s, 5/5 in 23 ms; 15 nodes n1 v0.1.0";
        assert_eq!(
            same_blanks(&without_numbers(line)),
            "node-1  http://127.0.0.1:PORT  TIME  process PID after TIME, 5/5 in TIME; 15 nodes n1 v0.1.0"
        );
    }
}
