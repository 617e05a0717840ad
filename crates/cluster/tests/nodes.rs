//! The registry of nodes: who is there, what they serve, and who was lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use evenkeel_cluster::nodes::{Nodes, follow, register};
use evenkeel_cluster::{Space, Store};
use model::config::{Name, Role};
use model::node::{NodeEvent, NodeLoad, NodeRecord};
use model::state::Timestamp;
use peers::{Etcd, PATIENCE};
use store::EtcdSettings;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn record(life: u64) -> NodeRecord {
    NodeRecord {
        version: "0.1.0".into(),
        started: Timestamp(1),
        life,
        roles: vec![Role::Lb],
        zone: Some("a".into()),
        addresses: vec!["10.0.0.1:80".parse().unwrap()],
        served: 1,
        refused: None,
        load: NodeLoad::default(),
        leaving: false,
    }
}

/// A node in the registry; `stop` ends it in order, dropping the task's handle does not.
struct Node {
    record: watch::Sender<NodeRecord>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    fn start(space: &Space, node: &str, life: u64) -> Self {
        let (record, told) = watch::channel(record(life));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(register(space.clone(), name(node), told, stopped));
        Self { record, stop, task }
    }
}

struct Watcher {
    nodes: watch::Receiver<Nodes>,
    events: mpsc::Receiver<NodeEvent>,
}

impl Watcher {
    async fn start(space: &Space) -> Self {
        let (nodes_out, mut nodes) = watch::channel(Nodes::default());
        let (events_out, events) = mpsc::channel(100);
        tokio::spawn(follow(space.clone(), nodes_out, events_out));
        timeout(PATIENCE, nodes.changed()).await.unwrap().unwrap();
        Self { nodes, events }
    }

    async fn event(&mut self) -> NodeEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event")
            .unwrap()
    }
}

/// Scenario: two nodes come, one serves something newer, one goes in order, one dies. Another process takes the name of
/// a living one: it must wait.
async fn registry(space: Space) {
    let mut watcher = Watcher::start(&space).await;
    let one = Node::start(&space, "edge-1", 1);
    assert_eq!(watcher.event().await, NodeEvent::Joined("edge-1".into()));
    let two = Node::start(&space, "edge-2", 2);
    assert_eq!(watcher.event().await, NodeEvent::Joined("edge-2".into()));
    one.record.send_modify(|record| record.served = 7);
    let serves = |nodes: &Nodes| {
        nodes
            .get(&name("edge-1"))
            .is_some_and(|record| record.served == 7)
    };
    timeout(PATIENCE, watcher.nodes.wait_for(serves))
        .await
        .unwrap()
        .unwrap();

    let impostor = Node::start(&space, "edge-1", 3);
    drop(two.stop);
    timeout(PATIENCE, two.task).await.unwrap().unwrap();
    assert_eq!(watcher.event().await, NodeEvent::Left("edge-2".into()));

    let died = Instant::now();
    one.task.abort();
    assert_eq!(watcher.event().await, NodeEvent::Lost("edge-1".into()));
    println!("a node that died was missed after {:?}", died.elapsed());
    assert!(
        died.elapsed() > Duration::from_secs(1),
        "its lease held for a while"
    );
    assert_eq!(watcher.event().await, NodeEvent::Joined("edge-1".into()));
    assert_eq!(watcher.nodes.borrow()[&name("edge-1")].life, 3);
    impostor.task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_goes_and_is_lost_is_told_embedded() {
    let folder = TempDir::new().unwrap();
    let store = Store::embedded(folder.path()).unwrap();
    registry(Space::new(store, "/evenkeel/")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_goes_and_is_lost_is_told_in_etcd() {
    let etcd = tokio::task::block_in_place(|| Etcd::start(1));
    let store = Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap();
    registry(Space::new(store, "/evenkeel/")).await;
}
