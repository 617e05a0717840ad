//! The registry of nodes: who is there, what they serve, and who was lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use evenkeel_cluster::nodes::{LEASE_SECONDS, Lost, Nodes, follow, register};
use evenkeel_cluster::{Space, Store};
use model::config::{Name, Role};
use model::node::{NameTaken, NodeEvent, NodeLoad, NodeRecord};
use model::state::Timestamp;
use peers::{Etcd, PATIENCE};
use store::{EtcdSettings, Transaction};
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
        trial: None,
        declares: None,
        leaving: false,
    }
}

/// A node in the registry; `stop` ends it in order, dropping the task's handle does not.
struct Node {
    record: watch::Sender<NodeRecord>,
    taken: watch::Receiver<Option<NameTaken>>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    fn start(space: &Space, node: &str, life: u64) -> Self {
        let (record, told) = watch::channel(record(life));
        let (taken_out, taken) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(register(space.clone(), name(node), told, taken_out, stopped));
        Self {
            record,
            taken,
            stop,
            task,
        }
    }
}

struct Watcher {
    nodes: watch::Receiver<Nodes>,
    lost: watch::Receiver<Lost>,
    events: mpsc::Receiver<NodeEvent>,
}

impl Watcher {
    async fn start(space: &Space) -> Self {
        let (nodes_out, mut nodes) = watch::channel(Nodes::default());
        let (events_out, events) = mpsc::channel(100);
        let (lost_out, lost) = watch::channel(Lost::default());
        tokio::spawn(follow(space.clone(), nodes_out, lost_out, events_out));
        timeout(PATIENCE, nodes.changed()).await.unwrap().unwrap();
        Self { nodes, lost, events }
    }

    async fn event(&mut self) -> NodeEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("an event")
            .unwrap()
    }
}

/// Scenario: two nodes come, one serves something newer, one goes in order, one dies. Another process takes the name of
/// a living one: it must wait, and is told whose the name is as soon as that one is seen to write. One that starts after
/// a death has its name when the lease of the dead is over, and is told nothing.
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

    let mut impostor = Node::start(&space, "edge-1", 3);
    one.record.send_modify(|record| record.served = 8);
    let taken = timeout(PATIENCE, impostor.taken.wait_for(|taken| taken.is_some()));
    let other = taken.await.unwrap().unwrap().clone().unwrap();
    assert_eq!(other.started, Timestamp(1));
    assert_eq!(other.addresses, ["10.0.0.1:80".parse().unwrap()]);
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
    assert!(watcher.lost.borrow().is_empty(), "it is back");
    let free = timeout(PATIENCE, impostor.taken.wait_for(Option::is_none));
    assert_eq!(*free.await.unwrap().unwrap(), None);

    // Two die, and one starts again at once. Who has heard none of this finds who is silent, for as long as it is.
    let three = Node::start(&space, "edge-3", 4);
    assert_eq!(watcher.event().await, NodeEvent::Joined("edge-3".into()));
    three.task.abort();
    impostor.task.abort();
    let again = Node::start(&space, "edge-1", 5);
    let is_back = |nodes: &Nodes| nodes.get(&name("edge-1")).is_some_and(|record| record.life == 5);
    timeout(PATIENCE, watcher.nodes.wait_for(is_back))
        .await
        .unwrap()
        .unwrap();
    assert!(
        !again.taken.has_changed().unwrap(),
        "its own former life is no namesake"
    );
    let lost = |lost: &Lost| lost.keys().map(Name::as_str).eq(["edge-3"]);
    timeout(PATIENCE, watcher.lost.wait_for(lost))
        .await
        .unwrap()
        .unwrap();
    let _three = Node::start(&space, "edge-3", 6);
    timeout(PATIENCE, watcher.lost.wait_for(|lost| lost.is_empty()))
        .await
        .unwrap()
        .unwrap();
}

/// Scenario: somebody has written where a node's record belongs, and it is none. The node does without for a while, as
/// somebody who lives would write again, and then has its place.
async fn what_nobody_can_read_is_nobodys(space: Space) {
    let key = space.key("nodes/edge");
    let junk = Transaction::new().put(&key, "{\"of\": \"somebody\"}");
    space.store().commit(junk).await.unwrap();
    let began = Instant::now();
    let node = Node::start(&space, "edge", 7);
    let mut watcher = Watcher::start(&space).await;
    assert!(watcher.nodes.borrow().is_empty());
    assert_eq!(watcher.event().await, NodeEvent::Joined("edge".into()));
    assert!(began.elapsed() > Duration::from_secs(LEASE_SECONDS.into()));
    assert_eq!(*node.taken.borrow(), None);
    assert_eq!(watcher.nodes.borrow()[&name("edge")].life, 7);
}

/// Both at the same time, as they wait most of it.
async fn all(store: Store) {
    tokio::join!(
        registry(Space::new(store.clone(), "/evenkeel/")),
        what_nobody_can_read_is_nobodys(Space::new(store, "/other/"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_goes_and_is_lost_is_told_embedded() {
    let folder = TempDir::new().unwrap();
    let store = Store::embedded(folder.path()).unwrap();
    all(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_goes_and_is_lost_is_told_in_etcd() {
    let etcd = tokio::task::block_in_place(|| Etcd::start(1));
    let store = Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap();
    all(store).await;
}
