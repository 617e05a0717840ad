//! What a node writes and tells of its members, scenario by scenario: bounded, whatever instances say.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod stored;
mod unseen;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use evenkeel_reconcile::membership::{
    Beats, Entry, LET_GO_MS, MOST_BEATS_BYTES, MemberRecord, Outcome, Presence, Said, Write, member_backend,
    member_path,
};
use model::config::Name;
use model::state::{BackendId, Listed, PoolKey};

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn key() -> PoolKey {
    (name("shop"), name("default"))
}

fn backend(number: u32) -> BackendId {
    let [_, a, b, c] = number.to_be_bytes();
    BackendId {
        load_balancer: name("shop"),
        pool: name("default"),
        address: ([10, a, b, c], 9001).into(),
    }
}

fn entry(weight: u32, load: Option<u8>) -> Entry {
    Entry {
        listed: Listed {
            weight,
            load,
            life: 7,
            ..Listed::default()
        },
        ttl_ms: 15_000,
        most: 100_000,
    }
}

fn node(text: &str) -> Presence {
    let mut presence = Presence::new(Some(name(text)), 0);
    presence.list_records(0, 1, Vec::new());
    presence.hear_records(0, true);
    presence.hear_beats(0, true);
    presence
}

/// Makes all writes that are due as the store would; how many there were.
fn write(presence: &mut Presence, now_ms: u64, revision: &mut u64) -> Vec<Option<MemberRecord>> {
    let mut made = Vec::new();
    for write in presence.writes(now_ms, 1_000) {
        *revision += 1;
        presence.made(now_ms, &write.backend, Outcome::Done(*revision));
        made.push(write.put);
    }
    made
}

/// Scenario: an instance says with every beat how busy it is, which is another figure each time: one write in all.
/// Then it changes its weight ten times in a second: the last of them is written, and perhaps one more.
#[test]
fn only_what_matters_is_written_and_not_too_often() {
    let (mut presence, mut revision) = (node("a"), 1);
    let mut written = Vec::new();
    for beat in 0..100u8 {
        let now = u64::from(beat) * 5_000;
        presence
            .register(now, &backend(1), entry(1, Some(beat)), true)
            .unwrap();
        written.extend(write(&mut presence, now, &mut revision));
        presence.beats(now).unwrap();
        presence.beats_told(true);
    }
    assert_eq!(written.len(), 1);
    let began = 500_000;
    let mut written = Vec::new();
    for n in 0..10u64 {
        let now = began + n * 100;
        let weight = u32::try_from(n).unwrap() + 10;
        presence
            .register(now, &backend(1), entry(weight, None), true)
            .unwrap();
        written.extend(write(&mut presence, now, &mut revision));
    }
    written.extend(write(&mut presence, began + 1_000, &mut revision));
    assert_eq!(written.len(), 2, "{written:?}");
    assert_eq!(written[1].as_ref().unwrap().weight, 19);
    assert_eq!(presence.records(), (1, 0));
}

/// Scenario: twelve thousand instances beat at one node within a second. What it tells is bounded each time, and all
/// are told of before long, none twice.
#[test]
fn a_telling_is_bounded_and_leaves_nobody_out() {
    let mut presence = node("a");
    for number in 0..12_000 {
        presence
            .register(0, &backend(number), entry(1, Some(50)), true)
            .unwrap();
    }
    let (mut told, mut now, mut tellings) = (BTreeSet::new(), 0, 0);
    while told.len() < 12_000 {
        let beats = presence.beats(now).unwrap();
        assert_eq!(presence.beats(now), None, "one at a time");
        presence.beats_told(true);
        let bytes = serde_json::to_vec(&beats).unwrap().len();
        assert!(bytes <= MOST_BEATS_BYTES, "{bytes}");
        for (_, address, _) in beats.of(true) {
            assert!(told.insert(address), "{address} is told of twice");
        }
        (now, tellings) = (now + 1_000, tellings + 1);
    }
    assert!(tellings < 10, "{tellings}");
}

/// Scenario: what was told could not be written: it is told again, with what was heard since.
#[test]
fn what_could_not_be_told_is_told_again() {
    let mut presence = node("a");
    presence.register(0, &backend(1), entry(1, None), true).unwrap();
    assert_eq!(presence.beats(0).map(|beats| beats.len()), Some(1));
    presence.beats_told(false);
    presence.register(500, &backend(2), entry(1, None), true).unwrap();
    let beats = presence.beats(1_000).unwrap();
    let heard: Vec<(SocketAddr, u64)> = beats.of(true).map(|(_, who, said)| (who, said.0)).collect();
    assert_eq!(heard, [(backend(1).address, 1_000), (backend(2).address, 500)]);
    presence.beats_told(true);
    assert_eq!(presence.beats(2_000), None);
    assert!(
        presence.beats(3_000).unwrap().is_empty(),
        "it could hear, and heard nobody"
    );
    presence.beats_told(true);
    assert!(!presence.lets_go(LET_GO_MS));
    assert!(presence.lets_go(500 + LET_GO_MS));
    assert_eq!(presence.beats(600 + LET_GO_MS), None);
}

/// Scenario: an instance goes at one node while that is cut off, and comes back at another before it is heard of there.
/// Its record stays, and it is a member of the first again: not by what is heard at once, which may be of before it went,
/// but by what is heard after that.
#[test]
fn who_came_back_elsewhere_stays() {
    let mut presence = node("a");
    presence.register(0, &backend(1), entry(1, None), true).unwrap();
    let mut revision = 1;
    write(&mut presence, 0, &mut revision);
    presence.hear_records(1_000, false);
    assert!(presence.leave(2_000, &backend(1), true));
    assert!(presence.members(&key(), true).is_empty());
    presence.hear_records(9_000, true);
    let mut beats = Beats::default();
    beats.say(true, &key(), backend(1).address, Said(400, None));
    presence.told(10_000, &name("b"), &beats);
    assert_eq!(presence.members(&key(), true).len(), 0);
    assert_eq!(presence.writes(12_500, 10), []);
    presence.told(14_000, &name("b"), &beats);
    assert_eq!(presence.members(&key(), true).len(), 1);
    assert_eq!(presence.writes(40_000, 10), []);
}

/// Scenario: a node starts again and knows its members from before; the store was emptied meanwhile, and one instance
/// has been written anew. The others stay for their time, and go when it is over.
#[test]
fn a_first_list_leaves_everybody_their_time() {
    let mut presence = Presence::new(Some(name("a")), 0);
    for number in 1..=3 {
        presence.remember(0, &backend(number), (Listed::default(), 15_000), true);
    }
    let record = MemberRecord::of(&Listed::default(), 15_000);
    presence.list_records(1_000, 2, vec![(backend(1), 2, Some(record))]);
    presence.hear_records(1_000, true);
    presence.hear_beats(1_000, true);
    presence
        .register(10_000, &backend(1), entry(1, None), true)
        .unwrap();
    assert_eq!(presence.lapse(18_999), []);
    assert_eq!(presence.members(&key(), true).len(), 3);
    assert_eq!(presence.lapse(19_000), [backend(2), backend(3)]);
}

/// Scenario: an own write is seen before its answer comes, and the instance changes its mind at once: that is written
/// a second after the first.
#[test]
fn what_is_seen_before_its_answer_is_written_as_seldom() {
    let mut presence = node("a");
    presence.register(0, &backend(1), entry(1, None), true).unwrap();
    let write = presence.writes(0, 10).remove(0);
    presence.record(50, &backend(1), 2, write.put);
    presence.made(60, &backend(1), Outcome::Done(2));
    presence.register(100, &backend(1), entry(2, None), true).unwrap();
    assert_eq!(presence.writes(200, 10), []);
    assert_eq!(presence.writes(1_100, 10).len(), 1);
}

/// Scenario: somebody registers an instance and takes it out again, twenty times a second, for ten seconds.
#[test]
fn comings_and_goings_are_written_once_a_second() {
    let (mut presence, mut revision, mut written) = (node("a"), 1, 0);
    for step in 0..200u64 {
        let now = step * 50;
        match step % 2 {
            0 => _ = presence.register(now, &backend(1), entry(1, None), true).unwrap(),
            _ => assert!(presence.leave(now, &backend(1), true)),
        }
        written += write(&mut presence, now, &mut revision).len();
    }
    assert!((5..=11).contains(&written), "{written} writes in ten seconds");
}

/// Scenario: more instances change their minds every second than can be written. Who waits longest is next, so the last
/// by name has its turn.
#[test]
fn nobody_waits_for_ever_to_be_written() {
    let (mut presence, mut revision) = (node("a"), 1);
    presence.register(0, &backend(999), entry(1, None), true).unwrap();
    let mut written = BTreeSet::new();
    for step in 0..100u64 {
        let now = step * 100;
        for number in 1..=40 {
            let weight = u32::try_from(step).unwrap() + 2;
            presence
                .register(now, &backend(number), entry(weight, None), true)
                .unwrap();
        }
        for write in presence.writes(now, 2) {
            revision += 1;
            presence.made(now, &write.backend, Outcome::Done(revision));
            written.insert(write.backend);
        }
    }
    assert!(written.contains(&backend(999)));
    assert_eq!(written.len(), 41);
}

/// Scenario: members whose time is a second are heard by one node, and that dies. What it does not tell is not held
/// against them.
#[test]
fn a_short_time_is_not_held_against_who_was_heard_by_a_dead_node() {
    for age in [0, 100, 250, 400, 700, 950] {
        let mut presence = node("a");
        for number in 1..=8 {
            let mut entry = entry(1, None);
            entry.ttl_ms = if number == 1 { 1_000 } else { 60_000 };
            presence.register(0, &backend(number), entry, true).unwrap();
        }
        for now in (0..20_000).step_by(50) {
            if now <= 3_000 && now % 1_000 == 0 {
                let mut beats = Beats::default();
                beats.say(true, &key(), backend(1).address, Said(age, None));
                presence.told(now, &name("b"), &beats);
            }
            assert_eq!(presence.lapse(now), [], "at {now}, heard {age} before");
        }
        // Its lease is over: a time more, and it is out.
        presence.gone(20_000, &name("b"));
        assert_eq!(presence.lapse(23_999), []);
        assert_eq!(presence.lapse(24_000), [backend(1)]);
    }
}

/// Scenario: a backend is silent, and only now is told that it was heard long ago. It stays silent.
#[test]
fn a_late_telling_wakes_nobody() {
    let (mut presence, expected) = (node("a"), BTreeSet::from([backend(1).address]));
    let listen = |presence: &mut Presence, now| presence.listen(now, &key(), (&expected, 6_000), true);
    let told = |presence: &mut Presence, now, age| {
        let mut beats = Beats::default();
        beats.say(false, &key(), backend(1).address, Said(age, None));
        presence.told(now, &name("b"), &beats)
    };
    assert_eq!(listen(&mut presence, 0).len(), 1);
    assert!(listen(&mut presence, 9_000)[0].silent);
    assert_eq!(told(&mut presence, 30_000, 20_000), []);
    assert_eq!(listen(&mut presence, 30_000), []);
    let heard = told(&mut presence, 31_000, 500);
    assert!(!heard[0].1.silent);
    assert_eq!(listen(&mut presence, 31_000), []);
}

/// Scenario: the store is emptied, and is away for longer than a member's time. When it is back another node is first,
/// and one instance is written anew: this node lists that one alone, and forgets nobody. A write that was under way
/// counts for nothing, and what the new store says is heard though its revisions are smaller.
#[test]
fn another_store_takes_nobody_out() {
    let (mut presence, mut revision) = (node("a"), 1_000);
    for number in 1..=4 {
        presence
            .register(0, &backend(number), entry(1, None), true)
            .unwrap();
    }
    assert_eq!(write(&mut presence, 0, &mut revision).len(), 4);
    presence
        .register(2_000, &backend(1), entry(2, None), true)
        .unwrap();
    assert_eq!(presence.writes(2_000, 10).len(), 1);
    presence.hear_records(3_000, false);
    presence.hear_records(60_000, true);
    let record = MemberRecord::of(&entry(1, None).listed, 15_000);
    presence.list_another(60_050, 7, vec![(backend(2), 5, Some(record.clone()))]);
    presence.made(60_060, &backend(1), Outcome::Done(2_000));
    assert_eq!(presence.members(&key(), true).len(), 4);
    presence.record(60_100, &backend(1), 8, Some(MemberRecord { weight: 9, ..record }));
    assert_eq!(presence.members(&key(), true)[&backend(1).address].weight, 9);
    presence
        .register(60_200, &backend(3), entry(1, None), true)
        .unwrap();
    let due = presence.writes(62_000, 10);
    let due: Vec<_> = due.into_iter().map(|write| (write.backend, write.seen)).collect();
    assert_eq!(due, [(backend(3), None)]);
}

/// Scenario: the store is emptied while this node watches. Nobody goes; a write on its way of before changes nothing. Who
/// speaks is written again as the member that he was, who has left meanwhile is not, and who is silent from then on goes
/// when his time is over.
#[test]
fn an_emptied_store_takes_nobody_out() {
    let (mut presence, mut revision) = (node("a"), 1_000);
    for number in 1..=3 {
        presence
            .register(0, &backend(number), entry(1, None), true)
            .unwrap();
    }
    assert_eq!(write(&mut presence, 0, &mut revision).len(), 3);
    let before = presence.members(&key(), true);
    presence
        .register(2_000, &backend(1), entry(2, None), true)
        .unwrap();
    let under_way = presence.writes(2_000, 10);
    assert_eq!(under_way.len(), 1);
    for number in 1..=3 {
        presence.lose(&backend(number), 1_010);
    }
    presence.made(2_010, &backend(1), Outcome::Lost);
    assert_eq!(presence.members(&key(), true).len(), 3);
    assert_eq!(presence.records(), (0, 0));
    presence.leave(2_100, &backend(3), true);
    presence
        .register(2_200, &backend(2), entry(1, None), true)
        .unwrap();
    let due = presence.writes(5_000, 10);
    let [
        Write {
            backend: who,
            seen: None,
            put: Some(put),
        },
    ] = due.as_slice()
    else {
        panic!("{due:?}");
    };
    assert_eq!((who, put.life), (&backend(2), before[&who.address].life));
    presence.made(5_010, who, Outcome::Done(1_020));
    presence.register(16_000, who, entry(1, None), true).unwrap();
    assert_eq!(presence.lapse(16_900), []);
    assert_eq!(presence.lapse(21_000), [backend(1)]);
}

/// Scenario: the process is stopped for a minute. What instances and other nodes said meanwhile is taken after the first
/// look, which holds no silence against anybody, also not in pools that this node alone knows.
#[test]
fn who_was_stopped_holds_no_silence_against_anybody() {
    let mut presence = node("a");
    let expected: BTreeSet<SocketAddr> = [1, 2, 3].map(|n| backend(n).address).into();
    let mut look = |now, woke| {
        assert_eq!(presence.wake(now), woke);
        for number in 1..=10 {
            // Two fall silent for good.
            if now <= 2_000 || number > 2 && now != 62_000 {
                for shared in [false, true] {
                    let entry = entry(1, None);
                    presence.register(now, &backend(number), entry, shared).unwrap();
                }
            }
        }
        let silent = presence.listen(now, &key(), (&expected, 15_000), false);
        let silent = silent.iter().filter(|heard| heard.silent).count();
        (silent, presence.lapse(now).len())
    };
    for now in (0..=2_000).step_by(250) {
        assert_eq!(look(now, false), (0, 0));
    }
    assert_eq!(look(62_000, true), (0, 0));
    for now in (62_250..77_000).step_by(250) {
        assert_eq!(look(now, false), (0, 0), "at {now}");
    }
    assert_eq!(look(77_000, false), (3, 2), "those of this node alone");
    for now in (77_250..80_000).step_by(250) {
        assert_eq!(look(now, false), (0, 0), "at {now}");
    }
    assert_eq!(look(80_000, false), (0, 2), "those of the store");
}

/// Keys are read as they are written, and others are nobody's.
#[test]
fn paths() {
    let mapped = BackendId {
        address: "[2001:db8::1]:80".parse().unwrap(),
        ..backend(1)
    };
    for one in [backend(1), mapped] {
        assert_eq!(member_backend(&member_path(&one)), Some(one));
    }
    for foreign in [
        "members/shop/default",
        "members/shop/default/nobody",
        "member/shop/default/10.0.0.1:1",
        "members//default/10.0.0.1:1",
    ] {
        assert_eq!(member_backend(foreign), None, "{foreign}");
    }
}

/// Scenario: a node is cut off while an instance says something new there; it leaves at another node. When the first
/// lists what stands in the store, what it was about to write is of before.
#[test]
fn who_left_elsewhere_is_not_written_again() {
    let (mut presence, mut revision) = (node("a"), 1);
    for number in 1..=2 {
        presence
            .register(0, &backend(number), entry(1, None), true)
            .unwrap();
    }
    assert_eq!(write(&mut presence, 0, &mut revision).len(), 2);
    presence.hear_records(1_000, false);
    presence
        .register(2_000, &backend(1), entry(9, None), true)
        .unwrap();
    let record = MemberRecord::of(&entry(1, None).listed, 15_000);
    presence.list_records(9_000, 7, vec![(backend(2), 3, Some(record))]);
    presence.hear_records(9_000, true);
    assert_eq!(presence.writes(9_000, 10), []);
    // It may have come back after that, and says so then.
    presence
        .register(9_500, &backend(1), entry(9, None), true)
        .unwrap();
    assert_eq!(presence.writes(9_500, 10).len(), 1);
}

/// Scenario: a pool is taken out of the config, and its instances are told so and end. When it is put back, none of them
/// is a member; where the pool was never out, as many that fall silent at once stay.
#[test]
fn nobody_of_a_pool_that_was_taken_out_stays() {
    for closed in [true, false] {
        let mut presence = node("a");
        for number in 1..=4 {
            presence
                .register(0, &backend(number), entry(1, None), true)
                .unwrap();
        }
        presence.keep(|_| !closed, |_| true, |_| closed);
        assert_eq!(presence.lapse(17_999), []);
        assert_eq!(presence.lapse(18_000).len(), if closed { 4 } else { 0 });
        presence.keep(|_| true, |_| true, |_| false);
        assert_eq!(presence.lapse(30_000), []);
        assert_eq!(presence.members(&key(), true).len(), if closed { 0 } else { 4 });
    }
}

/// Scenario: a node is cut off for long, and an instance that was new there is heard no more. When the store is heard
/// again, what it said is not written: it would be a member everywhere, of whom nobody has heard for long.
#[test]
fn what_was_said_too_long_ago_is_not_written() {
    let mut presence = node("a");
    presence.hear_records(1_000, false);
    presence
        .register(2_000, &backend(1), entry(1, None), true)
        .unwrap();
    presence
        .register(9_000, &backend(2), entry(1, None), true)
        .unwrap();
    presence.hear_records(17_000, true);
    let due: Vec<_> = presence
        .writes(17_000, 10)
        .into_iter()
        .map(|w| w.backend)
        .collect();
    assert_eq!(due, [backend(2)]);
}

/// Scenario: a member is out by its silence; then everybody is given his time once more, and only now a telling comes
/// that names it, of long ago. It stays out.
#[test]
fn a_late_telling_brings_nobody_back() {
    let mut presence = node("a");
    for number in 1..=3 {
        presence
            .register(0, &backend(number), entry(1, None), true)
            .unwrap();
    }
    for number in 2..=3 {
        presence
            .register(10_000, &backend(number), entry(1, None), true)
            .unwrap();
    }
    assert_eq!(presence.lapse(18_000), [backend(1)]);
    presence.hear_beats(19_000, false);
    presence.hear_beats(20_000, true);
    let mut beats = Beats::default();
    beats.say(true, &key(), backend(1).address, Said(18_000, None));
    presence.told(20_100, &name("b"), &beats);
    assert_eq!(presence.members(&key(), true).len(), 2);
    beats.say(true, &key(), backend(1).address, Said(500, None));
    presence.told(21_000, &name("b"), &beats);
    assert_eq!(presence.members(&key(), true).len(), 3);
}

/// Scenario: an instance leaves; that its record is to go is written twice, because the first answer does not come, and
/// the second write finds nothing there. What was known before is not believed for that.
#[test]
fn a_farewell_that_was_made_already_brings_nobody_back() {
    let (mut presence, mut revision) = (node("a"), 1);
    presence.register(0, &backend(1), entry(1, None), true).unwrap();
    write(&mut presence, 0, &mut revision);
    assert!(presence.leave(10_000, &backend(1), true));
    for outcome in [Outcome::Failed, Outcome::Lost] {
        assert_eq!(presence.writes(15_000, 10).len(), 1);
        presence.made(10_000, &backend(1), outcome);
        assert_eq!(presence.members(&key(), true).len(), 0);
    }
    presence.record(16_000, &backend(1), 3, None);
    assert_eq!(presence.members(&key(), true).len(), 0);
    assert_eq!(presence.records(), (0, 0));
}
