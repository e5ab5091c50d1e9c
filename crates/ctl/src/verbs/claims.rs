//! `ctl claims`: who owns which shard, according to the store.

use types::api::{Claims, ReplicaView};

use crate::exit::Exit;
use crate::out::{OutputArg, say};
use crate::reach::Cx;
use crate::render;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ctl claims
  ctl claims -o json

A shard is honoured if its owner is a live member and reports that it owns it. A replica reports how far behind it may \
be at most.")]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArg,
}

pub(crate) async fn run(args: &Args, cx: &Cx) -> anyhow::Result<Exit> {
    let claims = cx.reach().await?.client.claims().await?;
    cx.out.data(args.output.output, &claims, table, |claims| {
        claims.claims.iter().map(|claim| format!("{}/{}", claim.service, claim.shard)).collect()
    })?;
    say(&format!("store {} at {}", claims.store.id, claims.store.url));
    Ok(Exit::Ok)
}

fn table(claims: &Claims) -> String {
    let now = render::now_ms();
    let rows: Vec<_> = claims
        .claims
        .iter()
        .map(|claim| {
            let dash = || "-".to_owned();
            let holder = claim.holder.as_ref();
            let replicas: Vec<_> = claim.replicas.iter().map(replica).collect();
            let since = claim.since_ms.map(|since| render::age(now.saturating_sub(since)));
            vec![
                format!("{}/{}", claim.service, claim.shard),
                holder.map_or_else(dash, |holder| holder.node.to_string()),
                holder.map_or_else(dash, |holder| holder.epoch.to_string()),
                since.unwrap_or_else(dash),
                match &claim.http {
                    _ if claim.honoured => "yes".to_owned(),
                    Some(http) if claim.elsewhere => format!("no, but answers at {http}"),
                    _ => "no".to_owned(),
                },
                match (claim.wanted_replicas, replicas.is_empty()) {
                    (0, true) => dash(),
                    (wanted, true) => format!("0 of {wanted}"),
                    (_, false) => replicas.join(", "),
                },
                claim.note.clone().unwrap_or_else(dash),
            ]
        })
        .collect();
    render::table(&["SHARD", "OWNER", "EPOCH", "SINCE", "HONOURED", "REPLICAS", "LATEST"], &rows)
}

/// A replica, and how far behind it may be: `b (84 ms behind)`.
fn replica(replica: &ReplicaView) -> String {
    match replica.staleness_ms {
        Some(ms) => format!("{} ({ms} ms behind)", replica.node),
        None => format!("{} ({})", replica.node, replica.phase),
    }
}
