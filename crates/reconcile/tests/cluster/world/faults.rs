//! What goes wrong, and what is asked at certain moments.

use super::*;

impl World {
    pub(super) fn fault(&mut self, fault: Fault) -> Held {
        self.note(|_| format!("{fault:?}"));
        match fault {
            Fault::Die(who) if self.processes[who].alive => {
                self.processes[who].alive = false;
                self.processes[who].life += 1;
            }
            Fault::Stop(who) if self.processes[who].alive => {
                self.later(self.now, who, Thing::Stop);
            }
            Fault::Begin(who) => self.restart(who),
            Fault::Pause(who, pause) => self.pause(who, pause),
            Fault::Cut(who) => {
                self.processes[who].cut = true;
                let noticed = self.now + self.random.within(100, 1000);
                self.later(noticed, who, Thing::LinkBroken);
            }
            Fault::Deafen(who) => {
                self.processes[who].deaf = true;
                let noticed = self.now + self.random.within(100, 1000);
                self.later(noticed, who, Thing::LinkBroken);
            }
            Fault::Slow(who, slow) => self.processes[who].slow = slow,
            Fault::Hear(who) => self.processes[who].deaf = false,
            Fault::Heal(who) => self.processes[who].cut = false,
            Fault::LosesAllLeases => {
                for lease in self.store.leases.keys().copied().collect::<Vec<_>>() {
                    let batch = self.store.end(lease);
                    self.publish(batch);
                }
            }
            Fault::Forgets(ahead) => self.forget(ahead),
            Fault::Emptied(leases_too) => {
                let batch = self.store.empty();
                self.publish(batch);
                if leases_too {
                    return self.fault(Fault::LosesAllLeases);
                }
            }
            Fault::Scribble(which) => self.scribble(which),
            Fault::Rough(rough) => self.rough = rough,
            Fault::Seal => self.shadow.sealed = true,
            Fault::Measure => self.shadow.measured_from = Some(self.now),
            Fault::Weigh => {
                let weights = (0..self.settings.slots).map(|_| self.random.within(1, 20));
                self.weights = weights.collect::<Vec<_>>().into();
                for who in 0..self.processes.len() {
                    let at = self.now + self.random.within(0, 2000);
                    self.later(at, who, Thing::Weights);
                }
            }
            Fault::Flip(backend) => {
                let (up, since) = self.truth[backend];
                self.truth[backend] = (!up, since.max(self.now));
                self.shadow.is_now(backend, !up);
                self.settles(backend);
            }
            Fault::Returns(backend) => {
                let up = self.random.chance(500);
                self.truth[backend] = (up, self.now + LEARN_MS);
                let life = self.shadow.returns(backend, up, self.now);
                for who in 0..self.processes.len() {
                    let at = self.now + self.random.within(0, LEARN_MS);
                    self.later(at, who, Thing::Member(backend, life));
                }
                self.settles(backend);
            }
            Fault::Die(_) | Fault::Stop(_) => {}
        }
        Ok(())
    }

    /// Something else is true of a backend, and the store shall say so in time.
    fn settles(&mut self, backend: usize) {
        if self.told_within > 0 {
            let (_, since) = self.truth[backend];
            self.later(since + self.told_within, NOBODY, Thing::Settled(backend));
        }
    }

    /// Sometimes under a lease that nobody keeps alive: of a process of another version that is gone.
    fn scribble(&mut self, which: u64) {
        let there = self.store.keys.keys();
        let names: BTreeSet<&Name> = there
            .filter_map(|key| match key {
                Key::Worker(name) | Key::Assignment(name) => Some(name),
                _ => None,
            })
            .collect();
        let pick = (which >> 8) as usize;
        let nobody = Name::parse("nobody").unwrap();
        let name = names
            .into_iter()
            .nth(pick % (self.processes.len() + 1))
            .unwrap_or(&nobody)
            .clone();
        let (key, may_be_leased) = match which % 8 {
            0 | 1 => (Key::Leader, true),
            2 | 3 => (Key::Round, false),
            4 | 5 => (Key::Worker(name), true),
            6 => (Key::Assignment(name), false),
            _ => {
                let of = self.backends[pick % self.backends.len()].clone();
                (Key::Verdict(of), false)
            }
        };
        let lease = (may_be_leased && self.random.chance(300)).then(|| {
            let ends = self.now + self.lease_ms;
            let lease = self.store.grant(ends);
            self.later(ends, NOBODY, Thing::LeaseEnds(lease));
            lease
        });
        self.note(|_| format!("scribbled: {key:?}, {lease:?}"));
        let batch = self.store.scribble(key, lease);
        self.publish(batch);
    }

    /// All connections end with the store that is gone, and what was on its way to that gets nowhere.
    fn forget(&mut self, ahead: bool) {
        let revision = if ahead { self.store.revision + 1000 } else { 0 };
        self.store.forget(revision);
        self.shadow.forget();
        let is_request = |(_, _, what): &(usize, u32, Thing)| matches!(what, Thing::Request(..));
        let moments: Vec<_> = self
            .queue
            .iter()
            .filter(|(_, thing)| is_request(thing))
            .map(|(at, _)| *at)
            .collect();
        for (who, life, what) in moments
            .iter()
            .filter_map(|at| self.queue.remove(at))
            .collect::<Vec<_>>()
        {
            if let Thing::Request(id, ..) = what
                && self.processes[who].life == life
            {
                self.later(self.now, who, Thing::GiveUp(id));
            }
        }
        for who in 0..self.processes.len() {
            for watch in &mut self.processes[who].watches {
                watch.connected = false;
            }
            let noticed = self.now + self.random.within(0, 300);
            self.later(noticed, who, Thing::Torn);
        }
    }

    pub(super) fn restart(&mut self, who: usize) {
        if self.processes[who].alive {
            return;
        }
        let server = matches!(self.processes[who].mind, Mind::Server(_));
        let (life, cut) = (self.processes[who].life, self.processes[who].cut);
        let connections: Vec<u32> = self.processes[who]
            .watches
            .iter()
            .map(|watch| watch.connection)
            .collect();
        self.processes[who] = self.process(server);
        self.processes[who].life = life + 1;
        self.processes[who].cut = cut;
        for (watch, connection) in self.processes[who].watches.iter_mut().zip(connections) {
            watch.connection = connection;
        }
        self.begin(who);
    }

    /// The store's verdict is the truth, if that has not changed for long enough.
    pub(super) fn told(&self, backend: usize) -> Held {
        let (up, since) = self.truth[backend];
        if self.now.saturating_sub(since) < self.told_within {
            return Ok(());
        }
        self.is_true(backend, up)
    }

    pub(crate) fn is_true(&self, backend: usize, up: bool) -> Held {
        let expected = if up { Health::Up } else { Health::Down };
        match self.stored(backend) {
            Some(health) if health == expected => Ok(()),
            other => Err(format!(
                "backend {backend} is {expected:?}, and the store says {other:?}"
            )),
        }
    }

    /// What stands of the membership that a backend is in.
    fn stored(&self, backend: usize) -> Option<Health> {
        let there = self
            .store
            .keys
            .get(&Key::Verdict(self.backends[backend].clone()))?;
        match &there.value {
            Value::Verdict(verdict) if verdict.life == self.shadow.member(backend) => Some(verdict.health),
            _ => None,
        }
    }

    /// What a server believes of a membership has been true of that one, or of one that it does not know of yet.
    pub(super) fn believes_what_is_about_them(&self, who: usize) -> Held {
        let process = &self.processes[who];
        let Mind::Server(server) = &process.mind else {
            return Ok(());
        };
        for (n, (backend, life)) in self.backends.iter().zip(&process.members).enumerate() {
            if let Some(health) = server.belief(backend, *life) {
                self.shadow.may_believe(n, *life, health == Health::Up)?;
            }
        }
        Ok(())
    }

    /// Every slot is given to a worker that lives.
    pub(crate) fn all_is_given(&self) -> bool {
        let living = |name: &Name| self.store.keys.contains_key(&Key::Worker(name.clone()));
        let given: usize = assignments(&self.store)
            .filter(|(name, _)| living(name))
            .map(|(_, given)| given.slots.len())
            .sum();
        given == usize::from(self.settings.slots)
    }
}
