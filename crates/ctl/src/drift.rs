//! Compares what a node was started with to what its manifest says now.
//!
//! Pure: callers pass the file that was written when it was started. Settings of services are not compared here: they
//! are on the store.

use std::net::SocketAddr;

use manifest::NodeSpec;

use crate::record::NodeRecord;

/// In words, how a running node differs from one that would be started now; empty if it does not.
pub(crate) fn differences(
    wanted: &NodeSpec,
    node: &NodeRecord,
    written: &str,
    would_write: &str,
) -> Vec<&'static str> {
    let mut found = Vec::new();
    let (was_insecure, written) = without_insecure(written);
    let (is_insecure, would_write) = without_insecure(would_write);
    if written != would_write {
        found.push("other labels, another profile or another store");
    }
    if was_insecure != is_insecure {
        found.push("another `insecure`");
    }
    if wanted.listen.is_some_and(|wanted| !serves(wanted, node.http)) {
        found.push("another listen address");
    }
    if wanted.gossip.is_some_and(|wanted| !serves(wanted, node.gossip)) {
        found.push("another gossip address");
    }
    found
}

/// Whether a settings file has `insecure: true`, and its other lines.
fn without_insecure(text: &str) -> (bool, Vec<&str>) {
    let (insecure, others): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.trim() == "insecure: true");
    (!insecure.is_empty(), others)
}

/// Whether an address is the wanted one; port 0 accepts any port.
fn serves(wanted: SocketAddr, found: SocketAddr) -> bool {
    wanted.ip() == found.ip() && (wanted.port() == 0 || wanted.port() == found.port())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use types::Role;

    use super::*;

    #[test]
    fn a_node_differs_by_its_settings_and_by_addresses_that_are_fixed() {
        let node = NodeRecord {
            id: "n1".parse().unwrap(),
            http: "127.0.0.1:1000".parse().unwrap(),
            gossip: "127.0.0.1:1001".parse().unwrap(),
            role: Role::Standby,
            log: PathBuf::from("n1.log"),
            data_dir: PathBuf::from("n1"),
        };
        let settings = "other labels, another profile or another store";
        let listen = "another listen address";
        let gossip = "another gossip address";
        for (wanted_listen, wanted_gossip, written, expected) in [
            (None, None, "new", &[][..]),
            (None, None, "old", &[settings]),
            (Some("127.0.0.1:1000"), Some("127.0.0.1:1001"), "new", &[]),
            (Some("127.0.0.1:0"), Some("127.0.0.1:0"), "new", &[]),
            (Some("127.0.0.1:1001"), None, "new", &[listen]),
            (Some("127.0.0.2:0"), None, "new", &[listen]),
            (None, Some("127.0.0.1:1000"), "new", &[gossip]),
            (Some("127.0.0.1:7"), Some("127.0.0.1:8"), "old", &[settings, listen, gossip]),
            (None, None, "new\ninsecure: true\n", &["another `insecure`"]),
            (None, None, "old\ninsecure: true\n", &[settings, "another `insecure`"]),
        ] {
            let wanted = NodeSpec {
                id: node.id.clone(),
                role: Role::Standby,
                listen: wanted_listen.map(|text: &str| text.parse().unwrap()),
                gossip: wanted_gossip.map(|text: &str| text.parse().unwrap()),
                labels: BTreeMap::new(),
                runs: None,
                restart: types::supervision::RestartPolicy::default(),
            };
            assert_eq!(differences(&wanted, &node, written, "new"), expected);
            if (written, expected) == ("new", &[]) {
                let now = differences(&wanted, &node, written, "new\ninsecure: true\n");
                assert_eq!(now, ["another `insecure`"]);
            }
        }
    }
}
