//! What an LB server believes, and from what its own checks go on, step by step.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use bytes::Bytes;
use model::state::Health::{Down, Up};
use model::state::{BackendId, Health};
use reconcile::cluster::records::{LeaseId, WorkerRecord};
use reconcile::cluster::view::{Listing, Prefix};
use store::{Entry, Revision as At, Store};
use tempfile::TempDir;

use super::*;

const AFTER: Duration = Duration::from_secs(15);

fn backend(port: u16) -> BackendId {
    BackendId {
        load_balancer: Name::parse("shop").unwrap(),
        pool: Name::parse("web").unwrap(),
        address: ([10, 0, 0, 1], port).into(),
    }
}

fn wanted(ports: &[u16], interval: Duration) -> Arc<Wanted> {
    let wish = Wish::uncounted(Arc::new(HealthCheck {
        interval,
        ..HealthCheck::default()
    }));
    Arc::new(ports.iter().map(|port| (backend(*port), wish.clone())).collect())
}

/// One that registered itself.
fn member(port: u16, life: u64) -> Arc<Wanted> {
    let check = Arc::new(HealthCheck::default());
    Arc::new([(backend(port), Wish { check, life })].into())
}

fn verdict(port: u16, health: Health, run: u64) -> Verdict {
    verdict_of(0, port, health, run)
}

fn verdict_of(member: u64, port: u16, health: Health, run: u64) -> Verdict {
    Verdict {
        backend: backend(port),
        health,
        reason: "seen".into(),
        life: Life { member, run },
    }
}

/// What stands in the store of a verdict of `a-1`.
fn entry(life: u64, port: u16, health: Health) -> Entry {
    let record = VerdictRecord {
        health,
        reason: "seen".into(),
        at: Timestamp(0),
        by: Name::parse("a-1").unwrap(),
        epoch: 1,
        life,
    };
    Entry {
        key: format!("/t/verdicts/{}", backend(port)),
        value: Bytes::from(serde_json::to_vec(&record).unwrap()),
        created: At(5),
        changed: At(5),
        lease: None,
    }
}

/// The desk of an LB server, and what it told last.
struct Lb {
    desk: Desk,
    believes: BTreeMap<u16, Health>,
    /// What was told last of a member since it is the one that it is.
    last: Option<(Health, u64)>,
    own: Option<Vec<Target>>,
    _folder: TempDir,
}

impl Lb {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let space = Space::new(Store::embedded(folder.path()).unwrap(), "/t/");
        Self {
            desk: Desk::new(space, 4, Some(AFTER), None),
            believes: BTreeMap::new(),
            last: None,
            own: None,
            _folder: folder,
        }
    }

    fn look(&mut self, now_ms: u64) {
        self.desk.look(now_ms);
        for told in self.desk.take() {
            match told {
                Told::Belief(verdict) => {
                    self.last = Some((verdict.health, verdict.life.member));
                    self.believes
                        .insert(verdict.backend.address.port(), verdict.health);
                }
                Told::OwnTargets(targets) => self.own = Some(targets),
                _ => {}
            }
        }
    }

    /// What the hub, which passes over what is about another membership, was told of the only member.
    fn told_last(&self) -> Option<(Health, u64)> {
        let life = self.desk.wanted.get(&backend(1))?.life;
        self.last.filter(|(_, of)| *of == life)
    }

    /// These verdicts stand in the store, and no others.
    fn stands(&mut self, verdicts: &[(u16, Health)]) {
        self.stands_of(0, verdicts);
    }

    fn stands_of(&mut self, life: u64, verdicts: &[(u16, Health)]) {
        let entries = verdicts.iter().map(|(port, health)| entry(life, *port, *health));
        self.desk.follow(Followed::Listed(store::Listing {
            revision: At(9),
            entries: entries.collect(),
        }));
    }

    /// One orchestrator is there, and hears.
    fn an_orchestrator(&mut self) {
        let name = Name::parse("a-1").unwrap();
        let record = WorkerRecord {
            lease: LeaseId(1),
            acknowledged: 0,
        };
        self.desk.see(Event::Listed(Listing {
            prefix: Prefix::Workers,
            revision: 9,
            another: false,
            entries: vec![(Key::Worker(name), 5, Value::Worker(record))],
        }));
        self.desk.see(Event::Hearing);
    }

    fn standing(&self, port: u16) -> Option<Health> {
        let own = self.own.as_ref().unwrap().iter();
        let mut own = own.filter(|target| target.backend == backend(port));
        own.next()
            .unwrap()
            .standing
            .as_ref()
            .map(|standing| standing.health)
    }
}

/// Scenario: the orchestrators are gone, this LB server looks itself and has found that a backend is down, which stands
/// as up in the store. Then the config changes: its check begins anew, from what is believed here. Begun from the
/// store's verdict it would find nothing new when the backend is up again, and the backend would stay down.
#[tokio::test]
async fn own_checks_go_on_from_what_is_believed_here() {
    let mut lb = Lb::new();
    let second = Duration::from_secs(1);
    lb.desk.want(wanted(&[1, 2], second));
    lb.an_orchestrator();
    lb.stands(&[(1, Up)]);
    lb.look(0);
    assert_eq!(lb.believes, [(1, Up)].into());
    lb.desk.see(Event::CutOff);
    lb.look(1000);
    lb.look(1000 + 15_000);
    assert_eq!(lb.standing(1), Some(Up), "as it was told last");
    assert_eq!(lb.standing(2), None, "nobody knows of it");
    lb.desk.own(verdict(1, Down, 1));
    lb.desk.own(verdict(2, Up, 1));
    lb.desk.want(wanted(&[1, 2, 3], 2 * second));
    lb.look(17_000);
    assert_eq!(lb.believes, [(1, Down), (2, Up)].into());
    let seeds = [1, 2, 3].map(|port| lb.standing(port));
    assert_eq!(seeds, [Some(Down), Some(Up), None]);
}

/// Scenario: an LB server starts while the store is away, with what it believed before. That is told at once and kept
/// on; own checks go on from it. Then the store is heard: it has the word, and of what it says nothing about, the last
/// state stands.
#[tokio::test]
async fn a_start_without_a_store_goes_on_from_the_last_verdicts() {
    let mut lb = Lb::new();
    let earlier = [(1, Down), (2, Up), (3, Down), (4, Up)];
    let earlier = earlier.map(|(port, health)| verdict(port, health, 0));
    lb.desk.remember(earlier.into());
    let ports = [1, 2, 3];
    lb.desk.want(wanted(&ports, Duration::from_secs(1)));
    lb.look(0);
    assert_eq!(lb.believes, [(1, Down), (2, Up), (3, Down)].into());
    assert!(lb.desk.believes_otherwise());
    assert_eq!(
        lb.desk.believed().len(),
        4,
        "one that is not served yet is kept, too"
    );
    lb.look(14_999);
    assert!(lb.own.is_none());
    lb.look(15_000);
    assert_eq!(
        ports.map(|port| lb.standing(port)),
        [Some(Down), Some(Up), Some(Down)]
    );
    lb.an_orchestrator();
    lb.stands(&[(1, Up)]);
    lb.look(16_000);
    assert_eq!(lb.believes, [(1, Up), (2, Up), (3, Down)].into());
    assert_eq!(lb.desk.believed().len(), 3);
    lb.desk.want(wanted(&[1], Duration::from_secs(1)));
    lb.look(17_000);
    assert_eq!(lb.desk.believed().len(), 1, "who is gone is forgotten");
}

/// Scenario: a member is up, leaves and is back as another one. Nothing is believed of it, until an orchestrator says
/// something of this one; what one that had not heard of it says late of the one before changes nothing.
#[tokio::test]
async fn a_member_that_is_back_as_another_one_is_not_believed_to_be_the_one_before() {
    let mut lb = Lb::new();
    lb.an_orchestrator();
    lb.desk.want(member(1, 7));
    lb.stands_of(7, &[(1, Up)]);
    lb.look(0);
    assert_eq!(lb.told_last(), Some((Up, 7)));
    lb.desk.want(member(1, 8));
    lb.look(100);
    assert_eq!(lb.told_last(), None);
    assert!(lb.desk.believed().is_empty());
    lb.stands_of(7, &[(1, Down)]);
    lb.look(200);
    assert_eq!(lb.told_last(), None);
    lb.stands_of(8, &[(1, Down)]);
    lb.look(300);
    assert_eq!(lb.told_last(), Some((Down, 8)));
    lb.stands_of(7, &[(1, Up)]);
    lb.look(400);
    assert_eq!(
        lb.told_last(),
        Some((Down, 8)),
        "as it was, though it stands no more"
    );
    // The store may know of it first.
    lb.stands_of(9, &[(1, Up)]);
    lb.look(500);
    assert_eq!(lb.told_last(), Some((Down, 8)));
    lb.desk.want(member(1, 9));
    lb.look(600);
    assert_eq!(lb.told_last(), Some((Up, 9)));
}

/// Scenario: without orchestrators this LB server looks itself, and a member is back as another one: its check begins from
/// nothing, and what the check before finds late counts for nothing.
#[tokio::test]
async fn own_checks_are_of_one_membership() {
    let mut lb = Lb::new();
    lb.desk.want(member(1, 7));
    lb.look(0);
    lb.look(15_000);
    lb.desk.own(verdict_of(7, 1, Up, 1));
    lb.look(16_000);
    assert_eq!(lb.told_last(), Some((Up, 7)));
    lb.desk.want(member(1, 8));
    lb.look(17_000);
    let target = lb.own.as_ref().unwrap()[0].clone();
    assert_eq!((target.life, target.standing), (Life { member: 8, run: 1 }, None));
    lb.desk.own(verdict_of(7, 1, Up, 1));
    lb.look(18_000);
    assert_eq!(lb.told_last(), None);
    lb.desk.own(verdict_of(8, 1, Down, 1));
    lb.look(19_000);
    assert_eq!(lb.told_last(), Some((Down, 8)));
}

/// Scenario: an LB server starts while the store is away. A member is the one that was believed to be up, another is back
/// as another one since.
#[tokio::test]
async fn what_was_kept_is_believed_of_the_same_membership() {
    for (life, expected) in [(7, Some((Up, 7))), (8, None)] {
        let mut lb = Lb::new();
        lb.desk.remember(vec![verdict_of(7, 1, Up, 0)]);
        lb.desk.want(member(1, life));
        lb.look(0);
        assert_eq!(lb.told_last(), expected);
        assert_eq!(
            lb.desk.believed()[0],
            verdict_of(7, 1, Up, 0),
            "kept until the store is heard"
        );
    }
}

/// Scenario: an orchestrator wrote that a backend is down, lost the slot and has it back before it hears of that write: its
/// check went on from what it knew, that the backend is up, which is so again. It goes on from what it hears, though it
/// is its own word: it would find nothing new, and the store would say "down" for ever. What it found since is not undone
/// by what it wrote before that.
#[tokio::test]
async fn an_own_verdict_of_before_a_slot_was_away_is_gone_on_from() {
    let folder = TempDir::new().unwrap();
    let space = Space::new(Store::embedded(folder.path()).unwrap(), "/t/");
    let slot = Slot::of(backend(1).address, 4);
    let post = |stay| Post {
        name: Name::parse("a-1").unwrap(),
        stays: Arc::new([(slot, stay)].into()),
        leads: None,
        frozen: false,
    };
    let mut desk = Desk::new(space, 4, None, Some((post(1), Arc::default(), AFTER)));
    desk.share_out(wanted(&[1], Duration::from_secs(1)));
    desk.follow(Followed::Listed(store::Listing {
        revision: At(9),
        entries: vec![entry(0, 1, Up)],
    }));
    desk.post(post(2));
    let target = |desk: &mut Desk| {
        let told = desk.take().into_iter().filter_map(|told| match told {
            Told::Targets(targets) => targets.into_iter().next(),
            _ => None,
        });
        told.last()
    };
    let heard = |desk: &mut Desk, revision, health| {
        desk.follow(Followed::Changed(store::Changes {
            revision: At(revision),
            events: [store::Event::Put(entry(0, 1, health))].into(),
        }));
    };
    let before = target(&mut desk).unwrap();
    assert_eq!(before.standing.unwrap().health, Up);
    heard(&mut desk, 10, Down);
    let after = target(&mut desk).unwrap();
    assert_eq!(after.standing.as_ref().unwrap().health, Down);
    assert_ne!(after.life, before.life);
    desk.found(Verdict {
        life: after.life,
        ..verdict(1, Up, 0)
    });
    let told = |desk: &mut Desk| {
        let parts = desk.take().into_iter();
        parts
            .filter(|told| matches!(told, Told::Part(_) | Told::Targets(_)))
            .count()
    };
    assert_eq!(told(&mut desk), 1, "it is written");
    heard(&mut desk, 11, Down);
    assert_eq!(told(&mut desk), 0, "that is on its way");
}

/// Scenario: the orchestrators are back and go on from what stands in the store, from before the trouble. Own checks end
/// when each of theirs could have overturned that: not after one result, where three in a row are needed.
#[test]
fn handing_back_waits_until_old_verdicts_could_be_overturned() {
    let check = HealthCheck {
        interval: Duration::from_secs(2),
        fast_interval: Duration::from_millis(500),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
        jitter: 10,
        ..HealthCheck::default()
    };
    let first = 2_200 + 1_000;
    let two_more = 2 * (550 + 1_000);
    assert_eq!(surely_found(&check), first + two_more + WRITTEN_MS);
}
