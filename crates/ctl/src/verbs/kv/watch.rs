//! `ctl kv watch`: changes of keys as they happen, until ^C.

use std::pin::pin;
use std::time::{Duration, SystemTime};

use client::{ClientError, KvChange, KvWatch, KvWatchQuery};
use tokio::time::sleep;
use types::ServiceName;

use super::readable;
use crate::exit::{Exit, Failure, explain};
use crate::interrupt::Interrupt;
use crate::out::{StreamFormat, StreamOutputArg, reader_gone, say};
use crate::owner::{Twice, may_repeat, with_owner};
use crate::reach::Cx;

/// The pause before a stream is opened again.
const RECONNECT_AFTER: Duration = Duration::from_millis(300);
/// How many characters of a value are shown on its line.
const SHOWN: usize = 80;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl kv watch
  ctl kv watch user/ --values
  ctl kv watch -o json | jq -r .key

A line a change, in the order of writes of each shard: when it was seen, put or delete, the key, the number of the \
write. To miss nothing, start it first and list then. ^C prints where to go on; changes are kept for about two \
minutes. Exit code 1 if they are not kept any more.")]
pub(crate) struct Args {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    prefix: String,
    /// Resume where an earlier watch ended [default: now]
    #[arg(long, value_name = "CURSOR")]
    from: Option<String>,
    /// Show the values too
    #[arg(long)]
    values: bool,
    #[command(flatten)]
    output: StreamOutputArg,
}

/// Watches until ^C. If the stream breaks off, it is opened again, without limit.
pub(crate) async fn run(
    args: &Args,
    service: Option<&ServiceName>,
    cx: &Cx,
    interrupt: &mut Interrupt,
) -> anyhow::Result<Exit> {
    let mut query =
        KvWatchQuery { prefix: args.prefix.clone(), values: args.values, from: args.from.clone() };
    let mut no_reader = pin!(reader_gone());
    let mut is_first = true;
    loop {
        let mut watch = tokio::select! {
            biased;
            () = interrupt.wait() => return Ok(done(query.from.as_deref())),
            gone = &mut no_reader => return Err(gone.into()),
            opened = open(cx, service, &query, is_first) => opened?,
        };
        if !is_first {
            say("watching again; nothing was missed");
        }
        is_first = false;
        let why = loop {
            let next = tokio::select! {
                biased;
                () = interrupt.wait() => return Ok(done(Some(watch.cursor()))),
                gone = &mut no_reader => return Err(gone.into()),
                next = watch.next() => next,
            };
            match next {
                Ok(Some(change)) => print(&change, args.output.output, cx)?,
                Ok(None) => break "its member ended it".to_owned(),
                Err(error) if may_repeat(&error, Twice::Harmless) => break error.to_string(),
                Err(error) => return Err(in_words(error)),
            }
        };
        let cursor = watch.cursor().to_owned();
        say(&format!("the stream broke off: {why}; resuming from {cursor}"));
        query.from = Some(cursor);
        sleep(RECONNECT_AFTER).await;
    }
}

/// Opens the stream. The first time it waits only for a shard that moves, later for any error that may pass.
async fn open(
    cx: &Cx,
    service: Option<&ServiceName>,
    query: &KvWatchQuery,
    is_first: bool,
) -> anyhow::Result<KvWatch> {
    let mut is_said = is_first;
    loop {
        let opened = async {
            let reached = super::reach(cx, service).await?;
            with_owner(&reached, None, Twice::Harmless, async |member| member.kv_watch(query).await).await
        };
        let error = match opened.await {
            Ok(watch) => return Ok(watch),
            Err(error) => error,
        };
        match error.downcast::<ClientError>() {
            Ok(error) if is_first || !may_repeat(&error, Twice::Harmless) => return Err(in_words(error)),
            Ok(error) => say_once(&mut is_said, &error.to_string()),
            Err(error) if is_first => return Err(error),
            Err(error) => say_once(&mut is_said, &explain(&error).to_string()),
        }
        sleep(RECONNECT_AFTER).await;
    }
}

fn say_once(is_said: &mut bool, why: &str) {
    if !std::mem::replace(is_said, true) {
        say(&format!("{why}; trying again"));
    }
}

fn done(cursor: Option<&str>) -> Exit {
    if let Some(cursor) = cursor {
        say(&format!("resume with: --from {cursor}"));
    }
    Exit::Ok
}

fn in_words(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Problem(problem) if problem.code() == "history-gone" => {
            Failure::new(Exit::Error, problem.detail.clone())
                .hint("changes were missed: watch without --from, then `ctl kv ls` shows what there is now")
                .into()
        }
        other => other.into(),
    }
}

fn print(change: &KvChange, format: StreamFormat, cx: &Cx) -> anyhow::Result<()> {
    if format == StreamFormat::Json {
        return cx.out.json_line(change);
    }
    let at = humantime::format_rfc3339_millis(SystemTime::now());
    let (event, of) = (change.event.as_str(), &change.of);
    let mut line = format!("{at}  {event:<6}  {}  {}", readable(&of.key), of.version);
    if let Some(value) = &of.value {
        let mut shown: String = value.chars().take(SHOWN).flat_map(char::escape_debug).collect();
        if value.chars().nth(SHOWN).is_some() {
            shown.push('…');
        }
        line.push_str(&format!("  {shown}"));
    } else if of.value_base64.is_some() {
        line.push_str(&format!("  ({} bytes)", of.size.unwrap_or_default()));
    }
    Ok(cx.out.line(&line)?)
}
