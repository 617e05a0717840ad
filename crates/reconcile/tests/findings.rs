//! What one orchestrator remembers of the verdicts that it has written, over configs that come and go.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel_reconcile::cluster::member::{Action, Answer, Call, Event, Finding, Member, Settings};
use evenkeel_reconcile::cluster::records::{
    Condition, Key, LeaseId, Revision, Transaction, Value, VerdictRecord, Write,
};
use evenkeel_reconcile::cluster::roster::{Wanted, Wish};
use evenkeel_reconcile::cluster::view::{Changes, Listing, Prefix};
use model::config::{HealthCheck, Name};
use model::state::{BackendId, Health, Timestamp};

/// An orchestrator alone with a store that always answers at once.
struct World {
    member: Member,
    store: BTreeMap<Key, (Revision, Value)>,
    revision: Revision,
    now: u64,
    /// Answers to verdicts get lost, though they are written.
    loses: bool,
}

impl World {
    fn new() -> Self {
        let member = Member::new(Name::parse("a-1").unwrap(), Settings::default(), 0);
        let mut world = Self {
            member,
            store: BTreeMap::new(),
            revision: 1,
            now: 0,
            loses: false,
        };
        world.tell(Event::CutOff);
        for prefix in Prefix::ALL {
            let entries = Vec::new();
            let revision = 1;
            world.tell(Event::Listed(Listing {
                prefix,
                another: false,
                revision,
                entries,
            }));
        }
        world.tell(Event::Hearing);
        while world.member.running().len() < usize::from(Settings::default().slots) {
            world.pass(100);
        }
        world
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        assert!(self.now < 60_000, "it works by then");
        self.tell(Event::Tick);
    }

    fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            for event in std::mem::take(&mut events) {
                for action in self.member.handle(event, self.now) {
                    if let Action::Call(id, call) = action {
                        let (answer, changes) = self.carry_out(call);
                        events.extend(changes);
                        events.push(Event::Answer(id, answer));
                    }
                }
            }
        }
    }

    fn carry_out(&mut self, call: Call) -> (Answer, Vec<Event>) {
        match call {
            Call::Grant => (Answer::Granted(LeaseId(1)), Vec::new()),
            Call::KeepAlive(_) => (Answer::Alive, Vec::new()),
            Call::Read(keys) => {
                let read = keys.iter().map(|key| self.store.get(key).cloned());
                (Answer::Read(read.collect()), Vec::new())
            }
            Call::Commit(transaction) => self.commit(transaction),
        }
    }

    fn commit(&mut self, transaction: Transaction) -> (Answer, Vec<Event>) {
        let holds = |condition: &Condition| match condition {
            Condition::Absent(key) => !self.store.contains_key(key),
            Condition::Unchanged(key, revision) => {
                self.store.get(key).is_some_and(|(there, _)| there == revision)
            }
        };
        if !transaction.conditions.iter().all(holds) {
            return (Answer::Conflict, Vec::new());
        }
        self.revision += 1;
        let revision = self.revision;
        let mut changes: BTreeMap<Prefix, Vec<(Key, Option<Value>)>> = BTreeMap::new();
        let mut of_a_verdict = false;
        for write in transaction.writes {
            let (key, value) = match write {
                Write::Put { key, value, .. } => (key, Some(value)),
                Write::Delete(key) => (key, None),
            };
            match &value {
                Some(value) => _ = self.store.insert(key.clone(), (revision, value.clone())),
                None => _ = self.store.remove(&key),
            }
            let prefix = match key {
                Key::Leader => Prefix::Leader,
                Key::Worker(_) => Prefix::Workers,
                Key::Round | Key::Assignment(_) => Prefix::Assignments,
                Key::Verdict(_) => {
                    of_a_verdict = true;
                    continue;
                }
            };
            changes.entry(prefix).or_default().push((key, value));
        }
        let told = changes.into_iter().map(|(prefix, changes)| {
            Event::Changes(Changes {
                prefix,
                revision,
                changes,
            })
        });
        let answer = match self.loses && of_a_verdict {
            true => Answer::Failed,
            false => Answer::Committed(revision),
        };
        (answer, told.collect())
    }

    fn find(&mut self, backend: &BackendId, health: Health) {
        self.find_of(0, backend, health);
    }

    fn find_of(&mut self, life: u64, backend: &BackendId, health: Health) {
        self.tell(Event::Found(Finding {
            backend: backend.clone(),
            health,
            reason: "seen".into(),
            at: Timestamp(0),
            life,
        }));
    }

    fn stands(&self, backend: &BackendId) -> Option<Health> {
        self.record(backend).map(|verdict| verdict.health)
    }

    fn record(&self, backend: &BackendId) -> Option<&VerdictRecord> {
        match &self.store.get(&Key::Verdict(backend.clone()))?.1 {
            Value::Verdict(verdict) => Some(verdict),
            other => panic!("{other:?}"),
        }
    }
}

fn backend(port: u16) -> BackendId {
    BackendId {
        load_balancer: Name::parse("shop").unwrap(),
        pool: Name::parse("web").unwrap(),
        address: ([10, 0, 0, 1], port).into(),
    }
}

fn wanted(ports: std::ops::Range<u16>) -> Event {
    let wish = Wish::uncounted(Arc::new(HealthCheck::default()));
    let wanted: Wanted = ports.map(|port| (backend(port), wish.clone())).collect();
    Event::Wanted(Arc::new(wanted))
}

/// Scenario: addresses come and go for months, as with containers; all slots stay here. Only those that are wanted now
/// are remembered.
#[test]
fn backends_that_are_gone_are_forgotten() {
    let mut world = World::new();
    for month in 0..50 {
        let ports = month * 100..month * 100 + 100;
        world.tell(wanted(ports.clone()));
        for port in ports {
            world.find(&backend(port), Health::Up);
            assert_eq!(world.stands(&backend(port)), Some(Health::Up));
        }
        assert!(world.member.remembers() <= 200, "{}", world.member.remembers());
    }
    world.tell(wanted(0..0));
    assert_eq!(world.member.remembers(), 0);
}

/// Scenario: the answer to the write of a verdict is lost, and the backend goes out of the config. It is remembered
/// until the write is certain, or one that lands late would undo what is found when it comes back.
#[test]
fn who_has_a_write_under_way_is_not_forgotten() {
    let mut world = World::new();
    world.tell(wanted(1..2));
    world.loses = true;
    world.find(&backend(1), Health::Up);
    world.tell(wanted(0..0));
    assert_eq!(world.member.remembers(), 1);
    world.loses = false;
    world.pass(1000);
    world.tell(wanted(0..0));
    assert_eq!(world.member.remembers(), 0);
    world.tell(wanted(1..2));
    world.find(&backend(1), Health::Down);
    assert_eq!(world.stands(&backend(1)), Some(Health::Down));
}

/// Scenario: a member was found to be up, left, and is back as another one, of which the same is found; also by who has
/// just begun and reads first what stands there. It is written, or nobody would hear that it is about this one.
#[test]
fn the_same_of_another_membership_is_written() {
    let mut world = World::new();
    world.tell(wanted(1..2));
    world.find_of(7, &backend(1), Health::Up);
    world.find_of(8, &backend(1), Health::Up);
    assert_eq!(world.record(&backend(1)).unwrap().life, 8);
    let mut after = World::new();
    after.store.extend(world.store);
    after.tell(wanted(1..2));
    after.find_of(9, &backend(1), Health::Up);
    assert_eq!(after.record(&backend(1)).unwrap().life, 9);
}

/// Scenario: a verdict stands that somebody else wrote, on a backend that is not known here. It is deleted under the
/// conditions of a verdict that is written; not in another revision than was meant, and not by who has stopped.
#[test]
fn what_stands_about_the_unknown_is_taken_back() {
    let mut world = World::new();
    let key = Key::Verdict(backend(1));
    world.tell(wanted(1..2));
    world.find(&backend(1), Health::Up);
    let (revision, _) = world.store[&key];
    let name = world.member.name().clone();
    let still = |key: Key| Condition::Unchanged(key.clone(), world.store[&key].0);
    let expected = Transaction {
        conditions: vec![
            still(Key::Assignment(name.clone())),
            still(Key::Worker(name)),
            still(key.clone()),
        ],
        writes: vec![Write::Delete(key.clone())],
    };
    let actions = world
        .member
        .handle(Event::Unknown(backend(1), revision), world.now);
    assert!(
        matches!(&actions[..], [Action::Call(_, Call::Commit(made))] if *made == expected),
        "{actions:?}"
    );
    world.tell(Event::Unknown(backend(1), revision - 1));
    assert_eq!(
        world.stands(&backend(1)),
        Some(Health::Up),
        "it was written since"
    );
    world.tell(Event::Unknown(backend(1), revision));
    assert_eq!(world.stands(&backend(1)), None);
    world.find(&backend(1), Health::Down);
    world.pass(1000);
    assert_eq!(world.stands(&backend(1)), Some(Health::Down), "it is known again");
    world.tell(Event::Stop);
    let actions = world
        .member
        .handle(Event::Unknown(backend(1), revision), world.now);
    assert_eq!(actions, []);
}
