//! Members of pools that are looked up: one task for each pool that says where.
//!
//! What was found goes out over a channel, whole, whenever it differs from what was told last. A source that cannot
//! be asked, or says nonsense, takes nobody out: it is told to be stale, and what it said last stays.

mod dns;
mod file;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use model::config::{Config, Discovery, Name};
use model::parse::MAX_BACKENDS;
use model::state::{Listed, Members, Report, Source};
use reconcile::discovery::Listing;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use dns::Names;
pub use dns::{AT_ONCE, Book, Looked, PER_SECOND};

/// A pool whose members are looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Load balancer.
    pub load_balancer: Name,
    /// Pool.
    pub pool: Name,
    /// Where.
    pub discovery: Discovery,
}

impl Target {
    /// All of a config.
    pub fn all(config: &Config) -> Vec<Self> {
        let lbs = config.load_balancers.values();
        let pools = lbs.flat_map(|lb| lb.pools.values().map(move |pool| (lb, pool)));
        let targets = pools.filter_map(|(lb, pool)| {
            Some(Self {
                load_balancer: lb.name.clone(),
                pool: pool.name.clone(),
                discovery: pool.membership.discovery.clone()?,
            })
        });
        targets.collect()
    }
}

/// All that are wanted, each with a number: one that was not wanted in between has another, since nobody kept what was
/// told of it.
pub type Wanted = BTreeMap<Target, u64>;

/// Looks up the members of all `targets` until either channel closes. `earlier` are the members of the process before:
/// those of names leave as if they had been found by this one. What is known of names stands in the `book`.
pub async fn run(
    mut targets: watch::Receiver<Wanted>,
    reports: mpsc::Sender<Report>,
    (earlier, book): (Members, Book),
) {
    let mut names = Names::new(earlier, book);
    let mut running: BTreeMap<(Target, u64), Running> = BTreeMap::new();
    loop {
        let wanted = targets.borrow_and_update().clone();
        let lookups = wanted.keys().filter_map(|target| match &target.discovery {
            Discovery::Dns(lookup) => Some((target, lookup)),
            Discovery::File(_) => None,
        });
        names.want(&lookups.collect::<Vec<_>>());
        running.retain(|(target, number), _| wanted.get(target) == Some(number));
        for (target, number) in wanted {
            let key = (target, number);
            if running.contains_key(&key) {
                continue;
            }
            let target = &key.0;
            let teller = |source| Teller::new(target, source, reports.clone());
            let task = match &target.discovery {
                Discovery::File(path) => tokio::spawn(file::watch(path.clone(), teller(Source::File))),
                Discovery::Dns(lookup) => match names.seen(lookup) {
                    Some(seen) => tokio::spawn(dns::follow(seen, lookup.port(), teller(Source::Dns))),
                    None => continue,
                },
            };
            running.insert(key, Running(task.abort_handle()));
        }
        tokio::select! {
            changed = targets.changed() => if changed.is_err() { return },
            () = reports.closed() => return,
        }
    }
}

/// A task that ends when this is dropped.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells what one source says of one pool, when it is news.
struct Teller {
    load_balancer: Name,
    pool: Name,
    source: Source,
    reports: mpsc::Sender<Report>,
    told: Option<Report>,
}

impl Teller {
    fn new(target: &Target, source: Source, reports: mpsc::Sender<Report>) -> Self {
        Self {
            load_balancer: target.load_balancer.clone(),
            pool: target.pool.clone(),
            source,
            reports,
            told: None,
        }
    }

    /// Most members that a source may name.
    const MOST: usize = MAX_BACKENDS;

    /// These are the members. An error: nobody listens any more.
    async fn found(&mut self, listing: Listing) -> Result<(), Gone> {
        self.heard(listing, None).await
    }

    /// These are the members, as far as is known: `fault` says what is not. An error: nobody listens any more.
    async fn heard(&mut self, listing: Listing, fault: Option<String>) -> Result<(), Gone> {
        let report = self.report(Some(Arc::new(listing.members)), fault, listing.left_out);
        self.tell(report).await
    }

    /// The members cannot be told; those told last stay.
    async fn stale(&mut self, why: String) -> Result<(), Gone> {
        let left_out = self.told.as_ref().map_or(0, |told| told.left_out);
        let report = self.report(None, Some(why), left_out);
        self.tell(report).await
    }

    fn report(
        &self,
        members: Option<Arc<BTreeMap<SocketAddr, Listed>>>,
        stale: Option<String>,
        left_out: usize,
    ) -> Report {
        Report {
            load_balancer: self.load_balancer.clone(),
            pool: self.pool.clone(),
            source: self.source,
            members,
            stale,
            left_out,
        }
    }

    async fn tell(&mut self, report: Report) -> Result<(), Gone> {
        if self.told.as_ref() != Some(&report) {
            self.reports.send(report.clone()).await.map_err(|_| Gone)?;
            self.told = Some(report);
        }
        Ok(())
    }
}

/// Nobody listens any more.
struct Gone;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Scenario: a source is taken out of the config and put back before this task runs again: whoever asked has
    /// forgotten its members, and is told them anew.
    #[tokio::test]
    async fn a_source_that_was_put_back_is_told_anew() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("members");
        std::fs::write(&file, "10.0.0.1:80\n").unwrap();
        let target = Target {
            load_balancer: Name::parse("shop").unwrap(),
            pool: Name::parse("default").unwrap(),
            discovery: Discovery::File(file),
        };
        let (wanted, targets) = watch::channel(Wanted::from([(target.clone(), 1)]));
        let (tell, mut told) = mpsc::channel(16);
        let task = tokio::spawn(run(targets, tell, Default::default()));
        let mut next = async || timeout(Duration::from_secs(20), told.recv()).await.unwrap();
        let first = next().await.unwrap();
        wanted.send_replace(Wanted::new());
        wanted.send_replace(Wanted::from([(target, 2)]));
        assert_eq!(next().await.unwrap(), first);
        drop(wanted);
        assert_eq!(next().await, None);
        task.await.unwrap();
    }
}
