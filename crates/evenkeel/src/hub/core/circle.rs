//! Members whose address this process listens on itself: requests to them would go round in a circle, so they are left
//! out, for as long as that is so. A source tells of its members when they change, and not when our listeners do; so
//! those that were left out are remembered, and looked at again when our own addresses are others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use model::config::Name;
use model::state::{Listed, Report, Source, Timestamp};

use super::{Core, Effect};

/// Where we listen, and who was left out for it.
#[derive(Debug, Default)]
pub(super) struct Circle {
    own: BTreeSet<SocketAddr>,
    /// Ports of those on every address.
    everywhere: BTreeSet<u16>,
    left_out: BTreeMap<((Name, Name), Source), BTreeMap<SocketAddr, Listed>>,
}

impl Circle {
    /// Whether a member must be left out.
    pub(super) fn closes(&self, address: SocketAddr) -> bool {
        let everywhere = address.ip().is_loopback() && self.everywhere.contains(&address.port());
        everywhere || self.own.contains(&address)
    }

    /// Takes where we listen now; whether that is elsewhere than before.
    pub(super) fn listen_on(&mut self, own: BTreeSet<SocketAddr>) -> bool {
        if own == self.own {
            return false;
        }
        let everywhere = own.iter().filter(|own| own.ip().is_unspecified());
        self.everywhere = everywhere.map(SocketAddr::port).collect();
        self.own = own;
        true
    }

    /// How many members of a source are left out.
    pub(super) fn left_out(&self, key: &(Name, Name), source: Source) -> usize {
        let left_out = self.left_out.get(&(key.clone(), source));
        left_out.map_or(0, BTreeMap::len)
    }

    /// Remembers which of all members that a source names are left out; how many.
    pub(super) fn remember(
        &mut self,
        (key, source): (&(Name, Name), Source),
        listed: &BTreeMap<SocketAddr, Listed>,
    ) -> usize {
        let out = listed.iter().filter(|(address, _)| self.closes(**address));
        let out: BTreeMap<_, _> = out.map(|(address, listed)| (*address, listed.clone())).collect();
        let count = out.len();
        match count {
            0 => self.left_out.remove(&(key.clone(), source)),
            _ => self.left_out.insert((key.clone(), source), out),
        };
        count
    }
}

impl Core {
    /// Takes where we listen now: who was left out for it may come in, and who is in may have to go.
    pub(super) fn look_at_own_addresses(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.circle.listen_on(self.own_addresses()) {
            return;
        }
        let asked = |((lb, pool), source): &((Name, Name), Source)| {
            let lb = self.config.load_balancers.get(lb);
            lb.and_then(|lb| lb.pools.get(pool))
                .is_some_and(|pool| pool.membership.asks(*source))
        };
        self.circle.left_out.retain(|key, _| asked(key));
        let reports: Vec<Report> = self
            .observed
            .members
            .iter()
            .flat_map(|(key, members)| members.sources.keys().map(move |source| (key, *source)))
            .filter_map(|(key, source)| self.told_anew(key, source))
            .collect();
        if !reports.is_empty() {
            self.take_reports(now, reports, effects);
        }
    }

    /// What a source said last, when something else follows from it now.
    fn told_anew(&self, key: &(Name, Name), source: Source) -> Option<Report> {
        let state = self.observed.members.get(key)?.sources.get(&source)?;
        let left_out = self.circle.left_out.get(&(key.clone(), source));
        let comes = |out: &BTreeMap<SocketAddr, Listed>| out.keys().any(|at| !self.circle.closes(*at));
        let goes = state.members.keys().any(|at| self.circle.closes(*at));
        if !goes && !left_out.is_some_and(comes) {
            return None;
        }
        let mut members: BTreeMap<SocketAddr, Listed> = state
            .members
            .iter()
            .map(|(at, found)| (*at, found.listed()))
            .collect();
        members.extend(
            left_out
                .into_iter()
                .flatten()
                .map(|(at, listed)| (*at, listed.clone())),
        );
        Some(Report {
            load_balancer: key.0.clone(),
            pool: key.1.clone(),
            source,
            members: Some(Arc::new(members)),
            stale: state.stale.as_ref().map(|(why, _)| why.clone()),
            left_out: state.left_out.saturating_sub(self.circle.left_out(key, source)),
        })
    }

    fn own_addresses(&self) -> BTreeSet<SocketAddr> {
        let open = self.open_listeners.iter().map(|(_, _, address)| *address);
        let lbs = self.config.load_balancers.values();
        let configured = lbs.flat_map(|lb| lb.listeners.iter().map(|listener| listener.address));
        open.chain(configured).chain([self.config.admin.listen]).collect()
    }
}
