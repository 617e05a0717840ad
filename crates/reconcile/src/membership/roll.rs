//! Who is registered in one pool.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use model::config::Name;
use model::state::Listed;

use super::{Hearing, Last, MemberRecord};

/// Members that left by their silence count as lost for so long, when it is asked how many fell silent at once.
pub const AT_ONCE_MS: u64 = 60_000;
/// Longest that a silent member is kept because too many fell silent with it.
pub const KEPT_AT_MOST_MS: u64 = 3_600_000;

/// Who is registered in one pool.
#[derive(Clone, Debug, Default)]
pub struct Roll {
    leases: BTreeMap<SocketAddr, Lease>,
    /// How many of them are not out.
    present: usize,
    /// When members left by their silence, within [`AT_ONCE_MS`].
    lost: VecDeque<u64>,
}

#[derive(Clone, Debug)]
struct Lease {
    listed: Listed,
    ttl_ms: u64,
    last: Last,
    /// Since when it is no member any more, by its silence.
    out_ms: Option<u64>,
    /// The store has others, and nothing of it: it may have left.
    missing: bool,
}

/// What a registration was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The member is new.
    New,
    /// It was there, and says something else of itself than how busy it is.
    Changed,
    /// It was there as it is: its time begins anew.
    Renewed,
}

/// There is no room for another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Roll {
    /// Takes a registration for `ttl_ms`; a new member only while there are fewer than `most`. A new one, or one that
    /// was silent for too long, has the life that `listed` names; who is there keeps its own.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(
        &mut self,
        now_ms: u64,
        address: SocketAddr,
        mut listed: Listed,
        (ttl_ms, most): (u64, usize),
    ) -> Result<Entered, Full> {
        let known = self.leases.get(&address).filter(|known| known.out_ms.is_none());
        let entered = match known {
            None if self.len() >= most => return Err(Full),
            None => Entered::New,
            Some(known) => {
                listed.life = known.listed.life;
                // How busy it is changes all the time, and nothing follows from it.
                let load = known.listed.load;
                match known.listed
                    == (Listed {
                        load,
                        ..listed.clone()
                    }) {
                    true => Entered::Renewed,
                    false => Entered::Changed,
                }
            }
        };
        let lease = Lease {
            listed,
            ttl_ms,
            last: Last::here(now_ms),
            out_ms: None,
            missing: false,
        };
        self.leases.insert(address, lease);
        self.present += usize::from(entered == Entered::New);
        Ok(entered)
    }

    /// Takes a member of an earlier life of this process: it has its whole time to be heard.
    pub fn remember(&mut self, now_ms: u64, address: SocketAddr, listed: Listed, ttl_ms: u64) {
        let last = Last::awaited(now_ms);
        self.leases.entry(address).or_insert_with(|| {
            self.present += 1;
            Lease {
                listed,
                ttl_ms,
                last,
                out_ms: None,
                missing: false,
            }
        });
    }

    /// Takes what stands in the store of a member; `spoke`: it has just said so, somewhere.
    pub fn record(&mut self, now_ms: u64, address: SocketAddr, record: &MemberRecord, spoke: bool) {
        let lease = self.leases.entry(address).or_insert_with(|| {
            self.present += 1;
            Lease {
                listed: record.listed(None),
                ttl_ms: record.ttl_ms,
                last: Last::awaited(now_ms),
                out_ms: None,
                missing: false,
            }
        });
        lease.missing = false;
        let was_out = lease.out_ms.is_some();
        if lease.listed.life != record.life {
            (lease.last, lease.out_ms) = (lease.last.of_another_life(now_ms), None);
        }
        lease.listed = record.listed(lease.listed.load);
        lease.ttl_ms = record.ttl_ms;
        if spoke {
            lease.last.hear(now_ms, None);
            lease.out_ms = None;
        }
        self.present += usize::from(was_out && lease.out_ms.is_none());
    }

    /// Another node heard a member at that time. Who is out comes back by it, unless that is too long ago.
    pub fn vouch(
        &mut self,
        now_ms: u64,
        address: SocketAddr,
        (at_ms, load): (u64, Option<u8>),
        (by, hearing): (&Name, &Hearing),
    ) {
        let Some(lease) = self.leases.get_mut(&address) else {
            return;
        };
        lease.last.hear(at_ms, Some(by));
        lease.listed.load = load.or(lease.listed.load);
        if lease.out_ms.is_some() && hearing.is_recent(now_ms, at_ms, lease.ttl_ms) {
            lease.out_ms = None;
            self.present += 1;
        }
    }

    /// Takes a member out that says so itself, or that somebody else took out; says whether it was there.
    pub fn leave(&mut self, address: SocketAddr) -> bool {
        let gone = self.leases.remove(&address);
        let was_there = gone.is_some_and(|gone| gone.out_ms.is_none());
        self.present -= usize::from(was_there);
        was_there
    }

    /// The store has nothing of those for whom that `is` so: they have left, perhaps, where nobody here could see it. They
    /// have their time to be heard, and then that many others are silent, too, keeps them no longer.
    pub(super) fn miss(&mut self, is: impl Fn(SocketAddr) -> bool) {
        for (address, lease) in &mut self.leases {
            lease.missing |= is(*address);
        }
    }

    /// Says who is no member any more because of its silence; when too many fell silent at once, and that `spares` them,
    /// only who the store has nothing of, though it has others.
    pub fn lapse(&mut self, now_ms: u64, hearing: &Hearing, spares: bool) -> Vec<SocketAddr> {
        while self
            .lost
            .front()
            .is_some_and(|at| at.saturating_add(AT_ONCE_MS) <= now_ms)
        {
            self.lost.pop_front();
        }
        let over =
            |lease: &Lease, by: u64| hearing.is_over(now_ms, &lease.last, lease.ttl_ms.saturating_add(by));
        let (mut members, mut silent, mut any) = (0, 0, false);
        for lease in self.leases.values().filter(|lease| lease.out_ms.is_none()) {
            let is_silent = over(lease, 0);
            any |= is_silent;
            members += usize::from(!lease.missing);
            silent += usize::from(!lease.missing && is_silent);
        }
        if !any {
            return Vec::new();
        }
        let too_many = spares && (silent + self.lost.len()) * 2 > members + self.lost.len();
        let kept_for = if too_many { KEPT_AT_MOST_MS } else { 0 };
        let mut gone = Vec::new();
        for (address, lease) in &mut self.leases {
            let kept_for = if lease.missing { 0 } else { kept_for };
            if lease.out_ms.is_none() && over(lease, kept_for) {
                lease.out_ms = Some(now_ms);
                if !lease.missing {
                    self.lost.push_back(now_ms);
                }
                gone.push(*address);
            }
        }
        self.present -= gone.len();
        gone
    }

    /// Forgets these.
    pub fn forget(&mut self, gone: &[SocketAddr]) {
        for address in gone {
            self.leave(*address);
        }
    }

    /// Who has been out for so long.
    pub fn out_since(&self, now_ms: u64, time_ms: u64) -> impl Iterator<Item = SocketAddr> {
        let is_long = move |since: u64| since.saturating_add(time_ms) <= now_ms;
        let out = self
            .leases
            .iter()
            .filter(move |(_, lease)| lease.out_ms.is_some_and(is_long));
        out.map(|(address, _)| *address)
    }

    /// Members that are silent, and are there because too many fell silent at once.
    pub fn kept(&self, now_ms: u64, hearing: &Hearing) -> usize {
        let present = self.leases.values().filter(|lease| lease.out_ms.is_none());
        present
            .filter(|lease| hearing.is_over(now_ms, &lease.last, lease.ttl_ms))
            .count()
    }

    /// Who is registered.
    pub fn members(&self) -> BTreeMap<SocketAddr, Listed> {
        let members = self.leases.iter().filter(|(_, lease)| lease.out_ms.is_none());
        members
            .map(|(address, lease)| (*address, lease.listed.clone()))
            .collect()
    }

    /// The same with the number of each membership only.
    pub fn lives(&self) -> impl Iterator<Item = (SocketAddr, u64)> {
        let members = self.leases.iter().filter(|(_, lease)| lease.out_ms.is_none());
        members.map(|(address, lease)| (*address, lease.listed.life))
    }

    /// What a member says of itself, for how long that holds, and when it was heard; also of one that is out, which
    /// the last part tells.
    pub fn get(&self, address: SocketAddr) -> Option<(&Listed, u64, &Last, bool)> {
        let lease = self.leases.get(&address)?;
        Some((&lease.listed, lease.ttl_ms, &lease.last, lease.out_ms.is_some()))
    }

    /// Everybody that is known, also those who are out.
    pub fn all(&self) -> impl Iterator<Item = SocketAddr> {
        self.leases.keys().copied()
    }

    /// How many are registered.
    pub fn len(&self) -> usize {
        self.present
    }

    /// Whether nobody is known, not even one that is out.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// All have their whole time once more, as far as `only` holds.
    pub(super) fn spare(&mut self, now_ms: u64, only: impl Fn(&Last) -> bool) {
        let those = self.leases.values_mut().filter(|lease| only(&lease.last));
        those.for_each(|lease| lease.last.spare(now_ms));
    }

    /// A node is gone that heard some of them.
    pub(super) fn orphan(&mut self, now_ms: u64, node: &Name) {
        self.leases
            .values_mut()
            .for_each(|lease| lease.last.orphan(now_ms, node));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: (u64, usize) = (15_000, 100);

    fn address(number: u16) -> SocketAddr {
        ([10, 0, 0, 1], number).into()
    }

    /// Of a process that is alone: who goes is forgotten.
    fn lapse(roll: &mut Roll, now_ms: u64) -> Vec<SocketAddr> {
        let gone = roll.lapse(now_ms, &Hearing::alone(), true);
        roll.forget(&gone);
        gone
    }

    fn roll(members: u16) -> Roll {
        let mut roll = Roll::default();
        for number in 1..=members {
            roll.enter(0, address(number), Listed::default(), TTL).unwrap();
        }
        roll
    }

    #[test]
    fn a_member_is_there_for_as_long_as_it_renews() {
        let mut roll = roll(3);
        let renew = |roll: &mut Roll, at, number| roll.enter(at, address(number), Listed::default(), TTL);
        assert_eq!(renew(&mut roll, 10_000, 1), Ok(Entered::Renewed));
        assert_eq!(renew(&mut roll, 10_000, 2), Ok(Entered::Renewed));
        assert_eq!(lapse(&mut roll, 14_999), []);
        assert_eq!(lapse(&mut roll, 15_000), [address(3)]);
        assert_eq!(renew(&mut roll, 16_000, 3), Ok(Entered::New));
        assert!(roll.leave(address(3)));
        assert!(!roll.leave(address(3)));
        assert_eq!(roll.members().len(), 2);
    }

    /// All fall silent at once: all are kept, for an hour; those that come back are as if nothing had been.
    #[test]
    fn a_pool_is_not_emptied_at_one_stroke() {
        let mut roll = roll(10);
        assert_eq!(lapse(&mut roll, 20_000), []);
        assert_eq!(roll.kept(20_000, &Hearing::alone()), 10);
        for number in 1..=6 {
            roll.enter(21_000, address(number), Listed::default(), TTL)
                .unwrap();
        }
        // Four of ten are no mystery.
        assert_eq!(lapse(&mut roll, 22_000).len(), 4);
        // And now the rest: that makes ten of ten within a minute.
        assert_eq!(lapse(&mut roll, 40_000), []);
        assert_eq!(roll.kept(40_000, &Hearing::alone()), 6);
        // The minute is over, and it is six of six.
        assert_eq!(lapse(&mut roll, 200_000), []);
        assert_eq!(lapse(&mut roll, 21_000 + 15_000 + KEPT_AT_MOST_MS).len(), 6);
        assert!(roll.is_empty());
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut roll = Roll::default();
        for number in 1..=5 {
            roll.enter(0, address(number), Listed::default(), (1_000, 5))
                .unwrap();
        }
        assert_eq!(
            roll.enter(0, address(6), Listed::default(), (1_000, 5)),
            Err(Full)
        );
        assert_eq!(
            roll.enter(0, address(5), Listed::default(), (1_000, 5)),
            Ok(Entered::Renewed)
        );
        let draining = Listed {
            draining: true,
            ..Listed::default()
        };
        assert_eq!(
            roll.enter(0, address(5), draining, (1_000, 5)),
            Ok(Entered::Changed)
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Enter(u16),
        Leave(u16),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (1..12u16).prop_map(Step::Enter),
            1 => (1..12u16).prop_map(Step::Leave),
            3 => (0..40_000u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Whatever happens: who renewed in time is there, nobody new appears by itself, and silence alone never takes
        /// more than half of those who were there within a minute.
        #[test]
        fn silence_takes_at_most_half(steps in prop::collection::vec(step(), 0..80)) {
            let mut roll = Roll::default();
            let mut now = 0;
            let mut until: BTreeMap<SocketAddr, u64> = BTreeMap::new();
            let mut taken: Vec<(u64, usize)> = Vec::new();
            for step in steps {
                match step {
                    Step::Enter(n) => {
                        roll.enter(now, address(n), Listed::default(), TTL).unwrap();
                        until.insert(address(n), now + TTL.0);
                    }
                    Step::Leave(n) => {
                        prop_assert_eq!(roll.leave(address(n)), until.remove(&address(n)).is_some());
                    }
                    Step::Wait(time) => now += time,
                }
                let before = roll.len();
                let gone = lapse(&mut roll, now);
                for address in &gone {
                    prop_assert!(until.remove(address).is_some_and(|at| at <= now), "{} was heard in time", address);
                }
                let kept_long = until.values().any(|at| at + KEPT_AT_MOST_MS <= now);
                prop_assert!(!kept_long);
                taken.push((now, gone.len()));
                let lately: usize = taken.iter().filter(|(at, _)| at + AT_ONCE_MS > now).map(|(_, n)| n).sum();
                if now < KEPT_AT_MOST_MS && !gone.is_empty() {
                    let there = before + lately - gone.len();
                    prop_assert!(lately * 2 <= there, "{lately} of {there}");
                }
                let members = roll.members();
                prop_assert!(members.keys().eq(until.keys()));
                prop_assert_eq!(members.len(), roll.len());
            }
        }
    }
}
