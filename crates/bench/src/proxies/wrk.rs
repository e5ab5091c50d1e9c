//! Load over HTTP/1 by `wrk`: as many requests as a number of connections can carry.
//!
//! A script prints the results in one line, so that nothing must be read out of the text for people.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::proxies::cores::{Cores, pinned};
use crate::proxies::load::{self, Latency, Load, count};

/// Beyond the time of the load.
const LIMIT: Duration = Duration::from_secs(30);
/// The first word of the line with the results.
const MARK: &str = "coterie-bench";

/// Prints the results once the load has ended; without a `request` or `response` function it costs nothing before.
const SCRIPT: &str = r#"done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("coterie-bench requests=%d duration=%d bytes=%d connect=%d read=%d write=%d status=%d timeout=%d "
    .. "min=%.0f mean=%.3f p50=%.0f p90=%.0f p99=%.0f p999=%.0f max=%.0f\n",
    summary.requests, summary.duration, summary.bytes,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout,
    latency.min, latency.mean, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency:percentile(99.9), latency.max))
end
"#;

/// A run of wrk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wrk<'a> {
    pub(crate) url: &'a str,
    pub(crate) connections: usize,
    pub(crate) seconds: u64,
    /// Whether each request has a connection of its own.
    pub(crate) closing: bool,
    /// The length of each body.
    pub(crate) length: usize,
}

impl Wrk<'_> {
    /// Runs it, with its script in a folder. Any error of a connection and any status but success is an error.
    pub(crate) async fn run(self, cores: Cores, folder: &Path) -> anyhow::Result<Load> {
        let script = folder.join("wrk.lua");
        std::fs::write(&script, SCRIPT).with_context(|| format!("writing {}", script.display()))?;
        let mut command = Command::new("wrk");
        command.args(["-t", "1", "--timeout", "10s", "-s"]).arg(&script);
        command.arg("-c").arg(self.connections.to_string()).arg("-d").arg(format!("{}s", self.seconds));
        if self.closing {
            command.args(["-H", "Connection: close"]);
        }
        command.arg(self.url);
        let limit = Duration::from_secs(self.seconds) + LIMIT;
        parsed(&load::output(pinned(cores.load, &command), limit).await?, self.length)
    }
}

/// Reads the results in wrk's output. `length` is that of each body.
fn parsed(output: &str, length: usize) -> anyhow::Result<Load> {
    let line = output.lines().find_map(|line| line.strip_prefix(MARK));
    let line = line.with_context(|| format!("wrk printed no results: {output}"))?;
    let mut fields = BTreeMap::new();
    for word in line.split_whitespace() {
        let (name, value) = word.split_once('=').with_context(|| format!("wrk printed `{word}`"))?;
        fields.insert(name, value);
    }
    let text =
        |name: &str| fields.get(name).copied().with_context(|| format!("wrk printed no {name}: {line}"));
    let whole = |name: &str| {
        text(name)?.parse::<u64>().with_context(|| format!("wrk's {name} is not a whole number: {line}"))
    };
    let millis = |name: &str| {
        let micros: f64 =
            text(name)?.parse().with_context(|| format!("wrk's {name} is not a number: {line}"))?;
        anyhow::Ok(micros / 1e3)
    };
    for name in ["connect", "read", "write", "status", "timeout"] {
        let errors = whole(name)?;
        if errors > 0 {
            bail!("{errors} errors ({name}) in {} requests", whole("requests")?);
        }
    }
    let (operations, bytes) = (whole("requests")?, whole("bytes")?);
    if operations == 0 {
        bail!("no request was answered");
    }
    if bytes / operations < u64::try_from(length)? {
        bail!("{bytes} bytes in {operations} answers: their bodies do not have {length} bytes");
    }
    Ok(Load {
        operations,
        seconds: count(whole("duration")?) / 1e6,
        latency: Latency {
            min: millis("min")?,
            mean: millis("mean")?,
            p50: millis("p50")?,
            p90: millis("p90")?,
            p99: millis("p99")?,
            p999: millis("p999")?,
            max: millis("max")?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "coterie-bench requests=131020 duration=2000000 bytes=165609280 connect=0 read=0 write=0 status=0 \
        timeout=0 min=109 mean=1069.500 p50=748 p90=2219 p99=5440 p999=6742 max=8628";

    fn output(line: &str) -> String {
        format!(
            "Running 2s test @ http://127.0.0.1:30001/1k\n  131020 requests in 2.00s, 157.94MB read\n{line}\n"
        )
    }

    #[test]
    fn rate_and_latency_are_read_from_the_line_of_the_script() {
        let load = parsed(&output(LINE), 1_024).unwrap();
        assert_eq!((load.operations, load.per_second()), (131_020, 65_510.0));
        let latency = &load.latency;
        assert_eq!((latency.min, latency.mean, latency.max), (0.109, 1.0695, 8.628));
        assert_eq!((latency.p50, latency.p90, latency.p99, latency.p999), (0.748, 2.219, 5.44, 6.742));
    }

    #[test]
    fn output_that_is_not_complete_and_clean_is_refused() {
        for (from, to, why) in [
            ("read=0", "read=3", "3 errors (read) in 131020 requests"),
            ("status=0", "status=131020", "131020 errors (status) in 131020 requests"),
            ("bytes=165609280", "bytes=20000000", "do not have 1024 bytes"),
            ("requests=131020", "requests=0", "no request was answered"),
            (" p999=6742", "", "wrk printed no p999"),
            ("p99=5440", "p99=5.4ms", "p99 is not a number"),
            ("duration=2000000", "duration=-1", "duration is not a whole number"),
            ("timeout=0", "timeout", "wrk printed `timeout`"),
            ("coterie-bench", "done", "wrk printed no results"),
        ] {
            let error = parsed(&output(&LINE.replacen(from, to, 1)), 1_024).unwrap_err();
            assert!(error.to_string().contains(why), "{why}: {error}");
        }
    }

    #[test]
    fn the_script_prints_what_is_read() {
        for name in ["requests", "duration", "bytes", "connect", "read", "write", "status", "timeout"] {
            assert!(SCRIPT.contains(&format!("{name}=%d")), "{name}");
        }
        for name in ["min", "mean", "p50", "p90", "p99", "p999", "max"] {
            assert!(
                SCRIPT.contains(&format!(" {name}=%")) || SCRIPT.contains(&format!("\"{name}=%")),
                "{name}"
            );
        }
        assert!(SCRIPT.contains(MARK));
    }
}
