//! What lies between processes and store: calls and watches, lost, late and broken.

use super::*;

impl World {
    pub(super) fn delay(&mut self) -> u64 {
        if self.rough && self.random.chance(30) {
            return self.random.within(100, 4000);
        }
        self.random.within(1, 12)
    }

    pub(super) fn lost(&mut self, who: usize) -> bool {
        self.processes[who].cut || (self.rough && self.random.chance(15))
    }

    pub(super) fn send(&mut self, who: usize, id: CallId, call: Call) {
        self.processes[who].waiting.insert(id);
        let (there, mut back) = (self.delay(), self.delay());
        if self.processes[who].slow {
            back = self.random.within(600, 960);
        }
        let lost = self.lost(who);
        if lost || there + back >= GIVE_UP_MS {
            self.later(self.now + GIVE_UP_MS, who, Thing::GiveUp(id));
        }
        if !lost {
            self.later(self.now + there, who, Thing::Request(id, call, back));
        }
    }

    pub(super) fn request(&mut self, who: usize, life: u32, id: CallId, call: Call, back: u64) -> Held {
        let answer = match call {
            Call::Grant => {
                let lease = self.store.grant(self.now + self.lease_ms);
                self.later(self.now + self.lease_ms, NOBODY, Thing::LeaseEnds(lease));
                Answer::Granted(lease)
            }
            Call::KeepAlive(lease) => match self.store.leases.get_mut(&lease) {
                Some(ends) => {
                    *ends = self.now + self.lease_ms;
                    Answer::Alive
                }
                None => Answer::Gone,
            },
            Call::Read(keys) => {
                let read = |key| {
                    self.store
                        .keys
                        .get(key)
                        .map(|there| (there.revision, there.value.clone()))
                };
                Answer::Read(keys.iter().map(read).collect())
            }
            Call::Commit(transaction) => self.commit(who, transaction)?,
        };
        if self.processes[who].life == life && self.processes[who].alive {
            if self.lost(who) {
                self.later(self.now + GIVE_UP_MS, who, Thing::GiveUp(id));
            } else {
                self.later(self.now + back, who, Thing::Answer(id, answer, self.now));
            }
        }
        Ok(())
    }

    pub(super) fn commit(&mut self, who: usize, transaction: Transaction) -> Result<Answer, String> {
        if !self.store.has_leases_of(&transaction) {
            return Ok(Answer::Failed);
        }
        let Mind::Orchestrator(orchestrator) = &self.processes[who].mind else {
            return Ok(Answer::Failed);
        };
        if !self.store.holds(&transaction) {
            self.shadow.refused += 1;
            self.note(|_| format!("refused from {who}: {transaction:?}"));
            return Ok(Answer::Conflict);
        }
        // A call of a former life lands: its sender is told by what it wrote.
        let by = author(&transaction).unwrap_or_else(|| orchestrator.member.name().clone());
        self.shadow.before(&self.store, &transaction, &by)?;
        self.note(|_| format!("committed from {who}: {transaction:?}"));
        let batch = self.store.commit(transaction);
        self.shadow.after(&self.store)?;
        let revision = self.store.revision;
        self.publish(batch);
        Ok(Answer::Committed(revision))
    }

    pub(super) fn answer(&mut self, who: usize, id: CallId, answer: Answer, sent: u64) -> Held {
        if self.processes[who].cut {
            self.later(sent + GIVE_UP_MS, who, Thing::GiveUp(id));
            return Ok(());
        }
        if self.processes[who].waiting.remove(&id) {
            return self.tell(who, Event::Answer(id, answer));
        }
        Ok(())
    }

    pub(super) fn lease_ends(&mut self, lease: LeaseId) {
        match self.store.leases.get(&lease).copied() {
            Some(ends) if ends > self.now => self.later(ends, NOBODY, Thing::LeaseEnds(lease)),
            Some(ends) => {
                // Stores look every now and then.
                let late = self.random.within(0, 500);
                if late > 400 && ends == self.now {
                    self.later(self.now + late, NOBODY, Thing::LeaseEnds(lease));
                    return;
                }
                let batch = self.store.end(lease);
                self.note(|_| format!("{lease:?} ends: {batch:?}"));
                self.publish(batch);
            }
            None => {}
        }
    }

    pub(super) fn publish(&mut self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        let revision = self.store.revision;
        for (watch, prefix) in WATCHES.into_iter().enumerate() {
            let part: Batch = batch
                .iter()
                .filter(|(key, _)| prefix_of(key) == prefix)
                .cloned()
                .collect();
            if part.is_empty() {
                continue;
            }
            let part = Rc::new(part);
            for who in 0..self.processes.len() {
                let server = matches!(self.processes[who].mind, Mind::Server(_));
                if prefix.is_none() && server && self.random.chance(300) {
                    let overtakes = self.now + self.random.within(0, 3000);
                    self.later(overtakes, who, Thing::Hint(revision, part.clone()));
                }
                let at = self.now + self.delay();
                let to = &mut self.processes[who].watches[watch];
                to.last = to.last.max(at);
                let (at, connection) = (to.last, to.connection);
                self.later(at, who, Thing::Changes(watch, connection, revision, part.clone()));
            }
        }
    }

    pub(super) fn changes(
        &mut self,
        who: usize,
        watch: usize,
        connection: u32,
        revision: Revision,
        batch: &Batch,
    ) -> Held {
        let lost = self.lost(who) || self.processes[who].deaf;
        let at = &mut self.processes[who].watches[watch];
        if at.connection != connection || !at.connected {
            return Ok(());
        }
        if lost {
            at.connected = false;
            return self.broken(who, watch);
        }
        match WATCHES[watch] {
            Some(prefix) => {
                let changes = batch.clone();
                self.tell(
                    who,
                    Event::Changes(Changes {
                        prefix,
                        revision,
                        changes,
                    }),
                )
            }
            None => {
                let findings = match &mut self.processes[who].mind {
                    Mind::Server(server) => {
                        server.verdicts(revision, batch);
                        Vec::new()
                    }
                    Mind::Orchestrator(orchestrator) => orchestrator.verdicts(revision, batch),
                };
                self.heard(who, findings)
            }
        }
    }

    /// A watch is. That of the verdicts is not one of an orchestrator's mind.
    fn broken(&mut self, who: usize, watch: usize) -> Held {
        match (&self.processes[who].mind, WATCHES[watch]) {
            (Mind::Orchestrator(_), None) => Ok(()),
            _ => self.tell(who, Event::CutOff),
        }
    }

    /// Begins anew what is broken, now and then.
    pub(super) fn relist(&mut self, who: usize) {
        for watch in 0..self.processes[who].watches.len() {
            let at = &mut self.processes[who].watches[watch];
            if at.connected {
                continue;
            }
            at.connection += 1;
            let connection = at.connection;
            if !self.lost(who) {
                let at = self.now + self.delay();
                self.later(at, who, Thing::ListRequest(watch, connection));
            }
        }
        self.later(self.now + RELIST_MS, who, Thing::Relist);
    }

    pub(super) fn list_request(&mut self, who: usize, watch: usize, connection: u32) {
        if self.lost(who)
            || self.processes[who].deaf
            || self.processes[who].watches[watch].connection != connection
        {
            return;
        }
        let entries = self.store.list(WATCHES[watch]);
        let at = self.now + self.delay();
        self.processes[who].watches[watch].last = at;
        // What is published from here on follows on this connection, and comes after.
        self.later(
            at,
            who,
            Thing::Listed(
                watch,
                connection,
                self.store.emptied,
                self.store.revision,
                entries,
            ),
        );
    }

    pub(super) fn listed(
        &mut self,
        who: usize,
        watch: usize,
        connection: u32,
        revision: Revision,
        entries: Vec<(Key, Revision, Value)>,
    ) -> Held {
        let lost = self.lost(who) || self.processes[who].deaf;
        let at = &mut self.processes[who].watches[watch];
        if lost || at.connection != connection {
            return Ok(());
        }
        at.connected = true;
        let process = &self.processes[who];
        let of_the_mind = match process.mind {
            Mind::Server(_) => WATCHES.len(),
            Mind::Orchestrator(_) => Prefix::ALL.len(),
        };
        let whole = process.watches[..of_the_mind].iter().all(|watch| watch.connected);
        match WATCHES[watch] {
            Some(prefix) => self.tell(
                who,
                Event::Listed(Listing {
                    prefix,
                    another: false,
                    revision,
                    entries,
                }),
            )?,
            None => {
                let wanted = self.wanted(&self.processes[who].members);
                let findings = match &mut self.processes[who].mind {
                    Mind::Server(server) => {
                        server.all_verdicts(entries);
                        Vec::new()
                    }
                    Mind::Orchestrator(orchestrator) => orchestrator.all_verdicts(revision, entries, &wanted),
                };
                self.heard(who, findings)?;
            }
        }
        self.tell(who, if whole { Event::Hearing } else { Event::Tick })
    }
}

/// Who wrote a transaction, as far as it says so itself.
fn author(transaction: &Transaction) -> Option<Name> {
    use evenkeel_reconcile::cluster::records::Write;
    transaction.writes.iter().find_map(|write| match write {
        Write::Put {
            value: Value::Round(round),
            ..
        } => Some(round.by.clone()),
        Write::Put {
            value: Value::Verdict(verdict),
            ..
        } => Some(verdict.by.clone()),
        _ => None,
    })
}
