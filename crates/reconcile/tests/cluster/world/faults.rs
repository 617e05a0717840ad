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
                let (up, _) = self.truth[backend];
                self.truth[backend] = (!up, self.now);
                if self.told_within > 0 {
                    self.later(self.now + self.told_within, NOBODY, Thing::Settled(backend));
                }
            }
            Fault::Die(_) | Fault::Stop(_) => {}
        }
        Ok(())
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
        if self.now - since < self.told_within {
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

    pub(super) fn stored(&self, backend: usize) -> Option<Health> {
        let there = self
            .store
            .keys
            .get(&Key::Verdict(self.backends[backend].clone()))?;
        match &there.value {
            Value::Verdict(verdict) => Some(verdict.health),
            _ => None,
        }
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
