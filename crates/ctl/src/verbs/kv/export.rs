//! `ctl kv export`: keys with their values, a line of JSON each.

use std::io::Write;
use std::path::PathBuf;

use client::{KeyPage, KeyQuery, ListedKey};
use serde::Serialize;
use tokio::time::Instant;

use crate::exit::Exit;
use crate::out::{Progress, say};
use crate::owner::{Twice, with_owner};
use crate::pace::{is_long, pace};
use crate::part::write_whole;
use crate::reach::Reached;
use crate::render;

pub(super) const AFTER_HELP: &str = "\
Examples:
  ctl kv export > all.ndjson
  ctl kv export user/ --output users.ndjson

A line is {\"key\":\"user/1\",\"value\":\"text\",\"content_type\":\"text/plain\",\"expires_ms\":1764000000000}; a value \
that is not text is in `value_base64` instead, and `expires_ms` is there only if the value expires. A key is \
percent-encoded, as in a URL and as `ctl kv ls -o json` shows it; `ctl kv import` takes the same.

Changes made during the export may be missing; each key has the value that it had when it was read.";

/// How many keys are requested at once.
const PAGE: usize = 10_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    prefix: String,
    /// Write to a file, which appears once it is complete, or - for standard output [default: -]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A line of the output.
#[derive(Debug, Serialize)]
struct Line<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<&'a str>,
    content_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
}

pub(super) async fn run(reached: &Reached, args: &Args) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let mut progress = Progress::new();
    let write = async |out| export(reached, &args.prefix, out, &mut progress, began).await;
    let exported = write_whole(args.output.as_deref(), write).await?;
    progress.clear();
    say(&format!("exported {} in {}", render::count(exported, "key"), pace(exported, began.elapsed())));
    Ok(Exit::Ok)
}

async fn export(
    reached: &Reached,
    prefix: &str,
    mut out: impl Write,
    progress: &mut Progress,
    began: Instant,
) -> anyhow::Result<usize> {
    let mut exported = 0;
    let mut after = None;
    loop {
        let query = KeyQuery { prefix: prefix.to_owned(), after, limit: Some(PAGE), values: true };
        let listing = async |member: &client::Client| member.kv_list(&query).await;
        let page: KeyPage = with_owner(reached, None, Twice::Harmless, listing).await?;
        for listed in &page.keys {
            serde_json::to_writer(&mut out, &line(listed)).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
        }
        exported += page.keys.len();
        after = page.next;
        if after.is_none() {
            out.flush()?;
            return Ok(exported);
        }
        if is_long(began) {
            progress.show(&format!("exported {}", render::count(exported, "key")));
        }
    }
}

fn line(listed: &ListedKey) -> Line<'_> {
    Line {
        key: &listed.key,
        value: listed.value.as_deref(),
        value_base64: listed.value_base64.as_deref(),
        content_type: &listed.content_type,
        expires_ms: listed.expires_ms,
    }
}
