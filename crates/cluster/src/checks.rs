//! Who is checked by this node, and whose verdicts it believes: roster, board and plan B, in one task.
//!
//! It follows the verdicts of all orchestrators and tells the hub what is believed of each backend. Where the node
//! is an orchestrator itself, it keeps the list of those that it checks, and hands on what was found. Where the node
//! balances, it begins own checks when no orchestrator has been there for a while ([`reconcile::plan_b`]).
//!
//! It concerns the backends of load balancers in the store. Those that a node declares in its own file nobody else
//! knows, so the node checks them by itself.

mod desk;

use std::sync::Arc;
use std::time::Duration;

use model::cluster::{ClusterNews, OrchestratorsStatus};
use model::state::{Target, Verdict};
use reconcile::cluster::roster::Wanted;
use store::{Follow, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::Space;
use crate::member::{Feed, Post, Tell, VerdictWrites, read};
use desk::{Desk, Told};

/// What to begin with.
pub struct Setup {
    /// The store.
    pub space: Space,
    /// Slots of the cluster.
    pub slots: u16,
    /// The checks of all backends of load balancers in the store.
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
    /// Whom to check.
    pub targets: watch::Sender<Vec<Target>>,
    /// What these checks found.
    pub found: mpsc::Receiver<Verdict>,
}

/// Begins, in the tokio runtime that this is called in, and ends with it; what is seen of the cluster.
///
/// # Errors
/// When the store's prefix is no key.
pub fn start(setup: Setup) -> Result<watch::Receiver<OrchestratorsStatus>, StoreError> {
    let feed = Feed::start(&setup.space)?;
    let verdicts = setup.space.store().follow(&setup.space.key("verdicts/"))?;
    let started = Instant::now();
    let after = setup.own.as_ref().map(|own| own.after);
    let post = setup.part.as_ref().map(|part| part.post.borrow().clone());
    let writes = setup.part.as_ref().map(|part| part.writes.clone());
    let desk = Desk::new(setup.space.clone(), setup.slots, after, post.zip(writes));
    let (status_out, status) = watch::channel(desk.status());
    let task = Task {
        started,
        feed,
        verdicts,
        desk,
        wanted: setup.wanted,
        part: setup.part,
        own: setup.own,
        beliefs: setup.beliefs,
        news: setup.news,
        status: status_out,
    };
    tokio::spawn(task.run());
    Ok(status)
}

struct Task {
    started: Instant,
    feed: Feed,
    verdicts: Follow,
    desk: Desk,
    wanted: watch::Receiver<Arc<Wanted>>,
    part: Option<Part>,
    own: Option<Own>,
    beliefs: mpsc::Sender<Verdict>,
    news: mpsc::Sender<ClusterNews>,
    status: watch::Sender<OrchestratorsStatus>,
}

impl Task {
    async fn run(mut self) {
        let first = self.wanted.borrow_and_update().clone();
        self.desk.want(first);
        loop {
            self.desk.look(self.now_ms());
            if self.carry_out().await.is_none() {
                return;
            }
            let wake_at = self.desk.wake_at().map(Duration::from_millis);
            let (post, found) = match &mut self.part {
                Some(part) => (Some(&mut part.post), Some(&mut part.found)),
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
                post = changed(post) => self.desk.post(post),
                verdict = next(found) => self.desk.found(verdict),
                verdict = next(self.own.as_mut().map(|own| &mut own.found)) => self.desk.own(verdict),
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
        let status = self.desk.status();
        self.status.send_if_modified(|shown| {
            let changed = *shown != status;
            *shown = status;
            changed
        });
        Some(())
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn changed(post: Option<&mut watch::Receiver<Post>>) -> Post {
    if let Some(post) = post
        && post.changed().await.is_ok()
    {
        return post.borrow_and_update().clone();
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

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
