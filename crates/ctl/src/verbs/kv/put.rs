//! `ctl kv put`: a value of bounded length, from the command line, a file or standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use client::{KeyCondition, PutKey};
use types::key_value::MAX_VALUE;
use types::range::{DurationIn, TEN_YEARS_MS};

use super::{Spelling, Version, with_outcome};
use crate::aside::aside;
use crate::exit::{Exit, Failure};
use crate::hints::quoted;
use crate::out::say;
use crate::owner::{Twice, with_owner};
use crate::reach::Reached;
use crate::render;

pub(super) const AFTER_HELP: &str = "\
Examples:
  ctl kv put greeting hello
  ctl kv put photo --file cat.jpg
  date | ctl kv put now -
  ctl kv put session/7 open --ttl 30m
  ctl kv put lock held --if-absent         only if there is none
  ctl kv put greeting hi --if-version 17   only if nobody wrote it since

A value has at most 8 MiB. Exit code 1 if the condition does not hold.";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The key
    key: String,
    #[command(flatten)]
    spelling: Spelling,
    /// The value, as text, or - for standard input [default: standard input]
    value: Option<String>,
    /// Read the value from a file, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// Accept an empty file or standard input as a value
    #[arg(long, conflicts_with = "value")]
    empty: bool,
    /// The media type of the value, as in HTTP: text/plain, image/jpeg
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Time to live, 1s to 10y: 30s, 1h, 7d [default: forever]
    #[arg(long, value_name = "TIME")]
    ttl: Option<DurationIn<1_000, TEN_YEARS_MS>>,
    /// Only if the key has no value
    #[arg(long, conflicts_with = "if_version")]
    if_absent: bool,
    /// Only if the key has this version, as `get -o json` and `ls` show it
    #[arg(long, value_name = "N")]
    if_version: Option<Version>,
}

/// Why there is no value to send.
#[derive(Debug, thiserror::Error)]
enum ValueError {
    /// Split it over several keys, or store it elsewhere.
    #[error("the value has {} bytes; at most {MAX_VALUE} (8 MiB) are allowed", shown_length(*.0))]
    TooLong(Option<u64>),
    /// See the cause.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The length of a value that is too long, if known.
fn shown_length(length: Option<u64>) -> String {
    length.map_or_else(|| format!("more than {MAX_VALUE}"), |length| length.to_string())
}

pub(super) async fn run(reached: &Reached, args: &Args) -> anyhow::Result<Exit> {
    let key = &args.spelling.key(&args.key)?;
    let mut letters = args.content_type.iter().flat_map(|text| text.chars());
    if let Some(odd) = letters.find(|c| !matches!(c, ' '..='~')) {
        return Err(Failure::new(Exit::Usage, format!("--content-type has the character {odd:?}"))
            .hint("write it in plain letters, as in `--content-type text/plain`")
            .into());
    }
    let value = value(args).await?;
    let is_argument = args.value.as_deref().is_some_and(|value| value != "-");
    if value.is_empty() && !is_argument && !args.empty {
        // The input is `/dev/null`, or the command before the pipe failed.
        return Err(Failure::new(Exit::Usage, "there is nothing to store: the input is empty")
            .hint(format!("to store an empty value: `ctl kv put {} --empty`", quoted(&args.key)))
            .into());
    }
    let is_text = args.content_type.is_none() && is_argument;
    let text = || "text/plain; charset=utf-8".to_owned();
    let condition = match args.if_version {
        Some(version) => Some(KeyCondition::Version(version.get())),
        None => args.if_absent.then_some(KeyCondition::Absent),
    };
    let how = &PutKey {
        content_type: if is_text { Some(text()) } else { args.content_type.clone() },
        ttl: args.ttl.map(DurationIn::get),
        condition,
    };
    let size = value.len();
    let putting = async |owner: &client::Client| owner.kv_put(key, value.clone(), how).await;
    let version = with_owner(reached, Some(key), Twice::Differs, putting).await;
    let version = version.map_err(|error| with_outcome(error, &args.key))?;
    let version = version.map(|version| format!(", version {version}")).unwrap_or_default();
    say(&format!("stored {}, {}{version}", render::clean(&args.key), render::count(size, "byte")));
    Ok(Exit::Ok)
}

/// Checks the length here: a member refuses a longer value in the middle of the upload, which looks like a connection
/// that broke.
async fn value(args: &Args) -> anyhow::Result<Vec<u8>> {
    let file = args.file.as_deref().filter(|path| path.as_os_str() != "-");
    let text = args.value.as_deref().filter(|value| *value != "-");
    let (read, what) = match (text, file) {
        (None, None) if args.empty && args.file.is_none() => return Ok(Vec::new()),
        (Some(text), _) => (bounded(text.as_bytes()), String::new()),
        (None, Some(path)) => {
            let named = path.to_owned();
            (aside(move || of_file(&named)).await, format!("reading {}", path.display()))
        }
        (None, None) => (aside(|| bounded(io::stdin())).await, "reading standard input".to_owned()),
    };
    match read {
        Err(error @ ValueError::TooLong(_)) => Err(Failure::new(Exit::Usage, error.to_string()).into()),
        Err(ValueError::Io(error)) => Err(error).context(what),
        Ok(value) => Ok(value),
    }
}

fn of_file(path: &Path) -> Result<Vec<u8>, ValueError> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    let most = u64::try_from(MAX_VALUE).unwrap_or(u64::MAX);
    if about.is_file() && about.len() > most {
        return Err(ValueError::TooLong(Some(about.len())));
    }
    bounded(file)
}

/// Reads all of it, up to one byte more than is allowed.
fn bounded(source: impl Read) -> Result<Vec<u8>, ValueError> {
    let most = u64::try_from(MAX_VALUE).unwrap_or(u64::MAX);
    let mut value = Vec::new();
    source.take(most.saturating_add(1)).read_to_end(&mut value)?;
    if value.len() > MAX_VALUE { Err(ValueError::TooLong(None)) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_8_mib_is_read_and_a_longer_one_is_refused_unread() {
        let most = u64::try_from(MAX_VALUE).unwrap();
        assert_eq!(bounded(io::repeat(b'x').take(most)).unwrap().len(), MAX_VALUE);
        let endless = bounded(io::repeat(b'x')).unwrap_err().to_string();
        assert_eq!(endless, "the value has more than 8388608 bytes; at most 8388608 (8 MiB) are allowed");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        File::create(&path).unwrap().set_len(most).unwrap();
        assert_eq!(of_file(&path).unwrap().len(), MAX_VALUE);
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let long = of_file(&path).unwrap_err().to_string();
        assert_eq!(long, "the value has 1099511627776 bytes; at most 8388608 (8 MiB) are allowed");
    }
}
