//! Reads the CPU time and memory of a process from `/proc`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rustix::param::clock_ticks_per_second;

/// The CPU time of all living threads of a process. From `schedstat`, in nanoseconds: clock ticks are too coarse here.
pub(crate) fn on_cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for thread in threads(pid)? {
        let text =
            std::fs::read_to_string(thread.join("schedstat")).context("the kernel has no schedstat")?;
        let first = text.split(' ').next().unwrap_or_default();
        sum += first.parse::<u64>().context("schedstat does not begin with a number")?;
    }
    Ok(Duration::from_nanos(sum))
}

/// The CPU time of a process, with that of threads that have ended, in clock ticks of usually 10 ms.
pub(crate) fn cpu_with_ended_threads(pid: u32) -> anyhow::Result<Duration> {
    let ticks = cpu_ticks(&std::fs::read_to_string(format!("/proc/{pid}/stat"))?)?;
    Ok(Duration::from_secs(ticks) / u32::try_from(clock_ticks_per_second())?)
}

/// The time in user mode and in the kernel, in `/proc/PID/stat`.
fn cpu_ticks(stat: &str) -> anyhow::Result<u64> {
    // The name in parentheses may have spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')').context("stat has no name")?;
    let mut times = rest.split_whitespace().skip(11);
    let mut next =
        || times.next().context("stat is too short")?.parse::<u64>().context("stat has no CPU time");
    Ok(next()? + next()?)
}

/// The `/proc` folders of a process's threads.
pub(crate) fn threads(pid: u32) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?)
}

/// A process and all that it has started, directly or not.
pub(crate) fn with_children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        for thread in threads(*pid)? {
            // A thread may end meanwhile.
            let text = std::fs::read_to_string(thread.join("children")).unwrap_or_default();
            let children = text.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>();
            found.extend(children.context("a process id is not a number")?);
        }
        at += 1;
    }
    Ok(found)
}

/// The resident memory of a process, in MiB.
pub(crate) fn rss_mib(pid: u32) -> anyhow::Result<f64> {
    mib(pid, "VmRSS:")
}

/// The resident memory of a process without file-backed pages, in MiB.
pub(crate) fn anonymous_mib(pid: u32) -> anyhow::Result<f64> {
    mib(pid, "RssAnon:")
}

fn mib(pid: u32, name: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(field(&status, name)? / 1024.0)
}

/// A number in `/proc/PID/status`.
fn field(status: &str, name: &str) -> anyhow::Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.with_context(|| format!("no {name}"))?.parse().with_context(|| format!("{name} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_the_status_is_found_by_its_name() {
        let status = "Name:\tagent\nVmRSS:\t    5120 kB\nRssAnon:\t 1024 kB\n";
        assert!((field(status, "VmRSS:").unwrap() - 5_120.0).abs() < f64::EPSILON);
        assert!(field(status, "VmSwap:").is_err());
    }

    #[test]
    fn the_cpu_time_is_found_behind_any_name() {
        let stat = "7 (a) (b c) S 1 7 7 0 -1 4194560 90 0 0 0 250 50 0 0 20 0 9 0 1000";
        assert_eq!(cpu_ticks(stat).unwrap(), 300);
        assert!(cpu_ticks("7 (a) S 1").is_err());
        cpu_with_ended_threads(std::process::id()).unwrap();
    }

    #[test]
    fn children_are_found_below_their_parent() {
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let found = with_children(std::process::id()).unwrap();
        assert!(found.contains(&std::process::id()) && found.contains(&child.id()), "{found:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn this_process_has_used_cpu_time() {
        assert!(on_cpu(std::process::id()).unwrap() > Duration::ZERO);
    }
}
