//! Skewed clocks: each node can get another time of day, which can change while it runs.
//!
//! A library loaded with `LD_PRELOAD` replaces the clock functions of a process. It is compiled here, so that it fits
//! this machine; without a C compiler, no clock is skewed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

/// The library's source.
const SOURCE: &str = include_str!("skew.c");
/// The environment variable with the path of the file that contains a process's skew.
const VARIABLE: &str = "BENCH_CLOCK";
const SECOND_NS: i64 = 1_000_000_000;
/// The possible skews in seconds: a machine that was long not synchronized, and one in a wrong time zone.
const SHIFTS_S: [i64; 4] = [30, -30, 3_600, -3_600];
/// The possible skews if requests to the store are signed with the time: S3 accepts a difference of up to 15 minutes.
const SIGNED_SHIFTS_S: [i64; 2] = [30, -30];

/// The possible skews of clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// Whether requests to the store are signed, so that an hour is too much.
    pub(crate) is_signed: bool,
}

impl Range {
    /// A random skew, in seconds.
    pub(crate) fn choose(self, rng: &mut StdRng) -> i64 {
        let all: &[i64] = if self.is_signed { &SIGNED_SHIFTS_S } else { &SHIFTS_S };
        *all.choose(rng).expect("the list is not empty")
    }

    /// The initial skews of `nodes` clocks, in seconds: one in three is 0.
    pub(crate) fn at_first(self, nodes: usize, rng: &mut StdRng) -> Vec<i64> {
        let mut shifts: Vec<_> =
            (0..nodes).map(|node| if node % 3 == 0 { 0 } else { self.choose(rng) }).collect();
        shifts.shuffle(rng);
        shifts
    }
}

/// The clocks of the nodes of a run.
#[derive(Debug)]
pub(crate) struct Clocks {
    library: PathBuf,
    clocks: Vec<Clock>,
}

#[derive(Debug)]
struct Clock {
    path: PathBuf,
    file: File,
    /// The skew while no fault sets it, in seconds.
    at_first: i64,
}

impl Clocks {
    /// Creates a clock for each initial skew, in seconds. The error states why clocks can't be skewed here.
    pub(crate) fn new(folder: &Path, at_first: &[i64]) -> anyhow::Result<Self> {
        let (source, library) = (folder.join("skew.c"), folder.join("skew.so"));
        std::fs::write(&source, SOURCE)?;
        compile(&source, &library)?;
        let clocks = at_first.iter().enumerate().map(|(node, shift)| {
            let path = folder.join(format!("clock-{node}"));
            let file = File::options().create(true).truncate(true).write(true).open(&path)?;
            let clock = Clock { path, file, at_first: *shift };
            clock.set(*shift)?;
            Ok(clock)
        });
        Ok(Self { library, clocks: clocks.collect::<anyhow::Result<_>>()? })
    }

    /// The environment for a node.
    pub(crate) fn environment(&self, node: usize) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.library), (VARIABLE, &self.clocks[node].path)]
    }

    /// Sets a node's clock `ahead_s` seconds ahead of the correct time.
    pub(crate) fn set(&self, node: usize, ahead_s: i64) -> anyhow::Result<()> {
        self.clocks[node].set(ahead_s)
    }

    /// Restores a node's initial skew.
    pub(crate) fn set_back(&self, node: usize) -> anyhow::Result<()> {
        self.clocks[node].set(self.clocks[node].at_first)
    }

    /// The initial skews, in seconds.
    pub(crate) fn at_first(&self) -> impl Iterator<Item = i64> {
        self.clocks.iter().map(|clock| clock.at_first)
    }
}

impl Clock {
    /// Writes the skew at once and never truncates the file, because the process maps it.
    fn set(&self, ahead_s: i64) -> anyhow::Result<()> {
        let shift = ahead_s.saturating_mul(SECOND_NS).to_ne_bytes();
        self.file.write_all_at(&shift, 0).with_context(|| format!("writing {}", self.path.display()))
    }
}

fn compile(source: &Path, library: &Path) -> anyhow::Result<()> {
    let output = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-o"])
        .args([library, source])
        .stdin(Stdio::null())
        .output()
        .context("there is no C compiler `cc`")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "cc can't compile the clock library: {}", errors.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// The time of day in a process of this node, in Unix seconds.
    fn shown(clocks: &Clocks, node: usize) -> i64 {
        let output = Command::new("date").arg("+%s").envs(clocks.environment(node)).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    fn now() -> i64 {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap();
        since.as_secs().try_into().unwrap()
    }

    #[test]
    fn a_clock_is_skewed_until_it_is_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let clocks = match Clocks::new(folder.path(), &[0, -3_600]) {
            Ok(clocks) => clocks,
            Err(error) => return println!("skipped: {error:#}"),
        };
        assert_eq!(clocks.at_first().collect::<Vec<_>>(), [0, -3_600]);
        let is_ahead = |node, ahead: i64| {
            let (before, shown, after) = (now(), shown(&clocks, node), now());
            (before + ahead..=after + ahead).contains(&shown)
        };
        assert!(is_ahead(0, 0) && is_ahead(1, -3_600));
        clocks.set(1, 30).unwrap();
        assert!(is_ahead(0, 0) && is_ahead(1, 30));
        clocks.set_back(1).unwrap();
        assert!(is_ahead(1, -3_600));
    }

    #[test]
    fn a_third_of_the_clocks_is_correct_and_signed_requests_are_never_an_hour_off() {
        let mut rng = StdRng::seed_from_u64(1);
        let shifts = Range { is_signed: false }.at_first(6, &mut rng);
        assert_eq!(shifts.iter().filter(|shift| **shift == 0).count(), 2, "{shifts:?}");
        let shifts: Vec<_> = (0..100).map(|_| Range { is_signed: true }.choose(&mut rng).abs()).collect();
        assert!(shifts.iter().all(|shift| *shift == 30), "{shifts:?}");
    }
}
