//! Members that register themselves, and those that say that they live.
//!
//! [`Roll`] keeps who is registered in one pool. Each has a lease; who does not renew it goes. When more than half
//! of a pool falls silent at once that is hardly the death of so many servers, but a network or an API that cannot be
//! reached: then nobody goes, and the checks say who works. [`Pulse`] keeps who is silent among members that did not
//! register.
//!
//! Times are milliseconds of a clock that does not jump, of the caller's choice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use model::state::Listed;

/// Members that left by their silence count as lost for so long, when it is asked how many fell silent at once.
pub const AT_ONCE_MS: u64 = 60_000;
/// Longest that a silent member is kept because too many fell silent with it.
pub const KEPT_AT_MOST_MS: u64 = 3_600_000;

/// Who is registered in one pool.
#[derive(Clone, Debug, Default)]
pub struct Roll {
    leases: BTreeMap<SocketAddr, Lease>,
    /// When members left by their silence, within [`AT_ONCE_MS`].
    lost: VecDeque<u64>,
}

#[derive(Clone, Debug)]
struct Lease {
    listed: Listed,
    until_ms: u64,
}

/// What a registration was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The member is new.
    New,
    /// It was there, and says something else of itself.
    Changed,
    /// It was there as it is: its lease begins anew.
    Renewed,
}

/// There is no room for another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Roll {
    /// Takes a registration for `ttl_ms`; a new member only while there are fewer than `most`.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(
        &mut self,
        now_ms: u64,
        address: SocketAddr,
        listed: Listed,
        (ttl_ms, most): (u64, usize),
    ) -> Result<Entered, Full> {
        let lease = Lease {
            listed,
            until_ms: now_ms.saturating_add(ttl_ms),
        };
        let known = self
            .leases
            .get(&address)
            .map(|known| known.listed == lease.listed);
        if known.is_none() && self.leases.len() >= most {
            return Err(Full);
        }
        self.leases.insert(address, lease);
        Ok(match known {
            None => Entered::New,
            Some(false) => Entered::Changed,
            Some(true) => Entered::Renewed,
        })
    }

    /// Takes a member out that says so itself; says whether it was there.
    pub fn leave(&mut self, address: SocketAddr) -> bool {
        self.leases.remove(&address).is_some()
    }

    /// Takes out whose lease is over, unless too many fell silent at once; says who went.
    pub fn lapse(&mut self, now_ms: u64) -> Vec<SocketAddr> {
        while self
            .lost
            .front()
            .is_some_and(|at| at.saturating_add(AT_ONCE_MS) <= now_ms)
        {
            self.lost.pop_front();
        }
        let over = |lease: &Lease, by: u64| lease.until_ms.saturating_add(by) <= now_ms;
        let silent = self.leases.values().filter(|lease| over(lease, 0)).count();
        let all = self.leases.len() + self.lost.len();
        let too_many = (silent + self.lost.len()) * 2 > all;
        let kept_for = if too_many { KEPT_AT_MOST_MS } else { 0 };
        let gone = self.leases.iter().filter(|(_, lease)| over(lease, kept_for));
        let gone: Vec<SocketAddr> = gone.map(|(address, _)| *address).collect();
        for address in &gone {
            self.leases.remove(address);
            self.lost.push_back(now_ms);
        }
        gone
    }

    /// Members that are silent, and are there because too many fell silent at once.
    pub fn kept(&self, now_ms: u64) -> usize {
        self.leases
            .values()
            .filter(|lease| lease.until_ms <= now_ms)
            .count()
    }

    /// Who is registered.
    pub fn members(&self) -> BTreeMap<SocketAddr, Listed> {
        let members = self.leases.iter();
        members
            .map(|(address, lease)| (*address, lease.listed.clone()))
            .collect()
    }

    /// How many are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }
}

/// Who is silent among the members of one pool.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// When each was last heard, or was first expected.
    heard: BTreeMap<SocketAddr, u64>,
    silent: BTreeSet<SocketAddr>,
}

/// A member that fell silent, or is heard again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which.
    pub address: SocketAddr,
    /// Whether it is silent now.
    pub silent: bool,
}

impl Pulse {
    /// Only these are expected from now on; a new one has the whole time until it must be heard.
    pub fn expect(&mut self, now_ms: u64, members: &BTreeSet<SocketAddr>) {
        self.heard.retain(|address, _| members.contains(address));
        self.silent.retain(|address| members.contains(address));
        for address in members {
            self.heard.entry(*address).or_insert(now_ms);
        }
    }

    /// A member was heard; news when it was silent. `None` also when nobody expects it.
    pub fn beat(&mut self, now_ms: u64, address: SocketAddr) -> Option<Heard> {
        *self.heard.get_mut(&address)? = now_ms;
        self.silent.remove(&address).then_some(Heard {
            address,
            silent: false,
        })
    }

    /// Whether this member is expected to be heard.
    pub fn expects(&self, address: SocketAddr) -> bool {
        self.heard.contains_key(&address)
    }

    /// Who has fallen silent since the last call.
    pub fn listen(&mut self, now_ms: u64, timeout_ms: u64) -> Vec<Heard> {
        let over = |at: u64| at.saturating_add(timeout_ms) <= now_ms;
        let silent = self
            .heard
            .iter()
            .filter(|(address, at)| over(**at) && !self.silent.contains(*address));
        let silent: Vec<SocketAddr> = silent.map(|(address, _)| *address).collect();
        self.silent.extend(&silent);
        silent
            .into_iter()
            .map(|address| Heard {
                address,
                silent: true,
            })
            .collect()
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
        assert_eq!(roll.lapse(14_999), []);
        assert_eq!(roll.lapse(15_000), [address(3)]);
        assert_eq!(renew(&mut roll, 16_000, 3), Ok(Entered::New));
        assert!(roll.leave(address(3)));
        assert!(!roll.leave(address(3)));
        assert_eq!(roll.members().len(), 2);
    }

    /// All fall silent at once: all are kept, for an hour; those that come back are as if nothing had been.
    #[test]
    fn a_pool_is_not_emptied_at_one_stroke() {
        let mut roll = roll(10);
        assert_eq!(roll.lapse(20_000), []);
        assert_eq!(roll.kept(20_000), 10);
        for number in 1..=6 {
            roll.enter(21_000, address(number), Listed::default(), TTL)
                .unwrap();
        }
        // Four of ten are no mystery.
        assert_eq!(roll.lapse(22_000).len(), 4);
        // And now the rest: that makes ten of ten within a minute.
        assert_eq!(roll.lapse(40_000), []);
        assert_eq!(roll.kept(40_000), 6);
        // The minute is over, and it is six of six.
        assert_eq!(roll.lapse(200_000), []);
        assert_eq!(roll.lapse(21_000 + 15_000 + KEPT_AT_MOST_MS).len(), 6);
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

    #[test]
    fn who_is_silent_is_told_once_and_who_comes_back_too() {
        let mut pulse = Pulse::default();
        let both = BTreeSet::from([address(1), address(2)]);
        pulse.expect(0, &both);
        assert_eq!(pulse.beat(5_000, address(1)), None);
        assert_eq!(pulse.beat(5_000, address(9)), None, "nobody expects it");
        let silent = |number, silent| Heard {
            address: address(number),
            silent,
        };
        assert_eq!(pulse.listen(15_000, 15_000), [silent(2, true)]);
        assert_eq!(pulse.listen(16_000, 15_000), []);
        assert_eq!(pulse.beat(17_000, address(2)), Some(silent(2, false)));
        pulse.expect(17_000, &BTreeSet::from([address(2)]));
        assert!(!pulse.expects(address(1)));
        assert_eq!(pulse.listen(31_999, 15_000), []);
        assert_eq!(pulse.listen(32_000, 15_000), [silent(2, true)]);
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
                let gone = roll.lapse(now);
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
            }
        }
    }
}
