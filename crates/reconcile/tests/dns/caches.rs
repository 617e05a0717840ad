//! Answers that a cache repeats: one bad answer is one miss, however often it is read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use domain::base::iana::{Rcode, Rtype};
use evenkeel_reconcile::discovery::dns::Watch;
use model::config::{AddressFamily, DnsLookup};

use super::server::{Answer, asked, ip, nothing, records, write};
use super::{address, addresses};

const V4: &str = "10.1.0.1:0";
const V6: &str = "[2001:db8::1]:0";
/// From when the zone is wrong.
const WRONG_MS: u64 = 60_000;

/// A zone that is right, then wrong about one type, behind a resolver that keeps every answer for as long as it may.
struct World {
    wrong_about: Rtype,
    /// How long "there is nothing" may be kept.
    nothing_s: u64,
    /// Whether a wrong answer is given once, or from then on.
    once: bool,
    was_wrong: bool,
    /// By type: whether what is kept is right, and until when.
    cache: BTreeMap<Rtype, (bool, u64)>,
}

impl World {
    fn new(wrong_about: Rtype, nothing_s: u64, once: bool) -> Self {
        Self {
            wrong_about,
            nothing_s,
            once,
            was_wrong: false,
            cache: BTreeMap::new(),
        }
    }

    fn answer(&mut self, kind: Rtype, now_ms: u64) -> Answer {
        if self.cache.get(&kind).is_none_or(|(_, until)| *until <= now_ms) {
            let wrong = kind == self.wrong_about && now_ms >= WRONG_MS && !(self.once && self.was_wrong);
            self.was_wrong |= wrong;
            // Not a round second: what is told is rounded down.
            let ttl_ms = if wrong { self.nothing_s * 1000 } else { 5_000 };
            self.cache.insert(kind, (!wrong, now_ms + ttl_ms + 900));
        }
        let (right, until) = self.cache[&kind];
        let ttl = u32::try_from((until - now_ms) / 1000).unwrap();
        match (right, kind) {
            (false, _) => nothing(Rcode::NOERROR, ttl),
            (true, Rtype::A) => records(vec![ip("app.internal", ttl, "10.1.0.1")]),
            (true, _) => records(vec![ip("app.internal", ttl, "2001:db8::1")]),
        }
    }

    /// Looks for three hours; says when who was found at first was missing for the first time.
    fn walk(mut self, settings: &DnsLookup, rand: u64) -> BTreeMap<SocketAddr, u64> {
        let mut watch = Watch::new(settings.clone(), BTreeMap::new(), 0);
        let (mut first, mut left) = (BTreeSet::new(), BTreeMap::new());
        while watch.due_ms() < 3 * 3_600_000 {
            let now = watch.due_ms();
            let mut lookup = watch.look(now, vec![address("10.0.0.1:53")]);
            while let Some(exchange) = lookup.next(now, rand) {
                let answer = self.answer(asked(&exchange.message).1, now);
                assert!(lookup.heard(&write(&exchange.message, &answer)));
            }
            watch.take(now, lookup.outcome(), rand);
            let members = watch.seen().members.clone().unwrap();
            if first.is_empty() {
                first = members.keys().copied().collect();
            }
            for gone in first.iter().filter(|address| !members.contains_key(address)) {
                left.entry(*gone).or_insert(now);
            }
        }
        assert!(!first.is_empty());
        left
    }
}

/// "There is nothing", once, is kept by the resolver for longer than until the next look: because another type has a
/// shorter TTL, because it is kept for longer than `max_ttl`, because a TTL is rounded down. Nobody leaves.
#[test]
fn one_bad_answer_read_twice_takes_nobody_out() {
    for rand in [0, 77] {
        for (family, about, nothing_s) in [
            (AddressFamily::Both, Rtype::AAAA, 300),
            (AddressFamily::Both, Rtype::A, 300),
            (AddressFamily::V4, Rtype::A, 3_600),
            (AddressFamily::V4, Rtype::A, 10),
            (AddressFamily::V6, Rtype::AAAA, 0),
        ] {
            let left = World::new(about, nothing_s, true).walk(&addresses(family), rand);
            assert_eq!(
                left,
                BTreeMap::new(),
                "{family:?}, {about} wrong for {nothing_s} s"
            );
        }
    }
}

/// Who is gone leaves when the answer that said so first is forgotten everywhere, with the next look; at the latest
/// after an hour. An answer about one family does not keep the other.
#[test]
fn who_is_gone_leaves_when_caches_forget() {
    for (about, other, nothing_s, latest_s) in [
        (Rtype::A, V6, 20, 20),
        (Rtype::AAAA, V4, 300, 300),
        (Rtype::A, V6, 86_400, 3_600),
    ] {
        let left = World::new(about, nothing_s, false).walk(&addresses(AddressFamily::Both), 0);
        assert_eq!(left.len(), 1, "{about}");
        let (gone, at) = left.first_key_value().unwrap();
        assert_ne!(*gone, address(other));
        // The bad answer is read within a look, and the next look may come just before it is forgotten. Clocks may
        // differ by a hundredth.
        let look = 5_000 + 1_000 + 900;
        let earliest = WRONG_MS + latest_s * 1000;
        assert!(
            (earliest..=earliest + latest_s * 10 + 1_900 + 3 * look).contains(at),
            "{about}: {at}"
        );
    }
    // A name that has never had addresses of the other family: how long that is kept keeps nobody.
    let mut world = World::new(Rtype::A, 5, false);
    world.cache.insert(Rtype::AAAA, (false, 3_600_000));
    let left = world.walk(&addresses(AddressFamily::Both), 0);
    assert!(left[&address(V4)] < WRONG_MS + 40_000, "{left:?}");
}
