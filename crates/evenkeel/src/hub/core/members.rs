//! Members that nobody declared: what sources report becomes part of what is observed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use model::config::{Config, Name, Pool};
use model::snapshot::Member;
use model::state::{
    BackendId, Found, Health, HealthState, Listed, Members, OverrideKey, PoolKey, PoolMembers, Report,
    Silence, Source, SourceState, Timestamp,
};

use super::super::changes::Kind;
use super::{Core, Effect};
use crate::text::{counted, duration};

/// How long an order outlives a backend that was found and is not found any more: it may come back, and should it
/// not, whoever gets its address next must not meet an order that was meant for it.
const ORDER_GRACE: Duration = Duration::from_secs(600);
/// Addresses named in an event; all are in the status.
const NAMED: usize = 8;

impl Core {
    /// Takes the members of an earlier life of this process, as far as the config still asks for them.
    pub(super) fn remember(&mut self, now: Timestamp, members: Members) {
        for (key, members) in members.iter() {
            let Some(pool) = pool(&self.config, key) else {
                continue;
            };
            let mut members = PoolMembers::clone(members);
            members.sources.retain(|source, _| pool.membership.asks(*source));
            for state in members.sources.values_mut() {
                let before = "known from before the restart, and not heard of since";
                state.stale = Some((before.to_owned(), now));
            }
            if !members.sources.is_empty() {
                self.observed.members.insert(key.clone(), Arc::new(members));
            }
        }
    }

    /// Takes what sources say of pools.
    pub(super) fn take_reports(&mut self, now: Timestamp, reports: Vec<Report>, effects: &mut Vec<Effect>) {
        let mut changed = BTreeSet::new();
        for report in reports {
            changed.extend(self.take_report(now, report, effects));
        }
        if !changed.is_empty() {
            for key in &changed {
                self.forget_former_members(key);
            }
            let load_balancers = changed.into_iter().map(|(load_balancer, _)| load_balancer);
            self.forget_unknown_backends(now, &load_balancers.collect(), effects);
            effects.push(Effect::Remember(self.observed.members.clone()));
        }
    }

    /// Takes one; says of which pool that changed members.
    fn take_report(&mut self, now: Timestamp, report: Report, effects: &mut Vec<Effect>) -> Option<PoolKey> {
        let key = (report.load_balancer, report.pool);
        let source = report.source;
        // A report may cross a reload that removed the pool or its source.
        if !pool(&self.config, &key).is_some_and(|pool| pool.membership.asks(source)) {
            return None;
        }
        let old = self.observed.members.get(&key);
        let old = old.and_then(|members| members.sources.get(&source)).cloned();
        let first = old.is_none();
        let old = old.unwrap_or_default();
        let mut left_out = report.left_out;
        let members = match report.members {
            None => {
                left_out += self.circle.left_out(&key, source);
                old.members.clone()
            }
            Some(listed) => {
                self.take_loads(&key, source, &listed);
                left_out += self.circle.remember((&key, source), &listed);
                Arc::new(self.found(now, (&key, source), &listed, &old.members))
            }
        };
        let since = old.stale.as_ref().map_or(now, |(_, since)| *since);
        let new = SourceState {
            members,
            stale: report.stale.map(|why| (why, since)),
            left_out,
        };
        if new == old && !first {
            return None;
        }
        for (kind, message) in words(source, &old, &new) {
            self.record(now, (kind, format!("{}/{}", key.0, key.1), message), effects);
        }
        let changed = new.members != old.members;
        let mut pool = self.observed.members.remove(&key).unwrap_or_default();
        Arc::make_mut(&mut pool).sources.insert(source, new);
        self.observed.members.insert(key.clone(), pool);
        changed.then_some(key)
    }

    /// Takes how busy members say that they are. That is shown, and changes nothing that is served.
    fn take_loads(&mut self, key: &PoolKey, source: Source, listed: &BTreeMap<SocketAddr, Listed>) {
        // Nobody but a member itself says so.
        if source != Source::Registered {
            return;
        }
        let told = listed
            .iter()
            .filter_map(|(address, one)| Some((*address, one.load?)));
        let told: BTreeMap<SocketAddr, u8> = told.collect();
        let loads = Arc::make_mut(&mut self.loads);
        match told.is_empty() {
            true => _ = loads.remove(key),
            false => _ = loads.insert(key.clone(), Arc::new(told)),
        }
    }

    /// The members as they are now; none whose address we listen on ourselves.
    fn found(
        &self,
        now: Timestamp,
        (pool, source): (&(Name, Name), Source),
        listed: &BTreeMap<SocketAddr, Listed>,
        old: &BTreeMap<SocketAddr, Found>,
    ) -> BTreeMap<SocketAddr, Found> {
        let served = self.snapshot.pool(&pool.0, &pool.1);
        let served = served.into_iter().flat_map(|served| &served.members);
        let served: BTreeMap<_, _> = served
            .filter_map(|member| Some((member.id.address, member.found.as_ref()?)))
            .collect();
        // What the checks say is about the one that is served. It may have left in the same batch.
        let is_up = |address: SocketAddr, found: &Found| {
            self.is_up(pool, address) && !served.get(&address).is_some_and(|one| one.is_followed_by(found))
        };
        let kept = listed
            .iter()
            .filter(|(address, _)| !self.circle.closes(**address));
        let found = kept.map(|(address, listed)| {
            // One of another life is another member, whatever is known of that address.
            let before = old.get(address).filter(|before| before.life == listed.life);
            let draining = before.and_then(|before| before.draining).unwrap_or(now);
            let mut found = Found {
                source,
                weight: listed.weight,
                zone: listed.zone.clone(),
                draining: listed.draining.then_some(draining),
                since: before.map_or(now, |before| before.since),
                proven: before.is_some_and(|before| before.proven),
                life: listed.life,
            };
            found.proven |= is_up(*address, &found);
            (*address, found)
        });
        found.collect()
    }

    /// What was found of members in whose place there are others now is not of these, and their checks begin anew. It is
    /// who is served that counts, before all reports of a batch and after them: of one that left in the first and came
    /// back as another in the second, no report says that it is another.
    fn forget_former_members(&mut self, key: &PoolKey) {
        let before = self.snapshot.pool(&key.0, &key.1);
        let Some((before, pool)) = before.zip(pool(&self.config, key)) else {
            return;
        };
        let after = self.observed.members.get(key);
        let after = after
            .map(|after| after.merged(&pool.membership))
            .unwrap_or_default();
        let is_former = |member: &&Member| {
            let both = member.found.as_ref().zip(after.get(&member.id.address));
            both.is_some_and(|(before, after)| before.is_followed_by(after))
        };
        for member in before.members.iter().filter(is_former) {
            self.observed.health.remove(&member.id);
            self.observed.ejections.remove(&member.id);
        }
    }

    /// Whether this backend is one, in the membership of this number or in one that nobody counts.
    pub(super) fn is_served(&self, id: &BackendId, life: u64) -> bool {
        let served = self.snapshot.pool(&id.load_balancer, &id.pool);
        let mut members = served.into_iter().flat_map(|served| &served.members);
        let is_it = |now: u64| now == life || now == 0 || life == 0;
        members.any(|member| member.id.address == id.address && is_it(member.life()))
    }

    fn is_up(&self, (load_balancer, pool): &(Name, Name), address: SocketAddr) -> bool {
        let id = BackendId {
            load_balancer: load_balancer.clone(),
            pool: pool.clone(),
            address,
        };
        self.observed
            .health
            .get(&id)
            .is_some_and(|state| state.health == Health::Up)
    }

    /// Takes who fell silent, and who is heard again.
    pub(super) fn take_silence(&mut self, now: Timestamp, news: Vec<Silence>, effects: &mut Vec<Effect>) {
        for Silence { backend, silent } in news {
            // It may have crossed a change that removed the backend.
            if !self.has_backend(&backend) {
                continue;
            }
            let known = self.observed.silent.get(&backend).cloned();
            let subject = backend.to_string();
            match (silent, known) {
                (Some(timeout), None) => {
                    let reason = format!("silent for {}", duration(timeout));
                    let state = HealthState {
                        health: Health::Down,
                        reason: reason.clone(),
                        since: now,
                    };
                    self.count(&backend, |counts| counts.to_down += 1);
                    self.record(now, (Kind::BackendDown, subject, reason), effects);
                    self.observed.silent.insert(backend, state);
                }
                (None, Some(known)) => {
                    self.count(&backend, |counts| counts.to_up += 1);
                    let silence = duration(Duration::from_secs(now.since(known.since).as_secs()));
                    let message = format!("heard again (was silent, and down for {silence})");
                    self.record(now, (Kind::BackendUp, subject, message), effects);
                    self.observed.silent.remove(&backend);
                }
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
    }

    /// Notes that these have been seen to work, where that is news.
    pub(super) fn note_proven(&mut self, up: &[BackendId], effects: &mut Vec<Effect>) {
        let mut news = false;
        for id in up {
            let key = (id.load_balancer.clone(), id.pool.clone());
            let Some(members) = self.observed.members.get(&key) else {
                continue;
            };
            let is_news =
                |state: &SourceState| state.members.get(&id.address).is_some_and(|found| !found.proven);
            if !members.sources.values().any(is_news) {
                continue;
            }
            news = true;
            let Some(members) = self.observed.members.get_mut(&key).map(Arc::make_mut) else {
                continue;
            };
            for state in members.sources.values_mut().filter(|state| is_news(state)) {
                if let Some(found) = Arc::make_mut(&mut state.members).get_mut(&id.address) {
                    found.proven = true;
                }
            }
        }
        if news {
            effects.push(Effect::Remember(self.observed.members.clone()));
        }
    }

    /// Forgets the members of pools, and the words of sources, that the config of these load balancers does not ask
    /// for any more.
    pub(super) fn forget_unasked_members(&mut self, load_balancers: &BTreeSet<Name>) {
        let config = &self.config;
        let asked = |key: &(Name, Name), source: Source| {
            pool(config, key).is_some_and(|pool| pool.membership.asks(source))
        };
        let is_told = |key: &PoolKey| asked(key, Source::Registered);
        if !self.loads.keys().all(is_told) {
            Arc::make_mut(&mut self.loads).retain(|key, _| is_told(key));
        }
        for name in load_balancers {
            let unasked = |key: &(Name, Name), members: &Arc<PoolMembers>| {
                !members.sources.keys().all(|source| asked(key, *source))
            };
            for (key, mut members) in self.observed.members.take_out_of(name, unasked) {
                Arc::make_mut(&mut members)
                    .sources
                    .retain(|source, _| asked(&key, *source));
                if !members.sources.is_empty() {
                    self.observed.members.insert(key, members);
                }
            }
        }
    }

    /// When the first order for a backend that went is forgotten.
    pub(super) fn next_orphan(&self) -> Option<Timestamp> {
        self.gone.values().min().map(|gone| gone.plus(ORDER_GRACE))
    }

    /// Forgets orders for backends that went too long ago.
    pub(super) fn forget_orphans(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.next_orphan().is_none_or(|at| at > now) {
            return;
        }
        let load_balancers = self.gone.keys().map(|key| key.load_balancer.clone()).collect();
        self.forget_unknown_backends(now, &load_balancers, effects);
    }
}

/// Whether an order for a backend that is not there is kept for now: where members come and go, it may come back.
/// `gone` remembers since when it is not there.
pub(super) fn may_come_back(
    gone: &mut BTreeMap<OverrideKey, Timestamp>,
    config: &Config,
    now: Timestamp,
    key: &OverrideKey,
) -> bool {
    if !come_and_go(config, &key.load_balancer) {
        return false;
    }
    let since = *gone.entry(key.clone()).or_insert(now);
    now < since.plus(ORDER_GRACE)
}

/// Whether members of a load balancer come and go by themselves.
pub(super) fn come_and_go(config: &Config, load_balancer: &Name) -> bool {
    let lb = config.load_balancers.get(load_balancer);
    lb.is_some_and(|lb| lb.pools.values().any(|pool| pool.membership.is_dynamic()))
}

fn pool<'c>(config: &'c Config, (lb, pool): &(Name, Name)) -> Option<&'c Pool> {
    config.load_balancers.get(lb)?.pools.get(pool).map(Arc::as_ref)
}

/// What changed at a source, for people.
fn words(source: Source, old: &SourceState, new: &SourceState) -> Vec<(Kind, String)> {
    let mut told = Vec::new();
    let name = source.as_str();
    match (&old.stale, &new.stale) {
        (before, Some((why, _))) if before.as_ref().map(|(why, _)| why) != Some(why) => {
            let kept = match new.members.len() {
                0 => "there are no members".to_owned(),
                1 => "the one known member stays".to_owned(),
                members => format!("{members} known members stay"),
            };
            told.push((Kind::MembersStale, format!("{name}: {why}; {kept}")));
        }
        (Some(_), None) => {
            let message = format!("{name}: heard again, {}", counted(new.members.len(), "member"));
            told.push((Kind::MembersFresh, message));
        }
        _ => {}
    }
    let joined = || {
        new.members
            .keys()
            .filter(|address| !old.members.contains_key(address))
    };
    let left = || {
        old.members
            .keys()
            .filter(|address| !new.members.contains_key(address))
    };
    let mut parts = Vec::new();
    for (sign, addresses) in [
        ("joined", joined().collect::<Vec<_>>()),
        ("left", left().collect()),
    ] {
        if !addresses.is_empty() {
            parts.push(format!("{sign}: {}", named(&addresses)));
        }
    }
    let told_otherwise = |(address, found): &(&SocketAddr, &Found)| {
        let before = old.members.get(address);
        before.is_some_and(|before| {
            (before.weight, before.draining, &before.zone) != (found.weight, found.draining, &found.zone)
        })
    };
    let changed: Vec<_> = new
        .members
        .iter()
        .filter(told_otherwise)
        .map(|(a, _)| a)
        .collect();
    if !changed.is_empty() {
        parts.push(format!("changed: {}", named(&changed)));
    }
    if !parts.is_empty() {
        let message = format!(
            "{name}: {} ({})",
            parts.join("; "),
            counted(new.members.len(), "member")
        );
        told.push((Kind::MembersChanged, message));
    }
    if new.left_out > 0 && new.left_out != old.left_out {
        let message = format!(
            "{name}: {} left out: there are too many of them, or this process listens there itself",
            new.left_out
        );
        told.push((Kind::MembersLeftOut, message));
    }
    told
}

fn named(addresses: &[&SocketAddr]) -> String {
    let first: Vec<String> = addresses.iter().take(NAMED).map(ToString::to_string).collect();
    match addresses.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
