//! The steps from a manifest to a cluster that runs it.

use std::collections::BTreeSet;

use client::Client;
use tokio::time::Instant;
use types::Role;

use super::report::Report;
use super::restore::{make_room, outdated, renew, restart, restore};
use super::running::{ask_all, differences, members, running};
use super::{Args, apply, placement};
use crate::dropped;
use crate::kept;
use crate::manifest_file::Loaded;
use crate::out::Progress;
use crate::render;
use crate::start::{Settled, Starter};
use crate::twins::ours;

pub(super) async fn bring_up(
    args: &Args,
    loaded: &Loaded,
    starter: &mut Starter<'_>,
    began: Instant,
) -> anyhow::Result<Report> {
    let manifest = &loaded.checked.manifest;
    let mut progress = Progress::new();
    progress.show("settling the spec on the store");
    let mut asked = ask_all(&starter.record).await?;
    let mut before = running(&starter.record, &asked)?;
    let mut plan = manifest::diff(manifest, &before.roles);
    let mut restored = Vec::new();
    if args.reset {
        for node in &plan.start {
            kept::forget(&starter.state.data_dir(&manifest.cluster, &node.id))?;
        }
        restored = make_room(&before, &plan, loaded, &starter.record, &mut progress).await?;
        if !restored.is_empty() {
            asked = ask_all(&starter.record).await?;
            before = running(&starter.record, &asked)?;
            plan = manifest::diff(manifest, &before.roles);
        }
    }
    let asked_before = asked;
    let before = before.roles;
    placement::check(loaded, &before, &plan, starter.state)?;
    let ours = ours(&starter.record, &asked_before).await;
    let uses = asked_before.iter().find_map(|own| own.member.store.as_ref());
    let Settled { numbers: specs, shards, changed } = starter.settle(loaded, uses, &ours).await?;
    let mut outdated = outdated(starter.state, manifest, &starter.record, &before)?;
    let missing: Vec<_> = plan.start.iter().collect();
    if !missing.is_empty() {
        progress.show(&format!("starting {}", render::count(missing.len(), "agent")));
    }
    starter.start(&missing).await?;
    starter.adopt()?;
    let deadline = Instant::now() + args.timeout.get();
    starter.converge(args.timeout.get(), &mut progress).await?;
    if !args.reset {
        starter.await_owners(&shards, args.timeout.get(), deadline, &mut progress).await?;
    }
    let took = began.elapsed();
    // A node that was just started may have another role too: one that an operator gave it, or a shard that it owns.
    let now = running(&starter.record, &ask_all(&starter.record).await?)?;
    let plan = manifest::diff(manifest, &now.roles);
    let mut drift = differences(&plan, &now);
    if args.reset {
        for row in &mut outdated {
            progress.show(&format!("restarting {}", row.node));
            restart(row, args.timeout.get(), manifest, starter, &mut progress).await?;
        }
        // Nodes that become standbys go first, to make room for those that become replicas.
        drift.sort_by_key(|row| row.wanted != Role::Standby);
        for row in &mut drift {
            restore(row, manifest, &starter.record).await?;
        }
        let deadline = Instant::now() + args.timeout.get();
        starter.await_owners(&shards, args.timeout.get(), deadline, &mut progress).await?;
    }
    drift.extend(restored);
    let asked = apply::wait(&starter.record, &specs, args.timeout.get(), &mut progress).await?;
    let applied = apply::applied(&asked_before, &asked, &specs);
    let outdated_specs = renew(&specs, &asked, args.reset).await?;
    let insecure: BTreeSet<_> = asked.iter().flat_map(|own| own.insecure.clone()).collect();
    let members = members(&starter.record).await?;
    let dropped = match starter.record.nodes.first() {
        // If the specs can't be read now, `ctl status` reports it.
        Some(node) => Client::new(&node.url())?.specs().await.ok(),
        None => None,
    };
    let dropped = dropped.map_or_else(Vec::new, |specs| dropped::dropped(manifest, &specs));
    Ok(Report {
        cluster: manifest.cluster.clone(),
        changed,
        listens: loaded.listens.clone(),
        started: starter.started(),
        running_before: before.into_keys().collect(),
        drift,
        outdated,
        applied,
        outdated_specs,
        extra: plan.extra,
        dropped,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        insecure: insecure.into_iter().collect(),
        members,
    })
}
