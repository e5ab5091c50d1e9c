//! Detects another cluster of the same name on the same store, started from another state folder, before anything
//! starts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use client::Client;
use types::api::{AgentSelf, Member};
use types::apply::{Held, Incarnation, Ours, Process};
use types::{ClusterId, NodeId};

use crate::exit::{Exit, Failure};
use crate::hints;
use crate::record::ClusterRecord;

const VIEW_LIMIT: Duration = Duration::from_secs(1);

/// Who may own shards of a cluster: its recorded processes on this machine, and every member that its answering nodes
/// see.
pub(crate) async fn ours(record: &ClusterRecord, asked: &[AgentSelf]) -> Ours {
    let processes = record.nodes.iter().filter_map(|node| {
        let pid = node.process()?.pid;
        Some(Process { pid, data_dir: node.data_dir.display().to_string() })
    });
    let mut ours = Ours { members: Vec::new(), processes: processes.collect() };
    for node in asked.iter().filter_map(|own| record.node(&own.member.id)) {
        let Ok(client) = Client::new(&node.url()) else { continue };
        if let Ok(view) = client.within(VIEW_LIMIT).members().await {
            let incarnations = view.members.into_iter();
            ours.members = incarnations
                .map(|Member { id, generation, .. }| Incarnation { node: id, generation })
                .collect();
            break;
        }
    }
    ours
}

/// The error that nothing was started: which nodes own which shards, where they run, and what to do about it. Pure.
pub(crate) fn failure(cluster: &ClusterId, held: &[Held]) -> Failure {
    let mut nodes: BTreeMap<(&NodeId, &str), Vec<&Held>> = BTreeMap::new();
    for held in held {
        nodes.entry((&held.node, &held.http)).or_default().push(held);
    }
    let owners = nodes.iter().map(|((node, http), held)| {
        let shards: Vec<_> = held
            .iter()
            .map(|held| format!("{}/{} (epoch {})", held.service, held.shard, held.epoch))
            .collect();
        let Held { pid, data_dir, .. } = held[0];
        format!("\n  {node} at {http} (pid {pid}, data folder {data_dir}) owns {}", shards.join(", "))
    });
    let owners: String = owners.collect();
    let store = held.first().map_or("", |held| &held.store);
    let message = format!(
        "another cluster named `{cluster}` runs on the store {store}, and two would take each other's shards; nothing was \
         started:{owners}"
    );
    let folders: BTreeSet<_> = held.iter().filter_map(|held| state_folder(cluster, held)).collect();
    let end_it = match (folders.len(), folders.first()) {
        (1, Some(folder)) => {
            let down = hints::command(&format!("down --cluster {cluster}"));
            format!("end it with `COTERIE_STATE_DIR={} {down}`", hints::quoted(folder))
        }
        _ => "end it where it was started (`ctl down` there)".to_owned(),
    };
    let hint =
        format!("{end_it}, or name another `store:` in the manifest, or another cluster with --cluster");
    Failure::new(Exit::Conflict, message).hint(hint)
}

/// The state folder of the `ctl` on this machine that started the owner, taken from its data folder. Pure.
fn state_folder<'a>(cluster: &ClusterId, held: &'a Held) -> Option<&'a str> {
    let host = held.http.strip_prefix("http://")?;
    let is_here = host.parse::<std::net::SocketAddr>().is_ok_and(|address| types::is_loopback(address.ip()));
    let below = Path::new("data").join(cluster.as_str()).join(held.node.as_str());
    let folder = Path::new(&held.data_dir);
    let root = folder.ancestors().nth(3).filter(|root| root.join(below) == folder)?;
    root.to_str().filter(|_| is_here)
}

#[cfg(test)]
mod tests {
    use types::Epoch;

    use super::*;

    fn held(node: &str, shard: &str, http: &str, data_dir: &str) -> Held {
        Held {
            service: "storage".parse().unwrap(),
            shard: shard.parse().unwrap(),
            node: node.parse().unwrap(),
            epoch: Epoch(3),
            http: http.to_owned(),
            pid: 41,
            data_dir: data_dir.to_owned(),
            store: "file:///srv/store".to_owned(),
        }
    }

    #[test]
    fn the_error_names_owners_their_places_and_a_remedy() {
        let demo: ClusterId = "demo".parse().unwrap();
        let here = "http://127.0.0.1:7400";
        let failure = failure(
            &demo,
            &[
                held("a", "0", here, "/srv/my state/data/demo/a"),
                held("a", "1", here, "/srv/my state/data/demo/a"),
            ],
        );
        assert_eq!(failure.exit(), Exit::Conflict);
        assert_eq!(
            failure.to_string(),
            "another cluster named `demo` runs on the store file:///srv/store, and two would take each other's shards; \
             nothing was started:\n  a at http://127.0.0.1:7400 (pid 41, data folder /srv/my state/data/demo/a) owns \
             storage/0 (epoch 3), storage/1 (epoch 3)"
        );
        let hint = format!("{failure:?}");
        assert!(hint.contains("COTERIE_STATE_DIR='/srv/my state' ctl down --cluster demo`"), "{hint}");
    }

    #[test]
    fn the_state_folder_is_known_only_for_owners_that_a_ctl_on_this_machine_started() {
        let demo: ClusterId = "demo".parse().unwrap();
        for (http, data_dir, expected) in [
            ("http://127.0.0.1:1", "/s/data/demo/a", Some("/s")),
            ("http://[::1]:1", "/s/data/demo/a", Some("/s")),
            ("http://10.0.0.1:1", "/s/data/demo/a", None),
            ("http://127.0.0.1:1", "/s/data/other/a", None),
            ("http://127.0.0.1:1", "/var/lib/a", None),
            ("http://127.0.0.1:1", "", None),
        ] {
            assert_eq!(state_folder(&demo, &held("a", "0", http, data_dir)), expected, "{http} {data_dir}");
        }
    }
}
