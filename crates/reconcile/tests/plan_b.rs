//! Plan B and the board, step by step. (Under faults: `cluster`.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_reconcile::cluster::board::{Board, Source, Taken};
use evenkeel_reconcile::cluster::records::VerdictRecord;
use evenkeel_reconcile::plan_b::{Phase, PlanB, Sight, Trouble};
use model::config::Name;
use model::state::{BackendId, Health, Timestamp, Verdict};

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

/// Scenario: workers work, nobody leads for a while.
#[test]
fn a_missing_leader_alone_is_no_trouble() {
    let mut plan_b = following();
    assert_eq!(
        plan_b.see(
            Sight {
                led: false,
                given_out: false,
                ..WELL
            },
            100_000
        ),
        None
    );
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
    }
}

/// Scenario: a hint overtakes the watch; a late one comes after both; somebody forges an epoch.
#[test]
fn the_board_takes_what_is_newer_and_nothing_else() {
    let (mut board, backend) = (Board::default(), backend());
    let up = |board: &Board| {
        board
            .belief(&backend, Source::Orchestrator)
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
    let source = |board: &Board, preferred| board.belief(&backend, preferred).map(|belief| belief.source);
    assert_eq!(source(&board, Source::Own), Some(Source::Orchestrator));
    board.own(Verdict {
        backend: backend.clone(),
        health: Health::Down,
        reason: "own".to_owned(),
        life: 0,
    });
    assert_eq!(source(&board, Source::Own), Some(Source::Own));
    assert_eq!(source(&board, Source::Orchestrator), Some(Source::Orchestrator));
    board.forget_own();
    assert_eq!(source(&board, Source::Own), Some(Source::Orchestrator));
    board.own(Verdict {
        backend: backend.clone(),
        health: Health::Down,
        reason: "own".to_owned(),
        life: 0,
    });
    board.keep(|_| false);
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
    assert_eq!(board.stored(&one).unwrap().health, Health::Down);
    assert!(board.stored(&three).is_none());
    assert_eq!(board.store(&one, 5, Some(verdict(Health::Up, 2))), Taken::New);
    assert_eq!(board.store(&three, 4, Some(verdict(Health::Up, 1))), Taken::Old);
}
