//! A thousand LB servers follow one store, in virtual time: whatever happens to all of them at once, the store never
//! has to answer all of them at once.
//!
//! Each server is what `cluster::sync` is: it looks at the head when a session begins, then at its own intervals and
//! after hints; a change that the watch did not bring costs a read of its record and one of its load balancer. When the
//! store is lost, each of the prefixes besides that an LB server follows comes back for itself, as `store::follow` does:
//! one read, and three more where what came since is forgotten, as it is of all that was quiet for ten minutes; so does
//! the connection, which is asked once whether it is of use. The
//! histograms of `docs/performance.md` are printed by
//! `cargo test -p evenkeel-reconcile --test spread_of_reads -- --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use evenkeel_reconcile::desired::poll;

const SERVERS: u32 = 1000;
/// Reads are counted in windows of this.
const WINDOW: Duration = Duration::from_millis(100);
/// Reads of a change that was not pushed: its record, and its load balancer.
const OF_A_CHANGE: u32 = 2;
/// Prefixes that an LB server follows besides: verdicts, beats, orders, members, leader, workers, assignments, pending.
const FOLLOWED: u32 = 8;
/// Those of them where something happens all the time.
const LIVELY: u32 = 2;
/// Reads of one that comes back: where the store is, and which it is.
const OF_A_RETURN: u32 = 1;
/// Reads of a list, once that turned out to be needed: which store it is, before and after, and what there is.
const OF_A_LIST: u32 = 3;
/// How long a watch takes to bring a change, at most.
const PUSHED_WITHIN: Duration = Duration::from_millis(5);

/// A small generator, so that a failing seed is a number one can type in.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// What happens to the store.
struct Story {
    /// All servers start at 0, and serve what their disks had.
    known: bool,
    /// From when to when it is away; sessions end at its beginning.
    away: Option<(Duration, Duration)>,
    /// When something is changed, and whether watches bring it.
    change: Option<(Duration, bool)>,
    /// A hint tells of the change at once.
    hinted: bool,
    until: Duration,
}

impl Default for Story {
    fn default() -> Self {
        Self {
            known: true,
            away: None,
            change: None,
            hinted: false,
            until: Duration::from_secs(120),
        }
    }
}

/// What comes to a server next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    /// A follower, for the n-th time in a row.
    Return(u32, u32),
    List,
    Try,
    Poll,
    Pushed,
    HintOver,
    Lost,
}

#[derive(Clone, Default)]
struct Server {
    connected: bool,
    /// Has a connection, over which all goes.
    linked: bool,
    failures: u32,
    /// Has the change.
    has_it: bool,
    /// The poll that counts; those of sessions before do not.
    poll_at: Duration,
}

struct World<'s> {
    story: &'s Story,
    dice: Dice,
    servers: Vec<Server>,
    queue: BTreeSet<(Duration, u32, Next)>,
    reads: BTreeMap<u128, u32>,
}

impl World<'_> {
    fn away(&self, now: Duration) -> bool {
        self.story
            .away
            .is_some_and(|(from, to)| (from..to).contains(&now))
    }

    fn read(&mut self, now: Duration, reads: u32) {
        *self
            .reads
            .entry(now.as_micros() / WINDOW.as_micros())
            .or_default() += reads;
    }

    /// The head is read, and what it says that is not known.
    fn look(&mut self, now: Duration, who: u32) {
        self.read(now, 1);
        let changed = self.story.change.is_some_and(|(at, _)| at <= now);
        let server = &mut self.servers[who as usize];
        if changed && !server.has_it {
            server.has_it = true;
            self.read(now, OF_A_CHANGE);
        }
    }

    /// The first question goes over a connection that is asked itself.
    fn connect(&mut self, now: Duration, who: u32) {
        if !std::mem::replace(&mut self.servers[who as usize].linked, true) {
            self.read(now, 1);
        }
    }

    fn come_back(&mut self, now: Duration, who: u32, follower: u32, failures: u32) {
        if self.away(now) {
            let at = now + self.pause(failures + 1);
            self.queue.insert((at, who, Next::Return(follower, failures + 1)));
            return;
        }
        self.read(now, OF_A_RETURN);
        if follower >= LIVELY {
            let at = now + self.pause(1);
            self.queue.insert((at, who, Next::List));
        }
    }

    /// The pause of `store::backoff`.
    fn pause(&mut self, failures: u32) -> Duration {
        let step = Duration::from_millis(50 << (failures - 1).min(16)).min(s(2));
        step / 2 + poll::spread(step, self.dice.roll())
    }

    fn poll_later(&mut self, now: Duration, who: u32) {
        let at = now + poll::interval(self.dice.roll());
        self.servers[who as usize].poll_at = at;
        self.queue.insert((at, who, Next::Poll));
    }

    fn step(&mut self, now: Duration, who: u32, next: Next) {
        let away = self.away(now);
        if !away && matches!(next, Next::Try | Next::Return(..)) {
            self.connect(now, who);
        }
        let server = &mut self.servers[who as usize];
        match next {
            Next::Return(follower, failures) => return self.come_back(now, who, follower, failures),
            Next::List => return self.read(now, OF_A_LIST),
            Next::Lost => (server.connected, server.linked) = (false, false),
            Next::Try if !away => {
                (server.connected, server.failures) = (true, 0);
                self.look(now, who);
                return self.poll_later(now, who);
            }
            Next::Poll if server.connected && server.poll_at == now => {
                self.look(now, who);
                return self.poll_later(now, who);
            }
            Next::Pushed if server.connected => return server.has_it = true,
            Next::HintOver if server.connected && !server.has_it => return self.look(now, who),
            Next::Poll | Next::Pushed | Next::HintOver => return,
            Next::Try => {}
        }
        // Lost, or not found.
        server.failures += 1;
        let pause = poll::again(server.failures, self.dice.roll());
        self.queue.insert((now + pause, who, Next::Try));
    }
}

/// Reads by window of [`WINDOW`].
fn play(story: &Story, seed: u64) -> BTreeMap<u128, u32> {
    let mut world = World {
        story,
        dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        servers: vec![Server::default(); SERVERS as usize],
        queue: BTreeSet::new(),
        reads: BTreeMap::new(),
    };
    for who in 0..SERVERS {
        let first = poll::first(story.known, world.dice.roll());
        world.queue.insert((first, who, Next::Try));
        if let Some((from, _)) = story.away {
            world.queue.insert((from, who, Next::Lost));
            for follower in 0..FOLLOWED {
                let pause = world.pause(1) + poll::spread(poll::RETURN_SPREAD, world.dice.roll());
                world.queue.insert((from + pause, who, Next::Return(follower, 1)));
            }
        }
        let Some((at, pushed)) = story.change else {
            continue;
        };
        if pushed {
            let takes = poll::spread(PUSHED_WITHIN, world.dice.roll());
            world.queue.insert((at + takes, who, Next::Pushed));
        }
        if story.hinted {
            let patience = poll::spread(poll::HINT_SPREAD, world.dice.roll());
            world.queue.insert((at + patience, who, Next::HintOver));
        }
    }
    while let Some((now, who, next)) = world.queue.pop_first() {
        if now > story.until {
            break;
        }
        world.step(now, who, next);
    }
    if story.change.is_some() {
        let late = world.servers.iter().filter(|server| !server.has_it).count();
        assert_eq!(late, 0, "seed {seed}: every server has the change in the end");
    }
    world.reads
}

/// The greatest number of reads in a window from `from` on, over the seeds; the histogram of the first is printed.
fn peak(title: &str, story: &Story, from: Duration) -> u32 {
    let begin = from.as_micros() / WINDOW.as_micros();
    let mut peak = 0;
    for seed in 1..=20 {
        let reads = play(story, seed);
        let seen = reads.range(begin..).map(|(_, reads)| *reads);
        peak = peak.max(seen.max().unwrap_or(0));
        if seed == 1 {
            print!("{}", histogram(title, &reads, begin));
        }
    }
    println!("  at most {peak} reads in 100 ms, over 20 seeds\n");
    peak
}

/// A line for each window with reads, the first 25 of them; a bar of 60 signs is the most.
fn histogram(title: &str, reads: &BTreeMap<u128, u32>, begin: u128) -> String {
    let mut text = format!("{title}\n");
    let most = reads
        .range(begin..)
        .map(|(_, reads)| *reads as usize)
        .max()
        .unwrap_or(1);
    let all: u32 = reads.range(begin..).map(|(_, reads)| reads).sum();
    for (window, reads) in reads.range(begin..).take(25) {
        let bar = "#".repeat((*reads as usize * 60).div_ceil(most));
        writeln!(text, "{:>7.1} s {reads:>5} {bar}", *window as f64 / 10.0).unwrap();
    }
    writeln!(text, "  {all} reads in all").unwrap();
    text
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The power returns: all servers start in the same instant, with what their disks had. What they follow besides what is
/// declared is not in this: that is asked for at once.
#[test]
fn a_start_of_all_at_once() {
    let story = Story::default();
    assert!(peak("all start at once, with what was served last", &story, s(0)) <= 180);
    let first = Story {
        known: false,
        ..Story::default()
    };
    assert!(peak("all start at once, with nothing", &first, s(0)) <= 540);
}

/// Nothing happens for ten minutes after a common start: polls stay spread.
#[test]
fn polls_stay_spread() {
    let story = Story {
        until: s(600),
        ..Story::default()
    };
    assert!(peak("polls from the first minute on", &story, s(60)) <= 20);
}

/// The store goes and comes back, for the blink of an eye (as when a member of etcd dies that all are on) or for a
/// minute; meanwhile something was changed, and most of what is followed must be listed anew.
#[test]
fn a_store_that_returns() {
    for (title, away) in [
        ("the store was away for 10 ms", Duration::from_millis(10)),
        ("the store was away for 3 s", s(3)),
        ("the store was away for 60 s", s(60)),
    ] {
        let story = Story {
            away: Some((s(60), s(60) + away)),
            change: Some((s(60), false)),
            until: s(240),
            ..Story::default()
        };
        assert!(peak(title, &story, s(60)) <= 3500, "a tenth of all reads");
    }
}

/// A change: the watch brings it whole. Also with a hint on another way, which is given up for the watch in most
/// cases.
#[test]
fn a_change_that_is_pushed_costs_the_store_next_to_nothing() {
    let mut story = Story {
        change: Some((s(70), true)),
        ..Story::default()
    };
    assert!(peak("a change, pushed", &story, s(69)) <= 20);
    story.hinted = true;
    assert!(peak("a change, pushed and hinted at", &story, s(69)) <= 250);
}

/// A change that no watch brings: it is found by the polls, within 36 s.
#[test]
fn a_change_that_nothing_tells_of() {
    let story = Story {
        change: Some((s(70), false)),
        ..Story::default()
    };
    assert!(peak("a change that nothing tells of", &story, s(69)) <= 70);
    let reads = play(&story, 7);
    let window = |at: Duration| at.as_micros() / WINDOW.as_micros();
    let within: u32 = reads
        .range(window(s(70))..=window(s(106)))
        .map(|(_, reads)| reads)
        .sum();
    assert!(within >= SERVERS * (1 + OF_A_CHANGE), "{within}");
}
