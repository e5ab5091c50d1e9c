//! Load over HTTP/2 by `h2load`, which is part of nghttp2.
//!
//! Its text has no percentiles, so those come from its log of all requests.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::proxies::cores::{Cores, pinned};
use crate::proxies::load::{self, Latency, Load, count};

/// Beyond the time of the load.
const LIMIT: Duration = Duration::from_secs(60);

/// A run of h2load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct H2load<'a> {
    pub(crate) url: &'a str,
    pub(crate) connections: usize,
    /// Concurrent requests on each connection.
    pub(crate) streams: usize,
    pub(crate) seconds: u64,
    /// The length of each body.
    pub(crate) length: usize,
}

impl H2load<'_> {
    /// Runs it, with its log in a folder. Any failed request is an error.
    pub(crate) async fn run(self, cores: Cores, folder: &Path) -> anyhow::Result<Load> {
        let log = folder.join("h2load.log");
        // h2load appends to it.
        match std::fs::remove_file(&log) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", log.display()));
            }
            Ok(()) | Err(_) => {}
        }
        let mut command = Command::new("h2load");
        command.arg("-t1").arg(format!("-c{}", self.connections)).arg(format!("-m{}", self.streams));
        command.arg("-D").arg(self.seconds.to_string());
        command.arg(format!("--log-file={}", log.display())).arg(self.url);
        let limit = Duration::from_secs(self.seconds) + LIMIT;
        let output = load::output(pinned(cores.load, &command), limit).await?;
        let log = std::fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?;
        let operations = requests(&output, self.length)?;
        Ok(Load { operations, seconds: count(self.seconds), latency: latency(&log)? })
    }
}

/// The number of requests in h2load's output, all of which must have succeeded over HTTP/2.
fn requests(output: &str, length: usize) -> anyhow::Result<u64> {
    let rest = |name: &str| {
        let rest = output.lines().find_map(|line| line.trim_start().strip_prefix(name));
        rest.with_context(|| format!("h2load printed no `{name}`: {output}"))
    };
    let protocol = rest("Application protocol: ")?;
    if !matches!(protocol.trim(), "h2" | "h2c") {
        bail!("the protocol was {protocol}, not HTTP/2");
    }
    let counted = counts(rest("requests: ")?)?;
    let of = |name: &str| {
        let found = counted.iter().find(|(counted, _)| *counted == name);
        found.map(|(_, number)| *number).with_context(|| format!("h2load printed no number of `{name}`"))
    };
    let succeeded = of("succeeded")?;
    for name in ["failed", "errored", "timeout"] {
        if of(name)? > 0 {
            bail!("{} requests {name}, {succeeded} succeeded", of(name)?);
        }
    }
    let statuses = counts(rest("status codes: ")?)?;
    if let Some((class, number)) = statuses.iter().find(|(class, number)| *class != "2xx" && *number > 0) {
        bail!("{number} answers have a status of {class}");
    }
    if succeeded == 0 {
        bail!("no request was answered");
    }
    let traffic = rest("traffic: ")?;
    let data = traffic.rsplit_once('(').and_then(|(_, rest)| rest.strip_suffix(") data"));
    let data = data.with_context(|| format!("h2load printed no number of bytes: {traffic}"))?;
    let data: u64 = data.parse().with_context(|| format!("`{data}` is not a number of bytes"))?;
    if data / succeeded < u64::try_from(length)? {
        bail!("{data} bytes in {succeeded} answers: their bodies do not have {length} bytes");
    }
    Ok(succeeded)
}

/// The numbers in `3 total, 2 done`, by their names.
fn counts(text: &str) -> anyhow::Result<Vec<(&str, u64)>> {
    let each = text.split(", ").map(|part| {
        let (number, name) =
            part.trim().split_once(' ').with_context(|| format!("`{part}` is not a count"))?;
        Ok((name, number.parse().with_context(|| format!("`{number}` is not a whole number"))?))
    });
    each.collect()
}

/// The times in the log: start, status and duration of each request, in microseconds.
fn latency(log: &str) -> anyhow::Result<Latency> {
    let mut times = Vec::new();
    for line in log.lines() {
        let time = line.split('\t').nth(2).with_context(|| format!("`{line}` has no third field"))?;
        times.push(time.parse().with_context(|| format!("`{time}` is not a duration"))?);
    }
    Latency::of_micros(&mut times).context("h2load logged no requests")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "starting benchmark...\nApplication protocol: h2c\n\n\
        finished in 2.00s, 34362.50 req/s, 37.69MB/s\n\
        requests: 68725 total, 68789 started, 68725 done, 68725 succeeded, 0 failed, 0 errored, 0 timeout\n\
        status codes: 68726 2xx, 0 3xx, 0 4xx, 0 5xx\n\
        traffic: 75.37MB (79034259) total, 7.08MB (7422408) headers (space savings 39.66%), 67.11MB (70374400) data\n\
        \x20                    min         max         mean         sd        +/- sd\n\
        time for request:       64us      9.06ms      1.68ms      1.49ms    81.21%\n";

    #[test]
    fn requests_are_counted_if_all_succeeded() {
        assert_eq!(requests(OUTPUT, 1_024).unwrap(), 68_725);
        assert_eq!(requests(&OUTPUT.replace("h2c", "h2"), 1_024).unwrap(), 68_725);
    }

    #[test]
    fn output_that_is_not_complete_and_clean_is_refused() {
        for (from, to, why) in [
            ("protocol: h2c", "protocol: http/1.1", "not HTTP/2"),
            ("Application protocol: h2c", "", "printed no `Application protocol: `"),
            ("0 failed", "7 failed", "7 requests failed, 68725 succeeded"),
            ("0 timeout", "1 timeout", "1 requests timeout"),
            (", 0 errored", "", "no number of `errored`"),
            ("0 5xx", "12 5xx", "12 answers have a status of 5xx"),
            ("68725 succeeded", "0 succeeded", "no request was answered"),
            ("68725 succeeded", "many succeeded", "`many` is not a whole number"),
            ("(70374400) data", "(7037440) data", "do not have 1024 bytes"),
            ("(70374400) data", "", "no number of bytes"),
        ] {
            let error = format!("{:#}", requests(&OUTPUT.replacen(from, to, 1), 1_024).unwrap_err());
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    #[test]
    fn percentiles_come_from_the_log() {
        let log: String = (1..=1_000).map(|time| format!("1796007325034066\t200\t{time}\n")).collect();
        let latency = latency(&log).unwrap();
        assert_eq!((latency.p50, latency.p999, latency.max), (0.5, 0.999, 1.0));
    }

    #[test]
    fn a_log_of_another_form_is_refused() {
        for (log, why) in
            [("", "no requests"), ("1 200 3\n", "no third field"), ("1\t200\t-3\n", "`-3` is not a duration")]
        {
            let error = latency(log).unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
