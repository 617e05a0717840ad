//! What processes do: decide, carry out, check.

use evenkeel_reconcile::cluster::member::Finding;

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
            Mind::Orchestrator(orchestrator) => {
                let actions = orchestrator.member.handle(event, local);
                (actions, orchestrator.member.wake_at())
            }
            Mind::Server(server) => {
                let backends = self.backends.iter().zip(&process.members);
                let backends = backends.zip(self.truth.iter().map(|(up, _)| *up));
                (Vec::new(), server.handle(event, connected, local, backends))
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
        if let Mind::Orchestrator(orchestrator) = &mut self.processes[who].mind {
            orchestrator.run(&slots);
        }
        self.follow(who);
        Ok(())
    }

    /// A process learns that a backend is back as another one, or nothing while it hears nothing.
    pub(super) fn learn(&mut self, who: usize, backend: usize, life: u64) -> Held {
        if self.processes[who].cut || self.processes[who].deaf {
            self.later(self.now + RELIST_MS, who, Thing::Member(backend, life));
            return Ok(());
        }
        let known = &mut self.processes[who].members[backend];
        *known = life.max(*known);
        let wanted = self.wanted(&self.processes[who].members);
        if let Mind::Orchestrator(orchestrator) = &mut self.processes[who].mind {
            orchestrator.want(wanted.clone());
        }
        self.follow(who);
        self.tell(who, Event::Wanted(wanted))
    }

    /// Something was heard of the verdicts, and this is to be written for it.
    pub(super) fn heard(&mut self, who: usize, findings: Vec<Finding>) -> Held {
        self.follow(who);
        findings
            .into_iter()
            .try_for_each(|finding| self.tell(who, Event::Found(finding)))
    }

    /// The checks of an orchestrator are those that its roster names.
    fn follow(&mut self, who: usize) {
        let Mind::Orchestrator(orchestrator) = &self.processes[who].mind else {
            return;
        };
        let targets = orchestrator.targets();
        for backend in 0..self.backends.len() {
            let target = targets
                .iter()
                .find(|target| target.backend == self.backends[backend]);
            let check = &mut self.processes[who].checks[backend];
            let life = target.map(|target| target.life);
            if check.life == life {
                continue;
            }
            let standing = target.and_then(|target| target.standing.as_ref());
            *check = Check {
                run: check.run + 1,
                life,
                reported: standing.map(|standing| standing.health == Health::Up),
            };
            if life.is_some() {
                let run = check.run;
                let at = self.now + self.random.within(0, INTERVAL_MS);
                self.later(at, who, Thing::Check(backend, run));
            }
        }
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
            Mind::Orchestrator(orchestrator) => {
                let member = &orchestrator.member;
                process.alive && process.run.contains(&slot) && member.may_check(slot, self.local(who))
            }
            Mind::Server(_) => false,
        }
    }

    pub(super) fn check(&mut self, who: usize, backend: usize, run: u32) -> Held {
        if self.processes[who].checks[backend].run != run {
            return Ok(());
        }
        let slot = Slot::of(self.backends[backend].address, self.settings.slots);
        if self.in_hand(who, slot) {
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
        let process = &mut self.processes[who];
        let check = &mut process.checks[backend];
        if check.run != run || check.reported == Some(up) {
            return Ok(());
        }
        check.reported = Some(up);
        let (Some(life), Mind::Orchestrator(orchestrator)) = (check.life, &mut process.mind) else {
            return Ok(());
        };
        let verdict = Verdict {
            backend: self.backends[backend].clone(),
            health: if up { Health::Up } else { Health::Down },
            reason: String::new(),
            life,
        };
        match orchestrator.found(verdict, began) {
            Some(finding) => self.tell(who, Event::Found(finding)),
            None => Ok(()),
        }
    }
}
