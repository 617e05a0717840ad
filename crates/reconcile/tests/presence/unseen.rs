//! Who leaves while a node cannot see it, and what that node makes of it afterwards.

use super::*;

const TTL: u64 = 15_000;
const SLACK: u64 = 3_000;

fn record(weight: u32) -> MemberRecord {
    MemberRecord::of(&entry(weight, None).listed, TTL)
}

/// Members of these numbers, as a store lists them.
fn listed(numbers: impl IntoIterator<Item = u32>) -> Vec<(BackendId, u64, Option<MemberRecord>)> {
    let each = numbers.into_iter();
    each.map(|number| (backend(number), u64::from(number) + 1, Some(record(1))))
        .collect()
}

fn told(presence: &mut Presence, now_ms: u64, numbers: impl IntoIterator<Item = u32>) {
    let mut beats = Beats::default();
    for number in numbers {
        beats.say(true, &key(), backend(number).address, Said(100, None));
    }
    presence.told(now_ms, &name("b"), &beats);
}

fn members(presence: &Presence) -> Vec<SocketAddr> {
    presence.members(&key(), true).into_keys().collect()
}

fn addresses(numbers: impl IntoIterator<Item = u32>) -> Vec<SocketAddr> {
    numbers
        .into_iter()
        .map(|number| backend(number).address)
        .collect()
}

/// Scenario: a node is stopped, or cut off. Meanwhile one instance says elsewhere that it wants no new requests, and
/// leaves; the node finds both when it goes on, one after the other, and believes the farewell. Another one has gone and
/// come back, and says so here before the node finds that it went: that one stays.
#[test]
fn a_farewell_counts_after_another_word() {
    for stopped in [true, false] {
        let mut presence = node("a");
        presence.wake(0);
        for number in 1..=5 {
            presence.record(0, &backend(number), u64::from(number) + 1, Some(record(1)));
        }
        match stopped {
            true => assert!(presence.wake(60_000)),
            false => {
                presence.hear_records(1_000, false);
                presence.hear_records(60_000, true);
            }
        }
        presence
            .register(60_050, &backend(2), entry(1, None), true)
            .unwrap();
        for number in 1..=2 {
            let revision = 10 * u64::from(number);
            let drains = MemberRecord {
                draining: true,
                ..record(1)
            };
            presence.record(60_100, &backend(number), revision, Some(drains));
            presence.record(60_150, &backend(number), revision + 1, None);
        }
        assert_eq!(members(&presence), addresses(2..=5), "stopped: {stopped}");
    }
}

/// Scenario: most of a pool speak at a node that was stopped and goes on, which only then finds that they went. If they
/// are not heard again, each of them goes when its time is over, though that is more than half of the pool.
#[test]
fn who_is_spared_a_farewell_is_not_kept_for_an_hour() {
    let mut presence = node("a");
    presence.wake(0);
    for number in 1..=4 {
        presence.record(0, &backend(number), u64::from(number) + 1, Some(record(1)));
    }
    assert!(presence.wake(60_000));
    for number in 1..=3 {
        presence
            .register(60_050, &backend(number), entry(1, None), true)
            .unwrap();
        presence.record(60_100, &backend(number), 10 + u64::from(number), None);
    }
    assert_eq!(members(&presence), addresses(1..=4));
    told(&mut presence, 70_000, [4]);
    assert_eq!(presence.lapse(60_050 + TTL + SLACK - 1), []);
    assert_eq!(presence.lapse(60_050 + TTL + SLACK).len(), 3);
}

/// Scenario: an LB server is down while a pool shrinks from ten members to four. It starts again with ten of before; the
/// store names four. The others have their time to be heard, one of them is; the rest go then, and nobody is kept for
/// that so many went. Nor does it count against the four that they did.
#[test]
fn who_is_not_listed_after_a_restart_has_its_time_and_no_more() {
    let mut presence = Presence::new(Some(name("a")), 0);
    for number in 1..=10 {
        presence.remember(0, &backend(number), (Listed::default(), TTL), true);
    }
    presence.list_records(1_000, 20, listed(1..=4));
    presence.hear_records(1_000, true);
    presence.hear_beats(1_000, true);
    for now in (1_000..1_000 + TTL + SLACK).step_by(250) {
        told(&mut presence, now, 2..=5);
        assert_eq!(presence.lapse(now), [], "at {now}");
        assert_eq!(presence.kept(now, &key(), true), 0);
    }
    // The first, which stands in the store, is one of four.
    let mut gone = presence.lapse(1_000 + TTL + SLACK);
    gone.sort();
    assert_eq!(gone, [1, 6, 7, 8, 9, 10].map(backend));
    assert_eq!(members(&presence), addresses(2..=5));
    let gone = (20_000..60_000).step_by(1_000).flat_map(|now| {
        told(&mut presence, now, []);
        presence.lapse(now)
    });
    assert_eq!(
        gone.collect::<Vec<_>>(),
        [backend(5)],
        "who is not listed goes by itself"
    );
    assert_eq!(
        members(&presence),
        addresses(2..=4),
        "who is listed is kept when all fall silent"
    );
}

/// Scenario: the same, and it could not reach the store at first. Members spoke there meanwhile, and went elsewhere before
/// that was over: what they said is too old to be written, and does not keep them.
#[test]
fn what_was_said_before_the_first_list_keeps_nobody() {
    let mut presence = Presence::new(Some(name("a")), 0);
    for number in 1..=10 {
        presence.remember(0, &backend(number), (Listed::default(), TTL), true);
        presence
            .register(2_000, &backend(number), entry(1, None), true)
            .unwrap();
    }
    presence.list_records(30_000, 20, listed(1..=4));
    presence.hear_records(30_000, true);
    presence.hear_beats(30_000, true);
    assert_eq!(presence.writes(30_000, 10), []);
    for now in (30_000..30_000 + TTL + SLACK).step_by(250) {
        told(&mut presence, now, 1..=4);
        assert_eq!(presence.lapse(now), [], "at {now}");
    }
    assert_eq!(presence.lapse(30_000 + TTL + SLACK).len(), 6);
}

/// Scenario: a node starts again, and the store has nothing at all: it was emptied, more likely. All are kept.
#[test]
fn who_is_not_listed_by_an_empty_store_is_kept() {
    let mut presence = Presence::new(Some(name("a")), 0);
    for number in 1..=10 {
        presence.remember(0, &backend(number), (Listed::default(), TTL), true);
    }
    presence.list_records(1_000, 20, Vec::new());
    presence.hear_records(1_000, true);
    presence.hear_beats(1_000, true);
    assert_eq!(presence.lapse(60_000), []);
    assert_eq!(presence.kept(60_000, &key(), true), 10);
}

/// Scenario: a node is cut off for so long that it has to list again, and is told that the store is heard before it gets
/// the list. Six of ten have left meanwhile: they are gone when the time is over that everybody has then, also where they
/// had spoken at this node. One that registered here meanwhile, and is to be written, is a member like others.
#[test]
fn who_is_not_listed_after_a_cut_has_its_time_and_no_more() {
    for spoke_here in [false, true] {
        let mut presence = node("a");
        presence.list_records(0, 20, listed(1..=10));
        presence.hear_records(9_000, false);
        for number in 5..=10 {
            if spoke_here {
                presence
                    .register(50_000, &backend(number), entry(1, None), true)
                    .unwrap();
            }
        }
        presence
            .register(50_000, &backend(11), entry(1, None), true)
            .unwrap();
        presence.hear_records(60_000, true);
        presence.list_records(60_050, 30, listed(1..=4));
        presence.hear_records(60_050, true);
        let mut revision = 30;
        assert_eq!(write(&mut presence, 60_100, &mut revision).len(), 1);
        for now in (60_250..60_000 + TTL + SLACK).step_by(250) {
            told(&mut presence, now, 1..=4);
            assert_eq!(presence.lapse(now), [], "at {now}");
        }
        let now = 60_000 + TTL + SLACK;
        let mut gone = presence.lapse(now);
        gone.sort();
        assert_eq!(gone, [5, 6, 7, 8, 9, 10, 11].map(backend));
        assert_eq!(members(&presence), addresses(1..=4));
    }
}

/// Scenario: a member falls silent, is out, and only then says that it goes. That it is no member is what it is told, and
/// its record goes at once all the same, and not a minute later.
#[test]
fn the_record_of_who_is_out_goes_with_its_farewell() {
    let (mut presence, mut revision) = (node("a"), 1);
    for number in 1..=3 {
        presence
            .register(0, &backend(number), entry(1, None), true)
            .unwrap();
    }
    write(&mut presence, 0, &mut revision);
    told(&mut presence, 10_000, 2..=3);
    assert_eq!(presence.lapse(TTL + SLACK), [backend(1)]);
    assert!(!presence.leave(20_000, &backend(1), true));
    assert_eq!(write(&mut presence, 20_000, &mut revision), [None]);
    assert_eq!(presence.records(), (2, 0));
    assert!(!presence.leave(30_000, &backend(1), true));
    assert_eq!(write(&mut presence, 40_000, &mut revision), []);
}

/// Scenario: members speak to one node only, and die. That node hears nobody any more, and lets go at some time; none of
/// them stays longer anywhere because of it: not one whose time is an hour, and not those of a pool that fell silent at
/// once, which are kept for an hour.
#[test]
fn nobody_stays_longer_because_a_node_hears_nobody() {
    let (hour, other) = (3_600_000, (name("shop"), name("other")));
    let (mut a, mut b) = (node("a"), node("b"));
    let of_other = BackendId {
        pool: other.1.clone(),
        ..backend(9)
    };
    let entry = |ttl_ms| Entry {
        ttl_ms,
        ..entry(1, None)
    };
    a.register(0, &backend(1), entry(hour), true).unwrap();
    a.register(0, &of_other, entry(hour), true).unwrap();
    let mut revision = 1;
    for write in a.writes(0, 10) {
        revision += 1;
        a.made(0, &write.backend, Outcome::Done(revision));
        b.record(0, &write.backend, revision, write.put);
    }
    for number in 2..=3 {
        b.register(0, &backend(number), entry(hour), true).unwrap();
    }
    let (mut gone, mut holds) = (Vec::new(), true);
    for now in (0..3 * hour).step_by(1_000) {
        if let Some(beats) = a.beats(now) {
            a.beats_told(true);
            b.told(now, &name("a"), &beats);
            holds = true;
        }
        if a.lets_go(now) {
            b.gone(now, &name("a"));
            holds = false;
        }
        for number in 2..=3 {
            b.register(now, &backend(number), entry(hour), true).unwrap();
        }
        gone.extend(b.lapse(now).into_iter().map(|who| (who, now)));
    }
    let late = 4_000;
    let [(first, at), (second, kept_until)] = gone.as_slice() else {
        panic!("{gone:?}");
    };
    assert_eq!((first, second), (&backend(1), &of_other));
    assert!((hour + SLACK..=hour + SLACK + late).contains(at), "at {at}");
    let most = 2 * hour + SLACK;
    assert!((most..=most + late).contains(kept_until), "at {kept_until}");
    assert!(!holds, "it lets go at last");
}
