//! What `evenkeel status` says of the nodes of a cluster.

use std::fmt::Write;

use model::node::NodeStatus;
use model::units::format_size;

use crate::table::{Cell, Paint, Table, Tone};

/// Nodes that are shown; all are in `--json`.
const NODES_SHOWN: usize = 50;
const MIB: u64 = 1024 * 1024;

/// A table of them; nothing where there are none. `head` is the revision that the store has.
pub(super) fn render(out: &mut String, nodes: &[NodeStatus], head: u64, paint: Paint) {
    if nodes.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", paint.text(Tone::Title, "nodes"));
    let mut table = Table::new(&[
        "NODE",
        "ROLES",
        "ZONE",
        "SERVES",
        "CPU",
        "MEMORY",
        "CONNECTIONS",
        "REQUESTS/S",
    ]);
    for node in nodes.iter().take(NODES_SHOWN) {
        let record = &node.record;
        let roles: Vec<&str> = record.roles.iter().map(|role| role.as_str()).collect();
        table.row(vec![
            Cell::text(node.name.clone()),
            Cell::text(roles.join(", ")),
            Cell::text(record.zone.clone().unwrap_or_default()),
            serves(node, head),
            Cell::text(format!("{:.0}%", record.load.cpu * 100.0)),
            Cell::text(format_size(record.load.memory / MIB * MIB)),
            Cell::text(record.load.connections.to_string()),
            Cell::text(format!("{:.0}", record.load.requests_per_second)),
        ]);
    }
    out.push_str(&table.render(2, paint));
    if nodes.len() > NODES_SHOWN {
        let _ = writeln!(out, "  and {} more", nodes.len() - NODES_SHOWN);
    }
}

/// The revision that a node serves, and why it is not the newest.
fn serves(node: &NodeStatus, head: u64) -> Cell {
    let served = node.record.served;
    match &node.record.refused {
        Some((revision, reason)) => Cell::tone(format!("{served}, REFUSED {revision}: {reason}"), Tone::Bad),
        None if served < head => Cell::tone(format!("{served}, behind {head}"), Tone::Warning),
        None => Cell::text(served.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::config::Role;
    use model::node::{NodeLoad, NodeRecord};
    use model::state::Timestamp;

    #[test]
    fn laggards_are_seen_at_a_glance() {
        let node = |name: &str, served, refused: Option<(u64, String)>| NodeStatus {
            name: name.to_owned(),
            record: NodeRecord {
                version: "0.1.0".into(),
                started: Timestamp(1),
                life: 1,
                roles: vec![Role::Lb],
                zone: Some("a".into()),
                addresses: Vec::new(),
                served,
                refused,
                load: NodeLoad {
                    cpu: 0.5,
                    memory: 20 * MIB + 5,
                    connections: 7,
                    requests_per_second: 11.6,
                },
                trial: None,
                declares: None,
                leaving: false,
            },
        };
        let nodes = [
            node("edge-1", 7, None),
            node("edge-2", 6, None),
            node("edge-3", 6, Some((7, "port 80 is taken".into()))),
        ];
        let mut out = String::new();
        render(&mut out, &nodes, 7, Paint::for_terminal(false));
        let lines: Vec<String> = out
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines[1..],
            [
                "nodes",
                "NODE ROLES ZONE SERVES CPU MEMORY CONNECTIONS REQUESTS/S",
                "edge-1 lb a 7 50% 20MiB 7 12",
                "edge-2 lb a 6, behind 7 50% 20MiB 7 12",
                "edge-3 lb a 6, REFUSED 7: port 80 is taken 50% 20MiB 7 12",
            ]
        );
    }
}
