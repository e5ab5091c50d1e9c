//! Checks everything that was recorded in a run, and reports the result.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::progress::progress;
use crate::report::Report;
use crate::rows::{Row, Target};
use crate::stats::Summary;
use crate::torture::cluster::COUNT;
use crate::torture::history::{Key, Record, seconds, table};
use crate::torture::inventory::Inventory;
use crate::torture::nemesis::Span;
use crate::torture::register::{self, Finding, STEPS};
use crate::torture::stream;
use crate::torture::watchers::Observed;
use crate::torture::workload::Counts;

/// The number of anomalies reported in full.
const SHOWN: usize = 10;

/// Everything recorded in a run.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) skipped: Vec<String>,
    pub(crate) journal: Vec<Span>,
    pub(crate) kinds: BTreeMap<&'static str, (u64, u64)>,
    pub(crate) counts: Counts,
    pub(crate) odd: Vec<String>,
    /// The answers that break a guarantee by themselves.
    pub(crate) wrong: Vec<(Key, String)>,
    /// The longest time without an acknowledged write to each shard, from and to, in nanoseconds since the run began.
    pub(crate) silences: Vec<(u64, u64)>,
    /// The staleness that answers stated.
    pub(crate) staleness: Vec<Duration>,
    pub(crate) watched: Vec<Observed>,
    /// What searches found at the end, if the service has searches.
    pub(crate) inventory: Option<Inventory>,
    pub(crate) keys: BTreeMap<Key, Vec<Record>>,
    pub(crate) crashes: Vec<String>,
    pub(crate) starts: u32,
    /// Why the cluster did not serve at the end.
    pub(crate) problems: Vec<String>,
}

/// The findings of all keys.
#[derive(Debug, Default)]
struct Findings {
    right: u64,
    unclear: Vec<Key>,
    wrong: Vec<(Key, usize)>,
}

/// Checks and reports everything. Returns whether no anomaly was found.
pub(crate) async fn report(mut run: Run, report: &mut Report) -> anyhow::Result<bool> {
    let keys = Arc::new(std::mem::take(&mut run.keys));
    let findings = check(&keys).await?;
    let mut anomalies = Vec::new();
    for (key, at) in &findings.wrong {
        anomalies.push(describe(*key, &format!("{key} is no register"), Some(*at), &keys, &run.journal));
    }
    let mut wrong: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for (key, what) in &run.wrong {
        wrong.entry(*key).or_default().push(what);
    }
    for (key, all) in &wrong {
        let more =
            if all.len() > 1 { format!(" ({} more of this key)", all.len() - 1) } else { String::new() };
        anomalies.push(describe(*key, &format!("{}{more}", all[0]), None, &keys, &run.journal));
    }
    for flaw in run.inventory.iter().flat_map(|inventory| &inventory.flaws) {
        let what = format!("at the end, {}", flaw.what);
        anomalies.push(match flaw.key {
            Some(key) => describe(key, &what, None, &keys, &run.journal),
            None => format!("{what}\n"),
        });
    }
    let (mut changes, mut breaks, mut gone) = (0, 0, 0);
    for observed in &run.watched {
        let of_lane = |key: &Key| key.lane == observed.lane;
        let own: BTreeMap<_, _> = keys
            .iter()
            .filter(|(key, _)| of_lane(key))
            .map(|(key, records)| (*key, records.clone()))
            .collect();
        // A watcher that got `gone` has missed changes, so its stream can't be checked.
        if observed.gone.is_empty() {
            for flaw in stream::check(&observed.changes, &own) {
                let what = format!("the watcher of lane {}: {flaw}", observed.lane);
                anomalies.push(describe(flaw.key(), &what, None, &keys, &run.journal));
            }
        }
        for away in observed.wrongly_gone() {
            anomalies.push(format!("the watcher of lane {} got `gone` after {away:?}\n", observed.lane));
        }
        anomalies
            .extend(observed.odd.iter().map(|odd| format!("the watcher of lane {}: {odd}\n", observed.lane)));
        changes += observed.changes.len();
        breaks += observed.breaks;
        gone += observed.gone.len();
    }
    anomalies.extend(run.problems.iter().map(|problem| format!("{problem}\n")));
    rows(&run, &findings, anomalies.len(), report);
    notes(&run, report);
    match &run.inventory {
        Some(Inventory { documents, values, .. }) => report.notes.push(format!(
            "at the end: {documents} documents, found by searches for everything and for {values} tokens"
        )),
        None => {
            report.notes.push(format!("watchers: {changes} changes, {breaks} breaks, gone {gone} times"));
        }
    }
    for anomaly in anomalies.iter().take(SHOWN) {
        report.notes.push(format!("ANOMALY: {anomaly}"));
    }
    let requests: usize = keys.values().map(Vec::len).sum();
    let conclusion = if anomalies.is_empty() { "nothing is wrong" } else { "SOMETHING IS WRONG" };
    report.notes.push(format!(
        "result: {conclusion}: {} anomalies; {requests} answers at {} keys: {} right, {} wrong, {} not decided; \
         seed {}",
        anomalies.len(),
        keys.len(),
        findings.right,
        findings.wrong.len(),
        findings.unclear.len(),
        run.seed
    ));
    let outcomes: Vec<_> =
        run.counts.iter().map(|((what, word), count)| json!([what, word, count])).collect();
    report.details.push(json!({
        "seed": run.seed,
        "outcomes": outcomes,
        "faults": run.kinds,
        "journal": run.journal.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "skipped": run.skipped,
        "surprises": run.crashes,
        "inventory": run.inventory.as_ref().map(|inventory| {
            json!({ "documents": inventory.documents, "tokens": inventory.values })
        }),
        "not_decided": findings.unclear.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "anomalies": anomalies,
    }));
    Ok(anomalies.is_empty())
}

/// Checks every key, on all cores.
async fn check(keys: &Arc<BTreeMap<Key, Vec<Record>>>) -> anyhow::Result<Findings> {
    let findings = Arc::new(Mutex::new(Findings::default()));
    let next = Arc::new(Mutex::new(keys.keys().copied().collect::<Vec<_>>()));
    let mut threads = JoinSet::new();
    for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
        let (keys, next, findings) = (Arc::clone(keys), Arc::clone(&next), Arc::clone(&findings));
        threads.spawn_blocking(move || {
            loop {
                let Some(key) = next.lock().unwrap_or_else(PoisonError::into_inner).pop() else { return };
                let finding = register::check(&keys[&key], STEPS);
                let mut findings = findings.lock().unwrap_or_else(PoisonError::into_inner);
                match finding {
                    Finding::Right => findings.right += 1,
                    Finding::Unclear => findings.unclear.push(key),
                    Finding::Wrong(at) => findings.wrong.push((key, at)),
                }
            }
        });
    }
    while let Some(done) = threads.join_next().await {
        done?;
    }
    let mut findings = std::mem::take(&mut *findings.lock().unwrap_or_else(PoisonError::into_inner));
    findings.wrong.sort_unstable();
    findings.unclear.sort_unstable();
    Ok(findings)
}

/// An anomaly, with the history of the key and the faults at that time.
fn describe(
    key: Key,
    what: &str,
    marked: Option<usize>,
    keys: &BTreeMap<Key, Vec<Record>>,
    journal: &[Span],
) -> String {
    let records = keys.get(&key).map(Vec::as_slice).unwrap_or_default();
    let from = records.iter().map(|record| record.start).min().unwrap_or_default();
    // The final read comes long after the rest.
    let mut ends: Vec<_> = records.iter().map(|record| record.end).collect();
    ends.sort_unstable();
    let to = ends.iter().rev().nth(1).or(ends.last()).copied().unwrap_or_default();
    let mut text = format!("{what}\n{}faults meanwhile:\n", table(records, marked));
    for span in journal.iter().filter(|span| span.from <= to && span.to.is_none_or(|end| end >= from)) {
        text += &format!("{span}\n");
    }
    text
}

fn rows(run: &Run, findings: &Findings, anomalies: usize, report: &mut Report) {
    let exact = |number: usize| Summary::of(&[f64::from(u32::try_from(number).unwrap_or(u32::MAX))]);
    let silences = run.silences.iter().map(|(from, to)| Duration::from_nanos(to - from).as_secs_f64());
    report.rows.extend([
        Row::new("anomalies", COUNT, "found").ours(exact(anomalies)).target(Target::Max(0.0)),
        Row::new("keys that were not decided", COUNT, "keys").ours(exact(findings.unclear.len())),
        Row::new("longest time without an acknowledged write, of a shard", COUNT, "s")
            .ours(Summary::of(&silences.collect::<Vec<_>>())),
        Row::new("how far behind reads with `any` may be", COUNT, "ms")
            .ours(Summary::of_times(&run.staleness)),
        Row::new("nodes that crashed", COUNT, "times").ours(exact(run.crashes.len())),
        Row::new("answers that are not promised", COUNT, "kinds").ours(exact(run.odd.len())),
    ]);
}

fn notes(run: &Run, report: &mut Report) {
    let mut lines = BTreeMap::new();
    for ((what, word), count) in &run.counts {
        let line: &mut Vec<_> = lines.entry(what).or_default();
        line.push(format!("{count} {word}"));
    }
    report.notes.extend(lines.iter().map(|(what, line)| format!("{what:>10}: {}", line.join(", "))));
    let kinds: Vec<_> = run
        .kinds
        .iter()
        .map(|(kind, (done, not))| match not {
            0 => format!("{kind} {done}"),
            not => format!("{kind} {done} (and {not} not done)"),
        })
        .collect();
    report.notes.push(format!("faults: {}; nodes started {} times", kinds.join(", "), run.starts));
    if !run.skipped.is_empty() {
        report.notes.push(format!("faults not possible: {}", run.skipped.join(", ")));
    }
    for (shard, (from, to)) in run.silences.iter().enumerate() {
        let (from, to) = (seconds(*from), seconds(*to));
        report.notes.push(format!("no write to shard {shard} was acknowledged from {from} s to {to} s"));
    }
    for odd in &run.odd {
        report.notes.push(format!("unexpected answer: {odd}"));
    }
    for crash in run.crashes.iter().take(SHOWN) {
        progress(crash);
    }
}
