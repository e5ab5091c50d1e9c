//! `ctl kv`: keys and values of the cluster's storage.

use std::io::{Read, Write};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use client::{Client, ClientError, KeyPage, KeyQuery, ListedKey};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use types::api::{Member, Members};
use types::{KeyHash, RoleState, ShardId};

use crate::exit::{Exit, Failure};
use crate::out::{OutputArg, Progress, say};
use crate::reach::{Cx, Reached};
use crate::render;

/// How long a shard that moves is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked for.
const POLL: Duration = Duration::from_millis(100);
/// How long one value may take on its way.
const VALUE_LIMIT: Duration = Duration::from_secs(60);
/// Keys that are asked for at once.
const PAGE: usize = 1_000;
const STORAGE: &str = "storage";

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl kv put greeting hello
  ctl kv put photo --file cat.jpg --content-type image/jpeg
  ctl kv get greeting
  ctl kv ls user/ -o json
  ctl kv del greeting

Exit code 1 if a key that is asked for is not there.")]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Write a value to standard output, as it is
    #[command(after_help = "Examples:\n  ctl kv get greeting\n  ctl kv get photo > cat.jpg")]
    Get {
        /// The key
        key: String,
        #[command(flatten)]
        spelling: Spelling,
    },
    /// Store a value; done once it is durable
    #[command(after_help = "Examples:\n  ctl kv put greeting hello\n  ctl kv put photo --file cat.jpg")]
    Put(Put),
    /// Remove keys
    #[command(after_help = "Examples:\n  ctl kv del greeting")]
    Del {
        /// The keys
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        spelling: Spelling,
    },
    /// List keys in their order
    #[command(after_help = "Examples:\n  ctl kv ls\n  ctl kv ls user/ --limit 10")]
    Ls(List),
}

/// How keys are given.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Spelling {
    /// Keys are percent-encoded, as `ctl kv ls` shows those that are no plain text
    #[arg(long)]
    encoded: bool,
}

#[derive(Debug, clap::Args)]
struct Put {
    /// The key
    key: String,
    #[command(flatten)]
    spelling: Spelling,
    /// The value, as text [default: standard input]
    value: Option<String>,
    /// Read the value from a file
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    file: Option<PathBuf>,
    /// What the value is, as in HTTP: text/plain, image/jpeg
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    prefix: String,
    /// At most so many [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    output: OutputArg,
}

/// What is listed; keys are percent-encoded, as in a path.
#[derive(Debug, Serialize)]
struct Listing {
    keys: Vec<ListedKey>,
    /// Whether there are more.
    more: bool,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let reached = cx.reach().await?;
    match &args.verb {
        Verb::Get { key, spelling } => get(&reached, key, *spelling).await,
        Verb::Put(put) => store(&reached, put).await,
        Verb::Del { keys, spelling } => {
            for text in keys {
                let key = &spelling.key(text)?;
                with_owner(&reached, Some(key), async |owner| owner.kv_delete(key).await).await?;
                say(&format!("{text} is not there any more"));
            }
            Ok(Exit::Ok)
        }
        Verb::Ls(list) => ls(&reached, list, cx).await,
    }
}

async fn get(reached: &Reached, text: &str, spelling: Spelling) -> anyhow::Result<Exit> {
    let key = &spelling.key(text)?;
    let found = with_owner(reached, Some(key), async |owner| owner.kv_get(key).await).await?;
    let Some(stored) = found else {
        return Err(Failure::new(Exit::Error, format!("there is no key `{text}`"))
            .hint("`ctl kv ls` lists the keys")
            .into());
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&stored.bytes)?;
    stdout.flush()?;
    Ok(Exit::Ok)
}

async fn store(reached: &Reached, put: &Put) -> anyhow::Result<Exit> {
    let key = &put.spelling.key(&put.key)?;
    if let Some(odd) = put.content_type.iter().flat_map(|text| text.chars()).find(|c| !matches!(c, ' '..='~'))
    {
        return Err(Failure::new(Exit::Usage, format!("--content-type has the character {odd:?}")).into());
    }
    let value = match (&put.value, &put.file) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(file)) => std::fs::read(file).with_context(|| format!("reading {}", file.display()))?,
        (None, None) => {
            let mut value = Vec::new();
            std::io::stdin().read_to_end(&mut value).context("reading standard input")?;
            value
        }
    };
    let is_text = put.content_type.is_none() && put.value.is_some();
    let content_type = if is_text { Some("text/plain; charset=utf-8") } else { put.content_type.as_deref() };
    let size = value.len();
    with_owner(reached, Some(key), async |owner| owner.kv_put(key, value.clone(), content_type).await)
        .await?;
    say(&format!("stored {}, {}", put.key, render::count(size, "byte")));
    Ok(Exit::Ok)
}

async fn ls(reached: &Reached, list: &List, cx: &Cx) -> anyhow::Result<Exit> {
    let mut listing = Listing { keys: Vec::new(), more: false };
    let mut after = None;
    let mut progress = Progress::new();
    loop {
        let left = list.limit.map(|limit| limit.saturating_sub(listing.keys.len()));
        if left == Some(0) {
            listing.more = after.is_some();
            break;
        }
        let limit = Some(left.unwrap_or(PAGE).min(PAGE));
        let query = KeyQuery { prefix: list.prefix.clone(), after: after.clone(), limit };
        let page: KeyPage = with_owner(reached, None, async |member| member.kv_list(&query).await).await?;
        listing.keys.extend(page.keys);
        after = page.next;
        if after.is_none() {
            break;
        }
        progress.show(&render::count(listing.keys.len(), "key"));
    }
    progress.clear();
    cx.out.data(list.output.output, &listing, table, |listing| {
        listing.keys.iter().map(|listed| readable(&listed.key)).collect()
    })?;
    let odd = listing.keys.iter().filter(|listed| plain(&listed.key).is_none()).count();
    if odd > 0 {
        say(&format!("{} shown percent-encoded; --encoded takes them so", render::count(odd, "key")));
    }
    let more = if listing.more { ", and there are more" } else { "" };
    say(&format!("{}{more}", render::count(listing.keys.len(), "key")));
    Ok(Exit::Ok)
}

fn table(listing: &Listing) -> String {
    let rows: Vec<_> = listing
        .keys
        .iter()
        .map(|listed| vec![readable(&listed.key), listed.size.to_string(), listed.content_type.clone()])
        .collect();
    render::table(&["KEY", "BYTES", "TYPE"], &rows)
}

/// A listed key as it was given, if it is text that can be shown and can't be taken for an encoded one.
fn plain(key: &str) -> Option<String> {
    let text = percent_decode_str(key).decode_utf8().ok()?;
    (!text.chars().any(|c| c.is_control() || c == '%')).then(|| text.into_owned())
}

/// What a person is shown: a key with a percent sign in it is encoded.
fn readable(key: &str) -> String {
    plain(key).unwrap_or_else(|| key.to_owned())
}

impl Spelling {
    /// The bytes of a key that can be part of a URL: a lone dot or two would be taken for a step in it.
    fn key(self, text: &str) -> Result<Vec<u8>, Failure> {
        let key = if self.encoded { percent_decode_str(text).collect() } else { text.as_bytes().to_vec() };
        match key.as_slice() {
            b"" => Err(Failure::new(Exit::Usage, "the key is empty")),
            b"." | b".." => Err(Failure::new(Exit::Usage, format!("the key `{text}` has no place in a URL"))),
            _ => Ok(key),
        }
    }
}

/// Asks the owner of a key's shard, or any member of storage, until one answers or it has taken too long.
async fn with_owner<T>(
    reached: &Reached,
    key: Option<&[u8]>,
    ask: impl AsyncFn(&Client) -> Result<T, ClientError>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let view = reached.client.members().await?;
        let failed: anyhow::Error = match owner(&view, key) {
            Ok(member) => {
                let client = reached.client.at(&member.http)?.within(VALUE_LIMIT);
                match ask(&client).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) if !may_pass(&error) => return Err(error.into()),
                    Err(error) => error.into(),
                }
            }
            Err(failure) => failure.into(),
        };
        if Instant::now() >= deadline {
            return Err(failed);
        }
        sleep(POLL).await;
    }
}

/// Whether an error is one of a shard that is on its way from one node to another.
fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Problem(problem) => matches!(problem.status, 421 | 503),
        other => other.is_unreachable(),
    }
}

/// The member to ask for a key, or for all of them.
fn owner<'a>(view: &'a Members, key: Option<&[u8]>) -> Result<&'a Member, Failure> {
    let members = || {
        view.members.iter().filter_map(|member| {
            let state = member.state.as_ref()?;
            (state.role.service_name() == STORAGE).then_some((member, state))
        })
    };
    let shard = match key {
        Some(key) => Some(shard_of(key, members().map(|(_, state)| state)).ok_or_else(no_storage)?),
        None => None,
    };
    members()
        .filter(|(_, state)| state.phase.is_serving())
        .filter(|(_, state)| shard.is_none() || state.role.shard() == shard)
        .max_by_key(|(_, state)| state.epoch)
        .map(|(member, _)| member)
        .ok_or_else(|| match shard {
            Some(shard) => Failure::new(Exit::Error, format!("nobody serves {STORAGE}/{shard} now"))
                .hint(format!("`ctl set-service NODE {STORAGE} --shard {shard}` gives it an owner")),
            None => no_storage(),
        })
}

fn shard_of<'a>(key: &[u8], states: impl Iterator<Item = &'a RoleState>) -> Option<ShardId> {
    let shards = states.filter_map(|state| state.shards).max().and_then(NonZeroU32::new)?;
    Some(KeyHash::of(key).shard(shards))
}

fn no_storage() -> Failure {
    Failure::new(Exit::Error, "no member serves storage")
        .hint("`ctl set-service NODE storage` gives a node that role; `ctl members` shows who there is")
}
