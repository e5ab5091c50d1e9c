//! `ctl kv`: keys and values of the cluster's storage.

mod export;
mod import;
mod put;
mod watch;

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{ClientError, KeyCondition, KeyPage, KeyQuery, ListedKey, Stored};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use serde::Serialize;
use types::key_value::MAX_KEY;
use types::range::NumberIn;
use types::{Problem, ServiceName};

use crate::complete;
use crate::exit::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::out::{Format, OutputArg, Progress, StreamFormat, StreamOutputArg, say};
use crate::owner::{Twice, with_owner};
use crate::reach::{Cx, Reached};
use crate::render;
use crate::service::{self, KEYS};

/// Keys that are requested at once.
const PAGE: usize = 1_000;
/// Characters of a key that are not percent-encoded, as in the listings of storage.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl kv put greeting hello
  ctl kv put photo --file cat.jpg --content-type image/jpeg
  ctl kv get greeting
  ctl kv ls user/ -o json
  ctl kv watch user/
  ctl kv del greeting
  ctl kv export user/ --output users.ndjson
  ctl kv import users.ndjson
  ctl kv --service sessions get user/1

Keys with the same text in their first braces, as {user/1}/name and {user/1}/mail, are in one shard.

Exit code 1 if a requested key does not exist, or a condition does not hold.")]
pub(crate) struct Args {
    /// The service, if several have the type storage
    #[arg(long, global = true, value_name = "NAME", add = complete::services())]
    service: Option<ServiceName>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Write a value to standard output, as it is
    #[command(after_help = "\
Examples:
  ctl kv get greeting
  ctl kv get photo > cat.jpg
  ctl kv get greeting -o json   with its version and when it expires")]
    Get {
        /// The key
        key: String,
        #[command(flatten)]
        spelling: Spelling,
        #[command(flatten)]
        output: StreamOutputArg,
    },
    /// Store a value; done once it is durable
    #[command(after_help = put::AFTER_HELP)]
    Put(put::Args),
    /// Remove keys
    #[command(after_help = "\
Examples:
  ctl kv del greeting
  ctl kv del greeting --if-version 17

Exit code 1 if the condition does not hold.")]
    Del {
        /// The keys
        #[arg(required = true)]
        keys: Vec<String>,
        /// Only if the key, which must be one, has this version, as `get -o json` and `ls` show it
        #[arg(long, value_name = "N")]
        if_version: Option<Version>,
        #[command(flatten)]
        spelling: Spelling,
    },
    /// List keys in their order
    #[command(after_help = "Examples:\n  ctl kv ls\n  ctl kv ls user/ --limit 10")]
    Ls(List),
    /// Write keys with their values, a line of JSON each
    #[command(after_help = export::AFTER_HELP)]
    Export(export::Args),
    /// Store the lines that export writes; fast
    #[command(after_help = import::AFTER_HELP)]
    Import(import::Args),
    /// Show changes as they happen, until ^C
    Watch(watch::Args),
}

/// A version of a value.
type Version = NumberIn<0, { u64::MAX }>;

/// How keys are written on the command line.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Spelling {
    /// Keys are percent-encoded, as `ctl kv ls` shows those that are not plain text
    #[arg(long)]
    encoded: bool,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    prefix: String,
    /// List at most N keys, up to 1000000000 [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<NumberIn<0, 1_000_000_000>>,
    #[command(flatten)]
    output: OutputArg,
}

/// The listed keys, percent-encoded as in a path.
#[derive(Debug, Serialize)]
struct Listing {
    keys: Vec<ListedKey>,
    /// Whether there are more.
    more: bool,
}

pub(crate) async fn run(args: &Args, cx: &Cx, interrupt: &mut Interrupt) -> anyhow::Result<Exit> {
    match &args.verb {
        Verb::Watch(of) => watch::run(of, args.service.as_ref(), cx, interrupt).await,
        Verb::Import(of) => import::run(of, args.service.as_ref(), cx, interrupt).await,
        verb => interrupt.unless(dispatch(verb, args.service.as_ref(), cx)).await,
    }
}

/// Reaches an agent for the keys of a service: the named one, else `storage`, else the only one of that type.
async fn reach(cx: &Cx, service: Option<&ServiceName>) -> anyhow::Result<Reached> {
    service::reach(cx, service, &KEYS).await
}

async fn dispatch(verb: &Verb, service: Option<&ServiceName>, cx: &Cx) -> anyhow::Result<Exit> {
    let reached = reach(cx, service).await?;
    match verb {
        Verb::Get { key, spelling, output } => get(&reached, key, *spelling, output.output, cx).await,
        Verb::Put(args) => put::run(&reached, args).await,
        Verb::Del { keys, if_version, spelling } => {
            if if_version.is_some() && keys.len() > 1 {
                let failure = Failure::new(Exit::Usage, "--if-version is for one key");
                return Err(failure.hint("name the keys one after the other").into());
            }
            let condition = if_version.map(|version| KeyCondition::Version(version.get()));
            for text in keys {
                let key = &spelling.key(text)?;
                let deleting = async |owner: &client::Client| owner.kv_delete(key, condition).await;
                let deleted = with_owner(&reached, Some(key), Twice::Differs, deleting).await;
                deleted.map_err(|error| with_outcome(error, text))?;
                say(&format!("{text} does not exist any more"));
            }
            Ok(Exit::Ok)
        }
        Verb::Ls(list) => ls(&reached, list, cx).await,
        Verb::Export(args) => export::run(&reached, args).await,
        Verb::Import(_) | Verb::Watch(_) => unreachable!("handled by the caller"),
    }
}

/// Adds to the error of a write whether the write happened.
fn with_outcome(error: anyhow::Error, key: &str) -> anyhow::Error {
    let Some(client) = error.downcast_ref::<ClientError>() else { return error };
    let look = format!("`ctl kv get {key} -o json` shows what is there");
    match client.problem().map(Problem::code) {
        Some("precondition-failed") => {
            Failure::new(Exit::Error, format!("{key} was not changed: {client}")).hint(look).into()
        }
        None | Some("not-durable-in-time" | "cut-short") if !is_certain(client) => {
            Failure::new(Exit::Error, format!("it is not known whether {key} was changed: {client}"))
                .hint(look)
                .into()
        }
        _ => error,
    }
}

/// Whether an error proves that nothing was written.
fn is_certain(error: &ClientError) -> bool {
    matches!(error, ClientError::BadUrl { .. } | ClientError::Unreachable { is_unsent: true, .. })
}

/// A value, as shown in JSON.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    /// Percent-encoded, as in listings.
    key: String,
    size: usize,
    version: Option<u64>,
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

async fn get(
    reached: &Reached,
    text: &str,
    spelling: Spelling,
    format: StreamFormat,
    cx: &Cx,
) -> anyhow::Result<Exit> {
    let key = &spelling.key(text)?;
    let getting = async |owner: &client::Client| owner.kv_get(key).await;
    let Some(stored) = with_owner(reached, Some(key), Twice::Harmless, getting).await? else {
        return Err(Failure::new(Exit::Error, format!("there is no key `{text}`"))
            .hint("`ctl kv ls` lists the keys")
            .into());
    };
    if format == StreamFormat::Json {
        cx.out.json_line(&shown(key, &stored))?;
        return Ok(Exit::Ok);
    }
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&stored.bytes)?;
    stdout.flush()?;
    Ok(Exit::Ok)
}

fn shown<'a>(key: &[u8], stored: &'a Stored) -> Shown<'a> {
    let value = std::str::from_utf8(&stored.bytes).ok();
    Shown {
        key: percent_encode(key, PLAIN).to_string(),
        size: stored.bytes.len(),
        version: stored.version,
        content_type: stored.content_type.as_deref(),
        expires_ms: stored.expires_ms,
        value,
        value_base64: value.is_none().then(|| STANDARD.encode(&stored.bytes)),
    }
}

async fn ls(reached: &Reached, list: &List, cx: &Cx) -> anyhow::Result<Exit> {
    let mut listing = Listing { keys: Vec::new(), more: false };
    let mut after = None;
    let mut progress = Progress::new();
    loop {
        let left = list.limit.map(|limit| limit.as_usize().saturating_sub(listing.keys.len()));
        if left == Some(0) {
            listing.more = after.is_some();
            break;
        }
        let limit = Some(left.unwrap_or(PAGE).min(PAGE));
        let query = KeyQuery { prefix: list.prefix.clone(), after: after.clone(), limit, values: false };
        let listing_page = async |member: &client::Client| member.kv_list(&query).await;
        let page: KeyPage = with_owner(reached, None, Twice::Harmless, listing_page).await?;
        listing.keys.extend(page.keys);
        after = page.next;
        if after.is_none() {
            break;
        }
        progress.show(&render::count(listing.keys.len(), "key"));
    }
    progress.clear();
    let show = |listing: &Listing| table(listing, render::now_ms());
    cx.out.data(list.output.output, &listing, show, |listing| {
        listing.keys.iter().map(|listed| readable(&listed.key)).collect()
    })?;
    // In JSON and YAML all keys are percent-encoded.
    let is_for_people = matches!(list.output.output, Format::Table | Format::Name);
    let odd = listing.keys.iter().filter(|listed| plain(&listed.key).is_none()).count();
    if is_for_people && odd > 0 {
        say(&format!(
            "{} shown percent-encoded; --encoded accepts them in that form",
            render::count(odd, "key")
        ));
    }
    let more = if listing.more { ", and there are more" } else { "" };
    say(&format!("{}{more}", render::count(listing.keys.len(), "key")));
    Ok(Exit::Ok)
}

/// The expiry has a column if some keys expire.
fn table(listing: &Listing, now_ms: u64) -> String {
    let some_expire = listing.keys.iter().any(|listed| listed.expires_ms.is_some());
    let mut header = vec!["KEY", "BYTES", "VERSION"];
    header.extend(some_expire.then_some("EXPIRES IN"));
    header.push("TYPE");
    let rows: Vec<_> = listing
        .keys
        .iter()
        .map(|listed| {
            let mut row = vec![readable(&listed.key), listed.size.to_string(), listed.version.to_string()];
            if some_expire {
                let left = listed.expires_ms.map(|at| render::age(at.saturating_sub(now_ms)));
                row.push(left.unwrap_or_default());
            }
            row.push(listed.content_type.clone());
            row
        })
        .collect();
    render::table(&header, &rows)
}

/// A listed key, decoded, if it is text that can be shown and can't be mistaken for an encoded one.
fn plain(key: &str) -> Option<String> {
    let text = percent_decode_str(key).decode_utf8().ok()?;
    (!text.chars().any(|c| c.is_control() || c == '%')).then(|| text.into_owned())
}

/// The key as shown to a person: one that contains a percent sign is encoded.
fn readable(key: &str) -> String {
    plain(key).unwrap_or_else(|| key.to_owned())
}

impl Spelling {
    /// The bytes of a key.
    fn key(self, text: &str) -> Result<Vec<u8>, Failure> {
        let key = if self.encoded { percent_decode_str(text).collect() } else { text.as_bytes().to_vec() };
        if key.is_empty() {
            return Err(Failure::new(Exit::Usage, "the key is empty")
                .hint(format!("a key has 1 to {MAX_KEY} bytes; `ctl kv ls` lists those that there are")));
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(key: &str, expires_ms: Option<u64>) -> ListedKey {
        ListedKey {
            key: key.to_owned(),
            size: 5,
            version: 17,
            etag: "\"17\"".to_owned(),
            content_type: "text/plain".to_owned(),
            expires_ms,
            value: None,
            value_base64: None,
        }
    }

    #[test]
    fn the_expiry_has_a_column_if_some_keys_expire() {
        let keys = vec![listed("a%20b", None), listed("c", Some(91_000))];
        assert_eq!(
            table(&Listing { keys, more: false }, 1_000),
            "\
KEY  BYTES  VERSION  EXPIRES IN  TYPE
a b  5      17                   text/plain
c    5      17       1m30s       text/plain"
        );
        let keys = vec![listed("c", None)];
        assert_eq!(
            table(&Listing { keys, more: false }, 1_000),
            "KEY  BYTES  VERSION  TYPE\nc    5      17       text/plain"
        );
    }
}
