//! What must be true. It knows who really lives, and shares nothing with the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::store::LEASE;
use super::world::{Instance, Kind, Life, Node, World};

/// What is wrong, in words.
pub(crate) type Held = Result<(), String>;

/// Who lives is known everywhere after this: a registration, a write that is lost once and made again, a watch.
pub(crate) const LATE: u64 = 10_000;

/// Who does not is unknown everywhere after this, and after the last disturbance: the lease of a node that may have
/// heard it, its time twice, the slack, and clocks that are 5 % slow.
pub(crate) fn gone(ttl: u64) -> u64 {
    2 * ttl + LEASE + 3_000 + 5_000 + 4_000
}

/// The same where nothing was wrong: its time and 3 s by a slow clock, a telling of a node to which nobody else speaks,
/// and looks.
pub(crate) fn soon(ttl: u64) -> u64 {
    (ttl + 3_000) * 106 / 100 + 2_000
}

/// What a node believes of an instance, as seen last.
#[derive(Clone, Copy, Default)]
pub(crate) struct Belief {
    /// It is a member.
    is: bool,
    /// It was one, in this life of the node, and is no more.
    was: bool,
    /// Of a declared backend: it is silent.
    silent: bool,
}

impl Belief {
    pub(crate) fn comes_here(&mut self) {
        (self.is, self.was) = (true, false);
    }

    pub(crate) fn leaves_here(&mut self) {
        (self.is, self.was) = (false, true);
    }

    pub(crate) fn is_heard(&mut self, silent: bool) {
        self.silent = silent;
    }
}

impl World {
    /// What a node believes after a look.
    pub(crate) fn judge(&mut self, n: usize) -> Held {
        let steady = self.nodes[n].presence.members(&self.pools[0], true);
        let others = match self.scenario.pool {
            Some(_) => self.nodes[n].presence.members(&self.pools[1], true),
            None => BTreeMap::new(),
        };
        for i in 0..self.instances.len() {
            let one = &self.instances[i];
            let held = match one.kind {
                Kind::Declared => self.judge_declared(&self.nodes[n], one, self.nodes[n].beliefs[i].silent),
                kind => {
                    let members = if kind == Kind::Steady { &steady } else { &others };
                    let is = members.contains_key(&one.id.address);
                    let held = self.judge_member(&self.nodes[n], one, (is, self.nodes[n].beliefs[i]));
                    let belief = &mut self.nodes[n].beliefs[i];
                    belief.was = !is && (belief.was || belief.is);
                    belief.is = is;
                    held
                }
            };
            let one = &self.instances[i];
            held.map_err(|what| format!("{what}: {i}, {:?} since {}, at node {n}", one.life, one.since))?;
        }
        Ok(())
    }

    fn judge_member(&self, node: &Node, one: &Instance, (is, before): (bool, Belief)) -> Held {
        let now = self.now;
        if one.kind == Kind::Other && !self.is_judged(node) {
            return Ok(());
        }
        let wrong = |what: &str| Err(what.to_owned());
        if node.cut.is_some() && node.told_cut && before.is && !is {
            return wrong("somebody went while the store was not heard");
        }
        match one.life {
            Life::Lives => {
                let known = one.since.max(node.hears_since) + LATE <= now;
                if before.is && !is && one.since + LATE <= now {
                    return wrong("a live member went");
                }
                if node.hears() && known && !is {
                    return wrong("a live member is not known");
                }
            }
            Life::Silent | Life::Left => {
                if node.hears() && is && self.is_over(node, one) && !self.may_be_kept(one) {
                    return wrong("still a member");
                }
                let calm = self.disturbed == 0 || self.disturbed + gone(self.scenario.ttl) <= now;
                let left = one.life == Life::Left && !one.left_unheard && self.replacements == 0;
                if before.was && is && (calm || left) && one.since + 3_000 < now {
                    return wrong("it came back");
                }
            }
        }
        Ok(())
    }

    /// Whether it has been gone, and heard to be, for longer than is promised.
    fn is_over(&self, node: &Node, one: &Instance) -> bool {
        let ttl = self.scenario.ttl;
        let disturbed = self.disturbed.max(self.lost_at);
        let calm = disturbed == 0 || disturbed + 12_000 <= one.since;
        let promised = if calm { soon(ttl) } else { gone(ttl) };
        one.since.max(self.disturbed).max(node.hears_since) + promised <= self.now
    }

    /// How many of the first pool live.
    pub(crate) fn living(&self) -> usize {
        let living = |one: &&Instance| one.kind == Kind::Steady && one.life == Life::Lives;
        self.instances.iter().filter(living).count()
    }

    /// Whether it goes by its silence, perhaps, and so many may have that it is kept. Whoever has left where that was heard
    /// is never kept.
    fn may_be_kept(&self, one: &Instance) -> bool {
        let by_silence = one.life == Life::Silent || one.left_unheard || self.replacements > 0;
        one.kind == Kind::Steady
            && one.life != Life::Lives
            && by_silence
            && self.departed > self.living() as u64
    }

    /// The second pool is judged once it is back everywhere, or while it was never out.
    fn is_judged(&self, node: &Node) -> bool {
        let Some((out, back)) = self.scenario.pool else {
            return true;
        };
        node.open && (self.now < out || self.now >= back + LATE)
    }

    fn judge_declared(&self, node: &Node, one: &Instance, silent: bool) -> Held {
        let heard = one.since.max(node.hears_since) + LATE <= self.now;
        match one.life {
            Life::Lives if silent && heard && node.hears() => Err("heard, and held for silent".to_owned()),
            Life::Silent if !silent && node.hears() && self.is_over(node, one) => {
                Err("silent, and not missed".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Everything has been well for long: all know who lives, with what it said last, and the store does.
    pub(crate) fn judge_the_end(&self) -> Held {
        let steady = self.instances.iter().filter(|one| one.kind == Kind::Steady);
        let said: BTreeMap<SocketAddr, (u32, Life)> = steady
            .map(|one| (one.id.address, (one.weight, one.life)))
            .collect();
        let lives = |(address, (weight, life)): (&SocketAddr, &(u32, Life))| {
            (*life == Life::Lives).then_some((*address, *weight))
        };
        let living: BTreeMap<SocketAddr, u32> = said.iter().filter_map(lives).collect();
        let steady = self.instances.iter().filter(|one| self.may_be_kept(one));
        let may_be_kept: BTreeSet<SocketAddr> = steady.map(|one| one.id.address).collect();
        let records = self.store.records.iter();
        let records = records.filter(|(id, _)| id.pool == self.pools[0].1);
        // What cannot be read is nobody's where nobody says anything.
        let stands: BTreeMap<SocketAddr, u32> = records
            .filter_map(|(id, (_, record))| Some((id.address, record.as_ref()?.weight)))
            .collect();
        let kept = |address: &SocketAddr| {
            said[address].1 == Life::Lives || may_be_kept.contains(address) || !self.scenario.long
        };
        let stand: BTreeMap<SocketAddr, u32> = stands
            .clone()
            .into_iter()
            .filter(|(a, _)| said[a].1 == Life::Lives)
            .collect();
        if stand != living || !stands.keys().all(kept) {
            return Err(format!("the store has {stands:?}, and {said:?} is so"));
        }
        for (n, node) in self.nodes.iter().enumerate() {
            let mut members = node.presence.members(&self.pools[0], true);
            if self.hushed > 2 * members.len() as u64 {
                return Err(format!(
                    "node {n} has {members:?} of {} who were there",
                    self.hushed
                ));
            }
            members.retain(|address, _| !may_be_kept.contains(address));
            let members: BTreeMap<SocketAddr, u32> = members
                .iter()
                .map(|(address, listed)| (*address, listed.weight))
                .collect();
            if members != living {
                return Err(format!("node {n} has {members:?}, and {living:?} is so"));
            }
            if self.scenario.long && self.scenario.pool.is_none() && node.presence.records().1 != 0 {
                return Err(format!("node {n} has writes that wait"));
            }
        }
        // Each node may write the same once, and remove it once; a node that was away may write it again.
        let most = (self.said + self.instances.len() as u64) * 2 * self.nodes.len() as u64;
        if self.store.record_writes > most {
            return Err(format!(
                "{} writes of records, {most} are bearable",
                self.store.record_writes
            ));
        }
        // Where a write is lost it is not tried more often than it could be made.
        if self.store.record_tries > 2 * most {
            return Err(format!(
                "{} writes of records were tried, {most} are bearable",
                self.store.record_tries
            ));
        }
        let lives: u64 = self.nodes.iter().map(|node| node.life + 1).sum();
        if self.store.beat_writes > self.nodes.len() as u64 * (self.now / 900 + 1) + lives {
            return Err(format!("{} tellings in {} ms", self.store.beat_writes, self.now));
        }
        Ok(())
    }
}
