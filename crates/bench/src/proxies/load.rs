//! What a load generator measured in one run.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::timeout;

/// One run of a load generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Completed requests, connections or handshakes.
    pub(crate) operations: u64,
    pub(crate) seconds: f64,
    pub(crate) latency: Latency,
}

/// Times of operations, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Load {
    pub(crate) fn per_second(&self) -> f64 {
        count(self.operations) / self.seconds
    }
}

impl Latency {
    /// The statistics of times in microseconds; `None` without any. Sorts them.
    pub(crate) fn of_micros(times: &mut [u64]) -> Option<Self> {
        times.sort_unstable();
        let (first, last) = (times.first()?, times.last()?);
        let at = |per_mille: usize| {
            let rank = (times.len() * per_mille).div_ceil(1_000).max(1);
            millis(times[rank - 1])
        };
        let sum: u64 = times.iter().sum();
        Some(Self {
            min: millis(*first),
            mean: millis(sum) / count(times.len().try_into().unwrap_or(u64::MAX)),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p999: at(999),
            max: millis(*last),
        })
    }
}

fn millis(micros: u64) -> f64 {
    count(micros) / 1e3
}

/// A count as a number for ratios.
#[expect(clippy::cast_precision_loss, reason = "counts and microseconds of a run are far below 2^53")]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}

/// Runs a load generator to its end, and returns its output.
pub(crate) async fn output(mut command: Command, limit: Duration) -> anyhow::Result<String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let name = format!("{:?}", command.as_std());
    let output = timeout(limit, command.output()).await;
    let output = output
        .with_context(|| format!("{name} did not end within {limit:?}"))?
        .with_context(|| name.clone())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{name}: {}\n{out}{err}", output.status);
    }
    Ok(out.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let mut times: Vec<_> = (1..=1_000).rev().collect();
        let latency = Latency::of_micros(&mut times).unwrap();
        assert_eq!((latency.min, latency.max), (0.001, 1.0));
        assert_eq!((latency.p50, latency.p90, latency.p99, latency.p999), (0.5, 0.9, 0.99, 0.999));
        assert!((latency.mean - 0.500_5).abs() < 1e-12);
        assert_eq!(Latency::of_micros(&mut []), None);
        assert_eq!(Latency::of_micros(&mut [7]).unwrap().p50, 0.007);
    }

    #[tokio::test]
    async fn a_load_generator_that_fails_or_does_not_end_is_an_error() {
        let shell = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]);
            command
        };
        let limit = Duration::from_secs(60);
        assert_eq!(output(shell("echo fine"), limit).await.unwrap(), "fine\n");
        let error = output(shell("echo no such host >&2; exit 3"), limit).await.unwrap_err();
        assert!(error.to_string().contains("no such host"), "{error}");
        let error = output(shell("exec sleep 600"), Duration::from_millis(10)).await.unwrap_err();
        assert!(error.to_string().contains("did not end within 10ms"), "{error}");
    }
}
