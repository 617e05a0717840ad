//! Members of pools that are looked up: one task for each pool that says where.
//!
//! What was found goes out over a channel, whole, whenever it differs from what was told last. A source that cannot
//! be asked, or says nonsense, takes nobody out: it is told to be stale, and what it said last stays.

mod file;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use model::config::{Config, Discovery, Name};
use model::parse::MAX_BACKENDS;
use model::state::{Listed, Report, Source};
use reconcile::discovery::Listing;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

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

/// Looks up the members of all `targets` until either channel closes.
pub async fn run(mut targets: watch::Receiver<Vec<Target>>, reports: mpsc::Sender<Report>) {
    let mut running: BTreeMap<Target, Running> = BTreeMap::new();
    loop {
        let wanted = targets.borrow_and_update().clone();
        running.retain(|target, _| wanted.contains(target));
        for target in wanted {
            let start = |target: &Target| {
                let Discovery::File(path) = &target.discovery;
                let teller = Teller::new(target, Source::File, reports.clone());
                Running(tokio::spawn(file::watch(path.clone(), teller)).abort_handle())
            };
            running.entry(target.clone()).or_insert_with(|| start(&target));
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
        let report = self.report(Some(Arc::new(listing.members)), None, listing.left_out);
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
