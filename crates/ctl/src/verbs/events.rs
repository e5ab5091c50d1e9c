//! `ctl events`: what happened, as one agent saw it.

use std::pin::pin;
use std::time::Duration;

use client::ClientError;
use futures_util::StreamExt;
use tokio::time::sleep;
use types::api::Event;

use crate::exit::Exit;
use crate::out::{StreamFormat, StreamOutputArg, reader_gone, say};
use crate::reach::Cx;
use crate::render;

const RECONNECT_AFTER: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl events
  ctl events -f
  ctl events -f -o json | jq -r .message")]
pub(crate) struct Args {
    /// Keep showing new events, until ^C
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    output: StreamOutputArg,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let client = cx.reach().await?.client;
    let kept = client.kept_events().await?;
    for event in &kept {
        print(event, args.output.output, cx)?;
    }
    if args.follow {
        let resume = kept.last().map(|event| (client.base_url().to_owned(), event.id.clone()));
        follow(args.output.output, cx, resume).await?;
    }
    Ok(Exit::Ok)
}

/// Streams until interrupted, or until standard output has no reader.
pub(crate) async fn follow(
    format: StreamFormat,
    cx: &Cx,
    seen: Option<(String, String)>,
) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        gone = reader_gone() => Err(gone.into()),
        streamed = stream(format, cx, seen) => streamed,
    }
}

/// Streams without end. If the agent goes away, another one of the cluster is used. Event ids are per agent, so only
/// the same agent can resume.
async fn stream(format: StreamFormat, cx: &Cx, mut seen: Option<(String, String)>) -> anyhow::Result<()> {
    let mut before = seen.as_ref().map(|(url, _)| url.clone());
    loop {
        let client = cx.reach().await?.client;
        let url = client.base_url().to_owned();
        if before.is_some_and(|before| before != url) {
            say(&format!("from here on as seen by {url}"));
        }
        before = Some(url.clone());
        let last = seen.take().filter(|(at, _)| *at == url).map(|(_, id)| id);
        let mut latest = last.clone();
        let mut events = pin!(client.events(last.as_deref()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    print(&event, format, cx)?;
                    latest = Some(event.id);
                }
                Err(error @ (ClientError::Unreachable { .. } | ClientError::Timeout { .. })) => {
                    say(&format!("{error}; trying again"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        seen = latest.map(|id| (url, id));
        sleep(RECONNECT_AFTER).await;
    }
}

fn print(event: &Event, format: StreamFormat, cx: &Cx) -> anyhow::Result<()> {
    match format {
        StreamFormat::Table => Ok(cx.out.line(&render::event_line(event, cx.out.color))?),
        StreamFormat::Json => cx.out.json_line(event),
    }
}
