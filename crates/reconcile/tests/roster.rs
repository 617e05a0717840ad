//! Whom an orchestrator checks, and from what each check goes on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use evenkeel_reconcile::cluster::Slot;
use evenkeel_reconcile::cluster::roster::{Heard, Roster, Stays, Wanted, Wish};
use model::config::{HealthCheck, Name};
use model::state::Health::{Down, Up};
use model::state::{BackendId, Health, Life, Standing, Target, Verdict};

const SLOTS: u16 = 16;

fn backend(lb: &str, port: u16) -> BackendId {
    BackendId {
        load_balancer: Name::parse(lb).unwrap(),
        pool: Name::parse("web").unwrap(),
        address: ([10, 0, 0, 1], port).into(),
    }
}

fn slot(port: u16) -> Slot {
    Slot::of(backend("a", port).address, SLOTS)
}

fn wanted(backends: &[BackendId]) -> Arc<Wanted> {
    let wish = Wish::uncounted(Arc::new(HealthCheck::default()));
    Arc::new(backends.iter().map(|b| (b.clone(), wish.clone())).collect())
}

/// These are members, each with its number.
fn members(members: &[(BackendId, u64)]) -> Arc<Wanted> {
    let check = Arc::new(HealthCheck::default());
    let wish = |life| Wish {
        check: check.clone(),
        life,
    };
    Arc::new(members.iter().map(|(b, life)| (b.clone(), wish(*life))).collect())
}

fn stays(of: &[(u16, u64)]) -> Arc<Stays> {
    Arc::new(of.iter().map(|(port, stay)| (slot(*port), *stay)).collect())
}

fn standing(health: Health) -> Standing {
    Standing {
        health,
        reason: "seen".into(),
    }
}

/// As the check that runs now would find it.
fn verdict(roster: &Roster, backend: &BackendId, health: Health) -> Verdict {
    Verdict {
        backend: backend.clone(),
        health,
        reason: "seen".into(),
        life: of(roster, backend).map_or_else(Life::default, |target| target.life),
    }
}

fn nothing(_: &BackendId, _: u64) -> Option<Standing> {
    None
}

fn of(roster: &Roster, backend: &BackendId) -> Option<Target> {
    roster.targets().into_iter().find(|t| t.backend == *backend)
}

/// Two ports in different slots.
fn two_ports() -> (u16, u16) {
    let other = (2..).find(|port| slot(*port) != slot(1)).unwrap();
    (1, other)
}

/// Scenario: only what falls into a slot that runs here is checked, and it goes on from what stands.
#[test]
fn what_falls_into_a_slot_that_runs_here_is_checked_from_what_stands() {
    let (one, two) = two_ports();
    let mut roster = Roster::new(SLOTS);
    let known = BTreeMap::from([(backend("a", one), standing(Down))]);
    let board = |backend: &BackendId, _: u64| known.get(backend).cloned();
    roster.want(
        wanted(&[backend("a", one), backend("b", one), backend("a", two)]),
        board,
    );
    assert!(roster.targets().is_empty(), "nothing runs here yet");
    roster.run(stays(&[(one, 1)]), board);
    let told: Vec<_> = roster
        .targets()
        .into_iter()
        .map(|t| (t.backend, t.standing))
        .collect();
    assert_eq!(
        told,
        [
            (backend("a", one), Some(standing(Down))),
            (backend("b", one), None)
        ]
    );
    roster.run(Arc::default(), board);
    assert!(roster.targets().is_empty());
}

/// Scenario: the slots came before the config was known. That is no reason to begin from nothing.
#[test]
fn slots_that_came_before_the_config_go_on_all_the_same() {
    let mut roster = Roster::new(SLOTS);
    roster.run(stays(&[(1, 1)]), nothing);
    roster.want(wanted(&[backend("a", 1)]), |_, _| Some(standing(Up)));
    assert_eq!(
        of(&roster, &backend("a", 1)).unwrap().standing,
        Some(standing(Up))
    );
}

/// Scenario: while the slot stays, a backend is added, another's check is changed. Both begin from nothing; who was
/// there goes on undisturbed.
#[test]
fn what_is_new_within_a_stay_begins_from_nothing() {
    let mut roster = Roster::new(SLOTS);
    roster.run(stays(&[(1, 1)]), nothing);
    roster.want(wanted(&[backend("a", 1), backend("b", 1)]), |_, _| {
        Some(standing(Up))
    });
    let before = of(&roster, &backend("a", 1)).unwrap();
    let mut next = (*wanted(&[backend("a", 1), backend("c", 1)])).clone();
    let changed = HealthCheck {
        interval: Duration::from_secs(77),
        ..HealthCheck::default()
    };
    next.insert(backend("b", 1), Wish::uncounted(Arc::new(changed)));
    roster.want(Arc::new(next), |_, _| Some(standing(Up)));
    assert_eq!(of(&roster, &backend("a", 1)).unwrap(), before);
    assert_eq!(of(&roster, &backend("b", 1)).unwrap().standing, None);
    assert_eq!(of(&roster, &backend("c", 1)).unwrap().standing, None);
}

/// Scenario: a slot leaves and comes back before anybody looked: what was found before counts no more.
#[test]
fn a_slot_that_was_away_begins_another_life() {
    let mut roster = Roster::new(SLOTS);
    let id = backend("a", 1);
    roster.want(wanted(std::slice::from_ref(&id)), nothing);
    roster.run(stays(&[(1, 1)]), nothing);
    let late = verdict(&roster, &id, Up);
    assert_eq!(roster.found(late.clone()), Some(late.clone()));
    let before = of(&roster, &id).unwrap();
    roster.run(stays(&[(1, 2)]), |_, _| Some(standing(Down)));
    let after = of(&roster, &id).unwrap();
    assert_ne!(before.life, after.life);
    assert_eq!(after.standing, Some(standing(Down)));
    assert_eq!(roster.found(late), None, "of the life before");
    assert_eq!(roster.heard(&id, Some(standing(Down))), Heard::Nothing);
}

/// Scenario: the old owner's last verdict is seen only after the check has begun here. The check goes on from that
/// one; those that share it as well.
#[test]
fn a_verdict_seen_late_is_gone_on_from() {
    let mut roster = Roster::new(SLOTS);
    let (a, b) = (backend("a", 1), backend("b", 1));
    roster.want(wanted(&[a.clone(), b.clone()]), nothing);
    roster.run(stays(&[(1, 1)]), |_, _| Some(standing(Up)));
    let before = of(&roster, &a).unwrap();
    assert_eq!(roster.heard(&a, Some(standing(Up))), Heard::Nothing);
    assert_eq!(roster.heard(&a, Some(standing(Down))), Heard::GoOn);
    let after = of(&roster, &a).unwrap();
    assert_ne!(before.life, after.life);
    assert_eq!(after.standing, Some(standing(Down)));
    assert_eq!(of(&roster, &b).unwrap().life, after.life, "still one check");
}

/// Scenario: a healthy backend came here with its slot, so its check goes on from what stood and finds nothing new. Then
/// the verdict is deleted: tidied away by a leader whose config is behind, or gone with everything else. It is written
/// again, or nobody would ever hear of it.
#[test]
fn what_was_gone_on_from_is_written_again_when_it_is_deleted() {
    let mut roster = Roster::new(SLOTS);
    let (id, new) = (backend("a", 1), backend("b", 1));
    roster.want(wanted(&[id.clone(), new.clone()]), nothing);
    roster.run(stays(&[(1, 1)]), |backend, _| {
        (*backend == id).then(|| standing(Up))
    });
    let again = verdict(&roster, &id, Up);
    assert_eq!(roster.heard(&id, None), Heard::Write(again));
    assert_eq!(
        roster.heard(&new, None),
        Heard::Nothing,
        "nothing is known of it yet"
    );
}

/// Scenario: a verdict was reached here, and something else stands in the store, or nothing: it is written again.
#[test]
fn what_was_found_here_is_written_over_what_stands() {
    let mut roster = Roster::new(SLOTS);
    let id = backend("a", 1);
    roster.want(wanted(std::slice::from_ref(&id)), nothing);
    roster.run(stays(&[(1, 1)]), nothing);
    assert_eq!(
        roster.heard(&id, Some(standing(Down))),
        Heard::Nothing,
        "it decides anew"
    );
    let found = verdict(&roster, &id, Up);
    assert!(roster.found(found.clone()).is_some());
    assert_eq!(roster.heard(&id, Some(standing(Up))), Heard::Nothing);
    let again = Heard::Write(found);
    assert_eq!(roster.heard(&id, Some(standing(Down))), again);
    assert_eq!(roster.heard(&id, None), again);
    let of_nobody = verdict(&roster, &backend("a", 999), Up);
    assert_eq!(roster.found(of_nobody), None);
    assert_eq!(roster.heard(&backend("a", 999), None), Heard::Nothing);
}

/// Scenario: a member was found to be up, leaves and is back before anybody looked. It is checked from nothing, what the
/// check before finds late counts for nothing, and that its predecessor's verdict stands in the store is no reason to
/// write anything, nor to go on from it.
#[test]
fn a_member_that_is_back_as_another_one_begins_from_nothing() {
    let mut roster = Roster::new(SLOTS);
    let id = backend("a", 1);
    let stands = |_: &BackendId, life| (life == 7).then(|| standing(Up));
    roster.run(stays(&[(1, 1)]), stands);
    roster.want(members(&[(id.clone(), 7)]), stands);
    let before = of(&roster, &id).unwrap();
    assert_eq!(before.standing, Some(standing(Up)));
    let late = verdict(&roster, &id, Down);
    assert_eq!(roster.found(late.clone()), Some(late.clone()));
    roster.want(members(&[(id.clone(), 8)]), stands);
    let after = of(&roster, &id).unwrap();
    assert_eq!((after.life.member, after.standing), (8, None));
    assert_ne!(after.life, before.life);
    assert_eq!(roster.found(late), None);
    assert_eq!(roster.life(&id), Some(8));
    assert_eq!(roster.heard(&id, None), Heard::Nothing);
    let own = verdict(&roster, &id, Down);
    assert_eq!(roster.found(own.clone()), Some(own.clone()));
    assert_eq!(own.life.member, 8);
    // An orchestrator that had not heard of it wrote of the one before: nothing stands of this one.
    assert_eq!(roster.heard(&id, None), Heard::Write(own));
}

/// Scenario: a slot comes here, with a member of which the verdict that stands is about the one before.
#[test]
fn a_slot_that_comes_goes_on_from_what_is_about_this_membership() {
    let stands = |_: &BackendId, life| (life == 7).then(|| standing(Down));
    for (life, expected) in [(7, Some(standing(Down))), (8, None)] {
        let mut roster = Roster::new(SLOTS);
        let id = backend("a", 1);
        roster.want(members(&[(id.clone(), life)]), stands);
        roster.run(stays(&[(1, 1)]), stands);
        assert_eq!(of(&roster, &id).unwrap().standing, expected);
    }
}

/// Scenario: an address is declared in one load balancer, and has registered in another. It is back as another one: its
/// check is not that of the declared backend, which knows what was found of it before; that one goes on undisturbed.
#[test]
fn a_membership_shares_no_check_that_knows_of_the_one_before() {
    let mut roster = Roster::new(SLOTS);
    let (declared, member) = (backend("a", 1), backend("b", 1));
    roster.run(stays(&[(1, 1)]), nothing);
    roster.want(members(&[(declared.clone(), 0), (member.clone(), 7)]), nothing);
    let before = of(&roster, &declared).unwrap();
    assert_ne!(before.life, of(&roster, &member).unwrap().life);
    roster.want(members(&[(declared.clone(), 0), (member.clone(), 8)]), nothing);
    assert_eq!(of(&roster, &declared).unwrap(), before);
    assert_ne!(of(&roster, &member).unwrap().life, before.life);
}
