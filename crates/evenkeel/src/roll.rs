//! The task that owns who is registered and who is heard: it takes what members ask for over the admin API, counts
//! their time, and tells the hub what follows.
//!
//! The decisions are `reconcile::membership`'s; here are the clock, the config in force, and the channels. Bounds: a
//! pool's `max`, and nothing is kept for addresses that are no members.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use console::{MemberError, MemberRequest};
use model::config::{Config, Pool};
use model::snapshot::Snapshot;
use model::state::{BackendId, MemberAction, Members, PoolKey, Report, Silence, Source};
use reconcile::discovery::usable;
use reconcile::membership::{Entered, Heard, Pulse, Roll};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::hub::View;

/// Time between two looks at who is silent.
const LOOK: Duration = Duration::from_millis(250);
/// Requests taken before the hub is told what they change: a start of many instances is one change.
const AT_ONCE: usize = 256;

/// What was asked for since the start, by pool and result.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(Arc<Mutex<BTreeMap<(PoolKey, &'static str), u64>>>);

impl Asked {
    fn count(&self, pool: &PoolKey, result: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((pool.clone(), result)).or_default() += 1;
    }

    fn forget_all_but(&self, config: &Config) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|(key, _), _| pool_of(config, key).is_some());
    }

    /// All of it.
    pub(crate) fn all(&self) -> BTreeMap<(PoolKey, &'static str), u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the task works with.
pub(crate) struct Registry {
    /// What the hub shows.
    pub(crate) view: watch::Receiver<View>,
    /// Where registered members are told.
    pub(crate) reports: mpsc::Sender<Report>,
    /// Where silence is told.
    pub(crate) silences: mpsc::Sender<Vec<Silence>>,
    /// What was asked for.
    pub(crate) asked: Asked,
}

/// Serves requests until the hub is gone. `remembered` are the members of the process before: they have their time
/// to be heard again.
pub(crate) async fn run(
    registry: Registry,
    remembered: Members,
    mut requests: mpsc::Receiver<MemberRequest>,
) {
    let mut state = State {
        start: Instant::now(),
        rolls: BTreeMap::new(),
        pulses: BTreeMap::new(),
        told: BTreeMap::new(),
        registry,
    };
    state.remember(&remembered);
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            taken = requests.recv_many(&mut batch, AT_ONCE) => {
                if taken == 0 {
                    return;
                }
            }
            _ = ticks.tick() => {}
        }
        let snapshot = state.registry.view.borrow().snapshot.clone();
        let mut heard = Vec::new();
        for request in batch.drain(..) {
            let answer = state.take(&snapshot.config, &request.backend, request.action, &mut heard);
            // Whoever asked may have gone; it holds all the same.
            let _ = request.reply.send(answer);
        }
        if state.look(&snapshot, heard).await.is_err() {
            return;
        }
    }
}

struct State {
    start: Instant,
    rolls: BTreeMap<PoolKey, Roll>,
    pulses: BTreeMap<PoolKey, Pulse>,
    /// What the hub was told last of each pool.
    told: BTreeMap<PoolKey, Report>,
    registry: Registry,
}

/// Nobody listens any more.
struct Gone;

impl State {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn remember(&mut self, remembered: &Members) {
        let now = self.now_ms();
        let snapshot = self.registry.view.borrow().snapshot.clone();
        for (key, members) in remembered.iter() {
            let pool = pool_of(&snapshot.config, key);
            let Some(registration) = pool.and_then(|pool| pool.membership.registration.as_ref()) else {
                continue;
            };
            let Some(state) = members.sources.get(&Source::Registered) else {
                continue;
            };
            let roll = self.rolls.entry(key.clone()).or_default();
            for (address, found) in state.members.iter() {
                let lease = (millis(registration.ttl), registration.max as usize);
                // More than the bound allows now were registered under another one; the first stay.
                let _ = roll.enter(now, *address, found.listed(), lease);
            }
        }
    }

    fn take(
        &mut self,
        config: &Config,
        backend: &BackendId,
        action: MemberAction,
        heard: &mut Vec<Silence>,
    ) -> Result<Option<Duration>, MemberError> {
        let key = (backend.load_balancer.clone(), backend.pool.clone());
        let pool = pool_of(config, &key).ok_or(MemberError::NotAsked)?;
        let result = match action {
            MemberAction::Register(listed, ttl) => {
                let registration = pool.membership.registration.as_ref();
                let registration = registration.ok_or(MemberError::NotAsked)?;
                let refused = |why: &str| MemberError::NotAllowed(backend.address, why.to_owned());
                let address = match usable(backend.address).map_err(refused) {
                    Ok(address) if registration.allows(address.ip()) => Ok(address),
                    Ok(_) => Err(refused(
                        "its address is not among those that `registration.allow` names",
                    )),
                    Err(error) => Err(error),
                };
                let address = address.inspect_err(|_| self.registry.asked.count(&key, "not_allowed"))?;
                let ttl = ttl.unwrap_or(registration.ttl);
                let lease = (millis(ttl), registration.max as usize);
                let now = self.now_ms();
                let entered = self
                    .rolls
                    .entry(key.clone())
                    .or_default()
                    .enter(now, address, listed, lease);
                match entered {
                    Ok(Entered::New) => self.registry.asked.count(&key, "new"),
                    Ok(Entered::Changed | Entered::Renewed) => self.registry.asked.count(&key, "renewed"),
                    Err(_) => {
                        self.registry.asked.count(&key, "too_many");
                        return Err(MemberError::TooMany(registration.max));
                    }
                }
                Some(ttl)
            }
            MemberAction::Leave => {
                let address = usable(backend.address).unwrap_or(backend.address);
                let was_there = self.rolls.get_mut(&key).is_some_and(|roll| roll.leave(address));
                if !was_there {
                    return Err(MemberError::UnknownMember(backend.address));
                }
                self.registry.asked.count(&key, "left");
                None
            }
            MemberAction::Beat => {
                let now = self.now_ms();
                let pulse = self
                    .pulses
                    .get_mut(&key)
                    .filter(|pulse| pulse.expects(backend.address));
                let pulse = pulse.ok_or(MemberError::UnknownMember(backend.address))?;
                heard.extend(
                    pulse
                        .beat(now, backend.address)
                        .map(|heard| silence(pool, &key, heard)),
                );
                self.registry.asked.count(&key, "heartbeat");
                None
            }
        };
        Ok(result)
    }

    /// Looks at who is silent, and tells the hub what has changed.
    async fn look(&mut self, snapshot: &Snapshot, mut news: Vec<Silence>) -> Result<(), Gone> {
        let config = &snapshot.config;
        let (now, asked) = (self.now_ms(), self.registry.asked.clone());
        self.rolls.retain(|key, _| registers(config, key));
        self.told.retain(|key, _| registers(config, key));
        self.pulses.retain(|key, _| beats(config, key));
        asked.forget_all_but(config);
        for (key, state) in &snapshot.pools {
            if let Some(heartbeat) = &state.config.membership.heartbeat {
                let pulse = self.pulses.entry(key.clone()).or_default();
                let expected = state.members.iter().filter(|m| m.source() != Source::Registered);
                let expected: BTreeSet<SocketAddr> = expected.map(|m| m.id.address).collect();
                pulse.expect(now, &expected);
                let silent = pulse.listen(now, millis(heartbeat.timeout));
                news.extend(silent.into_iter().map(|heard| silence(&state.config, key, heard)));
            }
        }
        if !news.is_empty() {
            self.registry.silences.send(news).await.map_err(|_| Gone)?;
        }
        for (key, roll) in &mut self.rolls {
            for _ in roll.lapse(now) {
                asked.count(key, "lapsed");
            }
            let kept = roll.kept(now);
            let stale = (kept > 0).then(|| {
                "more than half of the members fell silent at once: those are kept, the checks say who works".to_owned()
            });
            let report = Report {
                load_balancer: key.0.clone(),
                pool: key.1.clone(),
                source: Source::Registered,
                members: Some(Arc::new(roll.members())),
                stale,
                left_out: 0,
            };
            if self.told.get(key) != Some(&report) {
                self.registry
                    .reports
                    .send(report.clone())
                    .await
                    .map_err(|_| Gone)?;
                self.told.insert(key.clone(), report);
            }
        }
        Ok(())
    }
}

fn pool_of<'c>(config: &'c Config, (lb, pool): &PoolKey) -> Option<&'c Pool> {
    config.load_balancers.get(lb)?.pools.get(pool).map(Arc::as_ref)
}

fn registers(config: &Config, key: &PoolKey) -> bool {
    pool_of(config, key).is_some_and(|pool| pool.membership.registration.is_some())
}

fn beats(config: &Config, key: &PoolKey) -> bool {
    pool_of(config, key).is_some_and(|pool| pool.membership.heartbeat.is_some())
}

fn silence(pool: &Pool, (load_balancer, name): &PoolKey, heard: Heard) -> Silence {
    let timeout = pool
        .membership
        .heartbeat
        .as_ref()
        .map(|heartbeat| heartbeat.timeout);
    Silence {
        backend: BackendId {
            load_balancer: load_balancer.clone(),
            pool: name.clone(),
            address: heard.address,
        },
        silent: timeout.filter(|_| heard.silent),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
