//! Renders the tables of docs/benchmarks.org from the committed results, between two marks. Pure except for reading and writing the
//! files.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::results::{self, Kept};
use crate::rows::{Peer, Row};
use crate::stats::Summary;
use crate::table::number;

const BEGIN: &str = "# measured: begin; written by `bench page` from crates/bench/results";
const END: &str = "# measured: end";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only check that the page shows the committed results; exit code 1 if not
    #[arg(long)]
    check: bool,
}

/// Writes the page's tables, or checks them.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let file = file();
    let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let wanted = with_tables(&text, &results::all()?)?;
    if wanted == text {
        println!("{} shows the results in {}", file.display(), results::folder().display());
    } else if args.check {
        bail!("{} does not show the committed results; run `bench page`", file.display());
    } else {
        std::fs::write(&file, wanted).with_context(|| format!("writing {}", file.display()))?;
        println!("wrote {}", file.display());
    }
    Ok(())
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/benchmarks.org")
}

/// The text with the tables of these results between its marks.
fn with_tables(text: &str, runs: &[Kept]) -> anyhow::Result<String> {
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("the page has no line `{BEGIN}`"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("the page has no line `{END}`"))?;
    let tables: String = runs.iter().map(|run| format!("{}\n", table(run))).collect();
    Ok(format!("{before}{BEGIN}\n\n{tables}{END}{after}"))
}

/// A table with a caption: command, commit, date and machine.
fn table(run: &Kept) -> String {
    let Kept { name, peer, head, date, machine, load_before, .. } = run;
    let load = load_before.split(' ').next().unwrap_or_default();
    let caption = format!("=bench {name}=, commit {head}, {date}, {machine}, load {load} before:");
    let has_peer = run.rows.iter().any(|row| !matches!(row.peer, Peer::None));
    let mut header = vec!["what".to_owned(), "nodes".to_owned(), "Coterie, p50 / p99".to_owned()];
    if has_peer {
        header.extend([format!("{}, p50 / p99", capitalized(peer)), "ratio".to_owned()]);
    }
    let rows = run.rows.iter().map(|row| cells(row, has_peer));
    let all: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let columns = all[0].len();
    let width = |column: usize| all.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} "));
        format!("|{}|\n", padded.collect::<Vec<_>>().join("|"))
    };
    let rule = widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+");
    let body: String = all[1..].iter().map(line).collect();
    format!("{caption}\n\n{}|{rule}|\n{body}", line(&all[0]))
}

fn cells(row: &Row, has_peer: bool) -> Vec<String> {
    let ours = row.ours.as_ref().map_or_else(String::new, |ours| percentiles(ours, &row.unit));
    let mut cells = vec![row.what.clone(), row.nodes.to_string(), ours];
    if has_peer {
        let theirs = match &row.peer {
            Peer::Measured { profile, summary } => format!("{} ({profile})", percentiles(summary, &row.unit)),
            Peer::Missing(_) => "not measured".to_owned(),
            Peer::None => String::new(),
        };
        cells.extend([theirs, row.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"))]);
    }
    // `|` would end the column.
    cells.into_iter().map(|cell| cell.replace('|', "\\vert{}")).collect()
}

fn percentiles(summary: &Summary, unit: &str) -> String {
    if summary.samples == 1 {
        return format!("{} {unit}", number(summary.p50));
    }
    format!("{} / {} {unit}", number(summary.p50), number(summary.p99))
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Kept {
        let peer = Peer::best(vec![("lan".to_owned(), Summary::of(&[8.0, 16.0]).ok_or_else(String::new))]);
        Kept {
            name: "up".to_owned(),
            peer: "serf".to_owned(),
            head: "abc1234".to_owned(),
            date: "2026-11-29".to_owned(),
            machine: "Some CPU, 2 cores".to_owned(),
            load_before: "0.21 0.34".to_owned(),
            rows: vec![
                Row::new("all see all", 5, "ms").ours(Summary::of(&[4.0, 5.5])).peer(peer),
                Row::new("ctl up | to ready", 5, "ms").ours(Summary::of(&[63.2])),
            ],
        }
    }

    #[test]
    fn a_run_is_a_table_with_commit_day_and_machine() {
        assert_eq!(
            table(&run()),
            "\
=bench up=, commit abc1234, 2026-11-29, Some CPU, 2 cores, load 0.21 before:

| what                    | nodes | Coterie, p50 / p99 | Serf, p50 / p99 | ratio |
|-------------------------+-------+--------------------+-----------------+-------|
| all see all             | 5     | 4 / 5.50 ms        | 8 / 16 ms (lan) | 0.50  |
| ctl up \\vert{} to ready | 5     | 63.2 ms            |                 |       |
"
        );
        let mut alone = run();
        alone.rows.remove(0);
        assert!(table(&alone).contains("| what                    | nodes | Coterie, p50 / p99 |\n"));
    }

    #[test]
    fn only_the_text_between_the_marks_changes_and_writing_twice_changes_nothing() {
        let text = format!("above\n{BEGIN}\n\nold\n{END}\nbelow\n");
        let once = with_tables(&text, &[run()]).unwrap();
        assert!(once.starts_with(&format!("above\n{BEGIN}\n\n=bench up=")), "{once}");
        assert!(once.ends_with(&format!(" |\n\n{END}\nbelow\n")) && !once.contains("old"), "{once}");
        assert_eq!(with_tables(&once, &[run()]).unwrap(), once);
        let none = with_tables("no marks", &[]).unwrap_err();
        assert!(none.to_string().contains("# measured: begin"), "{none}");
    }

    #[test]
    fn the_page_shows_the_committed_results() {
        let text = std::fs::read_to_string(file()).unwrap();
        let wanted = with_tables(&text, &results::all().unwrap()).unwrap();
        assert!(text == wanted, "run `cargo run -p bench -- readme`");
    }
}
