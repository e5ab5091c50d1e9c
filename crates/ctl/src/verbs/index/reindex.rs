//! `ctl index reindex`: the documents of an index are copied into another one.
//!
//! The service copies for some seconds, then says how far it came, and goes on from there with the next request.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use client::{ClientError, Reindex, Reindexed};
use tokio::time::{Instant, sleep};

use super::IndexName;
use crate::complete;
use crate::exit::{Exit, Failure};
use crate::hints::quoted;
use crate::out::{OutputArg, Progress, say};
use crate::owner::{Twice, with_owner};
use crate::pace::pace;
use crate::reach::{Cx, Reached};
use crate::render;

pub(super) const AFTER_HELP: &str = "\
Examples:
  ctl index create books-2 --field year:date --id isbn
  ctl index reindex books books-2
  ctl index reindex books books-2 --after 0:1841,1:1790
  ctl index reindex books german --query language:de

The other index must exist; its fields may be defined otherwise. Documents keep their ids. A document that is newer in the \
other index stays, so it does no harm to copy again, or to write there meanwhile. To change the type of a field: create an \
index with the new type, copy, copy what has changed since with --after, as the first copy printed it, and let \
clients use the new index. Deletions are not copied.";

/// How long the service copies before it answers.
const PART: &str = "5s";
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a shard may fail without any progress, and the pause between.
const RETRIES: (u32, Duration) = (20, Duration::from_secs(1));

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The index to copy from
    #[arg(add = complete::indexes())]
    from: IndexName,
    /// The index to copy into
    #[arg(add = complete::indexes())]
    to: IndexName,
    /// Copy only what this query finds
    #[arg(long, value_name = "QUERY")]
    query: Option<String>,
    /// Copy only what was written after these operations, as an earlier copy printed them
    #[arg(long, value_name = "SHARD:NUMBER,...")]
    after: Option<Seqs>,
    #[command(flatten)]
    output: OutputArg,
}

/// The last operation of each shard up to which all is copied: `0:17,1:23`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seqs(BTreeMap<String, Option<u64>>);

/// Write the operations as they were printed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("operations are written as SHARD:NUMBER with commas between them, like `0:17,1:23`")]
pub(super) struct SeqsError;

impl FromStr for Seqs {
    type Err = SeqsError;

    fn from_str(text: &str) -> Result<Self, SeqsError> {
        let one = |pair: &str| {
            let (shard, seq) = pair.split_once(':').ok_or(SeqsError)?;
            let shard: u32 = shard.parse().map_err(|_| SeqsError)?;
            let seq: u64 = seq.parse().map_err(|_| SeqsError)?;
            Ok((shard.to_string(), Some(seq)))
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Seqs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.0.iter().filter_map(|(shard, seq)| Some(format!("{shard}:{}", (*seq)?)));
        f.write_str(&known.collect::<Vec<_>>().join(","))
    }
}

pub(super) async fn run(reached: &Reached, args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let mut progress = Progress::new();
    let done = copy(reached, args, &mut progress).await?;
    progress.clear();
    for refusal in &done.refusals {
        say(&format!("refused {}: {}", refusal.id, refusal.detail));
    }
    cx.out.data(args.output.output, &done, table, |_| vec![args.to.to_string()])?;
    let copied = usize::try_from(done.copied).unwrap_or(usize::MAX);
    let mut said =
        format!("copied {} in {}", render::count(copied, "document"), pace(copied, began.elapsed()));
    if done.refused > 0 {
        said = format!("{said}; {} refused", done.refused);
    }
    say(&said);
    let after = Seqs(done.seqs).to_string();
    if !after.is_empty() {
        let (from, to) = (quoted(args.from.as_str()), quoted(args.to.as_str()));
        say(&format!("`ctl index reindex {from} {to} --after {after}` copies what changes from now on"));
    }
    Ok(if done.refused > 0 { Exit::Error } else { Exit::Ok })
}

async fn copy(reached: &Reached, args: &Args, progress: &mut Progress) -> anyhow::Result<Reindexed> {
    let mut order = Reindex {
        to: args.to.to_string(),
        q: args.query.clone(),
        after_seq: args.after.clone().unwrap_or_default().0,
        timeout: Some(PART.to_owned()),
    };
    let mut sum = Reindexed::default();
    let (retries, pause) = RETRIES;
    let mut fruitless = 0;
    loop {
        let copying =
            async |member: &client::Client| member.within(LIMIT).reindex(args.from.as_str(), &order).await;
        let answer = match with_owner(reached, None, Twice::Harmless, copying).await {
            Ok(answer) => answer,
            Err(error) if is_passing(&error) && fruitless < retries => {
                fruitless += 1;
                progress.wait_for(&format!("waiting for a shard: {error:#}"));
                sleep(pause).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let has_moved = answer.seqs != order.after_seq;
        order.after_seq.clone_from(&answer.seqs);
        add(&mut sum, answer);
        let copied = usize::try_from(sum.copied).unwrap_or(usize::MAX);
        if sum.shards.failed.is_empty() && !sum.timed_out {
            return Ok(sum);
        }
        progress.wait_for(&format!("copied {}", render::count(copied, "document")));
        fruitless = if has_moved { 0 } else { fruitless + 1 };
        if let Some(failed) = sum.shards.failed.first() {
            if fruitless > retries {
                let message = format!("shard {} can't be copied: {}", failed.shard, failed.reason);
                let after = Seqs(sum.seqs).to_string();
                let hint = match after.is_empty() {
                    true => "`ctl status` shows what is wrong; then copy again".to_owned(),
                    false => {
                        format!("`ctl status` shows what is wrong; then copy the rest with --after {after}")
                    }
                };
                return Err(Failure::new(Exit::Error, message).hint(hint).into());
            }
            sleep(pause).await;
        }
    }
}

/// Whether an error may pass by itself.
fn is_passing(error: &anyhow::Error) -> bool {
    let problem = error.downcast_ref::<ClientError>().and_then(ClientError::problem);
    problem.is_some_and(|problem| matches!(problem.status, 429 | 503 | 504))
}

/// Adds what was copied after this. Pure.
fn add(sum: &mut Reindexed, more: Reindexed) {
    const LISTED: usize = 100;
    sum.copied += more.copied;
    sum.skipped += more.skipped;
    sum.refused += more.refused;
    sum.refusals.extend(more.refusals);
    sum.refusals.truncate(LISTED);
    (sum.timed_out, sum.seqs, sum.shards) = (more.timed_out, more.seqs, more.shards);
}

fn table(done: &Reindexed) -> String {
    let row = vec![
        done.copied.to_string(),
        done.skipped.to_string(),
        done.refused.to_string(),
        Seqs(done.seqs.clone()).to_string(),
    ];
    render::table(&["COPIED", "SKIPPED", "REFUSED", "UP TO"], &[row])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_as_they_are_printed() {
        let seqs: Seqs = "0:17,12:0".parse().unwrap();
        assert_eq!(seqs.to_string(), "0:17,12:0");
        assert_eq!(
            Seqs(BTreeMap::from([("0".to_owned(), None), ("1".to_owned(), Some(3))])).to_string(),
            "1:3"
        );
        for wrong in ["", "0", "0:", "x:1", "0:x", "0:1,", "0:-1", "0=1"] {
            assert_eq!(wrong.parse::<Seqs>(), Err(SeqsError), "{wrong}");
        }
    }

    #[test]
    fn parts_are_added_up_and_the_last_one_says_how_far_it_came() {
        let part = |copied, seq, timed_out| Reindexed {
            copied,
            skipped: 1,
            timed_out,
            seqs: BTreeMap::from([("0".to_owned(), Some(seq))]),
            ..Reindexed::default()
        };
        let mut sum = Reindexed::default();
        add(&mut sum, part(3, 5, true));
        add(&mut sum, part(4, 9, false));
        assert_eq!((sum.copied, sum.skipped, sum.timed_out), (7, 2, false));
        assert_eq!(table(&sum), "COPIED  SKIPPED  REFUSED  UP TO\n7       2        0        0:9");
    }
}
