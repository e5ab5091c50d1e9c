use super::*;
use crate::proxies::backend::Body;
use crate::proxies::task::{Kind, Task};

fn rounds(rate: f64, cpu: f64, p99_us: u64) -> Rounds {
    let latency = Latency::of_micros(&mut [p99_us / 2, p99_us]).unwrap();
    Rounds { rates: vec![rate], latencies: vec![latency], operations: 2, cpu: vec![cpu], failed: Vec::new() }
}

/// Every proxy but Caddy, which is missing.
fn measured(comparisons: Vec<Comparison>) -> Measured<Proxy> {
    let mut task = Task::new("HTTP/1, 1 KB", 64, Kind::Http1 { body: Body::OneKb, tls: false });
    task.comparisons = comparisons;
    let rounds = BTreeMap::from([
        (Proxy::Ours, rounds(900.0, 1.1, 240)),
        (Proxy::Nginx, rounds(1_000.0, 1.2, 200)),
        (Proxy::NginxMainline, rounds(980.0, 1.3, 400)),
        (Proxy::Haproxy, rounds(950.0, 1.0, 300)),
        (Proxy::Envoy, rounds(400.0, 3.0, 900)),
        (Proxy::Traefik, rounds(300.0, 4.0, 800)),
    ]);
    Measured { task, rounds, direct: self::rounds(2_000.0, 0.0, 100) }
}

fn missing() -> BTreeMap<Proxy, String> {
    BTreeMap::from([(Proxy::Caddy, "no caddy in PATH".to_owned())])
}

fn rows(comparisons: Vec<Comparison>) -> Vec<Row> {
    compared(&measured(comparisons)).iter().flat_map(|each| each.rows(&missing())).collect()
}

/// The best peer, the ratio rounded to percents, and whether the target was met.
fn outcome(row: &Row) -> (String, Option<f64>, Option<bool>) {
    let name = match &row.peer {
        Peer::Measured { profile, .. } => profile.clone(),
        Peer::Missing(why) => why.clone(),
        Peer::None => String::new(),
    };
    (name, row.ratio().map(|ratio| (ratio * 100.0).round() / 100.0), row.is_met())
}

#[test]
fn each_quantity_is_compared_with_the_peer_that_is_best_in_it() {
    let rows = rows(vec![Comparison {
        group: Group::Peers,
        rate: Some(Target::RatioAtLeast(0.95)),
        latency: Some(Target::RatioOfP99(1.2)),
        cpu: Some(Target::Ratio(1.15)),
    }]);
    let names: Vec<_> = rows.iter().map(|row| (row.what.as_str(), row.unit.as_str())).collect();
    let names_wanted =
        [("HTTP/1, 1 KB", "req/s"), ("HTTP/1, 1 KB: latency", "ms"), ("HTTP/1, 1 KB: CPU for 100,000", "s")];
    assert_eq!(names, names_wanted);
    let outcomes: Vec<_> = rows.iter().map(outcome).collect();
    assert_eq!(
        outcomes,
        [
            ("nginx".to_owned(), Some(0.9), Some(false)),
            ("nginx".to_owned(), Some(1.2), Some(true)),
            ("haproxy".to_owned(), Some(1.1), Some(true)),
        ]
    );
}

#[test]
fn ahead_means_better_than_the_best_of_envoy_traefik_and_caddy_in_everything() {
    let rows = rows(vec![Comparison::ahead()]);
    let outcomes: Vec<_> = rows.iter().map(outcome).collect();
    assert_eq!(
        outcomes,
        [
            ("envoy".to_owned(), Some(2.25), Some(true)),
            ("traefik".to_owned(), Some(0.3), Some(true)),
            ("envoy".to_owned(), Some(0.37), Some(true)),
        ]
    );
    assert!(rows.iter().all(|row| row.what.ends_with(", beside Envoy, Traefik, Caddy")));
}

#[test]
fn a_group_can_be_one_proxy() {
    let each = |group| {
        let rows = rows(vec![Comparison { cpu: Some(Target::Ratio(1.0)), ..Comparison::with(group) }]);
        rows.iter().map(outcome).collect::<Vec<_>>()
    };
    // What has no target has no row.
    assert_eq!(each(Group::Nginx), [("nginx".to_owned(), Some(0.92), Some(true))]);
    assert_eq!(each(Group::Haproxy), [("haproxy".to_owned(), Some(1.1), Some(false))]);
}

#[test]
fn a_group_without_results_names_what_is_missing_and_one_that_was_not_asked_for_has_no_row() {
    let mut measured = measured(vec![Comparison::with(Group::Peers), Comparison::ahead()]);
    measured.rounds.retain(|proxy, _| *proxy == Proxy::Ours);
    let compared = compared(&measured);
    let rows = compared[0].rows(&missing());
    let outcomes: Vec<_> = rows.iter().map(outcome).collect();
    assert_eq!(outcomes, [(String::new(), None, None), ("no caddy".to_owned(), None, None)]);
    assert_eq!(compared[0].rows(&BTreeMap::new()).len(), 1);
}

#[test]
fn overhead_is_the_difference_to_the_direct_median() {
    let compared = overhead(&measured(Vec::new()), 60.0).unwrap();
    let rows = compared.rows(&missing());
    // Of two samples, the lower one is the median.
    assert_eq!(rows[0].ours.as_ref().map(|ours| ours.p50.round()), Some(70.0));
    assert_eq!(outcome(&rows[0]), ("nginx".to_owned(), Some(1.4), Some(false)));
    assert_eq!(outcome(&rows[1]).0, "traefik");
    let mut measured = measured(Vec::new());
    measured.direct = Rounds::default();
    assert!(overhead(&measured, 60.0).is_none());
}

#[test]
fn a_bad_round_does_not_decide_the_percentiles() {
    let mut all = Rounds::default();
    for p99_us in [200, 9_000, 300] {
        all.latencies.extend(rounds(1.0, 1.0, p99_us).latencies);
        all.operations += 2;
    }
    let summary = latency(&all).unwrap();
    assert_eq!((summary.p99, summary.max, summary.samples), (0.3, 9.0, 6));
    assert!(latency(&Rounds::default()).is_none());
}

#[test]
fn the_table_has_a_column_for_each_proxy() {
    let text = table(&compared(&measured(Vec::new())));
    let words: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        words[0][2..],
        ["N", "UNIT", "OURS", "NGINX", "HAPROXY", "NGINX-MAINLINE", "ENVOY", "TRAEFIK"]
    );
    assert_eq!(words[1][3..], ["64", "req/s", "900", "1000", "950", "980", "400", "300"], "{text}");
    assert!(text.contains("0.12 / 0.24"), "{text}");
}

#[test]
fn a_failed_round_is_noted_with_its_reason() {
    let mut measured = measured(Vec::new());
    measured.rounds.entry(Proxy::Envoy).or_default().failed.push("3 errors (read) in 9 requests".to_owned());
    let mut report = Report::begin("gateway", "peer");
    report_failures(&[measured], &mut report);
    assert_eq!(
        report.notes,
        ["HTTP/1, 1 KB, 64 clients, envoy: 1 rounds failed: 3 errors (read) in 9 requests"]
    );
}
