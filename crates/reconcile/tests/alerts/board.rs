//! When an alert fires.

use std::time::Duration;

use evenkeel_reconcile::alerts::board::Board;
use evenkeel_reconcile::alerts::conditions::Condition;
use evenkeel_reconcile::alerts::{MAX_ALERTS, Moment};
use model::alert::{AlertId, MAX_SUMMARY_CHARS};
use model::config::Alerts;

use crate::support::{at, backend_down, config_refused, firing, observe, pool_down};

/// Scenario: a backend is down for longer than it may be, then up. It fires in between, and exactly then.
#[test]
fn a_backend_that_stays_down_fires_and_ends() {
    let (mut board, rules) = (Board::default(), Alerts::default());
    let down = [backend_down("shop", 9001)];
    observe(&mut board, 0, &down, &rules);
    assert_eq!(board.next_ms(&rules), Some(30_000));
    observe(&mut board, 29_999, &down, &rules);
    assert_eq!(firing(&board), [""; 0]);
    board.advance(at(30_000), &rules);
    assert_eq!(firing(&board), ["backend_down shop/default/10.0.0.1:9001"]);
    assert_eq!(board.next_ms(&rules), None);
    observe(&mut board, 31_000, &[], &rules);
    assert_eq!(board.all().count(), 0);
}

/// Scenario: a backend that is up again before its time, over and over. It never fires.
#[test]
fn a_backend_that_flaps_within_its_time_does_not_fire() {
    let (mut board, rules) = (Board::default(), Alerts::default());
    for round in 0..20 {
        observe(&mut board, round * 40_000, &[backend_down("shop", 1)], &rules);
        observe(&mut board, round * 40_000 + 29_000, &[], &rules);
        assert_eq!(firing(&board), [""; 0]);
    }
}

/// Scenario: the time that it must hold is changed while it is pending. The new one counts.
#[test]
fn a_changed_time_counts_for_what_is_pending() {
    let mut board = Board::default();
    let rules = Alerts::default();
    observe(&mut board, 0, &[backend_down("shop", 1)], &rules);
    let quick = Alerts {
        backend_down_for: Duration::from_secs(1),
        ..rules
    };
    assert_eq!(board.next_ms(&quick), Some(1000));
    board.advance(at(1000), &quick);
    assert_eq!(board.firing().count(), 1);
}

/// Scenario: 5,000 backends are down. A thousand are told, the important ones among them, and one says how many
/// are not; those that are told stay the same although others that come earlier in order go down later.
#[test]
fn beyond_the_limit_one_alert_says_how_many_there_are() {
    let (mut board, rules) = (Board::default(), Alerts::default());
    let down =
        |from: u16, to: u16| -> Vec<AlertId> { (from..to).map(|port| backend_down("shop", port)).collect() };
    let mut ids = vec![config_refused("n"), pool_down("shop")];
    ids.extend(down(1000, 6000));
    observe(&mut board, 0, &ids, &rules);
    observe(&mut board, 30_000, &ids, &rules);
    let told = firing(&board);
    assert_eq!(told.len(), MAX_ALERTS + 1);
    assert_eq!(board.left_out(), 5002 - MAX_ALERTS);
    assert_eq!(
        told[..3],
        ["too_many_alerts n", "config_refused n", "pool_down shop/default"]
    );
    let note = board.firing().next().unwrap();
    assert!(note.summary.contains("4002 are not told"), "{}", note.summary);

    ids.splice(2..2, down(1, 1000));
    observe(&mut board, 31_000, &ids, &rules);
    assert_eq!(firing(&board), told);

    // Room becomes free: those that were left out follow, and in the end nothing is left out.
    observe(&mut board, 32_000, &ids[..500], &rules);
    assert_eq!((board.left_out(), board.all().count()), (0, 500));
}

/// Scenario: reasons of any length and script are cut, and a new reason is taken over without firing anew.
#[test]
fn summaries_are_short_and_fresh() {
    let (mut board, rules) = (Board::default(), Alerts::default());
    let long = "ä".repeat(MAX_SUMMARY_CHARS * 2);
    let told = |ms: u64, why: &str, board: &mut Board| {
        let condition = Condition {
            id: config_refused("n"),
            why: why.to_owned().into(),
            since: None,
            own: true,
        };
        let now: Moment = at(ms);
        board.observe(now, &"n".into(), std::iter::once(condition), &rules);
        let alert = board.firing().next().unwrap();
        (alert.summary.clone(), alert.since, board.generation())
    };
    let (summary, since, first) = told(5, &long, &mut board);
    assert_eq!(summary.chars().count(), MAX_SUMMARY_CHARS);
    assert!(summary.ends_with('…'));
    assert_eq!(told(6, &long, &mut board).2, first);
    let (summary, still, second) = told(7, "short", &mut board);
    assert_eq!((summary.as_str(), still), ("short", since));
    assert_ne!(second, first);
}

/// Scenario: a thousand backends are down when their pools go down with them, and a certificate is about to end. The
/// pools take the place of backends; the certificate waits, for it wakes nobody, but goes before backends. Those that
/// made room are counted, and have not ended: when there is room again they fire as before.
#[test]
fn what_is_more_important_pushes_out_what_is_less() {
    let (mut board, rules) = (Board::default(), Alerts::default());
    let backends: Vec<AlertId> = (0..1000).map(|port| backend_down("shop", 1000 + port)).collect();
    observe(&mut board, 0, &backends, &rules);
    observe(&mut board, 30_000, &backends, &rules);
    assert_eq!(firing(&board).len(), MAX_ALERTS);

    let mut all = backends.clone();
    all.extend(["a", "b", "c"].map(pool_down));
    all.push(config_refused("n"));
    let before = board.generation();
    observe(&mut board, 31_000, &all, &rules);
    assert_ne!(board.generation(), before);
    assert_eq!((board.left_out(), board.pushed_out()), (4, 4));
    observe(&mut board, 61_000, &all, &rules);
    assert_eq!((board.left_out(), board.pushed_out()), (4, 4));
    let told = firing(&board);
    assert_eq!(told.len(), MAX_ALERTS + 1);
    let first = ["too_many_alerts n", "config_refused n", "pool_down a/default"];
    assert_eq!(told[..3], first);
    let out: Vec<&AlertId> = backends.iter().filter(|id| board.is_pushed_out(id)).collect();
    let last: Vec<&AlertId> = backends[996..].iter().collect();
    assert_eq!(out, last);

    // One of those that made room ends, and one that did not: there is room for one of the others, which still fires.
    all.retain(|id| *id != backends[999] && *id != backends[0]);
    observe(&mut board, 62_000, &all, &rules);
    assert!(!board.is_pushed_out(&backends[999]));
    let out = backends.iter().filter(|id| board.is_pushed_out(id)).count();
    assert_eq!((out, board.left_out(), board.pushed_out()), (2, 2, 4));
    assert!(firing(&board).contains(&backends[996].to_string()));
}
