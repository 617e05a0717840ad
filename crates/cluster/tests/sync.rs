//! A node follows what is declared: by push, by poll, from its disk; and takes a revision whole or not at all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel_cluster::{Desired, Last, Offer, Space, Standing, Store, Sync};
use model::config::Name;
use model::state::Timestamp;
use peers::{Etcd, PATIENCE};
use reconcile::desired::records::{Digest, LogRecord, State, keys};
use store::{Committed, EtcdSettings, Transaction};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Writes revisions as `apply` does.
struct Writer {
    space: Space,
    state: State,
}

impl Writer {
    fn new(space: &Space) -> Self {
        Self {
            space: space.clone(),
            state: State::default(),
        }
    }

    /// Puts these load balancers (none: deletes) as the next revision.
    async fn apply(&mut self, changed: &[(&str, Option<&str>)]) -> u64 {
        let revision = self.state.revision + 1;
        let mut names = BTreeMap::new();
        for (lb, text) in changed {
            let digest = text.map(Digest::of);
            if let Some((digest, text)) = digest.zip(*text) {
                self.put(Transaction::new().put(self.space.key(&keys::object(digest)), text.to_owned()))
                    .await;
            }
            names.insert(name(lb), digest);
        }
        let mut record = LogRecord {
            revision,
            parent: self.state.revision,
            author: "eva".into(),
            at: Timestamp(now().as_millis() as u64),
            what: "apply".into(),
            message: String::new(),
            token: String::new(),
            changed: names,
            all: None,
        };
        self.state.step(&record).unwrap();
        record.all = keys::begins_block(revision).then(|| self.state.objects.clone());
        let transaction = Transaction::new()
            .put(
                self.space.key(&keys::log(revision)),
                serde_json::to_vec(&record).unwrap(),
            )
            .put(
                self.space.key(keys::HEAD),
                serde_json::to_vec(&self.state.head()).unwrap(),
            );
        self.put(transaction).await;
        revision
    }

    async fn put(&self, transaction: Transaction) {
        let committed = self.space.store().commit(transaction).await.unwrap();
        assert!(matches!(committed, Committed::Done(_)));
    }
}

/// A node: takes what is offered, unless `refuse` says why not.
struct Node {
    standing: watch::Receiver<Standing>,
    served: watch::Receiver<Arc<Desired>>,
    /// What the store says, as far as the node can read it.
    stored: watch::Receiver<Option<Arc<Desired>>>,
    refuse: watch::Sender<Option<String>>,
    /// End with the node.
    _tasks: JoinSet<()>,
}

impl Node {
    fn start(sync: Sync) -> Self {
        let (offers, mut taken) = mpsc::channel::<Offer>(1);
        let (serve, served) = watch::channel(Arc::default());
        let (refuse, refused) = watch::channel(None);
        let (standing, stored) = (sync.standing(), sync.stored());
        let (_, hints) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(sync.run(offers, hints));
        tasks.spawn(async move {
            while let Some(offer) = taken.recv().await {
                let reason: Option<String> = refused.borrow().clone();
                let answer = reason.map_or(Ok(()), |reason| Err(vec![reason]));
                if answer.is_ok() {
                    serve.send_replace(offer.desired);
                }
                drop(offer.reply.send(answer));
            }
        });
        Self {
            standing,
            served,
            stored,
            refuse,
            _tasks: tasks,
        }
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&Standing) -> bool) -> Standing {
        let found = timeout(PATIENCE, self.standing.wait_for(condition)).await;
        found
            .unwrap_or_else(|_| panic!("in vain: {what}"))
            .unwrap()
            .clone()
    }

    /// The port of each load balancer in the store, whether or not it is served.
    fn stored(&self) -> Vec<(String, u16)> {
        let stored = self.stored.borrow().clone().unwrap();
        let balancers = stored.load_balancers.iter();
        balancers
            .map(|(name, balancer)| (name.to_string(), balancer.listeners[0].address.port()))
            .collect()
    }

    /// The changes whose time was counted.
    fn counted(&self) -> u64 {
        self.standing.borrow().delays.counts.iter().sum()
    }

    fn names(&self) -> Vec<String> {
        self.served
            .borrow()
            .load_balancers
            .keys()
            .map(ToString::to_string)
            .collect()
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn now() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
}

fn balancer(port: u16) -> String {
    format!(r#"{{"backend_servers":["10.0.0.1:{port}"],"listen":"127.0.0.1:{port}"}}"#)
}

fn embedded() -> (TempDir, Space) {
    let folder = TempDir::new().unwrap();
    let store = Store::embedded(folder.path()).unwrap();
    (folder, Space::new(store, "/evenkeel/"))
}

fn etcd(etcd: &Etcd) -> Space {
    Space::new(
        Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap(),
        "/evenkeel/",
    )
}

/// Scenario: nothing, then a load balancer, another, a change of one, a deletion, over the edge of a block. What did
/// not change is the same value, not an equal one.
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_pushed_and_only_they_are_read_anew() {
    let (_folder, space) = embedded();
    let mut writer = Writer::new(&space);
    let mut node = Node::start(Sync::new(space, None));
    node.until("hears of nothing", |standing| {
        standing.known && standing.head == 0
    })
    .await;
    writer
        .apply(&[("shop", Some(&balancer(1))), ("blog", Some(&balancer(2)))])
        .await;
    node.until("two", |standing| standing.served == 1).await;
    let before = node.served.borrow().clone();
    writer.apply(&[("shop", Some(&balancer(3)))]).await;
    let standing = node.until("a change", |standing| standing.served == 2).await;
    assert!(standing.took.is_some_and(|took| took < PATIENCE), "{standing:?}");
    let after = node.served.borrow().clone();
    let same = |lb| {
        Arc::ptr_eq(
            &before.load_balancers[&name(lb)],
            &after.load_balancers[&name(lb)],
        )
    };
    assert_eq!((same("shop"), same("blog")), (false, true));
    writer.apply(&[("blog", None)]).await;
    node.until("one less", |standing| standing.served == 3).await;
    assert_eq!(node.names(), ["shop"]);
    for port in 4..140 {
        writer.apply(&[("shop", Some(&balancer(port)))]).await;
    }
    let last = writer.state.revision;
    node.until("the last", |standing| standing.served == last).await;
    assert_eq!(node.names(), ["shop"]);
}

/// Scenario: a revision has a load balancer that does not read, then one that whoever serves refuses. The one before
/// stays, whole; the next good one is taken. Meanwhile it is known what the store says, as far as it can be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_is_taken_whole_or_not_at_all() {
    let (_folder, space) = embedded();
    let mut writer = Writer::new(&space);
    let mut node = Node::start(Sync::new(space, None));
    writer.apply(&[("shop", Some(&balancer(1)))]).await;
    node.until("the first", |standing| standing.served == 1).await;
    let wrong = r#"{"backend_servers":["10.0.0.1:1"],"algoritm":"random"}"#;
    let no_file = r#"{"backend_servers":["10.0.0.1:1"],"listen":"127.0.0.1:9","routes":[{"match":{"path":"/x"},"pool":"default","error_pages":{"503":"/no/such"}}]}"#;
    writer
        .apply(&[
            ("shop", Some(&balancer(2))),
            ("blog", Some(wrong)),
            ("chat", Some(no_file)),
        ])
        .await;
    let standing = node
        .until("a refusal", |standing| standing.refused.is_some())
        .await;
    assert_eq!((standing.served, standing.head), (1, 2));
    let reasons = standing.refused.unwrap().reasons.join("\n");
    assert!(
        reasons.contains("algoritm") && reasons.contains("blog"),
        "{reasons}"
    );
    let of = |name: &str, port| (name.to_owned(), port);
    assert_eq!(node.stored(), [of("chat", 9), of("shop", 2)]);
    node.refuse.send_replace(Some("port 3 is taken".to_owned()));
    writer
        .apply(&[("shop", Some(&balancer(3))), ("blog", None), ("chat", None)])
        .await;
    let refused = |standing: &Standing| {
        standing
            .refused
            .as_ref()
            .is_some_and(|refused| refused.revision == 3)
    };
    let standing = node.until("another refusal", refused).await;
    assert_eq!(standing.refused.unwrap().reasons, ["port 3 is taken"]);
    assert_eq!(node.stored(), [of("shop", 3)]);
    writer.apply(&[("shop", Some(wrong))]).await;
    node.until("a third refusal", |standing| {
        standing.head == 4 && standing.refused.as_ref().is_some_and(|r| r.revision == 4)
    })
    .await;
    assert_eq!(node.stored(), [of("shop", 3)], "as it was, until it can be read");
    node.refuse.send_replace(None);
    writer.apply(&[("shop", Some(&balancer(5)))]).await;
    let standing = node.until("the good one", |standing| standing.served == 5).await;
    assert_eq!(standing.refused, None);
}

/// Scenario: a node has followed etcd and ends; etcd dies; the node starts again: it begins with what it had. etcd
/// comes back with something newer, and the node goes on to that. A damaged file on the disk is told and not used.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_from_its_disk_while_the_store_is_away() {
    let mut server = tokio::task::block_in_place(|| Etcd::start(1));
    let folder = TempDir::new().unwrap();
    let last = || Some(Last::open(&folder.path().join("last")).unwrap());
    let mut writer = Writer::new(&etcd(&server));
    writer
        .apply(&[("shop", Some(&balancer(1))), ("blog", Some(&balancer(2)))])
        .await;
    let mut sync = Sync::new(etcd(&server), last());
    assert_eq!(sync.first().await, None);
    let mut node = Node::start(sync);
    node.until("the first", |standing| standing.served == 1).await;
    writer.apply(&[("blog", Some(&balancer(3)))]).await;
    node.until("the second", |standing| standing.served == 2).await;
    drop(node);
    writer.apply(&[("chat", Some(&balancer(4)))]).await;
    server.members[0].crash();

    let mut sync = Sync::new(etcd(&server), last());
    let begun = sync.first().await.unwrap();
    let names: Vec<&str> = begun.load_balancers.keys().map(Name::as_str).collect();
    assert_eq!((begun.revision, names), (2, vec!["blog", "shop"]));
    let mut node = Node::start(sync);
    let standing = node
        .until("no store", |standing| standing.trouble.is_some())
        .await;
    assert!(standing.known && !standing.connected, "{standing:?}");
    server.members[0].start_again();
    node.until("the newest", |standing| {
        standing.served == 3 && standing.connected
    })
    .await;
    assert_eq!(node.names(), ["blog", "chat", "shop"]);
    assert_eq!(
        node.counted(),
        0,
        "what was there at the start took nobody's time"
    );
    drop(node);

    let objects = std::fs::read_dir(folder.path().join("last")).unwrap();
    let object = objects
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "object"));
    std::fs::write(object.unwrap(), "{}").unwrap();
    let mut sync = Sync::new(etcd(&server), last());
    assert_eq!(sync.first().await, None);
}

/// Scenario: the head says something that its log does not give, as after a restore of half a backup. The node stays
/// where it is and says so; once the store is whole again it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_without_its_content_is_not_believed() {
    let (_folder, space) = embedded();
    let mut writer = Writer::new(&space);
    let mut node = Node::start(Sync::new(space.clone(), None));
    writer.apply(&[("shop", Some(&balancer(1)))]).await;
    node.until("the first", |standing| standing.served == 1).await;
    let mut head = writer.state.head();
    head.revision = 9;
    let broken = serde_json::to_vec(&head).unwrap();
    writer
        .put(Transaction::new().put(space.key(keys::HEAD), broken))
        .await;
    let standing = node
        .until("a refusal", |standing| standing.refused.is_some())
        .await;
    assert_eq!((standing.served, standing.head), (1, 9));
    writer.apply(&[("shop", Some(&balancer(2)))]).await;
    let standing = node.until("the second", |standing| standing.served == 2).await;
    assert_eq!(standing.refused, None);
}

/// Scenario: etcd lets the node read and not watch, as if its watches were broken for good. The node follows all the
/// same, by its polls, and the time that it took is counted, because nothing else would show that no change is pushed.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_watch_follows_by_polling() {
    let server = tokio::task::block_in_place(|| Etcd::start(1));
    let mut writer = Writer::new(&etcd_as(&server, "root"));
    writer.apply(&[("shop", Some(&balancer(1)))]).await;
    for arguments in [
        &["user", "add", "root:secret"][..],
        &["user", "add", "node:secret"],
        &["role", "add", "node"],
        &[
            "role",
            "grant-permission",
            "node",
            "--prefix=true",
            "read",
            "/evenkeel/config/head",
        ],
        &[
            "role",
            "grant-permission",
            "node",
            "--prefix=true",
            "read",
            "/evenkeel/config/log/",
        ],
        &[
            "role",
            "grant-permission",
            "node",
            "--prefix=true",
            "read",
            "/evenkeel/config/objects/",
        ],
        &["user", "grant-role", "node", "node"],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        server.etcdctl(arguments);
    }
    let mut node = Node::start(Sync::new(etcd_as(&server, "node"), None));
    node.until("the first", |standing| standing.served == 1).await;
    assert_eq!(node.counted(), 0, "it was there at the start");
    let began = Instant::now();
    writer
        .apply(&[("shop", Some(&balancer(2))), ("blog", Some(&balancer(3)))])
        .await;
    let standing = node.until("the second", |standing| standing.served == 2).await;
    println!("without a watch a change was served after {:?}", began.elapsed());
    assert_eq!(node.counted(), 1, "{standing:?}");
    assert!(
        standing.delays.sum <= began.elapsed() + Duration::from_millis(1),
        "{standing:?}"
    );
    assert_eq!(node.names(), ["blog", "shop"]);
}

/// etcd, spoken to as a user with the password `secret`.
fn etcd_as(server: &Etcd, user: &str) -> Space {
    let mut settings = EtcdSettings::new(server.endpoints());
    settings.user = Some((user.to_owned(), "secret".to_owned()));
    Space::new(Store::etcd(settings).unwrap(), "/evenkeel/")
}

/// Scenario: etcd is emptied under a running node, then its head is scribbled over: the node stays with what it serves,
/// here and on its disk, and says so. What is applied afterwards is served.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_emptied_takes_nothing_away() {
    let (_folder, space) = embedded();
    let folder = TempDir::new().unwrap();
    let last = Last::open(&folder.path().join("last")).unwrap();
    let mut writer = Writer::new(&space);
    let mut node = Node::start(Sync::new(space.clone(), Some(last.clone())));
    writer.apply(&[("shop", Some(&balancer(1)))]).await;
    writer.apply(&[("blog", Some(&balancer(2)))]).await;
    node.until("both", |standing| standing.served == 2).await;
    let refused = |words: &'static str| {
        move |standing: &Standing| {
            let told = standing.refused.as_ref().map(|refused| refused.reasons.join(" "));
            told.is_some_and(|told| told.contains(words)) && standing.served == 2
        }
    };
    writer.put(Transaction::new().delete(space.key(keys::HEAD))).await;
    node.until("it is empty", refused("has nothing any more")).await;
    writer
        .put(Transaction::new().put(space.key(keys::HEAD), "scribble"))
        .await;
    node.until("it is unreadable", refused("is no head")).await;
    // A writer that counts anew from nothing: what this says is that nothing is declared.
    writer.put(Transaction::new().delete(space.key(keys::HEAD))).await;
    node.until("it is empty again", refused("has nothing any more"))
        .await;
    let nothing = serde_json::to_vec(&State::default().head()).unwrap();
    writer
        .put(Transaction::new().put(space.key(keys::HEAD), nothing))
        .await;
    node.until("it is a head of nothing", refused("is no head")).await;
    let kept = Sync::new(space.clone(), Some(last)).first().await.unwrap();
    assert_eq!((kept.revision, kept.load_balancers.len()), (2, 2));
    let mut anew = Writer::new(&space);
    anew.apply(&[("chat", Some(&balancer(3)))]).await;
    let standing = node
        .until("what is applied then", |standing| standing.served == 1)
        .await;
    assert_eq!((standing.refused, node.names()), (None, vec!["chat".to_owned()]));
}

/// Scenario: the disk takes nothing for a while, and nothing is changed afterwards. What is served is on the disk with the
/// next look at the store, and what a crash had left half written is gone.
#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_kept_is_kept_later() {
    let (_folder, space) = embedded();
    let folder = TempDir::new().unwrap();
    let place = folder.path().join("last");
    let last = Last::open(&place).unwrap();
    // Where the state is written before it gets its name.
    let hindrance = place.join("state.json.new");
    std::fs::create_dir(&hindrance).unwrap();
    let half_written = place.join("0123.object.new");
    std::fs::write(&half_written, "half").unwrap();
    Writer::new(&space).apply(&[("shop", Some(&balancer(1)))]).await;
    let sync = Sync::new(space.clone(), Some(last.clone()));
    let mut standing = sync.standing();
    let (offers, mut taken) = mpsc::channel::<Offer>(1);
    let (hint, hints) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(sync.run(offers, hints));
    tasks.spawn(async move {
        while let Some(offer) = taken.recv().await {
            drop(offer.reply.send(Ok(())));
        }
    });
    let served = timeout(PATIENCE, standing.wait_for(|standing| standing.served == 1)).await;
    served.unwrap().unwrap();
    let kept = async || Sync::new(space.clone(), Some(last.clone())).first().await;
    assert_eq!(kept().await, None);
    std::fs::remove_dir(&hindrance).unwrap();
    hint.send(()).await.unwrap();
    let until = Instant::now() + PATIENCE;
    while kept().await.is_none_or(|kept| kept.revision != 1) {
        assert!(Instant::now() < until, "it was not kept");
        // condition poll
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while half_written.exists() {
        assert!(Instant::now() < until, "it is still there");
        // condition poll
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
