//! `ctl index export`: the documents of an index, a line of JSON each.

use std::io::Write;
use std::path::PathBuf;

use client::{ClientError, Search, SearchAnswer};
use tokio::time::Instant;

use super::{IndexName, show};
use crate::complete;
use crate::exit::{Exit, Failure};
use crate::out::{Progress, say};
use crate::owner::Twice;
use crate::pace::{is_long, pace};
use crate::part::write_whole;
use crate::reach::Reached;
use crate::render;

pub(super) const AFTER_HELP: &str = "\
Examples:
  ctl index export books > books.ndjson
  ctl index export books --output books.ndjson

A line is a document with the values that were sent, without its id, unless that is one of its fields. `ctl index import` takes the \
same lines. Everything that was stored before the export began is there; a document that changes meanwhile may be \
there twice, the newer one later.";

/// How many documents are requested at once.
const PAGE: u64 = 1_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The index
    #[arg(add = complete::indexes())]
    index: IndexName,
    /// Write to a file, which appears once it is complete, or - for standard output [default: -]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(reached: &Reached, args: &Args) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let mut progress = Progress::new();
    let write = async |out| export(reached, &args.index, out, &mut progress, began).await;
    let exported = write_whole(args.output.as_deref(), write).await?;
    progress.clear();
    say(&format!("exported {} in {}", render::count(exported, "document"), pace(exported, began.elapsed())));
    Ok(Exit::Ok)
}

async fn export(
    reached: &Reached,
    index: &IndexName,
    mut out: impl Write,
    progress: &mut Progress,
    began: Instant,
) -> anyhow::Result<usize> {
    let mut exported = 0;
    let mut search = Search {
        sort: vec!["_seq".to_owned()],
        size: Some(PAGE),
        source: Some(true),
        // The first page makes everything visible that was stored before; later pages need no more.
        consistency: Some("strong".to_owned()),
        allow_partial: Some(false),
        did_you_mean: Some(false),
        ..Search::default()
    };
    loop {
        let answer = page(reached, index, &mut search).await?;
        if !answer.shards.failed.is_empty() || answer.timed_out {
            let failure = Failure::new(Exit::Error, "the service left documents out of a page");
            return Err(failure.hint("`ctl status` shows what is wrong; export again").into());
        }
        for hit in &answer.hits {
            let Some(source) = &hit.source else { continue };
            // White space between tokens is all that can break a line.
            out.write_all(source.get().replace(['\n', '\r'], " ").as_bytes())?;
            out.write_all(b"\n")?;
        }
        exported += answer.hits.len();
        search.search_after = answer.next;
        search.consistency = None;
        if answer.hits.is_empty() || search.search_after.is_none() {
            out.flush()?;
            return Ok(exported);
        }
        if is_long(began) {
            progress.show(&format!("exported {}", render::count(exported, "document")));
        }
    }
}

/// A page; with fewer documents if they are so large that an answer can't hold all.
async fn page(reached: &Reached, index: &IndexName, search: &mut Search) -> anyhow::Result<SearchAnswer> {
    loop {
        let asked = async |member: &client::Client| member.search(index.as_str(), search).await;
        let error = match show::ask(reached, index, Twice::Harmless, asked).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let size = search.size.unwrap_or(PAGE);
        if size < 2 || !error.downcast_ref::<ClientError>().is_some_and(is_too_large) {
            return Err(error);
        }
        search.size = Some(size / 4 + 1);
    }
}

fn is_too_large(error: &ClientError) -> bool {
    matches!(error, ClientError::TooLong { .. })
        || error.problem().is_some_and(|problem| problem.status == 413)
}

#[cfg(test)]
mod tests;
