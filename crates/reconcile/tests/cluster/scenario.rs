//! What goes wrong, and when.

use sim::Random;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// `kill -9`.
    Die(usize),
    /// `SIGTERM`: it gives everything back.
    Stop(usize),
    /// Another process in its place.
    Begin(usize),
    /// `SIGSTOP`, and `SIGCONT` after so many milliseconds.
    Pause(usize, u64),
    /// Nothing reaches it, nothing comes from it.
    Cut(usize),
    Heal(usize),
    /// Its watches bring nothing, its calls are answered.
    Deafen(usize),
    Hear(usize),
    /// Answers to it take nearly as long as they may.
    Slow(usize, bool),
    /// The store forgets all leases; all processes are well.
    LosesAllLeases,
    /// The store is emptied, and counts its revisions from the beginning, or (`true`) is ahead of the former one.
    Forgets(bool),
    /// Somebody deletes all that the orchestrators keep in the store but the verdicts; leases stay, unless so said.
    Emptied(bool),
    /// Somebody writes under a key of the orchestrators what they cannot read; the number says under which.
    Scribble(u64),
    /// Messages are lost and late, processes are stopped, all at random.
    Rough(bool),
    /// From here on no assignment may change.
    Seal,
    /// From here on gaps between checks count.
    Measure,
    /// A backend dies, or comes back.
    Flip(usize),
    /// A backend leaves and is back as another one, who may be up or down. Processes hear of it one after the other.
    Returns(usize),
    /// The config changes: slots weigh something else. Orchestrators hear of it one after the other.
    Weigh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everything at once, to anybody; then peace.
    Chaos,
    /// One orchestrator after the other dies, stops or is cut off; the others are well.
    OneAtATime,
    /// All leases end at once, more than once; all processes are well.
    MassLoss,
    /// All orchestrators die, and come back.
    AllGone,
    /// The store is emptied, while orchestrators are also paused, cut off or replaced.
    Forgets,
    /// The store is emptied under their feet, while some of them hear late, or not at all.
    Emptied,
    /// Somebody writes over what they keep in the store, while they die, are cut off, or hear late.
    Scribbled,
}

pub(crate) struct Scenario {
    pub(crate) kind: Kind,
    pub(crate) orchestrators: usize,
    pub(crate) servers: usize,
    pub(crate) backends: usize,
    pub(crate) faults: Vec<(u64, Fault)>,
    pub(crate) ends: u64,
}

/// Nothing goes wrong any more from here on.
const ROUGH_UNTIL: u64 = 16_000;
/// What went wrong before is over: all processes run, all links carry. Late messages may still arrive.
pub(crate) const CALM: u64 = 20_000;
/// All orchestrators are gone between these.
pub(crate) const GONE: (u64, u64) = (8_000, 26_000);

impl Scenario {
    pub(crate) fn of(seed: u64) -> Self {
        let random = &mut Random(seed ^ 0x5EED);
        let mut scenario = Self {
            kind: [
                Kind::Chaos,
                Kind::OneAtATime,
                Kind::Chaos,
                Kind::MassLoss,
                Kind::Chaos,
                Kind::AllGone,
                Kind::Forgets,
                Kind::Emptied,
                Kind::Scribbled,
            ][(seed % 9) as usize],
            orchestrators: random.within(3, 5) as usize,
            servers: 1,
            backends: 5,
            faults: Vec::new(),
            ends: 0,
        };
        match scenario.kind {
            Kind::Chaos => scenario.chaos(random),
            Kind::OneAtATime => scenario.one_at_a_time(random),
            Kind::MassLoss => scenario.mass_loss(random),
            Kind::AllGone => scenario.all_gone(random),
            Kind::Forgets => scenario.forgets(random),
            Kind::Emptied => scenario.emptied(random),
            Kind::Scribbled => scenario.scribbled(random),
        }
        scenario
    }

    fn changes_of_config(&mut self, random: &mut Random, until: u64) {
        for _ in 0..random.within(0, 5) {
            self.faults.push((random.within(0, until), Fault::Weigh));
        }
    }

    /// Backends die and come back; some are only away for a moment.
    fn flips(&mut self, random: &mut Random, until: u64) {
        for _ in 0..random.within(2, 12) {
            let backend = random.within(0, self.backends as u64) as usize;
            let at = random.within(1000, until);
            self.faults.push((at, Fault::Flip(backend)));
            if random.chance(500) {
                let back = (at + random.within(300, 2500)).min(until);
                self.faults.push((back, Fault::Flip(backend)));
            }
        }
    }

    /// Backends that register themselves leave, and are back at once as others. The first two are declared.
    fn returns(&mut self, random: &mut Random, until: u64) {
        for _ in 0..random.within(0, 6) {
            let backend = random.within(2, self.backends as u64) as usize;
            self.faults
                .push((random.within(1000, until), Fault::Returns(backend)));
        }
    }

    fn chaos(&mut self, random: &mut Random) {
        // Some orchestrators come later.
        for late in random.within(1, 4) as usize..self.orchestrators {
            self.faults.push((0, Fault::Die(late)));
            self.faults.push((random.within(500, 12_000), Fault::Begin(late)));
        }
        self.faults.push((random.within(0, 8000), Fault::Rough(true)));
        self.faults.push((ROUGH_UNTIL, Fault::Rough(false)));
        for _ in 0..random.within(2, 10) {
            let at = random.within(1000, ROUGH_UNTIL);
            let all = (self.orchestrators + self.servers) as u64;
            let who = random.within(0, all) as usize;
            match random.within(0, 17) {
                12..=13 => {
                    let cut = at + random.within(1500, 4000);
                    self.faults.push((at, Fault::Slow(who, true)));
                    self.over(cut, Fault::Cut(who));
                    self.over(cut + 1, Fault::Slow(who, false));
                    self.over(cut + random.within(1000, 8000), Fault::Heal(who));
                }
                11 => {
                    self.faults.push((at, Fault::Deafen(who)));
                    self.over(at + random.within(100, 8000), Fault::Hear(who));
                }
                10 if who < self.orchestrators => {
                    self.faults.push((at, Fault::Stop(who)));
                    let dies = at + random.within(0, 1000);
                    self.faults.push((dies, Fault::Die(who)));
                    self.over(dies + random.within(100, 6000), Fault::Begin(who));
                }
                0..=2 => {
                    self.faults.push((at, Fault::Die(who)));
                    self.over(at + random.within(100, 6000), Fault::Begin(who));
                }
                3..=5 => {
                    let until = (at + random.within(100, 9000)).min(CALM);
                    self.faults.push((at, Fault::Pause(who, until - at)));
                }
                6..=8 => {
                    self.faults.push((at, Fault::Cut(who)));
                    self.over(at + random.within(100, 8000), Fault::Heal(who));
                }
                _ => self.faults.push((at, Fault::LosesAllLeases)),
            }
        }
        self.flips(random, CALM);
        self.returns(random, CALM);
        self.changes_of_config(random, CALM);
        self.faults.push((CALM, Fault::Measure));
        self.ends = CALM + 18_000;
    }

    /// Something is over, when chaos is at the latest.
    fn over(&mut self, at: u64, fault: Fault) {
        self.faults.push((at.min(CALM), fault));
    }

    fn one_at_a_time(&mut self, random: &mut Random) {
        let mut at = 4000;
        self.faults.push((at, Fault::Measure));
        for _ in 0..3 {
            at += random.within(100, 2000);
            let who = random.within(0, self.orchestrators as u64) as usize;
            let lasts = random.within(100, 8000);
            match random.within(0, 5) {
                4 => {
                    self.faults.push((at, Fault::Deafen(who)));
                    self.faults.push((at + lasts, Fault::Hear(who)));
                }
                3 => {
                    self.faults.push((at, Fault::Stop(who)));
                    self.faults.push((at + 1000, Fault::Die(who)));
                    self.faults.push((at + 1000 + lasts, Fault::Begin(who)));
                }
                0 => {
                    self.faults.push((at, Fault::Die(who)));
                    self.faults.push((at + lasts, Fault::Begin(who)));
                }
                1 => self.faults.push((at, Fault::Pause(who, lasts))),
                _ => {
                    self.faults.push((at, Fault::Cut(who)));
                    self.faults.push((at + lasts, Fault::Heal(who)));
                }
            }
            at += lasts.max(4500) + 3500;
        }
        self.flips(random, at);
        self.returns(random, at);
        self.changes_of_config(random, at);
        self.ends = at + 7000;
    }

    fn mass_loss(&mut self, random: &mut Random) {
        let mut at = 8000;
        self.changes_of_config(random, 4000);
        self.faults.push((at, Fault::Seal));
        self.faults.push((at, Fault::Measure));
        for _ in 0..3 {
            at += random.within(100, 5000);
            self.faults.push((at, Fault::LosesAllLeases));
        }
        self.flips(random, at);
        self.returns(random, at);
        self.ends = at + 8000;
    }

    fn emptied(&mut self, random: &mut Random) {
        let mut at = 6000;
        self.changes_of_config(random, at);
        for _ in 0..2 {
            at += random.within(100, 3000);
            for who in 0..self.orchestrators {
                if random.chance(400) {
                    let (from, lasts) = (at - random.within(0, 1500), random.within(100, 4000));
                    let (begins, ends) = match random.within(0, 3) {
                        0 => (Fault::Pause(who, lasts), None),
                        1 => (Fault::Cut(who), Some(Fault::Heal(who))),
                        _ => (Fault::Deafen(who), Some(Fault::Hear(who))),
                    };
                    self.faults.push((from, begins));
                    self.faults.extend(ends.map(|ends| (from + lasts, ends)));
                }
            }
            self.faults.push((at, Fault::Emptied(random.chance(500))));
            at += 4000;
        }
        self.flips(random, at);
        self.returns(random, at);
        self.faults.push((at, Fault::Measure));
        self.ends = at + 18_000;
    }

    fn scribbled(&mut self, random: &mut Random) {
        let mut at = 6000;
        self.changes_of_config(random, at);
        for _ in 0..random.within(2, 5) {
            at += random.within(100, 3000);
            if random.chance(700) {
                let who = random.within(0, self.orchestrators as u64) as usize;
                let (from, lasts) = (at - random.within(0, 1500), random.within(100, 4000));
                let (begins, ends) = match random.within(0, 5) {
                    0 => (Fault::Pause(who, lasts), None),
                    1 => (Fault::Cut(who), Some(Fault::Heal(who))),
                    2 => (Fault::Deafen(who), Some(Fault::Hear(who))),
                    _ => (Fault::Die(who), Some(Fault::Begin(who))),
                };
                self.faults.push((from, begins));
                self.faults.extend(ends.map(|ends| (from + lasts, ends)));
            }
            for _ in 0..random.within(1, 4) {
                let soon = at + random.within(0, 1000);
                self.faults.push((soon, Fault::Scribble(random.number())));
            }
            at += random.within(1000, 4000);
        }
        let calm = at + 4000;
        self.flips(random, calm);
        self.returns(random, calm);
        self.faults.push((calm, Fault::Measure));
        self.ends = calm + 18_000;
    }

    fn all_gone(&mut self, random: &mut Random) {
        for who in 0..self.orchestrators {
            self.faults
                .push((GONE.0 + random.within(0, 500), Fault::Die(who)));
            self.faults
                .push((GONE.1 + random.within(0, 3000), Fault::Begin(who)));
        }
        self.flips(random, GONE.1 + 5000);
        self.returns(random, GONE.1 + 5000);
        self.faults.push((GONE.1 + 3000, Fault::Measure));
        self.ends = GONE.1 + 20_000;
    }

    fn forgets(&mut self, random: &mut Random) {
        for _ in 0..random.within(1, 3) {
            let at = random.within(1000, ROUGH_UNTIL);
            self.faults.push((at, Fault::Forgets(random.chance(500))));
            for _ in 0..random.within(0, 3) {
                let who = random.within(0, self.orchestrators as u64) as usize;
                let at = (at + 1000).saturating_sub(random.within(0, 3000));
                let lasts = random.within(100, 6000);
                match random.within(0, 3) {
                    0 => {
                        let until = (at + lasts).min(CALM);
                        self.faults.push((at, Fault::Pause(who, until - at)));
                    }
                    1 => {
                        self.faults.push((at, Fault::Cut(who)));
                        self.over(at + lasts, Fault::Heal(who));
                    }
                    _ => {
                        self.faults.push((at, Fault::Die(who)));
                        self.over(at + lasts, Fault::Begin(who));
                    }
                }
            }
        }
        self.flips(random, CALM);
        self.returns(random, CALM);
        self.changes_of_config(random, CALM);
        self.faults.push((CALM, Fault::Measure));
        self.ends = CALM + 18_000;
    }
}
