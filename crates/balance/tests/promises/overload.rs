//! Caps, the queue and the circuit breaker: no slot too many, none lost, the living served, bounded waits.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Wake, Waker};
use std::time::Duration;

use balance::{Admission, Balancer, Circuit, Load, Need, Place, PoolLoad, Probe, Rng, Settled, Shed, Take};
use model::config::{Algorithm, Caps, CircuitBreaker, Overload, Queue};
use model::snapshot::PoolState;
use model::state::Timestamp;

use crate::support::{all_algorithms, state, state_with};

const MS: u64 = 1_000;

fn capped(state: PoolState, cap: u32, queue: Queue) -> Balancer {
    let mut config = (*state.config).clone();
    config.overload = Overload {
        caps: Caps {
            max_requests: Some(cap),
            max_connections: None,
        },
        queue,
        circuit_breaker: None,
    };
    let state = PoolState {
        config: Arc::new(config),
        ..state
    };
    let loads = state.members.iter().map(|_| Arc::new(Load::new())).collect();
    let balancer = Balancer::new(Arc::new(state), Arc::new(PoolLoad::new()), loads);
    balancer.install(0);
    balancer
}

fn pool_of(members: usize, cap: u32, queue: Queue) -> Balancer {
    let state = state(Algorithm::LeastConnections, &vec![100; members], None);
    capped(state, cap, queue)
}

fn any() -> Need<'static> {
    Need {
        key: 0,
        pinned: None,
        tried: &[],
        deadline_us: None,
    }
}

fn waits(take: Take) -> Place {
    match take {
        Take::Wait(place) => place,
        other => panic!("{other:?}"),
    }
}

fn look(place: &mut Place) -> Poll<Settled> {
    place.poll(Waker::noop())
}

/// The member of a slot that was handed over.
fn slot(balancer: &Balancer, place: &mut Place) -> usize {
    match look(place) {
        Poll::Ready(Settled::Slot(id)) => balancer.session_member(id).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn release(balancer: &Balancer, member: usize, now_us: u64) {
    balancer.pool().release(balancer.load(member), MS, now_us);
}

/// Every algorithm: three backends of two take six, the seventh waits, and each was used to its cap.
#[test]
fn full_backends_are_passed_over_by_every_algorithm() {
    for algorithm in all_algorithms() {
        let balancer = capped(state(algorithm.clone(), &[100; 3], None), 2, Queue::default());
        let mut rng = Rng::new(1);
        for _ in 0..6 {
            let take = balancer.take(any(), 0, &mut rng);
            assert!(matches!(take, Take::Taken(_)), "{algorithm:?}: {take:?}");
        }
        assert!((0..3).all(|i| balancer.load(i).in_flight() == 2), "{algorithm:?}");
        let mut place = waits(balancer.take(any(), 0, &mut rng));
        assert!(look(&mut place).is_pending());
        release(&balancer, 1, MS);
        assert_eq!(slot(&balancer, &mut place), 1, "{algorithm:?}");
        assert_eq!(balancer.load(1).in_flight(), 2);
    }
}

/// A freed slot goes to who waits; who comes at that moment comes behind.
#[test]
fn nobody_overtakes_those_who_wait() {
    let balancer = pool_of(1, 1, Queue::default());
    let mut rng = Rng::new(1);
    assert!(matches!(balancer.take(any(), 0, &mut rng), Take::Taken(0)));
    let mut first = waits(balancer.take(any(), MS, &mut rng));
    let mut second = waits(balancer.take(any(), 2 * MS, &mut rng));
    assert_eq!((first.position(), second.position()), (1, 2));
    release(&balancer, 0, 3 * MS);
    let mut third = waits(balancer.take(any(), 3 * MS, &mut rng));
    assert_eq!(slot(&balancer, &mut first), 0);
    assert!(look(&mut second).is_pending() && look(&mut third).is_pending());
    release(&balancer, 0, 4 * MS);
    assert_eq!(slot(&balancer, &mut second), 0);
    assert!(look(&mut third).is_pending());
}

/// The pool changes while a request waits that was let in before: it is handed slots of backends that it knows and of
/// no other, be they free, and no slot is left counted when all is over.
#[test]
fn a_slot_goes_only_to_who_knows_its_backend() {
    let queue = Queue::default();
    let all = state(Algorithm::LeastConnections, &[100; 3], None);
    let loads: Vec<Arc<Load>> = (0..3).map(|_| Arc::new(Load::new())).collect();
    let pool = Arc::new(PoolLoad::new());
    let of = |members: std::ops::Range<usize>| {
        let mut state = all.clone();
        let mut config = (*state.config).clone();
        config.overload.caps.max_requests = Some(1);
        config.overload.queue = queue;
        config.backends = config.backends[members.clone()].to_vec();
        state.members = state.members[members.clone()].to_vec();
        state.config = Arc::new(config);
        let balancer = Balancer::new(Arc::new(state), pool.clone(), loads[members].to_vec());
        balancer.install(0);
        balancer
    };
    let mut rng = Rng::new(1);
    let old = of(0..2);
    for _ in 0..2 {
        assert!(matches!(old.take(any(), 0, &mut rng), Take::Taken(_)));
    }
    let mut place = waits(old.take(any(), 0, &mut rng));
    // The first backend goes, a third comes and is free; who waits knows the second alone of them.
    let new = of(1..3);
    new.pool().sweep(100 * MS);
    assert!(look(&mut place).is_pending());
    release(&old, 0, 100 * MS);
    assert!(look(&mut place).is_pending(), "it takes no more requests");
    release(&new, 0, 100 * MS);
    assert_eq!(slot(&old, &mut place), 1);
    release(&old, 1, 100 * MS);
    assert!(loads.iter().all(|load| load.in_flight() == 0));
    assert_eq!(pool.waiting(), 0);
}

/// Whoever leaves is gone at once, and a slot that it was handed meanwhile goes to the next.
#[test]
fn a_slot_handed_to_one_that_left_goes_on() {
    let balancer = pool_of(1, 1, Queue::default());
    let mut rng = Rng::new(1);
    assert!(matches!(balancer.take(any(), 0, &mut rng), Take::Taken(0)));
    let leaves = waits(balancer.take(any(), 0, &mut rng));
    let handed = waits(balancer.take(any(), 0, &mut rng));
    let mut last = waits(balancer.take(any(), 0, &mut rng));
    drop(leaves);
    assert_eq!(balancer.pool().waiting(), 2);
    release(&balancer, 0, MS);
    drop(handed);
    assert_eq!(slot(&balancer, &mut last), 0);
    assert_eq!(balancer.load(0).in_flight(), 1);
    release(&balancer, 0, 2 * MS);
    assert_eq!(balancer.load(0).in_flight(), 0);
}

#[test]
fn the_queue_is_bounded_in_number_and_time() {
    let queue = Queue {
        size: 2,
        timeout: Duration::from_millis(500),
        target: Duration::from_millis(100),
    };
    let balancer = pool_of(1, 1, queue);
    let mut rng = Rng::new(1);
    assert!(matches!(balancer.take(any(), 0, &mut rng), Take::Taken(0)));
    let mut first = waits(balancer.take(any(), 0, &mut rng));
    let mut second = waits(balancer.take(any(), 100 * MS, &mut rng));
    let third = balancer.take(any(), 200 * MS, &mut rng);
    assert!(matches!(third, Take::Shed(Shed::Full)), "{third:?}");
    balancer.pool().sweep(499 * MS);
    assert!(look(&mut first).is_pending());
    balancer.pool().sweep(550 * MS);
    assert_eq!(look(&mut first), Poll::Ready(Settled::Shed(Shed::Timeout)));
    // Too late by the time the slot is free, though nobody has swept.
    release(&balancer, 0, 600 * MS);
    assert_eq!(look(&mut second), Poll::Ready(Settled::Shed(Shed::Timeout)));
    assert_eq!(balancer.load(0).in_flight(), 0);
}

/// Without a queue a full pool refuses at once.
#[test]
fn a_queue_of_nothing_refuses_at_once() {
    let queue = Queue {
        size: 0,
        ..Queue::default()
    };
    let balancer = pool_of(1, 1, queue);
    let mut rng = Rng::new(1);
    assert!(matches!(balancer.take(any(), 0, &mut rng), Take::Taken(0)));
    assert!(matches!(
        balancer.take(any(), 0, &mut rng),
        Take::Shed(Shed::Full)
    ));
    release(&balancer, 0, MS);
    assert!(matches!(balancer.take(any(), MS, &mut rng), Take::Taken(0)));
}

/// A request with little time of its own (gRPC's deadline) is not served when it could not be answered in it.
#[test]
fn a_deadline_that_cannot_be_met_is_not_waited_for() {
    let balancer = pool_of(1, 1, Queue::default());
    let mut rng = Rng::new(1);
    assert!(matches!(balancer.take(any(), 0, &mut rng), Take::Taken(0)));
    let hurried = Need {
        deadline_us: Some(20 * MS),
        ..any()
    };
    let mut hurried_place = waits(balancer.take(hurried, 0, &mut rng));
    let mut patient = waits(balancer.take(any(), 0, &mut rng));
    // Requests take 50 ms here: what must be answered in another 10 has no chance.
    balancer.pool().release(balancer.load(0), 50 * MS, 10 * MS);
    assert_eq!(
        look(&mut hurried_place),
        Poll::Ready(Settled::Shed(Shed::Deadline))
    );
    assert_eq!(slot(&balancer, &mut patient), 0);
    let late = balancer.take(hurried, 11 * MS, &mut rng);
    assert!(matches!(late, Take::Shed(Shed::Deadline)), "{late:?}");
}

/// A session waits for its own backend, and fills no more than its share of the queue; all others go past it.
#[test]
fn a_slow_backend_keeps_only_its_own_sessions_waiting() {
    let queue = Queue {
        size: 10,
        ..Queue::default()
    };
    let balancer = pool_of(2, 1, queue);
    let mut rng = Rng::new(1);
    let of_first = Need {
        pinned: Some(0),
        ..any()
    };
    assert!(matches!(balancer.take(of_first, 0, &mut rng), Take::Taken(0)));
    let mut sessions: Vec<Place> = (0..5)
        .map(|_| waits(balancer.take(of_first, 0, &mut rng)))
        .collect();
    assert!(matches!(
        balancer.take(of_first, 0, &mut rng),
        Take::Shed(Shed::Full)
    ));
    for turn in 1..100 {
        assert!(matches!(
            balancer.take(any(), turn * MS, &mut rng),
            Take::Taken(1)
        ));
        release(&balancer, 1, turn * MS);
    }
    let mut other = {
        assert!(matches!(balancer.take(any(), 100 * MS, &mut rng), Take::Taken(1)));
        waits(balancer.take(any(), 100 * MS, &mut rng))
    };
    // The session that waited longer has the first slot of its backend.
    release(&balancer, 0, 101 * MS);
    assert_eq!(slot(&balancer, &mut sessions[0]), 0);
    release(&balancer, 1, 102 * MS);
    assert_eq!(slot(&balancer, &mut other), 1);
}

/// A retry does not meet the backend that failed it, though that one is free first.
#[test]
fn a_retry_waits_for_another_backend() {
    let balancer = pool_of(2, 1, Queue::default());
    let mut rng = Rng::new(1);
    let retry = Need { tried: &[0], ..any() };
    assert!(matches!(balancer.take(retry, 0, &mut rng), Take::Taken(1)));
    let mut place = waits(balancer.take(retry, 0, &mut rng));
    // The free one is for whoever can use it, at once.
    assert!(matches!(balancer.take(any(), 0, &mut rng), Take::Taken(0)));
    release(&balancer, 0, MS);
    assert!(look(&mut place).is_pending());
    release(&balancer, 1, 2 * MS);
    assert_eq!(slot(&balancer, &mut place), 1);
    let both = Need {
        tried: &[0, 1],
        ..any()
    };
    assert!(matches!(balancer.take(both, 2 * MS, &mut rng), Take::Nobody));
}

/// In slow start a backend has a share of its cap, whatever the algorithm: a queue would fill it at once.
#[test]
fn slow_start_holds_for_caps_too() {
    for algorithm in all_algorithms() {
        let mut ramping = state_with(algorithm.clone(), &[1, 1], &[100, 30], None);
        ramping.members[1].ramp_since = Some(Timestamp(0));
        let balancer = capped(ramping, 10, Queue::default());
        assert_eq!((balancer.cap(0), balancer.cap(1)), (Some(10), Some(3)));
        let mut rng = Rng::new(1);
        let taken = |_: &usize| matches!(balancer.take(any(), 0, &mut rng), Take::Taken(_));
        assert_eq!((0..20).filter(taken).count(), 13, "{algorithm:?}");
        assert_eq!(balancer.load(1).in_flight(), 3);
    }
}

/// Offered twice what two backends of four can do (100 a second each slot, by chance), for twenty seconds: they
/// are kept busy, nobody who is served waited longer than promised, and the queue stays within its bounds.
#[test]
fn twice_the_load_leaves_the_goodput_whole() {
    for seed in 0..4 {
        let mut run = Run::new(seed, 2, 4);
        let capacity = 8.0 / 0.01;
        run.offer(2.0 * capacity, 20_000 * MS);
        let goodput = run.served as f64 / 20.0;
        assert!(goodput >= 0.9 * capacity, "seed {seed}: {goodput} of {capacity}");
        assert!(run.longest_us <= 1_000 * MS, "seed {seed}: {}", run.longest_us);
        assert!(run.most_waiting <= 1000, "seed {seed}: {}", run.most_waiting);
        // Once the overload is known, the wait is the target's.
        let late = &mut run.late_waits;
        late.sort_unstable();
        let p99 = late[late.len() * 99 / 100];
        assert!(p99 <= 110 * MS, "seed {seed}: {p99}");
    }
}

/// The same where requests are few and long, so that few come in the time of the target.
#[test]
fn twice_the_load_of_long_requests_leaves_the_goodput_whole() {
    for seed in 0..8 {
        let mut run = Run::new(seed, 1, 2);
        run.service_us = 400 * MS;
        let capacity = 2.0 / 0.4;
        run.offer(2.0 * capacity, 200_000 * MS);
        let goodput = run.served as f64 / 200.0;
        assert!(goodput >= 0.9 * capacity, "seed {seed}: {goodput} of {capacity}");
        assert!(run.longest_us <= 1_000 * MS, "seed {seed}: {}", run.longest_us);
    }
}

/// A burst that can be worked off in time is served whole and in order.
#[test]
fn a_burst_is_served_in_order() {
    let balancer = pool_of(1, 1, Queue::default());
    let mut rng = Rng::new(1);
    assert!(matches!(balancer.take(any(), 0, &mut rng), Take::Taken(0)));
    let mut places: Vec<Place> = (0..90)
        .map(|_| waits(balancer.take(any(), 0, &mut rng)))
        .collect();
    for (turn, place) in places.iter_mut().enumerate() {
        release(&balancer, 0, (turn as u64 + 1) * 10 * MS);
        assert_eq!(slot(&balancer, place), 0, "{turn}");
    }
}

/// What waits, at the pace of late: 50 requests at 20 a second are two and a half seconds.
#[test]
fn retry_after_follows_the_pace() {
    let queue = Queue {
        size: 50,
        timeout: Duration::from_secs(60),
        target: Duration::from_secs(60),
    };
    let balancer = pool_of(1, 1, queue);
    let mut rng = Rng::new(1);
    assert_eq!(balancer.pool().retry_after_s(), 1);
    assert!(matches!(balancer.take(any(), 0, &mut rng), Take::Taken(0)));
    let mut places: Vec<Place> = (0..50)
        .map(|_| waits(balancer.take(any(), 0, &mut rng)))
        .collect();
    for turn in 1..30 {
        release(&balancer, 0, turn * 50 * MS);
        assert_eq!(slot(&balancer, &mut places.remove(0)), 0);
        places.push(waits(balancer.take(any(), turn * 50 * MS, &mut rng)));
    }
    assert_eq!(balancer.pool().waiting(), 50);
    assert_eq!(balancer.pool().retry_after_s(), 3);
}

/// A pool under load on a clock of its own.
struct Run {
    balancer: Balancer,
    rng: Rng,
    service_us: u64,
    /// When the slots in use come free, and whose they are.
    busy: BTreeMap<(u64, u64), usize>,
    waiting: BTreeMap<u64, (u64, Place)>,
    /// Numbers of those that were woken.
    woken: Arc<Mutex<Vec<u64>>>,
    number: u64,
    served: u64,
    longest_us: u64,
    late_waits: Vec<u64>,
    most_waiting: u32,
}

impl Run {
    fn new(seed: u64, members: usize, cap: u32) -> Self {
        Self {
            balancer: pool_of(members, cap, Queue::default()),
            rng: Rng::new(seed),
            service_us: 10 * MS,
            busy: BTreeMap::new(),
            waiting: BTreeMap::new(),
            woken: Arc::default(),
            number: 0,
            served: 0,
            longest_us: 0,
            late_waits: Vec::new(),
            most_waiting: 0,
        }
    }

    fn offer(&mut self, per_second: f64, until_us: u64) {
        let mut next_us = 0.0;
        let mut sweep_us = 0;
        while (next_us as u64) < until_us {
            let now_us = next_us as u64;
            while let Some(((free_us, number), member)) = self.busy.pop_first() {
                if free_us > now_us {
                    self.busy.insert((free_us, number), member);
                    break;
                }
                self.served += 1;
                self.balancer
                    .pool()
                    .release(self.balancer.load(member), self.service_us, free_us);
                self.collect(free_us);
            }
            if now_us >= sweep_us {
                self.balancer.pool().sweep(now_us);
                sweep_us = now_us + 50 * MS;
            }
            self.collect(now_us);
            match self.balancer.take(any(), now_us, &mut self.rng) {
                Take::Taken(member) => self.begin(member, now_us, 0),
                Take::Wait(place) => {
                    self.number += 1;
                    self.waiting.insert(self.number, (now_us, place));
                    self.look_at(self.number, now_us);
                }
                Take::Shed(_) => {}
                Take::Nobody => panic!("there are backends"),
            }
            self.most_waiting = self.most_waiting.max(self.balancer.pool().waiting());
            // Arrivals by chance, independent of one another.
            let uniform = (self.rng.below(1 << 40) as f64 + 1.0) / (1u64 << 40) as f64;
            next_us += -uniform.ln() * 1e6 / per_second;
        }
    }

    fn begin(&mut self, member: usize, now_us: u64, waited_us: u64) {
        assert!(self.balancer.load(member).in_flight() <= self.balancer.cap(member).unwrap());
        self.longest_us = self.longest_us.max(waited_us);
        if now_us > 5_000 * MS {
            self.late_waits.push(waited_us);
        }
        let takes = self.service_us / 2 + self.rng.below(self.service_us);
        self.number += 1;
        self.busy.insert((now_us + takes, self.number), member);
    }

    fn collect(&mut self, now_us: u64) {
        let woken = std::mem::take(&mut *self.woken.lock().unwrap());
        woken.into_iter().for_each(|number| self.look_at(number, now_us));
    }

    fn look_at(&mut self, number: u64, now_us: u64) {
        let Some((since_us, mut place)) = self.waiting.remove(&number) else {
            return;
        };
        let waker = Waker::from(Arc::new(Note(number, self.woken.clone())));
        match place.poll(&waker) {
            Poll::Pending => {
                self.waiting.insert(number, (since_us, place));
            }
            Poll::Ready(Settled::Slot(id)) => {
                let member = self.balancer.session_member(id).unwrap();
                self.begin(member, now_us, now_us - since_us);
            }
            Poll::Ready(Settled::Shed(_)) => {}
            Poll::Ready(Settled::Lost) => panic!("the backends stay"),
        }
    }
}

/// Notes the number of whoever is woken.
struct Note(u64, Arc<Mutex<Vec<u64>>>);

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.1.lock().unwrap().push(self.0);
    }
}

/// Any order of arrivals, ends, departures and sweeps: never more than the cap in flight, never a free slot while
/// somebody waits for it, and at the end nothing is counted that is not there.
#[test]
fn no_interleaving_loses_a_slot_or_makes_one() {
    for seed in 0..150 {
        let mut rng = Rng::new(seed);
        let (members, cap) = (1 + rng.below(3) as usize, 1 + rng.below(3) as u32);
        let balancer = pool_of(members, cap, Queue::default());
        let (mut held, mut places, mut now_us) = (Vec::new(), Vec::new(), 0);
        for step in 0..300 {
            now_us += rng.below(3 * MS);
            match rng.below(6) {
                0..=2 => {
                    let pinned = (rng.below(4) == 0).then(|| rng.below(members as u64) as usize);
                    match balancer.take(Need { pinned, ..any() }, now_us, &mut rng) {
                        Take::Taken(member) => held.push(member),
                        Take::Wait(place) => places.push((pinned, place)),
                        other => panic!("seed {seed}, step {step}: {other:?}"),
                    }
                }
                3 if !held.is_empty() => {
                    let member = held.swap_remove(rng.below(held.len() as u64) as usize);
                    release(&balancer, member, now_us);
                }
                4 if !places.is_empty() => {
                    places.swap_remove(rng.below(places.len() as u64) as usize);
                }
                _ => balancer.pool().sweep(now_us),
            }
            // Not all look at once.
            if rng.below(2) == 0 {
                places.retain_mut(|(_, place)| match look(place) {
                    Poll::Pending => true,
                    Poll::Ready(Settled::Slot(id)) => {
                        held.push(balancer.session_member(id).unwrap());
                        false
                    }
                    Poll::Ready(other) => panic!("seed {seed}, step {step}: {other:?}"),
                });
                for member in 0..members {
                    let in_flight = balancer.load(member).in_flight();
                    let ours = held.iter().filter(|m| **m == member).count() as u32;
                    assert_eq!(in_flight, ours, "seed {seed}, step {step}");
                    assert!(in_flight <= cap, "seed {seed}, step {step}");
                    let wanted = places.iter().any(|(p, _)| p.is_none_or(|p| p == member));
                    assert!(in_flight == cap || !wanted, "seed {seed}, step {step}");
                }
            }
        }
        drop(places);
        held.drain(..)
            .for_each(|member| release(&balancer, member, now_us));
        assert!(
            (0..members).all(|i| balancer.load(i).in_flight() == 0),
            "seed {seed}"
        );
        assert_eq!(balancer.pool().waiting(), 0, "seed {seed}");
    }
}

struct Unpark(std::thread::Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, SeqCst);
        self.0.unpark();
    }
}

/// Eight threads at three slots: never more than three at once, and nobody waits for ever.
#[test]
fn threads_never_exceed_a_cap_and_all_get_through() {
    let queue = Queue {
        timeout: Duration::from_secs(3600),
        target: Duration::from_secs(3600),
        ..Queue::default()
    };
    let balancer = pool_of(1, 3, queue);
    let (inside, most, done) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (balancer, inside, most, done) = (&balancer, &inside, &most, &done);
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                let unpark = Arc::new(Unpark(std::thread::current(), AtomicBool::new(false)));
                let waker = Waker::from(unpark.clone());
                for _ in 0..2_000 {
                    let member = match balancer.take(any(), 0, &mut rng) {
                        Take::Taken(member) => member,
                        Take::Wait(mut place) => loop {
                            match place.poll(&waker) {
                                Poll::Ready(Settled::Slot(id)) => break balancer.session_member(id).unwrap(),
                                Poll::Ready(other) => panic!("{other:?}"),
                                Poll::Pending => {
                                    while !unpark.1.swap(false, SeqCst) {
                                        std::thread::park();
                                    }
                                }
                            }
                        },
                        other => panic!("{other:?}"),
                    };
                    most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                    std::hint::spin_loop();
                    inside.fetch_sub(1, SeqCst);
                    release(balancer, member, 0);
                    done.fetch_add(1, SeqCst);
                }
            });
        }
    });
    assert_eq!(done.load(SeqCst), 16_000);
    assert!(most.load(SeqCst) <= 3, "{most:?}");
    assert_eq!(balancer.load(0).in_flight(), 0);
}

const BREAKER: CircuitBreaker = CircuitBreaker {
    failure_ratio: 50,
    minimum_requests: 20,
    window: Duration::from_secs(10),
    open_time: Duration::from_secs(5),
    half_open_requests: 3,
};
const RAMP: Duration = Duration::from_secs(10);

fn admit(pool: &PoolLoad, now_us: u64) -> Admission {
    pool.admit(&BREAKER, RAMP, now_us, &mut Rng::new(now_us))
}

fn opened(pool: &PoolLoad, now_us: u64) {
    for _ in 0..10 {
        assert_eq!(pool.note_end(&BREAKER, false, Probe::Success, now_us), None);
    }
    for _ in 0..9 {
        assert_eq!(pool.note_end(&BREAKER, false, Probe::Failure, now_us), None);
    }
    let (circuit, why) = pool.note_end(&BREAKER, false, Probe::Failure, now_us).unwrap();
    assert_eq!(circuit, Circuit::Open);
    assert_eq!(why, "50% of 20 requests failed in 10s");
}

/// Open, half open with three at a time, closed, and then a growing share.
#[test]
fn a_breaker_opens_tries_and_closes() {
    let (pool, second) = (PoolLoad::new(), 1_000 * MS);
    assert_eq!(admit(&pool, second), Admission::Pass);
    opened(&pool, second);
    assert_eq!(admit(&pool, second), Admission::Refuse(5));
    assert_eq!(admit(&pool, 6 * second - 1), Admission::Refuse(1));
    assert_eq!(pool.circuit(6 * second), Circuit::HalfOpen);
    for _ in 0..3 {
        assert_eq!(admit(&pool, 6 * second), Admission::Probe);
    }
    assert_eq!(admit(&pool, 6 * second), Admission::Refuse(1));
    // One whose client left makes room for another.
    assert_eq!(pool.note_end(&BREAKER, true, Probe::Nothing, 6 * second), None);
    assert_eq!(admit(&pool, 6 * second), Admission::Probe);
    assert_eq!(pool.note_end(&BREAKER, true, Probe::Success, 6 * second), None);
    assert_eq!(pool.note_end(&BREAKER, true, Probe::Success, 6 * second), None);
    let (circuit, _) = pool.note_end(&BREAKER, true, Probe::Success, 6 * second).unwrap();
    assert_eq!(circuit, Circuit::Closed);
    let share = |at: u64| {
        let passed = |i: &u64| admit(&pool, at + i) == Admission::Pass;
        (0..1000).filter(passed).count()
    };
    assert!((50..150).contains(&share(6 * second)));
    assert!((480..620).contains(&share(11 * second)));
    assert_eq!(share(16 * second), 1000);
}

#[test]
fn a_breaker_whose_try_fails_opens_again() {
    let (pool, second) = (PoolLoad::new(), 1_000 * MS);
    opened(&pool, second);
    assert_eq!(admit(&pool, 6 * second), Admission::Probe);
    let (circuit, _) = pool.note_end(&BREAKER, true, Probe::Failure, 7 * second).unwrap();
    assert_eq!(circuit, Circuit::Open);
    assert_eq!(admit(&pool, 7 * second), Admission::Refuse(5));
    // A request from before it opened changes nothing.
    assert_eq!(pool.note_end(&BREAKER, false, Probe::Failure, 7 * second), None);
}
