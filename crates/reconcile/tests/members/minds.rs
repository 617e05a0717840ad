//! What instances do, and what operators do to them.

use model::state::BackendId;

use super::world::{Instance, Kind, Life, NODES, World};

impl World {
    /// What instances want, and what the config says of the second pool.
    pub(crate) fn change_minds(&mut self) {
        let now = self.now;
        self.depart_at_once();
        if let Some((out, back)) = self.scenario.pool
            && (now == out || now == back)
        {
            for node in &mut self.nodes {
                node.opens = Some((now + self.random.within(50, 2_000), now == back));
            }
            let others = self.instances.iter_mut().filter(|one| one.kind == Kind::Other);
            for one in others.skip(1).filter(|_| now == out) {
                (one.life, one.since) = (Life::Silent, now + 2_000);
            }
        }
        if now < 4_000 || now >= self.scenario.calm || !self.random.chance(20) {
            return;
        }
        let i = self.random.below(self.instances.len() as u64) as usize;
        if self.instances[i].kind == Kind::Steady && self.scenario.spoils && self.random.chance(300) {
            let one = &mut self.instances[i];
            self.store.spoil(now, &one.id);
            // Whoever did not see it go sees that something stands there.
            one.left_unheard |= one.life == Life::Left;
            self.count("spoilt");
            self.say(|| format!("what stands for {i} cannot be read any more"));
            return;
        }
        let living = self.living();
        let one = &mut self.instances[i];
        // Long enough there to be known, and nobody else has to be waited for; and a store is not empty but when it was
        // emptied.
        let steady = (one.since + 9_000 < now || one.since == 0) && living > 1;
        match (one.kind, one.life) {
            (Kind::Steady, Life::Lives) if self.random.chance(400) => {
                one.weight = self.random.below(100) as u32;
                self.said += 1;
            }
            (Kind::Steady, Life::Lives) if steady && self.may_go > 0 && self.random.chance(500) => {
                self.may_go -= 1;
                self.departed += 1;
                (one.life, one.since) = (Life::Silent, now);
                self.say(|| format!("{i} falls silent"));
            }
            (Kind::Steady, Life::Lives) if steady && self.may_go > 0 => {
                self.may_go -= 1;
                self.leave(i);
            }
            (Kind::Steady, Life::Silent | Life::Left) if one.next_beat + 4_000 <= now => {
                (one.life, one.since, one.next_beat) = (Life::Lives, now, now);
                self.said += 1;
                self.say(|| format!("{i} comes"));
            }
            (Kind::Declared, Life::Lives) if self.random.chance(200) => {
                (one.life, one.since) = (Life::Silent, now);
                self.say(|| format!("{i} falls silent"));
            }
            (Kind::Declared, Life::Silent) if self.random.chance(300) => {
                (one.life, one.since) = (Life::Lives, now);
                self.say(|| format!("{i} beats again"));
            }
            _ => {}
        }
    }

    /// Most leave, or fall silent, in one moment.
    fn depart_at_once(&mut self) {
        let now = self.now;
        let lives = |one: &Instance| one.kind == Kind::Steady && one.life == Life::Lives;
        if self.scenario.exodus == Some(now) {
            let known = |one: &Instance| lives(one) && (one.since + 9_000 < now || one.since == 0);
            let those = (0..self.instances.len()).filter(|i| known(&self.instances[*i]));
            let most = self.living().saturating_sub(1).min(4);
            let those: Vec<usize> = those.take(most).collect();
            self.count("left at once");
            those.into_iter().for_each(|i| self.leave(i));
        }
        if self.scenario.hush == Some(now) {
            let those = self.instances.iter_mut().filter(|one| lives(one));
            let mut those: Vec<&mut Instance> = those.collect();
            self.hushed = those.len() as u64;
            for one in those.iter_mut().skip(1) {
                (one.life, one.since) = (Life::Silent, now);
                self.departed += 1;
            }
            self.count("fell silent at once");
            self.say(|| "all but one fall silent".to_owned());
        }
    }

    /// A farewell was not made, or that is not known: then its member goes by its silence, perhaps.
    pub(crate) fn farewell_is_lost(&mut self, id: &BackendId) {
        let those = self.instances.iter_mut();
        let those = those.filter(|one| one.id == *id && one.life == Life::Left);
        those.for_each(|one| one.left_unheard = true);
    }

    /// An instance says at some node that it goes.
    fn leave(&mut self, i: usize) {
        let up: Vec<usize> = (0..NODES).filter(|n| self.nodes[*n].is_up()).collect();
        let n = up[self.random.below(up.len() as u64) as usize];
        let one = &mut self.instances[i];
        (one.life, one.since) = (Life::Left, self.now);
        let mut others = (0..NODES).filter(|other| *other != n);
        let spoke_elsewhere = others.any(|other| one.heard[other] + 2_500 > self.now);
        one.left_unheard = spoke_elsewhere || !self.nodes[n].hears();
        self.departed += 1;
        self.said += 1;
        let node = &mut self.nodes[n];
        let at = node.now(self.now);
        node.presence.wake(at);
        node.presence.leave(at, &one.id, true);
        node.beliefs[i].leaves_here();
        self.say(|| format!("{i} leaves at node {n}"));
    }
}
