//! Who is checked by this node, and whose verdicts it believes: roster, board and plan B, in one task.
//!
//! It follows the verdicts of all orchestrators and tells the hub what is believed of each backend. Where the node
//! is an orchestrator itself, it keeps the list of those that it checks, and hands on what was found. Where the node
//! balances, it begins own checks when no orchestrator has been there for a while ([`reconcile::plan_b`]).
//!
//! It concerns the backends of load balancers in the store. Those that a node declares in its own file nobody else
//! knows, so the node checks them by itself. What the orchestrators share out is what the *store* says; what a node
//! believes and, without orchestrators, checks is what it *serves* of that. The two differ where its own file has a
//! load balancer of the same name, or it refused a revision: others rely on it for its share all the same.

mod desk;
mod kept;
mod owners;
mod strangers;
mod unsure;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::cluster::{ClusterNews, OrchestratorsStatus};
use model::state::{PoolKey, Target, Verdict};
use reconcile::cluster::roster::Wanted;
use store::{Follow, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::Space;
use crate::member::{Feed, Post, Tell, VerdictWrites, read};
use desk::{Desk, Told};
use kept::Keeper;
pub use kept::{Damaged, Kept};
pub use owners::Owners;

/// What to begin with.
pub struct Setup {
    /// The store.
    pub space: Space,
    /// Slots of the cluster.
    pub slots: u16,
    /// The checks of those backends of load balancers in the store that this node serves.
    pub wanted: watch::Receiver<Arc<Wanted>>,
    /// The orchestrator of this process, where the node has that role.
    pub part: Option<Part>,
    /// Where own checks are made when there is no orchestrator, where the node balances.
    pub own: Option<Own>,
    /// Where beliefs go. Who takes them passes over backends that are not wanted.
    pub beliefs: mpsc::Sender<Verdict>,
    /// Where news goes.
    pub news: mpsc::Sender<ClusterNews>,
}

/// The orchestrator of this process.
pub struct Part {
    /// The checks of all backends of load balancers in the store: what the orchestrators share out. None: not known
    /// yet; until then this one takes no part.
    pub shared: watch::Receiver<Option<Arc<Wanted>>>,
    /// Pools of the store whose members are looked up by a name: an orchestrator may not know them all.
    pub named: watch::Receiver<Arc<BTreeSet<PoolKey>>>,
    /// How long a verdict in such a pool may stand on a backend that is not known here and whose slot is.
    pub patience: Duration,
    /// How it stands.
    pub post: watch::Receiver<Post>,
    /// Where it hears of findings.
    pub tell: mpsc::Sender<Tell>,
    /// What became of its verdicts.
    pub writes: Arc<VerdictWrites>,
    /// Whom it checks.
    pub targets: watch::Sender<Vec<Target>>,
    /// What these checks found.
    pub found: mpsc::Receiver<Verdict>,
}

/// Checks of an LB server without orchestrators.
pub struct Own {
    /// How long the last verdicts stand.
    pub after: Duration,
    /// Backends of which the orchestrators may know nothing. Where none of them gives a verdict on one for as long as the
    /// last verdicts stand, it is checked here until one does.
    pub unsure: watch::Receiver<Arc<Wanted>>,
    /// Whom to check.
    pub targets: watch::Sender<Vec<Target>>,
    /// What these checks found.
    pub found: mpsc::Receiver<Verdict>,
    /// Where what is believed is kept for the next start.
    pub kept: Kept,
    /// What was kept there: believed until the store has been heard.
    pub earlier: Vec<Verdict>,
}

/// What is seen of the cluster.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Who is there, and how the work is shared.
    pub status: watch::Receiver<OrchestratorsStatus>,
    /// Who checks what.
    pub owners: watch::Receiver<Owners>,
}

/// Begins, in the tokio runtime that this is called in, and ends with it; what is seen of the cluster.
///
/// # Errors
/// When the store's prefix is no key.
pub fn start(setup: Setup) -> Result<Seen, StoreError> {
    let feed = Feed::start(&setup.space)?;
    let verdicts = setup.space.follow("verdicts/")?;
    let started = Instant::now();
    let after = setup.own.as_ref().map(|own| own.after);
    let part = setup.part.as_ref();
    let part = part.map(|part| (part.post.borrow().clone(), part.writes.clone(), part.patience));
    let mut desk = Desk::new(setup.space.clone(), setup.slots, after, part);
    let mut own = setup.own;
    if let Some(own) = &mut own {
        desk.remember(std::mem::take(&mut own.earlier));
    }
    let (status_out, status) = watch::channel(desk.status());
    let (owners_out, owners) = watch::channel(Owners::default());
    let task = Task {
        started,
        feed,
        verdicts,
        desk,
        wanted: setup.wanted,
        part: setup.part,
        keeper: own.as_ref().map(|own| Keeper::new(own.kept.clone())),
        own,
        beliefs: setup.beliefs,
        news: setup.news,
        status: status_out,
        owners: owners_out,
    };
    tokio::spawn(task.run());
    Ok(Seen { status, owners })
}

struct Task {
    started: Instant,
    feed: Feed,
    verdicts: Follow,
    desk: Desk,
    wanted: watch::Receiver<Arc<Wanted>>,
    part: Option<Part>,
    own: Option<Own>,
    keeper: Option<Keeper>,
    beliefs: mpsc::Sender<Verdict>,
    news: mpsc::Sender<ClusterNews>,
    status: watch::Sender<OrchestratorsStatus>,
    owners: watch::Sender<Owners>,
}

impl Task {
    async fn run(mut self) {
        let first = self.wanted.borrow_and_update().clone();
        self.desk.want(first);
        if let Some(own) = &mut self.own {
            self.desk.doubt(own.unsure.borrow_and_update().clone());
        }
        if let Some(part) = &mut self.part {
            let first = part.shared.borrow_and_update().clone();
            first.into_iter().for_each(|first| self.desk.share_out(first));
            self.desk.named(part.named.borrow_and_update().clone());
        }
        loop {
            self.desk.look(self.now_ms());
            if self.carry_out().await.is_none() {
                return;
            }
            let wake_at = self.desk.wake_at().map(Duration::from_millis);
            let (post, found, shared, named) = match &mut self.part {
                Some(part) => (
                    Some(&mut part.post),
                    Some(&mut part.found),
                    Some(&mut part.shared),
                    Some(&mut part.named),
                ),
                None => (None, None, None, None),
            };
            let (own_found, unsure) = match &mut self.own {
                Some(own) => (Some(&mut own.found), Some(&mut own.unsure)),
                None => (None, None),
            };
            tokio::select! {
                events = self.feed.next() => for event in events {
                    self.desk.see(event);
                },
                followed = self.verdicts.next() => match followed {
                    Some(followed) => self.desk.follow(followed),
                    None => return,
                },
                changed = self.wanted.changed() => match changed {
                    Ok(()) => {
                        let wanted = self.wanted.borrow_and_update().clone();
                        self.desk.want(wanted);
                    }
                    Err(_) => return,
                },
                shared = changed(shared) => shared.into_iter().for_each(|all| self.desk.share_out(all)),
                named = changed(named) => self.desk.named(named),
                post = changed(post) => self.desk.post(post),
                verdict = next(found) => self.desk.found(verdict),
                verdict = next(own_found) => self.desk.own(verdict),
                unsure = changed(unsure) => self.desk.doubt(unsure),
                () = time(&mut self.keeper) => self.keep(),
                () = sleep_until(wake_at.and_then(|at| self.started.checked_add(at))) => {}
            }
        }
    }

    /// Tells what follows; `None` when nobody listens any more.
    async fn carry_out(&mut self) -> Option<()> {
        for told in self.desk.take() {
            match told {
                Told::Belief(verdict) => self.beliefs.send(verdict).await.ok()?,
                Told::News(news) => self.news.send(news).await.ok()?,
                Told::Part(tell) => {
                    if let Some(part) = &self.part {
                        // It has stopped: then nothing is to be told any more.
                        let _ = part.tell.send(tell).await;
                    }
                }
                Told::Targets(targets) => {
                    if let Some(part) = &self.part {
                        part.targets.send_replace(targets);
                    }
                }
                Told::OwnTargets(targets) => {
                    if let Some(own) = &self.own {
                        own.targets.send_replace(targets);
                    }
                }
            }
        }
        if self.desk.believes_otherwise()
            && let Some(keeper) = &mut self.keeper
        {
            keeper.changed();
        }
        if let Some(owners) = self.desk.owners() {
            self.owners.send_replace(owners);
        }
        let status = self.desk.status();
        self.status.send_if_modified(|shown| {
            let changed = *shown != status;
            *shown = status;
            changed
        });
        Some(())
    }

    fn keep(&mut self) {
        let believed = self.desk.believed();
        if let Some(keeper) = &mut self.keeper {
            keeper.keep(believed);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The next value; never where there is none, or none will come any more.
async fn changed<T: Clone>(value: Option<&mut watch::Receiver<T>>) -> T {
    if let Some(value) = value
        && value.changed().await.is_ok()
    {
        return value.borrow_and_update().clone();
    }
    std::future::pending().await
}

async fn next(found: Option<&mut mpsc::Receiver<Verdict>>) -> Verdict {
    match found {
        Some(found) => match found.recv().await {
            Some(verdict) => verdict,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn time(keeper: &mut Option<Keeper>) {
    match keeper {
        Some(keeper) => keeper.time().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
