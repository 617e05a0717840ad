//! The task that owns who is registered and who is heard: it takes what members ask for over the admin API, counts
//! their time, and tells the hub what follows.
//!
//! The decisions are `reconcile::membership`'s; here are the clock, the config in force, and the channels, also those
//! to the store where other nodes have the same members. Bounds: a pool's `max`, and nothing is kept for addresses that
//! are no members.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cluster::members::{MOST_WRITES, MembersHeard, MembersSay, SharedMembers};
use cluster::{Desired, Standing};
use console::{MemberAnswer, MemberError, MemberNews, MemberRequest};
use model::config::{Config, Name, Pool, Registration};
use model::snapshot::Snapshot;
use model::state::{BackendId, Listed, MemberAction, Members, PoolKey, Report, Silence, Source};
use reconcile::discovery::usable;
use reconcile::membership::{Entered, Entry, Heard, Outcome, Presence};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::checking::replace;
use crate::hub::View;
use crate::membership::Registrations;

/// Time between two looks at who is silent.
const LOOK: Duration = Duration::from_millis(250);
/// Requests taken before the hub is told what they change: a start of many instances is one change.
const AT_ONCE: usize = 256;
/// The store has not been heard for so long: then it is told that nobody leaves. In milliseconds.
const DEAF_MS: u64 = 5_000;

/// What was asked for since the start, by pool and result.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(
    Arc<Mutex<BTreeMap<(PoolKey, &'static str), u64>>>,
    Arc<Mutex<Told>>,
);

/// What was told to a shared store, and is heard of it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    /// Writes since the start, by what they were about and what became of them.
    pub(crate) writes: BTreeMap<(&'static str, &'static str), u64>,
    /// Records that wait to be written.
    pub(crate) waiting: usize,
    /// Other nodes that tell whom they have heard.
    pub(crate) nodes: usize,
}

impl Default for Told {
    fn default() -> Self {
        let all = [
            ("record", "done"),
            ("record", "lost"),
            ("record", "failed"),
            ("beats", "done"),
            ("beats", "failed"),
        ];
        Self {
            writes: all.into_iter().map(|one| (one, 0)).collect(),
            waiting: 0,
            nodes: 0,
        }
    }
}

impl Told {
    fn wrote(&mut self, what: &'static str, result: &'static str) {
        *self.writes.entry((what, result)).or_default() += 1;
    }
}

impl Asked {
    fn note(&self, note: impl FnOnce(&mut Told)) {
        note(&mut self.1.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What was told to a shared store.
    pub(crate) fn told(&self) -> Told {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

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
    /// For which pools it keeps what it is told.
    pub(crate) taking: watch::Receiver<Registrations>,
    /// Where registered members are told.
    pub(crate) reports: mpsc::Sender<Report>,
    /// Where silence is told.
    pub(crate) silences: mpsc::Sender<Vec<Silence>>,
    /// What was asked for.
    pub(crate) asked: Asked,
}

/// Members of pools of a shared store, each with the number of its membership.
pub(crate) type Registered = BTreeMap<PoolKey, BTreeMap<SocketAddr, u64>>;

/// What it works with where other nodes have the same members.
pub(crate) struct Sharing {
    /// The store.
    pub(crate) members: SharedMembers,
    /// Which of its revisions is served.
    pub(crate) standing: watch::Receiver<Standing>,
    /// Who the members are, for those who check them.
    pub(crate) registered: watch::Sender<Arc<Registered>>,
}

/// Serves requests until the hub is gone. `remembered` are the members of the process before: they have their time
/// to be heard again. `sharing` is there where other nodes have the same members.
pub(crate) async fn run(
    registry: Registry,
    remembered: Members,
    mut requests: mpsc::Receiver<MemberRequest>,
    mut sharing: Option<Sharing>,
) {
    let teller = sharing.as_ref().map(|sharing| sharing.members.teller.clone());
    let mut state = State {
        start: Instant::now(),
        presence: Presence::new(teller, fresh()),
        shares: sharing.is_some(),
        newest: sharing.as_ref().map(|sharing| sharing.standing.clone()),
        deaf_since: Some(0),
        told: BTreeMap::new(),
        registry,
    };
    state.remember(&remembered);
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut batch, mut store) = (Vec::new(), Vec::new());
    loop {
        tokio::select! {
            taken = requests.recv_many(&mut batch, AT_ONCE) => {
                if taken == 0 {
                    return;
                }
            }
            () = hear(&mut sharing, &mut store) => {}
            _ = ticks.tick() => {}
        }
        let now = state.now_ms();
        if state.presence.wake(now) {
            tracing::warn!("this process did not run for a while: nobody's silence counts in that time");
        }
        let view = state.sight();
        let mut heard = Vec::new();
        let touched = !(store.is_empty() && batch.is_empty());
        for news in store.drain(..) {
            state.hear(&view, news, &mut heard);
        }
        for request in batch.drain(..) {
            let answer = state.take(&view, &request.backend, request.action, &mut heard);
            // Whoever asked may have gone; it holds all the same.
            let _ = request.reply.send(answer);
        }
        let Ok(lapsed) = state.look(&view, heard).await else {
            return;
        };
        if let Some(sharing) = &sharing {
            if touched || lapsed {
                replace(&sharing.registered, Arc::new(state.presence.registered()));
            }
            if state.say(&sharing.members.say).await.is_err() {
                return;
            }
        }
    }
}

/// What is heard of the store; nothing ever, where it is shared with nobody.
async fn hear(sharing: &mut Option<Sharing>, news: &mut Vec<MembersHeard>) {
    let heard = sharing.as_mut().map(|sharing| &mut sharing.members.heard);
    match heard {
        Some(heard) if !heard.is_closed() => _ = heard.recv_many(news, AT_ONCE).await,
        _ => std::future::pending().await,
    }
}

/// A number that no other membership has.
fn fresh() -> u64 {
    RandomState::new().hash_one(())
}

struct State {
    start: Instant,
    presence: Presence,
    /// Whether there is a store that others have, too.
    shares: bool,
    /// Which revision of it is served.
    newest: Option<watch::Receiver<Standing>>,
    /// Since when that is not heard.
    deaf_since: Option<u64>,
    /// What the hub was told last of each pool, and for which number of its asking.
    told: BTreeMap<PoolKey, (Option<u64>, Report)>,
    registry: Registry,
}

/// What is in force.
struct Sight {
    snapshot: Arc<Snapshot>,
    /// What this node declares by itself.
    file: Arc<Config>,
    /// What the store declares, as far as that is served here.
    stored: Arc<Desired>,
}

/// Nobody listens any more.
struct Gone;

impl State {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn sight(&self) -> Sight {
        let view = self.registry.view.borrow();
        Sight {
            snapshot: view.snapshot.clone(),
            file: view.declared.file.clone(),
            stored: view.declared.stored.clone(),
        }
    }

    /// Whether other nodes know this load balancer, too.
    fn is_shared(&self, view: &Sight, load_balancer: &Name) -> bool {
        self.shares && !view.file.load_balancers.contains_key(load_balancer)
    }

    fn remember(&mut self, remembered: &Members) {
        let now = self.now_ms();
        let view = self.sight();
        for (key, members) in remembered.iter() {
            let pool = pool_of(&view.snapshot.config, key);
            let Some(registration) = pool.and_then(|pool| pool.membership.registration.as_ref()) else {
                continue;
            };
            let Some(state) = members.sources.get(&Source::Registered) else {
                continue;
            };
            let shared = self.is_shared(&view, &key.0);
            // More than the bound allows now were registered under another one; the first stay.
            for (address, found) in state.members.iter().take(registration.max as usize) {
                let said = (found.listed(), millis(registration.ttl));
                self.presence.remember(now, &backend(key, *address), said, shared);
            }
        }
    }

    /// Takes what is heard of the store.
    fn hear(&mut self, view: &Sight, news: MembersHeard, heard: &mut Vec<Silence>) {
        let now = self.now_ms();
        let presence = &mut self.presence;
        let told = match news {
            MembersHeard::Record(backend, revision, record) => {
                presence.record(now, &backend, revision, record);
                Vec::new()
            }
            MembersHeard::Unread(backend, revision) => {
                presence.unread(&backend, revision);
                Vec::new()
            }
            MembersHeard::Lost(backend, revision) => {
                presence.lose(&backend, revision);
                Vec::new()
            }
            MembersHeard::Records(revision, all) => {
                presence.list_records(now, revision, all);
                Vec::new()
            }
            MembersHeard::OtherRecords(revision, all) => {
                presence.list_another(now, revision, all);
                Vec::new()
            }
            MembersHeard::HearsRecords(hears) => {
                presence.hear_records(now, hears);
                Vec::new()
            }
            MembersHeard::HearsBeats(hears) => {
                presence.hear_beats(now, hears);
                Vec::new()
            }
            MembersHeard::Told(node, beats) => presence.told(now, &node, &beats),
            MembersHeard::Tellers(all) => presence.list_beats(now, &all),
            MembersHeard::Gone(node) => {
                presence.gone(now, &node);
                Vec::new()
            }
            MembersHeard::Made(backend, outcome) => {
                let result = match outcome {
                    Outcome::Done(_) => "done",
                    Outcome::Lost => "lost",
                    Outcome::Failed => "failed",
                };
                self.registry.asked.note(|told| told.wrote("record", result));
                presence.made(now, &backend, outcome);
                Vec::new()
            }
            MembersHeard::BeatsTold(told) => {
                let result = if told { "done" } else { "failed" };
                self.registry.asked.note(|told| told.wrote("beats", result));
                presence.beats_told(told);
                Vec::new()
            }
        };
        let config = &view.snapshot.config;
        heard.extend(
            told.into_iter()
                .filter_map(|(key, heard)| Some(silence(pool_of(config, &key)?, &key, heard))),
        );
        self.deaf_since = match self.presence.hears() {
            true => None,
            false => self.deaf_since.or(Some(now)),
        };
    }

    fn take(
        &mut self,
        view: &Sight,
        asking: &BackendId,
        action: MemberAction,
        heard: &mut Vec<Silence>,
    ) -> Result<MemberAnswer, MemberError> {
        let key = (asking.load_balancer.clone(), asking.pool.clone());
        let pool = pool_of(&view.snapshot.config, &key).ok_or(MemberError::NotAsked)?;
        let shared = self.is_shared(view, &key.0);
        let asked = self.registry.asked.clone();
        match action {
            MemberAction::Register(listed, ttl) => {
                let registration = pool.membership.registration.as_ref();
                let registration = registration.ok_or(MemberError::NotAsked)?;
                let address = allowed(registration, asking.address)
                    .inspect_err(|_| asked.count(&key, "not_allowed"))?;
                let ttl = ttl.unwrap_or(registration.ttl);
                let entry = Entry {
                    listed: Listed {
                        life: fresh(),
                        ..listed
                    },
                    ttl_ms: millis(ttl),
                    most: registration.max as usize,
                };
                let now = self.now_ms();
                let entered = self
                    .presence
                    .register(now, &backend(&key, address), entry, shared);
                let entered = entered.map_err(|_| {
                    asked.count(&key, "too_many");
                    MemberError::TooMany(registration.max)
                })?;
                let (result, news) = match entered {
                    Entered::New => ("new", Some(MemberNews::Registered)),
                    Entered::Changed => ("renewed", Some(MemberNews::Changed)),
                    Entered::Renewed => ("renewed", None),
                };
                asked.count(&key, result);
                Ok(MemberAnswer { ttl: Some(ttl), news })
            }
            MemberAction::Leave => {
                let address = usable(asking.address).unwrap_or(asking.address);
                let now = self.now_ms();
                if !self.presence.leave(now, &backend(&key, address), shared) {
                    return Err(MemberError::UnknownMember(asking.address));
                }
                asked.count(&key, "left");
                Ok(MemberAnswer {
                    ttl: None,
                    news: Some(MemberNews::Left),
                })
            }
            MemberAction::Beat => {
                let address = usable(asking.address).unwrap_or(asking.address);
                let now = self.now_ms();
                let news = self.presence.beat(now, &backend(&key, address));
                let news = news.ok_or(MemberError::UnknownMember(asking.address))?;
                heard.extend(news.map(|heard| silence(pool, &key, heard)));
                asked.count(&key, "heartbeat");
                Ok(MemberAnswer::default())
            }
        }
    }

    /// Looks at who is silent, and tells the hub what has changed; says whether somebody is no member any more.
    async fn look(&mut self, view: &Sight, mut news: Vec<Silence>) -> Result<bool, Gone> {
        let snapshot = &view.snapshot;
        let config = &snapshot.config;
        let (now, asked) = (self.now_ms(), self.registry.asked.clone());
        let newest = self.newest.as_ref().is_some_and(|standing| {
            let standing = standing.borrow();
            let heard = standing.connected && standing.known;
            heard && standing.refused.is_none() && standing.head == standing.served
        });
        self.presence.keep(
            |key| registers(config, key),
            |key| beats(config, key),
            // Who does not serve what is declared last does not know who may register now.
            |key| newest && !takes(&view.stored, key),
        );
        self.told.retain(|key, _| registers(config, key));
        asked.forget_all_but(config);
        for (key, state) in &snapshot.pools {
            if let Some(heartbeat) = &state.config.membership.heartbeat {
                let expected = state.members.iter().filter(|m| m.source() != Source::Registered);
                let expected: BTreeSet<SocketAddr> = expected.map(|m| m.id.address).collect();
                let shared = self.is_shared(view, &key.0);
                let timeout = (&expected, millis(heartbeat.timeout));
                let silent = self.presence.listen(now, key, timeout, shared);
                news.extend(silent.into_iter().map(|heard| silence(&state.config, key, heard)));
            }
        }
        if !news.is_empty() {
            self.registry.silences.send(news).await.map_err(|_| Gone)?;
        }
        let lapsed = self.presence.lapse(now);
        let has_lapsed = !lapsed.is_empty();
        for backend in lapsed {
            asked.count(&(backend.load_balancer, backend.pool), "lapsed");
        }
        let known = self.presence.pools(true).chain(self.presence.pools(false));
        let keys: BTreeSet<PoolKey> = known
            .chain(self.told.keys())
            .filter(|key| registers(config, key))
            .cloned()
            .collect();
        for key in keys {
            let number = self.registry.taking.borrow().get(&key).copied();
            let report = (number, self.report(view, now, &key));
            if self.told.get(&key) != Some(&report) {
                let reports = &self.registry.reports;
                reports.send(report.1.clone()).await.map_err(|_| Gone)?;
                self.told.insert(key, report);
            }
        }
        Ok(has_lapsed)
    }

    /// Who is registered in a pool.
    fn report(&self, view: &Sight, now: u64, key: &PoolKey) -> Report {
        let shared = self.is_shared(view, &key.0);
        let members = self.presence.members(key, shared);
        let deaf = self
            .deaf_since
            .is_some_and(|since| since.saturating_add(DEAF_MS) <= now);
        let stale = match self.presence.kept(now, key, shared) {
            0 if shared && deaf && !members.is_empty() => Some(
                "the store is not heard, and with it other nodes: nobody leaves by silence, the checks say who works",
            ),
            0 => None,
            _ => Some(
                "more than half of the members fell silent at once: those are kept, the checks say who works",
            ),
        };
        Report {
            load_balancer: key.0.clone(),
            pool: key.1.clone(),
            source: Source::Registered,
            members: Some(Arc::new(members)),
            stale: stale.map(str::to_owned),
            left_out: 0,
        }
    }

    /// Tells the store what is to be told.
    async fn say(&mut self, store: &mpsc::Sender<MembersSay>) -> Result<(), Gone> {
        let now = self.now_ms();
        let writes = self.presence.writes(now, MOST_WRITES);
        let (waiting, nodes) = (self.presence.records().1, self.presence.nodes());
        self.registry
            .asked
            .note(|told| (told.waiting, told.nodes) = (waiting, nodes));
        let mut said = Vec::new();
        if !writes.is_empty() {
            said.push(MembersSay::Writes(writes));
        }
        said.extend(self.presence.beats(now).map(MembersSay::Beats));
        if self.presence.lets_go(now) {
            said.push(MembersSay::LetGo);
        }
        for one in said {
            store.send(one).await.map_err(|_| Gone)?;
        }
        Ok(())
    }
}

/// The address as members have it, where requests may be sent there.
fn allowed(registration: &Registration, address: SocketAddr) -> Result<SocketAddr, MemberError> {
    let refused = |why: &str| MemberError::NotAllowed(address, why.to_owned());
    match usable(address).map_err(refused)? {
        usable if registration.allows(usable.ip()) => Ok(usable),
        _ => Err(refused(
            "its address is not among those that `registration.allow` names",
        )),
    }
}

fn backend((load_balancer, pool): &PoolKey, address: SocketAddr) -> BackendId {
    BackendId {
        load_balancer: load_balancer.clone(),
        pool: pool.clone(),
        address,
    }
}

fn pool_of<'c>(config: &'c Config, (lb, pool): &PoolKey) -> Option<&'c Pool> {
    config.load_balancers.get(lb)?.pools.get(pool).map(Arc::as_ref)
}

/// Whether the store has a pool that takes registrations.
fn takes(stored: &Desired, (load_balancer, pool): &PoolKey) -> bool {
    let found = stored.load_balancers.get(load_balancer);
    let found = found.and_then(|found| found.pools.get(pool));
    found.is_some_and(|pool| pool.membership.registration.is_some())
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
