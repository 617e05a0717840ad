//! Names under a seeded simulation: records that come and go, resolvers that keep old answers, cut, forge, and die,
//! processes that pause and begin anew, clocks that go wrong.
//!
//! Everything that the machine sends and takes are messages as they are on the wire. A zone with addresses, services
//! and aliases is served by servers that do not always know everything (`world`); the shadow (`shadow`) knows which
//! answer of them is behind what a resolver says, and holds that
//!
//! - who is found joins at once, by an answer that is not whole, too;
//! - no failure takes anybody out, however many there are;
//! - who leaves was missing twice, and nothing that said so the second time was said the first time already;
//! - who is missing for a second time leaves as soon as no cache can have the first answer any more;
//! - looks are as far apart as TTLs say, within `min_ttl` and `max_ttl`; after failures, too;
//! - a look has one question on its way at a time, asks each server for each thing once over UDP and once over TCP,
//!   asks nothing again that is answered, and ends in time;
//! - weights are as the records have them;
//! - once all goes well, what is known is what there is, within a bound.
//!
//! A seed that fails prints itself and its steps. To see that the shadow sees, these rules were broken one at a time, and
//! each was noticed within the ten thousand seeds that are always run:
//!
//! | Broken rule | What was noticed |
//! |---|---|
//! | who is missing leaves with the first whole answer | somebody has left by one miss |
//! | who is missing leaves with the second whole answer, wherever that comes from | by one answer that was read twice |
//! | an answer is as new as the end of its look | the same: the process stood still in between |
//! | caches forget a second after the TTL: there is one, and its clock goes as ours does | the same |

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use domain::base::iana::{Rcode, Rtype};
use evenkeel_reconcile::discovery::dns::{Exchange, Failure, Lookup, Outcome, Transport, Watch};
use model::config::{AddressFamily, DnsLookup, DnsRecords, MAX_WEIGHT};
use sim::Random;

use super::server::{Answer, asked, nothing, write};
use super::settings;
use super::shadow::{Found, Look, Shadow};
use super::world::{Told, Weather, World};

/// Seeds that are always run; more with `cargo xtask test --seeds N`.
const SEEDS: u64 = 10_000;
/// Looks while things go wrong.
const LOOKS: u64 = 24;
/// A look takes no longer, and the last answer, and one that was forged.
const MAX_LOOK_MS: u64 = 30_000 + 2 * 300;
/// When all goes well.
const QUICK_LOOK_MS: u64 = 4_000;
/// Longest between two looks that fail.
const MAX_BACKOFF_MS: u64 = 30_000;
/// The port of a pool.
const PORT: u16 = 8080;

/// A name, and what is asked of it.
type Question = (String, Rtype);

/// All is well, or what is wrong.
type Held = Result<(), String>;

#[derive(Debug, Default)]
struct Seen {
    whole: u64,
    failed: u64,
    questions: u64,
    left: u64,
    repeated: u64,
    begun_anew: u64,
}

struct Run {
    world: World,
    settings: DnsLookup,
    watch: Watch,
    shadow: Shadow,
    /// Who was told last, with weights.
    members: BTreeMap<SocketAddr, u32>,
    failures: u32,
    /// A message that came too late.
    late: Option<Vec<u8>>,
    /// For so long the process stood still since this look began.
    paused_ms: u64,
    steps: Option<Vec<String>>,
    seen: Seen,
}

fn any_settings(random: &mut Random) -> DnsLookup {
    use AddressFamily::{Both, V4, V6};
    let families = [Both, Both, V4, V6];
    let min = [1, 5, 30][random.below(3) as usize];
    let max = [min, 60.max(min), 300, 7200][random.below(4) as usize];
    let records = match random.chance(400) {
        true => DnsRecords::Srv,
        false => DnsRecords::Addresses(families[random.below(4) as usize], PORT),
    };
    DnsLookup {
        min_ttl: Duration::from_secs(min),
        max_ttl: Duration::from_secs(max),
        timeout: Duration::from_millis([200, 2_000, 10_000][random.below(3) as usize]),
        attempts: u32::try_from(random.within(1, 5)).unwrap(),
        ..settings(records)
    }
}

/// From an answer with such a TTL, or its bound, to the next look: until nobody keeps it, and up to a tenth longer.
fn shortest_wait(ttl_ms: u64) -> u64 {
    (ttl_ms + 2_000) * 101 / 100
}

fn longest_wait(ttl_ms: u64) -> u64 {
    shortest_wait(ttl_ms) * 11 / 10
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap()
}

impl Run {
    fn new(seed: u64, tell: bool) -> Self {
        let mut world = World::new(seed);
        let settings = any_settings(&mut world.random);
        Self {
            watch: Watch::new(settings.clone(), BTreeMap::new(), world.machine_ms()),
            shadow: Shadow::new(BTreeSet::new(), ms(settings.max_ttl)),
            world,
            settings,
            members: BTreeMap::new(),
            failures: 0,
            late: None,
            paused_ms: 0,
            steps: tell.then(Vec::new),
            seen: Seen::default(),
        }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        let now = self.world.machine_ms();
        if let Some(steps) = &mut self.steps {
            steps.push(format!("{now}: {}", what()));
        }
    }

    fn play(&mut self) -> Held {
        let weather = format!("{:?}, {:?}", self.world.weather, self.settings);
        self.tell(|| weather);
        for _ in 0..LOOKS {
            if self.world.random.chance(self.world.weather.change) {
                self.world.change();
            }
            if self.world.random.chance(40) {
                self.begin_anew();
            }
            self.world.pass_until(self.watch.due_ms());
            // Nobody was there when it was due.
            match self.world.random.below(50) {
                0 => self.world.pass(3_000),
                1 => self.world.pass(3_600_000),
                2 => self.world.suspend(100_000),
                _ => {}
            }
            self.look()?;
        }
        self.settle()
    }

    /// All goes well: within the bound, what is known is what there is.
    fn settle(&mut self) -> Held {
        self.world.weather = Weather::FAIR;
        if self.world.cached_for_ms() > 7_200_000 {
            self.world.empty_caches();
        }
        let there: BTreeSet<SocketAddr> = {
            let found = self.found(&self.world.all_of_it());
            found.addresses.into_keys().collect()
        };
        let caches = self.world.machine_ms() + self.world.cached_for_ms() * 102 / 100;
        let (min, max) = (ms(self.settings.min_ttl), ms(self.settings.max_ttl));
        // From the end of an answer with such a TTL, told within the bounds, to the beginning of the next look.
        let gap = |ttl: u64| longest_wait(ttl.clamp(min, max));
        // A look that nobody tells anything old; then who is missing for the first time must be forgotten.
        let first = caches.max(self.watch.due_ms()) + max / 8 + gap(0) + QUICK_LOOK_MS;
        let forgotten = (first + QUICK_LOOK_MS + 65_000).max(self.shadow.forgotten_ms());
        let bound = forgotten + gap(61_000) + QUICK_LOOK_MS;
        self.tell(|| format!("fair weather: {there:?} are there, known by {bound}"));
        loop {
            self.world.pass_until(self.watch.due_ms());
            let since = self.world.machine_ms();
            self.look()?;
            if self.failures > 0 {
                return Err("a look failed, and nothing was wrong".to_owned());
            }
            if since >= caches && self.shadow.known == there {
                return Ok(());
            }
            if since > bound {
                return Err(format!("{:?} are known, and not {there:?}", self.shadow.known));
            }
        }
    }

    /// The process ends and starts again, or the config is another one.
    fn begin_anew(&mut self) {
        let before = self.settings.clone();
        if self.world.random.chance(700) {
            self.settings = any_settings(&mut self.world.random);
        }
        // As members of a pool they have its port, and as what is known of addresses they have none.
        let port = |mut address: SocketAddr| {
            if let Some(port) = before.port() {
                address.set_port(port);
            }
            if self.settings.port().is_some() {
                address.set_port(0);
            }
            address
        };
        let before = std::mem::take(&mut self.members).into_iter();
        self.members = before.map(|(address, weight)| (port(address), weight)).collect();
        let known = self.members.keys().copied().collect();
        let now = self.world.machine_ms();
        self.watch = Watch::new(self.settings.clone(), self.members.clone(), now);
        let shadow = Shadow::new(known, ms(self.settings.max_ttl));
        let before = std::mem::replace(&mut self.shadow, shadow);
        self.seen.left += before.left;
        self.seen.repeated += before.repeated;
        self.failures = 0;
        self.seen.begun_anew += 1;
        let settings = format!("begins anew with {:?}", self.settings);
        self.tell(|| settings);
    }

    /// What this comes to, as it is asked for.
    fn found(&self, told: &[Told]) -> Found {
        match self.settings.records {
            DnsRecords::Addresses(AddressFamily::Both, _) => Found::addresses(&[Rtype::A, Rtype::AAAA], told),
            DnsRecords::Addresses(AddressFamily::V4, _) => Found::addresses(&[Rtype::A], told),
            DnsRecords::Addresses(AddressFamily::V6, _) => Found::addresses(&[Rtype::AAAA], told),
            DnsRecords::Srv => Found::services(told),
        }
    }

    /// One look, and whether it did what it may.
    fn look(&mut self) -> Held {
        let began_ms = self.world.machine_ms();
        if self.world.weather.trouble > 0 && self.world.random.chance(20) {
            let outcome = Outcome::failed("cannot read who is to be asked".to_owned());
            return self.take(began_ms, outcome, &[]);
        }
        self.paused_ms = 0;
        let mut lookup = self.watch.look(began_ms, self.world.servers());
        let mut told: Vec<Told> = Vec::new();
        let mut asked_for: BTreeMap<Question, u32> = BTreeMap::new();
        let mut answered: BTreeSet<Question> = BTreeSet::new();
        loop {
            let (now, number) = (self.world.machine_ms(), self.world.random.number());
            let Some(exchange) = lookup.next(now, number) else {
                break;
            };
            self.seen.questions += 1;
            let (name, kind, _) = asked(&exchange.message);
            let question = (name, kind);
            if answered.contains(&question) {
                return Err(format!("{question:?} is asked for again"));
            }
            let times = asked_for.entry(question.clone()).or_default();
            *times += 1;
            if *times > 2 * self.settings.attempts {
                return Err(format!("{question:?} is asked for {times} times"));
            }
            if exchange.timeout_ms > ms(self.settings.timeout) {
                return Err("it waits for too long".to_owned());
            }
            if let Some(more) = self.exchange(&exchange, &question, &mut lookup) {
                answered.insert(question);
                told.extend(more);
            }
            if self.world.weather.trouble > 0 && self.world.random.chance(5) {
                // What is asked now is not waited for.
                self.begin_anew();
                return Ok(());
            }
        }
        let took = self.world.machine_ms() - began_ms;
        if took > (MAX_LOOK_MS + self.paused_ms) * 1_006 / 1_000 {
            return Err(format!("a look took {took} ms"));
        }
        self.take(began_ms, lookup.outcome(), &told)
    }

    /// The end of a look in which this was told.
    fn take(&mut self, began_ms: u64, outcome: Outcome, told: &[Told]) -> Held {
        let found = self.found(told);
        let is_whole = outcome.fault.is_none();
        let fault = outcome.fault.clone();
        let (ended_ms, rand) = (self.world.machine_ms(), self.world.random.number());
        self.watch.take(ended_ms, outcome, rand);
        let seen = self.watch.seen();
        if let Some(members) = &seen.members {
            self.members = (**members).clone();
        }
        let members = format!("{fault:?}, {:?}: {:?}", found.told, self.members.keys());
        self.tell(|| members);
        if found.whole != is_whole {
            return Err(format!("whole is {}, and it says {fault:?}", found.whole));
        }
        self.is_due_in_time(ended_ms, found.whole, found.ttl())?;
        self.has_right_weights(&found)?;
        let look = Look {
            began_ms,
            ended_ms,
            found,
        };
        self.shadow.judge(&look, &self.members.keys().copied().collect())
    }

    fn is_due_in_time(&mut self, now: u64, is_whole: bool, ttl: Option<u32>) -> Held {
        let (min, max) = (ms(self.settings.min_ttl), ms(self.settings.max_ttl));
        let least = match is_whole {
            true => {
                (self.failures, self.seen.whole) = (0, self.seen.whole + 1);
                let told = ttl.map_or(min, |ttl| u64::from(ttl) * 1000);
                told.clamp(min, max)
            }
            false => {
                (self.failures, self.seen.failed) = (self.failures + 1, self.seen.failed + 1);
                (min << (self.failures - 1).min(10)).min(MAX_BACKOFF_MS.max(min))
            }
        };
        let wait = self.watch.due_ms() - now;
        let waits = match is_whole {
            true => shortest_wait(least)..=longest_wait(least),
            false => least..=least + least / 10,
        };
        match waits.contains(&wait) {
            true => Ok(()),
            false => Err(format!("it waits for {wait} ms, and not for {least}")),
        }
    }

    fn has_right_weights(&self, found: &Found) -> Held {
        let fits = |weight: &u32| (1..=MAX_WEIGHT).contains(weight);
        if let Some(wrong) = self.members.values().find(|weight| !fits(weight)) {
            return Err(format!("{wrong} is no weight"));
        }
        let all_fit = found.whole && found.addresses.values().all(fits);
        let all = found.addresses.len() == self.members.len();
        match all && all_fit && self.members != found.addresses {
            true => Err(format!("{:?} are no weights of {found:?}", self.members)),
            false => Ok(()),
        }
    }

    /// One question as it goes in this world; what was told, if the machine has understood it.
    fn exchange(
        &mut self,
        exchange: &Exchange,
        question: &Question,
        lookup: &mut Lookup,
    ) -> Option<Vec<Told>> {
        let udp = exchange.transport == Transport::Udp;
        let trouble = match self.world.random.chance(self.world.weather.trouble) {
            true => self.world.random.below(12),
            false => u64::MAX,
        };
        match trouble {
            0 | 1 => self.times_out(exchange, lookup),
            2 => lookup.failed(Failure::Unreachable("refused".into())),
            3 => {
                let rcode = [Rcode::SERVFAIL, Rcode::REFUSED][self.world.random.below(2) as usize];
                assert!(lookup.heard(&write(&exchange.message, &nothing(rcode, 1))));
            }
            4 if udp || self.world.random.chance(100) => {
                let (mut cut, _) = self.resolve(exchange, question);
                cut.truncated = true;
                assert!(lookup.heard(&write(&exchange.message, &cut)));
            }
            5 => {
                let mut damaged = write(&exchange.message, &self.resolve(exchange, question).0);
                let cut = self.world.random.within(30, damaged.len() as u64);
                damaged.truncate(usize::try_from(cut).unwrap());
                if !lookup.heard(&damaged) {
                    self.times_out(exchange, lookup);
                }
            }
            6 => {
                let whom_else = Answer {
                    referral: true,
                    ..Answer::default()
                };
                assert!(lookup.heard(&write(&exchange.message, &whom_else)));
            }
            7 => {
                // It comes when nobody waits for it any more.
                let late = self.resolve(exchange, question).0;
                self.late = Some(write(&exchange.message, &late));
                self.times_out(exchange, lookup);
            }
            8 if self.is_flooded(exchange, question, lookup) => {}
            9 if self.hears_what_is_late(exchange, lookup) => {}
            10 => {
                self.stand_still();
                return self.answers(exchange, question, lookup);
            }
            11 => {
                // The answer is there, and nobody is who takes it.
                let (answer, told) = self.resolve(exchange, question);
                self.stand_still();
                assert!(lookup.heard(&write(&exchange.message, &answer)));
                return Some(told);
            }
            _ => return self.answers(exchange, question, lookup),
        }
        None
    }

    fn resolve(&mut self, exchange: &Exchange, (name, kind): &Question) -> (Answer, Vec<Told>) {
        self.world.resolve(exchange.server, name, *kind)
    }

    fn answers(
        &mut self,
        exchange: &Exchange,
        question: &Question,
        lookup: &mut Lookup,
    ) -> Option<Vec<Told>> {
        let (answer, told) = self.resolve(exchange, question);
        assert!(lookup.heard(&write(&exchange.message, &answer)));
        Some(told)
    }

    fn times_out(&mut self, exchange: &Exchange, lookup: &mut Lookup) {
        self.world.pass(exchange.timeout_ms);
        lookup.failed(Failure::TimedOut);
    }

    /// Somebody guesses, a few times or often; whether that ended it.
    fn is_flooded(&mut self, exchange: &Exchange, question: &Question, lookup: &mut Lookup) -> bool {
        let mut forged = write(&exchange.message, &self.resolve(exchange, question).0);
        forged[0] ^= 1 << self.world.random.below(8);
        let times = self.world.random.within(1, 12);
        (0..times).any(|_| lookup.heard(&forged))
    }

    /// What is late comes now; whether that ended it.
    fn hears_what_is_late(&mut self, exchange: &Exchange, lookup: &mut Lookup) -> bool {
        let late = self.late.take();
        // One with the same number would be an answer.
        let late = late.filter(|late| late[..2] != exchange.message[..2]);
        late.is_some_and(|late| lookup.heard(&late))
    }

    /// The process is stopped, or the machine sleeps.
    fn stand_still(&mut self) {
        let ms = [10, 5_000, 20_000, 90_000][self.world.random.below(4) as usize];
        match self.world.random.chance(500) {
            true => self.world.suspend(ms),
            false => {
                self.paused_ms += ms;
                self.world.pass(ms);
            }
        }
    }
}

fn run(seed: u64, tell: bool) -> Result<Seen, (String, Vec<String>)> {
    let mut run = Run::new(seed, tell);
    match run.play() {
        Ok(()) => {
            run.seen.left += run.shadow.left;
            run.seen.repeated += run.shadow.repeated;
            Ok(run.seen)
        }
        Err(what) => Err((what, run.steps.unwrap_or_default())),
    }
}

fn run_seeds(seeds: impl Iterator<Item = u64>) -> Seen {
    let mut all = Seen::default();
    for seed in seeds {
        let seen = run(seed, false).unwrap_or_else(|(what, _)| {
            let steps = run(seed, true).unwrap_err().1;
            println!("{}", steps.join("\n"));
            panic!("seed {seed}: {what}");
        });
        all.whole += seen.whole;
        all.failed += seen.failed;
        all.questions += seen.questions;
        all.left += seen.left;
        all.repeated += seen.repeated;
        all.begun_anew += seen.begun_anew;
    }
    all
}

/// A part of the seeds that are always run.
fn run_every(step: usize, first: u64) {
    let count = sim::seeds(SEEDS).max(SEEDS);
    let seen = run_seeds((first..count).step_by(step));
    println!("{count} seeds, every {step}th: {seen:?}");
    let run = count / step as u64;
    assert!(seen.whole > run * LOOKS / 2 && seen.failed > run);
    assert!(seen.left > run && seen.repeated > run && seen.begun_anew > run / 2);
}

#[test]
fn names_in_a_bad_world_even_seeds() {
    run_every(2, 0);
}

#[test]
fn names_in_a_bad_world_odd_seeds() {
    run_every(2, 1);
}
