//! Members over the store: who tells, and what others hear of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use evenkeel_cluster::members::{MembersHeard, MembersSay, SharedMembers};
use evenkeel_cluster::{Space, Store, identity};
use model::config::Name;
use model::state::{BackendId, Listed, PoolKey};
use peers::{Etcd, PATIENCE};
use reconcile::membership::{Beats, MemberRecord, Said, Write, member_path};
use store::{Committed, EtcdSettings, Revision, Transaction};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Members that leave at once.
const LEAVING: u8 = 60;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn beats(number: u8) -> Beats {
    let key: PoolKey = (name("shop"), name("default"));
    let mut beats = Beats::default();
    beats.say(true, &key, ([10, 0, 0, number], 80).into(), Said(100, None));
    beats
}

/// What one hears next of tellings.
async fn heard(members: &mut SharedMembers) -> MembersHeard {
    loop {
        let heard = timeout(PATIENCE, members.heard.recv()).await.unwrap().unwrap();
        if matches!(
            heard,
            MembersHeard::Told(..) | MembersHeard::Gone(_) | MembersHeard::Tellers(_)
        ) {
            return heard;
        }
    }
}

async fn tell(members: &SharedMembers, beats: &Beats) {
    members.say.send(MembersSay::Beats(beats.clone())).await.unwrap();
}

/// Scenario: two processes of one node's name, and somebody who hears both. Each tells whom it has heard, in turn; a
/// third listens from then on and finds what both told last. One lets go: what the other told stands.
async fn two_of_one_name(space: Space) {
    let mut first = SharedMembers::start(space.clone(), &name("edge")).unwrap();
    let second = SharedMembers::start(space.clone(), &name("edge")).unwrap();
    assert_ne!(first.teller, second.teller);
    assert_eq!(heard(&mut first).await, MembersHeard::Tellers(BTreeMap::new()));
    for number in 1..=2 {
        for one in [&first, &second] {
            tell(one, &beats(number)).await;
        }
    }
    let mut told = Vec::new();
    while told.len() < 4 {
        match heard(&mut first).await {
            MembersHeard::Told(teller, beats) => told.push((teller, beats)),
            other => panic!("{other:?}"),
        }
    }
    for one in [&first, &second] {
        let by: Vec<&Beats> = told
            .iter()
            .filter(|(by, _)| *by == one.teller)
            .map(|t| &t.1)
            .collect();
        assert_eq!(by, [&beats(1), &beats(2)]);
    }
    let mut third = SharedMembers::start(space, &name("edge")).unwrap();
    let both = [
        (first.teller.clone(), beats(2)),
        (second.teller.clone(), beats(2)),
    ];
    assert_eq!(
        heard(&mut third).await,
        MembersHeard::Tellers(BTreeMap::from(both))
    );
    second.say.send(MembersSay::LetGo).await.unwrap();
    let gone = MembersHeard::Gone(second.teller.clone());
    assert_eq!(heard(&mut third).await, gone);
    assert_eq!(heard(&mut first).await, gone);
    tell(&first, &beats(3)).await;
    assert_eq!(
        heard(&mut third).await,
        MembersHeard::Told(first.teller.clone(), beats(3))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_one_name_are_two_who_tell_embedded() {
    let folder = TempDir::new().unwrap();
    let store = Store::embedded(folder.path()).unwrap();
    two_of_one_name(Space::new(store, "/evenkeel/")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_one_name_are_two_who_tell_in_etcd() {
    let etcd = tokio::task::block_in_place(|| Etcd::start(1));
    let store = Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap();
    two_of_one_name(Space::new(store, "/evenkeel/")).await;
}

/// What one hears next of records.
async fn heard_record(members: &mut SharedMembers) -> MembersHeard {
    loop {
        let heard = timeout(PATIENCE, members.heard.recv()).await.unwrap().unwrap();
        if matches!(
            heard,
            MembersHeard::Record(..) | MembersHeard::Lost(..) | MembersHeard::Unread(..)
        ) {
            return heard;
        }
    }
}

fn backend(number: u8) -> BackendId {
    BackendId {
        load_balancer: name("shop"),
        pool: name("default"),
        address: ([10, 0, 0, number], 80).into(),
    }
}

/// Has this written, and says by which revision that was seen.
async fn write(members: &mut SharedMembers, number: u8, seen: Option<u64>, there: bool) -> u64 {
    let record = MemberRecord::of(&Listed::default(), 15_000);
    let write = Write {
        backend: backend(number),
        seen,
        put: there.then_some(record.clone()),
    };
    members.say.send(MembersSay::Writes(vec![write])).await.unwrap();
    match heard_record(members).await {
        MembersHeard::Record(who, revision, put) => {
            assert_eq!((who, put), (backend(number), there.then_some(record)));
            revision
        }
        other => panic!("{other:?}"),
    }
}

/// Waits until it has listed the records: what is written from then on is told by itself.
async fn until_it_hears(members: &mut SharedMembers) {
    let hears = async {
        while !matches!(
            members.heard.recv().await.unwrap(),
            MembersHeard::HearsRecords(true)
        ) {}
    };
    timeout(PATIENCE, hears).await.expect("it hears of records");
}

/// Scenario: a member leaves, and its record is gone: so it is heard. Somebody deletes all records of members, then, of
/// the one that is written again, everything that Evenkeel has in etcd: that is heard as no farewell. One that leaves
/// after that does.
#[tokio::test(flavor = "multi_thread")]
async fn who_empties_etcd_says_farewell_for_nobody() {
    let etcd = tokio::task::block_in_place(|| Etcd::start(1));
    let store = Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap();
    let space = Space::new(store, "/evenkeel/");
    let keeper = tokio::spawn(identity::keep(space.clone()));
    // Who begins to follow before there is one lists anew when there is.
    while space.store().get(&space.key("identity")).await.unwrap().is_none() {
        sleep(Duration::from_millis(20)).await; // condition poll
    }
    let mut members = SharedMembers::start(space, &name("edge")).unwrap();
    until_it_hears(&mut members).await;
    let seen = write(&mut members, 1, None, true).await;
    let began = Instant::now();
    write(&mut members, 1, Some(seen), false).await;
    println!("a farewell is heard after {:?}", began.elapsed());
    for number in 1..=3 {
        write(&mut members, number, None, true).await;
    }
    let empty = |prefix: &str| tokio::task::block_in_place(|| etcd.etcdctl(&["del", "--prefix", prefix]));
    empty("/evenkeel/members/");
    for number in 1..=3 {
        let heard = heard_record(&mut members).await;
        assert!(
            matches!(&heard, MembersHeard::Lost(who, _) if *who == backend(number)),
            "{heard:?}"
        );
    }
    write(&mut members, 2, None, true).await;
    empty("/evenkeel/");
    let heard = heard_record(&mut members).await;
    assert!(
        matches!(&heard, MembersHeard::Lost(who, _) if *who == backend(2)),
        "{heard:?}"
    );
    let seen = write(&mut members, 2, None, true).await;
    write(&mut members, 2, Some(seen), false).await;
    keeper.abort();
}

/// Scenario: somebody writes over a member's record, and it is none. That is heard with its revision, at once and in a
/// list, and is no farewell.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_heard() {
    let folder = TempDir::new().unwrap();
    let space = Space::new(Store::embedded(folder.path()).unwrap(), "/evenkeel/");
    let mut members = SharedMembers::start(space.clone(), &name("edge")).unwrap();
    until_it_hears(&mut members).await;
    write(&mut members, 1, None, true).await;
    let junk = Transaction::new().put(space.key(&member_path(&backend(1))), "{}");
    let Committed::Done(Revision(revision)) = space.store().commit(junk).await.unwrap() else {
        panic!("nothing was compared");
    };
    assert_eq!(
        heard_record(&mut members).await,
        MembersHeard::Unread(backend(1), revision)
    );
    let mut other = SharedMembers::start(space, &name("other")).unwrap();
    let listed = loop {
        if let MembersHeard::Records(_, listed) = other.heard.recv().await.unwrap() {
            break listed;
        }
    };
    assert_eq!(listed, [(backend(1), revision, None)]);
}

/// Carries connections to etcd, and takes so long for it each way.
fn slow_way(etcd: &str, each_way: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let etcd = etcd.trim_start_matches("http://").to_owned();
    // They end with the process of the test.
    thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let server = TcpStream::connect(&etcd).unwrap();
            carry(client.try_clone().unwrap(), server.try_clone().unwrap(), each_way);
            carry(server, client, each_way);
        }
    });
    address
}

fn carry(mut from: TcpStream, mut to: TcpStream, late: Duration) {
    let (put, taken) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut bytes = [0; 65536];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if put
                .send((Instant::now() + late, bytes[..count].to_vec()))
                .is_err()
            {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (at, bytes) in taken {
            wait_until(at);
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Both));
    });
}

/// The lateness is what is tested.
fn wait_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// Scenario: a store that answers each call after 0.8 s. A lease and a write take longer than a telling may, and what
/// this process has heard is told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_is_told_all_the_same() {
    let etcd = tokio::task::block_in_place(|| Etcd::start(1));
    let way = slow_way(&etcd.endpoints()[0], Duration::from_millis(400));
    let store = Store::etcd(EtcdSettings::new(vec![format!("http://{way}")])).unwrap();
    let mut members = SharedMembers::start(Space::new(store, "/evenkeel/"), &name("edge")).unwrap();
    let is_told = async {
        loop {
            tell(&members, &beats(1)).await;
            let told = loop {
                if let MembersHeard::BeatsTold(told) = members.heard.recv().await.unwrap() {
                    break told;
                }
            };
            if told {
                break;
            }
        }
    };
    timeout(PATIENCE, is_told).await.expect("it is told");
}

/// Scenario: many members leave at once, each for itself, and each answer of the store takes 0.3 s. The store is asked
/// once for many of them whether those are farewells, and not once for each.
#[tokio::test(flavor = "multi_thread")]
async fn many_farewells_are_asked_about_at_once() {
    let etcd = tokio::task::block_in_place(|| Etcd::start(1));
    let endpoint = etcd.endpoints()[0].clone();
    let near = Space::new(
        Store::etcd(EtcdSettings::new(etcd.endpoints())).unwrap(),
        "/evenkeel/",
    );
    let keeper = tokio::spawn(identity::keep(near.clone()));
    while near.store().get(&near.key("identity")).await.unwrap().is_none() {
        sleep(Duration::from_millis(20)).await; // condition poll
    }
    keeper.abort();
    let record = serde_json::to_vec(&MemberRecord::of(&Listed::default(), 15_000)).unwrap();
    let key = |number| near.key(&member_path(&backend(number)));
    for number in 1..=LEAVING {
        let put = Transaction::new().put(key(number), record.clone());
        near.store().commit(put).await.unwrap();
    }
    let way = slow_way(&endpoint, Duration::from_millis(150));
    let far = Store::etcd(EtcdSettings::new(vec![format!("http://{way}")])).unwrap();
    let mut members = SharedMembers::start(Space::new(far, "/evenkeel/"), &name("edge")).unwrap();
    until_it_hears(&mut members).await;
    // How many reads it has answered.
    let reads = || etcd.members[0].metric("etcd_debugging_mvcc_range_total");
    let before = reads();
    let leaves = (1..=LEAVING).map(|number| {
        let (near, key) = (near.clone(), key(number));
        async move { near.store().commit(Transaction::new().delete(key)).await.unwrap() }
    });
    tokio::spawn(leaves.collect::<JoinSet<_>>().join_all());
    let mut left = BTreeSet::new();
    for _ in 1..=LEAVING {
        match heard_record(&mut members).await {
            MembersHeard::Record(who, _, None) => left.insert(who),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(left, (1..=LEAVING).map(backend).collect());
    let asked = reads() - before;
    println!("{LEAVING} farewells, {asked} reads");
    assert!(asked < u64::from(LEAVING) / 2, "{asked}");
}
