//! What a receiver is told, and when.

use evenkeel_reconcile::alerts::board::Board;
use evenkeel_reconcile::alerts::outbox::{
    ALERTMANAGER_REPEAT_MS, FIRST_PAUSE_MS, LONGEST_PAUSE_MS, Notification, Outbox, Outcome, Timing,
};
use evenkeel_reconcile::alerts::{MAX_ALERTS, MAX_TOLD};
use model::alert::AlertId;
use model::config::{Alerts, ReceiverKind};

use crate::support::{at, backend_down, config_refused, observe, pool_down};

/// A receiver, and what there is to tell it.
struct World {
    board: Board,
    outbox: Outbox,
    rules: Alerts,
    shared: bool,
}

impl World {
    fn new(kind: ReceiverKind) -> Self {
        let rules = Alerts {
            backend_down_for: std::time::Duration::ZERO,
            pool_unhealthy_for: std::time::Duration::ZERO,
            ..Alerts::default()
        };
        Self {
            board: Board::default(),
            outbox: Outbox::new(kind, Timing::of(kind, &rules)),
            rules,
            shared: true,
        }
    }

    fn hold(&mut self, ms: u64, ids: &[AlertId]) {
        observe(&mut self.board, ms, ids, &self.rules);
        self.outbox.sync(at(ms), &self.board, self.shared);
    }

    /// What is sent now, in words: `+` fires, `-` has ended.
    fn take(&mut self, ms: u64) -> Option<String> {
        self.outbox.take(at(ms)).map(|sent| words(&sent))
    }

    fn done(&mut self, ms: u64, outcome: Outcome) {
        self.outbox.done(at(ms), outcome, 1 << 63);
    }

    /// Sent and taken.
    fn deliver(&mut self, ms: u64) -> Option<String> {
        let sent = self.take(ms)?;
        self.done(ms, Outcome::Delivered);
        Some(sent)
    }
}

fn words(sent: &Notification) -> String {
    let groups = sent.groups.iter().map(|group| {
        let firing = group.firing.iter().map(|alert| format!("+{}", alert.id));
        let ended = group.resolved.iter().map(|(alert, _)| format!("-{}", alert.id));
        firing.chain(ended).collect::<Vec<_>>().join(" ")
    });
    groups.collect::<Vec<_>>().join(" | ")
}

const FAILED: Outcome = Outcome::Failed { in_doubt: false };
const IN_DOUBT: Outcome = Outcome::Failed { in_doubt: true };

/// Scenario: the life of an alert at a webhook: a wait for others of its group, the message, repeats, the end.
#[test]
fn an_alert_is_told_repeated_and_ended() {
    let mut world = World::new(ReceiverKind::Webhook);
    let down = [pool_down("shop")];
    world.hold(0, &down);
    assert_eq!(world.outbox.next_ms(), Some(10_000));
    assert_eq!(world.take(9_999), None);
    assert_eq!(world.deliver(10_000).as_deref(), Some("+pool_down shop/default"));
    assert_eq!(world.outbox.next_ms(), Some(10_000 + 4 * 3_600_000));
    assert_eq!(
        world.deliver(10_000 + 4 * 3_600_000).as_deref(),
        Some("+pool_down shop/default")
    );
    let then = 15_000_000;
    world.hold(then, &[]);
    assert_eq!(world.deliver(then).as_deref(), Some("-pool_down shop/default"));
    world.hold(then + 300_001, &[]);
    assert_eq!((world.outbox.next_ms(), world.outbox.held()), (None, 0));
}

/// Scenario: 500 backends in two load balancers go down within the wait, with their pools: one message, a group for
/// each kind and load balancer.
#[test]
fn a_burst_is_one_message() {
    let mut world = World::new(ReceiverKind::Webhook);
    let mut ids = Vec::new();
    for step in 0..10 {
        let ports = step * 25..(step + 1) * 25;
        ids.extend(ports.flat_map(|port| [backend_down("a", 1000 + port), backend_down("b", 1000 + port)]));
        world.hold(u64::from(step) * 100, &ids);
    }
    ids.extend([pool_down("a"), pool_down("b")]);
    world.hold(2_000, &ids);
    let sent = world.outbox.take(at(12_000)).unwrap();
    world.done(12_000, Outcome::Delivered);
    let sizes: Vec<usize> = sent.groups.iter().map(|group| group.firing.len()).collect();
    assert_eq!(sizes, [1, 1, 250, 250]);
    assert_eq!(world.take(300_000), None);
}

/// Scenario: an alert was told, and its end; or it ended before it was told. Then nothing happens for an hour. What goes
/// down together after that is one message.
#[test]
fn a_burst_long_after_the_last_alert_is_one_message() {
    for end in [5_000, 500_000] {
        let mut world = World::new(ReceiverKind::Webhook);
        world.hold(0, &[backend_down("shop", 1)]);
        let told = end > 10_000;
        assert!(!told || world.deliver(10_000).is_some());
        world.hold(end, &[]);
        assert_eq!(world.deliver(end).is_some(), told);
        let then = 4_000_000;
        world.hold(then, &[backend_down("shop", 2)]);
        world.hold(then + 1_000, &[backend_down("shop", 2), backend_down("shop", 3)]);
        assert_eq!(world.outbox.next_ms(), Some(then + 10_000), "{end}");
    }
}

/// Scenario: an alert that ends before it was told is never mentioned.
#[test]
fn what_was_not_told_does_not_end() {
    let mut world = World::new(ReceiverKind::Webhook);
    world.hold(0, &[pool_down("shop")]);
    world.hold(5_000, &[]);
    assert_eq!(world.outbox.next_ms(), None);
    assert_eq!(world.take(1_000_000), None);
}

/// Scenario: an alert comes and goes every second for an hour. There is a message each five minutes at most.
#[test]
fn a_flapping_alert_is_told_once_in_an_interval() {
    let mut world = World::new(ReceiverKind::Webhook);
    let mut told = 0;
    for second in 0..3600 {
        let holding = second % 2 == 0;
        let ids = [pool_down("shop")];
        world.hold(second * 1000, if holding { &ids } else { &[] });
        told += u64::from(world.deliver(second * 1000).is_some());
    }
    assert!((10..=12).contains(&told), "{told}");
}

/// Scenario: the receiver is away for an hour while alerts come and go. The pauses grow to their bound; when it is
/// back it gets the newest state, and nothing of what was in between.
#[test]
fn a_receiver_that_comes_back_gets_the_newest_state() {
    let mut world = World::new(ReceiverKind::Webhook);
    world.hold(0, &[pool_down("a")]);
    let (mut now, mut pauses) = (10_000, Vec::new());
    while now < 3_600_000 {
        world.hold(now, &[backend_down("b", (now % 1000) as u16), pool_down("a")]);
        assert!(world.take(now).is_some());
        world.done(now, FAILED);
        let next = world.outbox.next_ms().unwrap();
        pauses.push(next - now);
        now = next;
    }
    assert_eq!(
        pauses[..3],
        [FIRST_PAUSE_MS, 2 * FIRST_PAUSE_MS, 4 * FIRST_PAUSE_MS]
    );
    assert_eq!(pauses.iter().max(), Some(&LONGEST_PAUSE_MS));
    world.hold(now, &[backend_down("b", 1), pool_down("a")]);
    assert!(world.outbox.is_late(at(now)));
    assert_eq!(
        world.deliver(now).as_deref(),
        Some("+pool_down a/default | +backend_down b/default/10.0.0.1:1")
    );
    assert!(!world.outbox.is_late(at(now)));
}

/// Scenario: nobody knows whether the message arrived, and the alert has ended meanwhile. Its end is told; after a
/// plain failure it is not.
#[test]
fn the_end_of_what_may_have_arrived_is_told() {
    for (outcome, expected) in [(IN_DOUBT, Some("-pool_down shop/default")), (FAILED, None)] {
        let mut world = World::new(ReceiverKind::Webhook);
        world.hold(0, &[pool_down("shop")]);
        world.take(10_000).unwrap();
        world.hold(10_500, &[]);
        world.done(11_000, outcome);
        world.hold(11_000, &[]);
        assert_eq!(world.deliver(13_000).as_deref(), expected);
    }
}

/// Scenario: nobody knows whether an end arrived, and the alert fires again. It is told again, not taken for known.
#[test]
fn what_fires_again_after_an_end_in_doubt_is_told() {
    let mut world = World::new(ReceiverKind::Webhook);
    world.hold(0, &[pool_down("shop")]);
    world.deliver(10_000).unwrap();
    world.hold(20_000, &[]);
    assert_eq!(world.take(310_000).as_deref(), Some("-pool_down shop/default"));
    world.hold(310_500, &[pool_down("shop")]);
    world.done(311_000, IN_DOUBT);
    assert_eq!(world.deliver(313_000).as_deref(), Some("+pool_down shop/default"));
}

/// Scenario: an alert ends while the first message about it is under way. It arrives, so its end is told.
#[test]
fn an_end_during_the_delivery_is_told_after_it() {
    let mut world = World::new(ReceiverKind::Webhook);
    world.hold(0, &[pool_down("shop")]);
    world.take(10_000).unwrap();
    world.hold(11_000, &[]);
    world.done(12_000, Outcome::Delivered);
    assert_eq!(world.outbox.next_ms(), Some(312_000));
    assert_eq!(world.deliver(312_000).as_deref(), Some("-pool_down shop/default"));
}

/// Scenario: the receiver refuses. It is asked again after the longest pause only.
#[test]
fn a_refusal_waits_long() {
    let mut world = World::new(ReceiverKind::Webhook);
    world.hold(0, &[pool_down("shop")]);
    world.take(10_000).unwrap();
    world.done(10_000, Outcome::Refused);
    assert_eq!(world.outbox.next_ms(), Some(10_000 + LONGEST_PAUSE_MS));
}

/// Scenario: an Alertmanager groups by itself: it is told of a change at once, and every minute of what fires, so
/// that it does not take it for ended.
#[test]
fn an_alertmanager_is_told_at_once_and_every_minute() {
    let mut world = World::new(ReceiverKind::Alertmanager);
    world.hold(0, &[pool_down("a")]);
    assert_eq!(world.deliver(0).as_deref(), Some("+pool_down a/default"));
    assert_eq!(world.outbox.next_ms(), Some(ALERTMANAGER_REPEAT_MS));
    world.hold(500, &[pool_down("b")]);
    assert_eq!(world.outbox.next_ms(), Some(1000));
    assert_eq!(
        world.deliver(1000).as_deref(),
        Some("+pool_down b/default -pool_down a/default")
    );
}

/// Scenario: another node begins to tell of what several see. This one tells of itself only; when it is its turn
/// again, it tells of everything anew.
#[test]
fn who_does_not_send_tells_of_itself_only() {
    let mut world = World::new(ReceiverKind::Alertmanager);
    let ids = [config_refused("n"), pool_down("a")];
    world.hold(0, &ids);
    assert_eq!(
        world.deliver(0).as_deref(),
        Some("+config_refused n +pool_down a/default")
    );
    world.shared = false;
    world.hold(5_000, &ids);
    assert_eq!(world.deliver(60_000).as_deref(), Some("+config_refused n"));
    world.hold(61_000, &[config_refused("n")]);
    assert_eq!(world.deliver(61_000), None);
    world.shared = true;
    world.hold(62_000, &ids);
    assert_eq!(
        world.deliver(62_000).as_deref(),
        Some("+config_refused n +pool_down a/default")
    );
}

/// Scenario: alerts come and go by thousands between two messages about their groups. What is remembered stays
/// within its bound, and what is forgotten is counted.
#[test]
fn what_is_remembered_is_bounded() {
    let mut world = World::new(ReceiverKind::Webhook);
    world.outbox.set_timing(Timing {
        wait_ms: 0,
        interval_ms: 86_400_000,
        repeat_ms: 86_400_000,
    });
    for round in 0..10_u16 {
        let lb = format!("lb{round}");
        let ids: Vec<AlertId> = (1..=MAX_ALERTS)
            .map(|port| backend_down(&lb, port as u16))
            .collect();
        let ms = u64::from(round) * 1000;
        world.hold(ms, &ids);
        assert!(world.deliver(ms).is_some());
        assert!(
            world.outbox.held() <= MAX_TOLD + MAX_ALERTS,
            "{}",
            world.outbox.held()
        );
    }
    world.hold(20_000, &[]);
    assert_eq!(world.outbox.held(), MAX_TOLD);
    assert_eq!(world.outbox.forgotten(), (10 * MAX_ALERTS - MAX_TOLD) as u64);
}

/// Scenario: a thousand backends are down and told; a pool goes down and takes the place of one. That one has not
/// ended, so no end of it is told; when it comes up, it is.
#[test]
fn what_was_pushed_out_has_not_ended() {
    let mut world = World::new(ReceiverKind::Webhook);
    let mut ids: Vec<AlertId> = (0..1000).map(|port| backend_down("shop", port)).collect();
    world.hold(0, &ids);
    assert!(world.deliver(10_000).is_some());
    ids.push(pool_down("shop"));
    world.hold(20_000, &ids);
    world.hold(30_000, &ids);
    assert_eq!(
        world.deliver(330_000).as_deref(),
        Some("+too_many_alerts n | +pool_down shop/default")
    );
    assert_eq!(world.deliver(400_000), None);
    ids.remove(999);
    world.hold(700_000, &ids);
    let sent = world.deliver(700_000).unwrap();
    let ends: Vec<&str> = sent
        .split([' ', '|'])
        .filter(|word| word.starts_with('-'))
        .collect();
    assert!(
        sent.contains("-backend_down shop/default/10.0.0.1:999"),
        "{ends:?}"
    );
    assert_eq!(ends.len(), 2, "with the note that there were too many: {ends:?}");
}

/// Scenario: a node sees what another one tells of. The other one dies; what fired before and ended meanwhile, whoever
/// leads next tells. What ended long before, or was never told by anybody, is not mentioned.
#[test]
fn the_next_who_tells_ends_what_the_one_before_told() {
    let mut world = World::new(ReceiverKind::Webhook);
    world.shared = false;
    let [long_ago, short, ended, fires] = ["a", "b", "c", "d"].map(pool_down);
    world.hold(0, &[long_ago.clone(), ended.clone()]);
    world.hold(20_000, &[ended.clone(), fires.clone()]);
    assert_eq!(world.take(1_000_000), None, "another one tells");
    // Too short for anybody to have told of it.
    world.hold(2_000_000, &[ended.clone(), fires.clone(), short]);
    world.hold(2_001_000, &[ended, fires.clone()]);
    world.hold(2_100_000, std::slice::from_ref(&fires));
    world.shared = true;
    world.hold(2_110_000, &[fires]);
    assert_eq!(
        world.deliver(2_120_000).as_deref(),
        Some("-pool_down c/default | +pool_down d/default")
    );
    assert_eq!(world.deliver(2_500_000), None);
}

/// Scenario: the one who tells loses that to another one while a message is on its way, and gets it back after the
/// alert has ended: it tells the end.
#[test]
fn who_tells_again_remembers_what_it_told() {
    for outcome in [Outcome::Delivered, IN_DOUBT] {
        let mut world = World::new(ReceiverKind::Webhook);
        world.hold(0, &[pool_down("shop")]);
        assert_eq!(world.take(10_000).as_deref(), Some("+pool_down shop/default"));
        world.shared = false;
        world.hold(10_500, &[pool_down("shop")]);
        world.done(11_000, outcome);
        world.hold(12_000, &[]);
        world.shared = true;
        world.hold(13_000, &[]);
        let due = world.outbox.next_ms().unwrap();
        assert_eq!(world.deliver(due).as_deref(), Some("-pool_down shop/default"));
    }
}
