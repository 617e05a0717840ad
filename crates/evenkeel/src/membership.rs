//! The tasks around the members of pools that nobody declared: who looks them up, who takes their registrations, and
//! who keeps them for the next start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use cluster::members::SharedMembers;
use cluster::{Space, Standing};
use console::MemberRequest;
use model::config::{Config, Name, StoreConfig};
use model::state::{Members, PoolKey, Report, Silence};
use orchestrator::discovery::{self, Book};
use tokio::sync::{mpsc, watch};

use crate::hub::View;
use crate::remembered;
use crate::roll::{self, Asked, Registered, Registry, Sharing};
use crate::vital::Vital;

/// Room for reports on their way to the hub, and for requests of members; whoever sends waits while it is full.
const ROOM: usize = 256;

/// What the hub wants.
pub(crate) struct Wanted {
    lookups: watch::Sender<discovery::Wanted>,
    registrations: watch::Sender<Registrations>,
    /// Numbers given.
    numbers: u64,
    /// Members to keep for the next start.
    pub(crate) remembered: watch::Sender<Members>,
}

/// Pools that take registrations, each with a number: one that took none in between has another, since the hub kept
/// nothing of what it was told of it.
pub(crate) type Registrations = BTreeMap<PoolKey, u64>;

impl Wanted {
    /// Says which pools' members are to be looked up, and which take registrations, when that has changed.
    pub(crate) fn ask(&mut self, config: &Config) {
        let lookups = discovery::Target::all(config).into_iter();
        number(&self.lookups, lookups, &mut self.numbers);
        let pools = config.load_balancers.values();
        let pools = pools.flat_map(|lb| lb.pools.values().map(move |pool| (lb, pool)));
        let taking = pools.filter(|(_, pool)| pool.membership.registration.is_some());
        let taking = taking.map(|(lb, pool)| (lb.name.clone(), pool.name.clone()));
        number(&self.registrations, taking, &mut self.numbers);
    }
}

fn number<K: Ord>(
    known: &watch::Sender<BTreeMap<K, u64>>,
    wanted: impl Iterator<Item = K>,
    numbers: &mut u64,
) {
    known.send_if_modified(|known| {
        let number = |key: K| {
            let number = known.get(&key).copied().unwrap_or_else(|| {
                *numbers += 1;
                *numbers
            });
            (key, number)
        };
        let wanted: BTreeMap<K, u64> = wanted.map(number).collect();
        let changed = *known != wanted;
        *known = wanted;
        changed
    });
}

/// Everyone's ends.
pub(crate) struct Membership {
    /// What the hub wants.
    pub(crate) wanted: Wanted,
    /// What it is told of members.
    pub(crate) reports: mpsc::Receiver<Report>,
    /// What it is told of silence.
    pub(crate) silences: mpsc::Receiver<Vec<Silence>>,
    /// Where members ask.
    pub(crate) requests: mpsc::Sender<MemberRequest>,
    /// What they asked.
    pub(crate) asked: Asked,
}

/// Where members of a shared store are heard of, and told; `None` with the embedded store, which nobody shares. And who
/// they are, for those who check them. Must be called within the runtime.
///
/// # Errors
/// When the node's name or the store's prefix cannot be parts of keys.
pub(crate) fn share(
    config: &Config,
    space: &Space,
    standing: watch::Receiver<Standing>,
    vital: &Vital,
) -> anyhow::Result<(Option<Sharing>, watch::Receiver<Arc<Registered>>)> {
    let (registered, all) = watch::channel(Arc::default());
    let sharing = match config.store {
        StoreConfig::Embedded => None,
        StoreConfig::Etcd(_) => {
            let node = Name::parse(&config.node.name).context("node.name")?;
            let members = SharedMembers::start(space.clone(), &node)?;
            vital.watch("members in the store", members.works.clone());
            Some(Sharing {
                members,
                standing,
                registered,
            })
        }
    };
    Ok((sharing, all))
}

/// Starts the tasks; `directory` is where members are kept, `earlier` those of the process before, and what is known of
/// names goes into the `book`. Must be called within the runtime.
pub(crate) fn start(
    directory: PathBuf,
    (earlier, book): (Members, Book),
    (view, sharing): (watch::Receiver<View>, Option<Sharing>),
    vital: &Vital,
) -> Membership {
    let (lookups, targets) = watch::channel(discovery::Wanted::new());
    let (registrations, taking) = watch::channel(Registrations::new());
    let (remembered, members) = watch::channel(Members::default());
    let (found, reports) = mpsc::channel(ROOM);
    let (fell_silent, silences) = mpsc::channel(ROOM);
    let (requests, asks) = mpsc::channel(ROOM);
    let asked = Asked::default();
    let registry = Registry {
        view,
        taking,
        reports: found.clone(),
        silences: fell_silent,
        asked: asked.clone(),
    };
    vital.spawn(
        "discovery",
        discovery::run(targets, found, (earlier.clone(), book)),
    );
    vital.spawn("members", roll::run(registry, earlier, asks, sharing));
    vital.spawn("remembered", remembered::keep(directory, members));
    Membership {
        wanted: Wanted {
            lookups,
            registrations,
            numbers: 0,
            remembered,
        },
        reports,
        silences,
        requests,
        asked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::fixture::config_with;

    /// Scenario: a pool takes registrations and is looked up; both are taken out of the config and put back. Whoever
    /// sees only the first and the last config sees that they were not asked for in between.
    #[test]
    fn what_was_not_asked_for_in_between_has_another_number() {
        let keys = "discovery = { file = \"/m\" }\n\
                    registration = { token_hash = \"sha256:9f86d081884c7d659a2feaa0c55ad015\
                    a3bf4f1b2b0b822cd15d6c15b0f00a08\", allow = [\"10.0.0.0/8\"] }\n";
        let asks = config_with(&[1], keys);
        let (lookups, targets) = watch::channel(discovery::Wanted::new());
        let (registrations, taking) = watch::channel(Registrations::new());
        let mut wanted = Wanted {
            lookups,
            registrations,
            numbers: 0,
            remembered: watch::channel(Members::default()).0,
        };
        let mut numbers = |config: &Config| -> (Vec<u64>, Vec<u64>) {
            wanted.ask(config);
            let (targets, taking) = (targets.borrow(), taking.borrow());
            (
                targets.values().copied().collect(),
                taking.values().copied().collect(),
            )
        };
        let first = numbers(&asks);
        assert_eq!((first.0.len(), first.1.len()), (1, 1));
        assert_eq!(numbers(&asks), first, "nothing has changed");
        assert_eq!(numbers(&config_with(&[1], "")), (Vec::new(), Vec::new()));
        let again = numbers(&asks);
        assert_eq!((again.0.len(), again.1.len()), (1, 1));
        assert!(again.0 != first.0 && again.1 != first.1);
    }
}
