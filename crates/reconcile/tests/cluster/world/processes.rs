//! What processes do: decide, carry out, check.

use super::*;

impl World {
    pub(crate) fn local(&self, who: usize) -> u64 {
        let process = &self.processes[who];
        process.offset + self.now * process.rate / 1000
    }

    pub(super) fn tell(&mut self, who: usize, event: Event) -> Held {
        let local = self.local(who);
        let connected = self.processes[who].watches.iter().all(|watch| watch.connected);
        let process = &mut self.processes[who];
        let (actions, wake_at) = match &mut process.mind {
            Mind::Orchestrator(member) => {
                let actions = member.handle(event, local);
                (actions, member.wake_at())
            }
            Mind::Server(server) => {
                let truth = |n: usize| self.truth[n].0;
                (
                    Vec::new(),
                    server.handle(event, connected, local, &self.backends, truth),
                )
            }
        };
        // Real time at which its clock will show that.
        let process = &mut self.processes[who];
        let wake = wake_at
            .saturating_sub(process.offset)
            .saturating_mul(1000)
            .div_ceil(process.rate);
        if wake_at != u64::MAX && wake < process.next_tick {
            process.next_tick = wake;
            self.later(wake, who, Thing::Tick);
        }
        if actions.is_empty() {
            return Ok(());
        }
        self.processes[who].undone.extend(actions);
        if self.rough && self.random.chance(5) {
            let pause = self.random.within(100, 9000);
            self.note(|_| format!("{who} is paused for {pause} between a decision and carrying it out"));
            self.pause(who, pause);
            return Ok(());
        }
        self.do_undone(who)
    }

    pub(super) fn pause(&mut self, who: usize, pause: u64) {
        let until = self.now + pause;
        let until = if self.rough { until.min(CALM) } else { until };
        self.processes[who].paused_until = until.max(self.processes[who].paused_until);
        self.later(until, who, Thing::Wake);
    }

    pub(super) fn do_undone(&mut self, who: usize) -> Held {
        for action in std::mem::take(&mut self.processes[who].undone) {
            match action {
                Action::Run(slots) => self.run_checks(who, slots)?,
                Action::Call(id, call) => self.send(who, id, call),
                Action::Revoke(lease) => {
                    let batch = self.store.end(lease);
                    self.publish(batch);
                }
            }
        }
        Ok(())
    }

    pub(super) fn run_checks(&mut self, who: usize, slots: Arc<BTreeSet<Slot>>) -> Held {
        self.note(|_| format!("{who} runs {slots:?}"));
        let before = std::mem::replace(&mut self.processes[who].run, slots.clone());
        for slot in slots.difference(&before) {
            self.exclusive(who, *slot)?;
        }
        for backend in 0..self.backends.len() {
            let slot = Slot::of(self.backends[backend].address, self.settings.slots);
            let check = &mut self.processes[who].checks[backend];
            match (before.contains(&slot), slots.contains(&slot)) {
                (false, true) => {
                    *check = (check.0 + 1, None);
                    let run = check.0;
                    let at = self.now + self.random.within(0, INTERVAL_MS);
                    self.later(at, who, Thing::Check(backend, run));
                }
                (true, false) => check.0 += 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// Nobody else has this slot in hand, with a clock that lets it.
    pub(super) fn exclusive(&self, who: usize, slot: Slot) -> Held {
        let mine = self.in_hand(who, slot);
        let other = (0..self.processes.len()).find(|other| *other != who && self.in_hand(*other, slot));
        match other {
            Some(other) if mine => Err(format!("{who} and {other} both check {slot:?}")),
            _ => Ok(()),
        }
    }

    pub(super) fn in_hand(&self, who: usize, slot: Slot) -> bool {
        let process = &self.processes[who];
        match &process.mind {
            Mind::Orchestrator(member) => {
                process.alive && process.run.contains(&slot) && member.may_check(slot, self.local(who))
            }
            Mind::Server(_) => false,
        }
    }

    pub(super) fn check(&mut self, who: usize, backend: usize, run: u32) -> Held {
        if self.processes[who].checks[backend].0 != run {
            return Ok(());
        }
        let slot = Slot::of(self.backends[backend].address, self.settings.slots);
        if self.in_hand(who, slot) {
            if self.processes[who].checks[backend].1.is_none() && self.random.chance(500) {
                // Goes on from what stands there; else the first result is a verdict.
                self.processes[who].checks[backend].1 =
                    self.stored(backend).map(|health| health == Health::Up);
            }
            if self.rough && self.random.chance(3) {
                // Stopped between the decision and the packet: a stray check, which counts for nothing.
                let pause = self.random.within(100, 9000);
                self.pause(who, pause);
            } else {
                self.exclusive(who, slot)?;
                self.shadow.check_begins(backend, self.now);
            }
            let (took, up) = (self.random.within(5, 40), self.truth[backend].0);
            self.later(self.now + took, who, Thing::Checked(backend, run, up, self.now));
        }
        self.later(self.now + INTERVAL_MS, who, Thing::Check(backend, run));
        Ok(())
    }

    pub(super) fn checked(&mut self, who: usize, backend: usize, run: u32, up: bool, began: u64) -> Held {
        let check = &mut self.processes[who].checks[backend];
        if check.0 != run || check.1 == Some(up) {
            return Ok(());
        }
        check.1 = Some(up);
        let finding = Finding {
            backend: self.backends[backend].clone(),
            health: if up { Health::Up } else { Health::Down },
            reason: String::new(),
            at: Timestamp(began),
        };
        self.tell(who, Event::Found(finding))
    }
}
