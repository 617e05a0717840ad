//! What stands in the store and is no record, or is not seen: no write is tried for ever because of it.

use super::*;

/// The store's side, for one member: what stands there, and what a write of it becomes.
#[derive(Default)]
struct Key {
    revision: u64,
    /// By which revision; `None` inside: it cannot be read.
    stands: Option<(u64, Option<MemberRecord>)>,
    tries: usize,
}

impl Key {
    /// Somebody puts what cannot be read.
    fn spoil(&mut self) -> u64 {
        self.revision += 1;
        self.stands = Some((self.revision, None));
        self.revision
    }

    /// Makes what is due, and answers.
    fn make(&mut self, now_ms: u64, presence: &mut Presence) {
        for write in presence.writes(now_ms, 10) {
            self.tries += 1;
            let stands = self.stands.as_ref().map(|(revision, _)| *revision);
            if stands != write.seen {
                presence.made(now_ms, &write.backend, Outcome::Lost);
                continue;
            }
            self.revision += 1;
            let revision = self.revision;
            self.stands = write.put.map(|record| (revision, Some(record)));
            presence.made(now_ms, &write.backend, Outcome::Done(revision));
        }
    }

    fn record(&self) -> Option<&MemberRecord> {
        self.stands.as_ref()?.1.as_ref()
    }
}

/// Scenario: something is put under the key of a member that this version cannot read. It stays a member; its next word
/// is written in that place, by one write; and after that so is what it says anew.
#[test]
fn what_cannot_be_read_is_written_over() {
    let (mut presence, mut key) = (node("a"), Key::default());
    let who = backend(1);
    presence.register(0, &who, entry(1, None), true).unwrap();
    key.make(0, &mut presence);
    let revision = key.spoil();
    presence.unread(&who, revision);
    assert_eq!(presence.members(&self::key(), true).len(), 1);
    assert_eq!(presence.records(), (1, 0));
    for now in [5_000, 10_000, 15_000] {
        presence.register(now, &who, entry(1, None), true).unwrap();
        key.make(now, &mut presence);
        assert_eq!(key.record().map(|record| record.weight), Some(1));
    }
    assert_eq!(
        key.tries, 2,
        "it was written once, and over what was put there once"
    );
    // A word that waits to be written is not given up for it.
    presence.register(15_500, &who, entry(5, None), true).unwrap();
    let revision = key.spoil();
    presence.unread(&who, revision);
    key.make(17_000, &mut presence);
    assert_eq!(
        (key.record().map(|record| record.weight), key.tries),
        (Some(5), 3)
    );
}

/// Scenario: the same of a node that starts then, and lists it; nobody is known by it, and nobody goes. The instance says
/// that it is there, and is written.
#[test]
fn a_list_names_what_cannot_be_read() {
    for another in [false, true] {
        let (mut presence, mut key) = (node("a"), Key::default());
        presence.register(0, &backend(2), entry(1, None), true).unwrap();
        let write = presence.writes(0, 10).remove(0);
        presence.made(0, &write.backend, Outcome::Done(2));
        presence.hear_records(1_000, false);
        key.revision = 9;
        let (first, second) = (key.spoil(), key.spoil());
        let listed = vec![(backend(1), second, None), (backend(2), first, None)];
        match another {
            true => presence.list_another(60_000, 11, listed),
            false => presence.list_records(60_000, 11, listed),
        }
        presence.hear_records(60_000, true);
        let members = presence.members(&self::key(), true);
        assert_eq!(members.into_keys().collect::<Vec<_>>(), [backend(2).address]);
        presence
            .register(61_000, &backend(1), entry(1, None), true)
            .unwrap();
        key.make(61_000, &mut presence);
        assert!(key.record().is_some() && key.tries == 1);
    }
}

/// Scenario: the same, and the member leaves, or is silent. What stands there is removed as its record would be, by one
/// write.
#[test]
fn what_cannot_be_read_is_removed_with_its_member() {
    for leaves in [true, false] {
        let (mut presence, mut key) = (node("a"), Key::default());
        for number in 1..=3 {
            presence
                .register(0, &backend(number), entry(1, None), true)
                .unwrap();
        }
        for write in presence.writes(0, 10) {
            presence.made(0, &write.backend, Outcome::Done(2));
        }
        key.revision = 2;
        let revision = key.spoil();
        presence.unread(&backend(1), revision);
        for now in (0..120_000).step_by(250) {
            for number in 2..=3 {
                presence
                    .register(now, &backend(number), entry(1, None), true)
                    .unwrap();
            }
            if leaves && now == 2_000 {
                assert!(presence.leave(now, &backend(1), true));
            }
            presence.lapse(now);
            key.make(now, &mut presence);
            let from = if leaves { 2_000 } else { 15_000 + 3_000 + 60_000 };
            assert_eq!(key.stands.is_none(), now >= from, "at {now}");
        }
        assert_eq!(key.tries, 1);
        assert_eq!(presence.records(), (2, 0));
    }
}

/// Scenario: this node does not see what stands there, for whatever reason: its watch lags, say. Whatever it wants to
/// write or remove is tried once a second, and not as often as it looks.
#[test]
fn what_is_lost_is_not_tried_again_at_once() {
    let (mut presence, mut key) = (node("a"), Key::default());
    for number in 1..=3 {
        presence
            .register(0, &backend(number), entry(1, None), true)
            .unwrap();
    }
    for write in presence.writes(0, 10) {
        presence.made(0, &write.backend, Outcome::Done(2));
    }
    (key.revision, key.stands) = (8, Some((8, None)));
    for now in (0..100_000).step_by(50) {
        for number in 2..=3 {
            presence
                .register(now, &backend(number), entry(1, None), true)
                .unwrap();
        }
        presence.lapse(now);
        key.make(now, &mut presence);
    }
    // It is silent from 18 s on, and its record is to go a minute later.
    assert!((15..=23).contains(&key.tries), "{} writes", key.tries);
    let before = key.tries;
    for step in 0..100u32 {
        let now = 100_000 + u64::from(step) * 100;
        presence
            .register(now, &backend(1), entry(step + 2, None), true)
            .unwrap();
        key.make(now, &mut presence);
    }
    assert!(
        (5..=11).contains(&(key.tries - before)),
        "{} writes",
        key.tries - before
    );
}

/// Scenario: the first record of a member is made, and removed by another node at once; this node lists what stands there
/// before it has the answer to its write. It does not believe then that the record stands, and writes it with the next
/// word by one write.
#[test]
fn what_was_made_and_removed_before_a_list_does_not_stand() {
    let mut presence = node("a");
    presence.register(0, &backend(1), entry(1, None), true).unwrap();
    let write = presence.writes(0, 10).remove(0);
    presence.hear_records(500, false);
    presence.hear_records(1_000, true);
    presence.list_records(1_000, 9, vec![(backend(2), 2, write.put.clone())]);
    presence.made(1_050, &backend(1), Outcome::Done(7));
    assert_eq!(presence.records(), (1, 0));
    presence
        .register(5_000, &backend(1), entry(1, None), true)
        .unwrap();
    let due = presence.writes(5_000, 10);
    assert_eq!(due.iter().map(|write| write.seen).collect::<Vec<_>>(), [None]);
    // Made after a list it stands, though that did not have it.
    presence.list_records(5_050, 11, vec![(backend(2), 2, write.put)]);
    presence.made(5_100, &backend(1), Outcome::Done(12));
    assert_eq!(presence.records(), (2, 0));
}
