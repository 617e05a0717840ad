//! Plan B and the board, step by step. (Under faults: `cluster`.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_reconcile::cluster::board::{Board, Source, Taken};
use evenkeel_reconcile::cluster::records::VerdictRecord;
use evenkeel_reconcile::plan_b::{Phase, PlanB, Sight, TAKEN_OVER_MS, Trouble};
use model::config::Name;
use model::state::{BackendId, Health, Life, Timestamp, Verdict};

const WELL: Sight = Sight {
    connected: true,
    workers: 3,
    led: true,
    given_out: true,
};
const DEAF: Sight = Sight {
    connected: false,
    ..WELL
};
const ALONE: Sight = Sight {
    connected: true,
    workers: 0,
    led: false,
    given_out: false,
};

fn following() -> PlanB {
    let mut plan_b = PlanB::new(15_000, 4000, 0);
    assert_eq!(plan_b.see(WELL, 10), Some(Phase::Following));
    plan_b
}

/// Scenario: all orchestrators die, stay away, come back.
#[test]
fn it_holds_then_looks_itself_then_hands_back() {
    let mut plan_b = following();
    let no_orchestrator = Trouble::NoOrchestrator;
    assert_eq!(
        plan_b.see(ALONE, 1000),
        Some(Phase::Holding(no_orchestrator, 1000))
    );
    assert_eq!(plan_b.wake_at(), 16_000);
    assert_eq!(plan_b.see(ALONE, 15_999), None);
    assert_eq!(plan_b.see(ALONE, 16_000), Some(Phase::OwnChecks(no_orchestrator)));
    // One is back, and has not given everything out yet.
    let coming = Sight {
        workers: 1,
        given_out: false,
        ..WELL
    };
    assert_eq!(plan_b.see(coming, 20_000), None);
    assert_eq!(plan_b.see(WELL, 21_000), Some(Phase::HandingBack(21_000)));
    assert!(
        plan_b.phase().checks(),
        "both check until all has been looked at once"
    );
    assert_eq!(plan_b.wake_at(), 25_000);
    assert_eq!(plan_b.see(WELL, 24_999), None);
    assert_eq!(plan_b.see(WELL, 25_000), Some(Phase::Following));
    assert!(!plan_b.phase().checks());
}

/// Scenario: a short trouble changes nothing but the phase; the reason may change meanwhile, its time does not.
#[test]
fn a_short_trouble_is_only_held_out() {
    let mut plan_b = following();
    plan_b.see(DEAF, 1000);
    assert_eq!(plan_b.phase(), Phase::Holding(Trouble::StoreUnreachable, 1000));
    plan_b.see(ALONE, 2000);
    assert_eq!(plan_b.phase(), Phase::Holding(Trouble::NoOrchestrator, 1000));
    assert_eq!(plan_b.see(WELL, 15_999), Some(Phase::Following));
}

/// Scenario: they go away again while being handed back to.
#[test]
fn own_checks_go_on_when_handing_back_fails() {
    let mut plan_b = following();
    plan_b.see(ALONE, 0);
    plan_b.see(ALONE, 15_000);
    plan_b.see(WELL, 16_000);
    assert_eq!(
        plan_b.see(DEAF, 17_000),
        Some(Phase::OwnChecks(Trouble::StoreUnreachable))
    );
    assert_eq!(plan_b.see(WELL, 18_000), Some(Phase::HandingBack(18_000)));
    assert_eq!(plan_b.see(WELL, 21_999), None);
    assert_eq!(plan_b.see(WELL, 22_000), Some(Phase::Following));
}

/// Scenario: while it is being handed back to, slots change hands. Who takes them goes on from what is stored, and has the
/// whole time for it.
#[test]
fn what_changes_hands_while_handing_back_has_the_whole_time() {
    let partly = Sight {
        given_out: false,
        ..WELL
    };
    let mut plan_b = following();
    plan_b.see(ALONE, 0);
    plan_b.see(ALONE, 15_000);
    plan_b.see(WELL, 16_000);
    plan_b.see(partly, 19_000);
    assert_eq!(plan_b.see(WELL, 23_000), Some(Phase::HandingBack(23_000)));
    assert_eq!(plan_b.wake_at(), 27_000);
    assert_eq!(plan_b.see(WELL, 26_999), None);
    assert_eq!(plan_b.see(WELL, 27_000), Some(Phase::Following));
}

/// Scenario: an orchestrator is there, and some slots are with nobody. That is put up with for as long as a change of
/// hands may take, and begins anew whenever everything is checked; when it lasts, the server looks itself. It hands back
/// when everything is given out.
#[test]
fn slots_that_nobody_takes_are_looked_after() {
    let partly = Sight {
        given_out: false,
        ..WELL
    };
    let mut plan_b = following();
    assert_eq!(plan_b.see(partly, 1000), None);
    assert_eq!(plan_b.wake_at(), 1000 + 15_000 + TAKEN_OVER_MS);
    assert_eq!(plan_b.see(WELL, 20_000), None);
    assert_eq!(plan_b.wake_at(), u64::MAX);
    assert_eq!(plan_b.see(partly, 21_000), None);
    assert_eq!(plan_b.see(partly, 21_000 + 24_999), None);
    assert_eq!(
        plan_b.see(partly, 21_000 + 25_000),
        Some(Phase::OwnChecks(Trouble::Unchecked))
    );
    assert_eq!(plan_b.see(partly, 60_000), None, "it goes on looking");
    assert_eq!(plan_b.see(WELL, 61_000), Some(Phase::HandingBack(61_000)));
    assert_eq!(plan_b.see(WELL, 65_000), Some(Phase::Following));
    assert_eq!(plan_b.see(partly, 66_000), None);
}

/// Scenario: workers work, nobody leads for a while.
#[test]
fn a_missing_leader_alone_is_no_trouble() {
    let mut plan_b = following();
    assert_eq!(plan_b.see(Sight { led: false, ..WELL }, 100_000), None);
}

/// Scenario: a server starts while everything is away.
#[test]
fn a_server_that_starts_alone_looks_itself_in_time() {
    let mut plan_b = PlanB::new(15_000, 4000, 500);
    assert_eq!(plan_b.see(DEAF, 15_499), None);
    assert_eq!(
        plan_b.see(DEAF, 15_500),
        Some(Phase::OwnChecks(Trouble::StoreUnreachable))
    );
}

fn backend() -> BackendId {
    let name = |text: &str| Name::parse(text).unwrap();
    BackendId {
        load_balancer: name("shop"),
        pool: name("web"),
        address: "10.0.0.1:80".parse().unwrap(),
    }
}

fn verdict(health: Health, epoch: u64) -> VerdictRecord {
    let by = Name::parse("a-1").unwrap();
    VerdictRecord {
        health,
        reason: health.as_str().to_owned(),
        at: Timestamp(0),
        by,
        epoch,
        life: 0,
    }
}

/// Scenario: a hint overtakes the watch; a late one comes after both; somebody forges an epoch.
#[test]
fn the_board_takes_what_is_newer_and_nothing_else() {
    let (mut board, backend) = (Board::default(), backend());
    let up = |board: &Board| {
        board
            .belief(&backend, 0, Source::Orchestrator)
            .map(|belief| belief.health)
    };
    assert_eq!(
        board.store(&backend, 10, Some(verdict(Health::Up, 3))),
        Taken::New
    );
    assert_eq!(
        board.store(&backend, 8, Some(verdict(Health::Down, 3))),
        Taken::Old
    );
    assert_eq!(
        board.store(&backend, 10, Some(verdict(Health::Down, 3))),
        Taken::Old
    );
    assert_eq!(
        board.store(&backend, 12, Some(verdict(Health::Down, 2))),
        Taken::EarlierEpoch
    );
    assert_eq!(up(&board), Some(Health::Up));
    assert_eq!(board.store(&backend, 13, None), Taken::New);
    assert_eq!(up(&board), None);
}

/// Scenario: own checks have begun, and have had no result of this backend yet; then they have; then they end.
#[test]
fn own_verdicts_count_when_they_are_preferred_and_there() {
    let (mut board, backend) = (Board::default(), backend());
    board.store(&backend, 10, Some(verdict(Health::Up, 3)));
    let source = |board: &Board, preferred| board.belief(&backend, 0, preferred).map(|belief| belief.source);
    assert_eq!(source(&board, Source::Own), Some(Source::Orchestrator));
    board.own(Verdict {
        backend: backend.clone(),
        health: Health::Down,
        reason: "own".to_owned(),
        life: Life::default(),
    });
    assert_eq!(source(&board, Source::Own), Some(Source::Own));
    assert_eq!(source(&board, Source::Orchestrator), Some(Source::Orchestrator));
    board.forget_own();
    assert_eq!(source(&board, Source::Own), Some(Source::Orchestrator));
    board.own(Verdict {
        backend: backend.clone(),
        health: Health::Down,
        reason: "own".to_owned(),
        life: Life::default(),
    });
    board.keep(|_| false, |_| false);
    assert_eq!(
        source(&board, Source::Own),
        Some(Source::Orchestrator),
        "it stands"
    );
}

/// Scenario: everything is listed anew: what is gone is gone, what differs is told, and a store that went back to
/// older revisions and epochs is believed.
#[test]
fn a_list_takes_the_place_of_all_that_was_known() {
    let (mut board, one) = (Board::default(), backend());
    let of = |port| BackendId {
        address: ([10, 9, 9, 9], port).into(),
        ..backend()
    };
    let (two, three) = (of(2), of(3));
    for backend in [&one, &two, &three] {
        board.store(backend, 10, Some(verdict(Health::Up, 5)));
    }
    let listed = vec![
        (one.clone(), 3, verdict(Health::Down, 2)),
        (two.clone(), 10, verdict(Health::Up, 5)),
    ];
    let mut changed = board.list(4, listed);
    changed.sort();
    let mut expected = vec![one.clone(), three.clone()];
    expected.sort();
    assert_eq!(changed, expected);
    assert_eq!(board.stored(&one, 0).unwrap().health, Health::Down);
    assert!(board.stored(&three, 0).is_none());
    assert_eq!(board.store(&one, 5, Some(verdict(Health::Up, 2))), Taken::New);
    assert_eq!(board.store(&three, 4, Some(verdict(Health::Up, 1))), Taken::Old);
}

/// Scenario: a member leaves and is back as another one. Neither what stands in the store of the one before is believed
/// of it, nor what was found here; nor the other way round, where the store knows of it first. What a version wrote that
/// knew no numbers is about no member.
#[test]
fn a_verdict_is_about_one_membership() {
    let (mut board, backend) = (Board::default(), backend());
    let of = |life, health| VerdictRecord {
        life,
        ..verdict(health, 3)
    };
    let believed = |board: &Board, life, source| {
        let belief = board.belief(&backend, life, source);
        belief.map(|belief| (belief.health, belief.source))
    };
    let (theirs, own) = (Source::Orchestrator, Source::Own);
    board.store(&backend, 10, Some(of(7, Health::Up)));
    assert_eq!(believed(&board, 7, theirs), Some((Health::Up, theirs)));
    for other in [0, 8] {
        assert_eq!(believed(&board, other, theirs), None);
        assert_eq!(believed(&board, other, own), None);
        assert!(board.stored(&backend, other).is_none());
    }
    board.own(Verdict {
        backend: backend.clone(),
        health: Health::Down,
        reason: "own".to_owned(),
        life: Life::of_member(8),
    });
    assert_eq!(believed(&board, 7, own), Some((Health::Up, theirs)));
    assert_eq!(believed(&board, 8, own), Some((Health::Down, own)));
    board.store(&backend, 11, Some(of(0, Health::Up)));
    assert_eq!(believed(&board, 0, theirs), Some((Health::Up, theirs)));
    assert_eq!(believed(&board, 7, theirs), None);
    assert_eq!(believed(&board, 8, theirs), None);
}
