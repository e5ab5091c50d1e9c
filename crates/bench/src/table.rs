//! The table on standard output. Pure: rows in, text out.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};

use crate::results::Kept;
use crate::rows::{Peer, Row};
use crate::stats::Summary;

/// The columns of 99.9th percentiles.
const TAILS: [usize; 2] = [6, 10];

/// The column of ratios to the committed results.
const TO_KEPT: usize = 12;

/// The table: aligned, without borders, as wide as its content. The columns of p99.9 and of ratios to the committed
/// results are hidden when they are empty.
pub(crate) fn render(rows: &[Row], peer: &str, kept: Option<&Kept>) -> String {
    let peer = format!("{} p50", peer.to_uppercase());
    let header = [
        "WHAT",
        "N",
        "SAMPLES",
        "UNIT",
        "OURS p50",
        "p99",
        "p99.9",
        "max",
        &peer,
        "p99",
        "p99.9",
        "RATIO",
        "TO COMMITTED",
        "TARGET",
        "MET",
    ];
    let has_tails = rows.iter().any(|row| row.ours.as_ref().is_some_and(|ours| ours.p999.is_some()));
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header);
    for row in rows {
        table.add_row(cells(row, kept));
    }
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if matches!(at, 1 | 2 | 4..=12) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if (TAILS.contains(&at) && !has_tails) || (at == TO_KEPT && kept.is_none()) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    table.trim_fmt()
}

fn cells(row: &Row, kept: Option<&Kept>) -> Vec<String> {
    let none = || "-".to_owned();
    let shown = |summary: Option<&Summary>, of: fn(&Summary) -> Option<f64>| {
        summary.and_then(of).map_or_else(none, number)
    };
    let ours = row.ours.as_ref();
    let (peer_p50, peer) = match &row.peer {
        Peer::Measured { profile, summary } => {
            (format!("{} ({profile})", number(summary.p50)), Some(summary))
        }
        Peer::Missing(why) => (why.clone(), None),
        Peer::None => (none(), None),
    };
    let targets: Vec<_> = row.targets.iter().map(ToString::to_string).collect();
    vec![
        row.what.clone(),
        row.nodes.to_string(),
        ours.map_or_else(none, |ours| ours.samples.to_string()),
        row.unit.clone(),
        shown(ours, |ours| Some(ours.p50)),
        shown(ours, |ours| Some(ours.p99)),
        shown(ours, |ours| ours.p999),
        shown(ours, |ours| Some(ours.max)),
        peer_p50,
        shown(peer, |peer| Some(peer.p99)),
        shown(peer, |peer| peer.p999),
        row.ratio().map_or_else(none, |ratio| format!("{ratio:.2}")),
        kept.and_then(|kept| row.ratio_to(kept.row(row)?)).map_or_else(none, |ratio| format!("{ratio:.2}")),
        if targets.is_empty() { none() } else { targets.join(", ") },
        match row.is_met() {
            Some(true) => "yes".to_owned(),
            Some(false) => "NO".to_owned(),
            None => none(),
        },
    ]
}

/// The number with three significant digits, or as a whole number.
pub(crate) fn number(value: f64) -> String {
    if value.fract() == 0.0 || value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Target;

    #[test]
    fn a_table_is_aligned_and_names_a_missing_peer() {
        let rows = [
            Row::new("all see all", 5, "ms")
                .ours(Summary::of(&[120.4, 131.0]))
                .peer(Peer::Measured { profile: "lan".to_owned(), summary: Summary::of(&[60.2]).unwrap() })
                .target(Target::Ratio(1.5)),
            Row::new("crash", 5, "ms")
                .ours(Summary::of(&[9.5]))
                .peer(Peer::Missing("no serf here".to_owned()))
                .target(Target::P99(1_500.0)),
        ];
        let expected = "\
WHAT         N  SAMPLES  UNIT  OURS p50   p99   max      SERF p50   p99  RATIO  TARGET       MET
all see all  5        2  ms         120   131   131    60.2 (lan)  60.2   2.00  ratio <= 1.5  NO
crash        5        1  ms        9.50  9.50  9.50  no serf here     -      -  p99 <= 1500  yes";
        let rendered = render(&rows, "serf", None);
        assert_eq!(squeezed(&rendered), squeezed(expected), "{rendered}");
    }

    #[test]
    fn the_p999_has_a_column_if_a_row_has_a_thousand_samples() {
        let all: Vec<_> = (1..=1_000).map(f64::from).collect();
        let peer = |samples: &[f64]| Peer::Measured {
            profile: "v2".to_owned(),
            summary: Summary::of(samples).unwrap(),
        };
        let rows = [
            Row::new("PUT", 1, "ms").ours(Summary::of(&all)).peer(peer(&[5.0])),
            Row::new("GET", 1, "ms").ours(Summary::of(&[5.0])).peer(peer(&all)),
        ];
        let expected = "\
WHAT  N  SAMPLES  UNIT  OURS p50  p99  p99.9   max  ETCD p50  p99  p99.9   RATIO  TARGET  MET
PUT   1     1000    ms       500  990    999  1000    5 (v2)    5      -  100.00       -    -
GET   1        1    ms         5    5      -     5  500 (v2)  990    999    0.01       -    -";
        let rendered = render(&rows, "etcd", None);
        assert_eq!(squeezed(&rendered), squeezed(expected), "{rendered}");
    }

    #[test]
    fn each_row_is_compared_with_the_committed_results() {
        let row = |what: &str, p50| Row::new(what, 5, "ms").ours(Summary::of(&[p50]));
        let kept = Kept {
            name: "up".to_owned(),
            peer: "serf".to_owned(),
            head: String::new(),
            date: String::new(),
            machine: String::new(),
            load_before: String::new(),
            rows: vec![row("join", 20.0)],
        };
        let expected = "\
WHAT  N  SAMPLES  UNIT  OURS p50   p99   max  SERF p50  p99  RATIO  TO COMMITTED  TARGET  MET
join  5        1  ms        30.0  30.0  30.0         -    -      -          1.50       -    -
new   5        1  ms        30.0  30.0  30.0         -    -      -             -       -    -";
        let rendered = render(&[row("join", 30.0), row("new", 30.0)], "serf", Some(&kept));
        let expected = expected.replace("30.0", "30");
        assert_eq!(squeezed(&rendered), squeezed(&expected), "{rendered}");
    }

    fn squeezed(text: &str) -> Vec<Vec<String>> {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        text.lines().map(words).collect()
    }

    #[test]
    fn numbers_keep_three_digits() {
        let shown: Vec<_> = [0.0, 0.4231, 5.0, 12.34, 123.4, 1_234.5].map(number).into();
        assert_eq!(shown, ["0", "0.42", "5", "12.3", "123", "1234"]);
    }
}
