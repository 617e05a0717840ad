//! One orchestrator at work: drives [`reconcile::cluster::member::Member`] against the store.
//!
//! One task holds the mind; each call to the store is a task of its own, answered within a third of the lease, after
//! which it counts as failed (and may still happen: the mind knows). [`Leave`] is what others ask before each check:
//! it is changed here, in the same step in which the mind decides, and the probes of slots that were taken away are
//! cut before the store hears of it.
//!
//! Times are milliseconds of one clock that never goes backwards. A process that was stopped finds at the first look
//! at it that its time is over.

mod calls;
mod feed;
mod leave;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use model::config::Name;
use model::state::BackendId;
use reconcile::cluster::incarnation;
use reconcile::cluster::member::{Action, Answer, Call, CallId, Event, Finding, Member, Settings};
use reconcile::cluster::records::{Key, Revision, Transaction, Write};
use reconcile::cluster::roster::{Stays, Wanted};
use store::StoreError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::Space;
pub(crate) use feed::{Feed, read};
pub use leave::Leave;

/// Verdicts that wait to be taken in; the checks wait when there is no room.
const INBOX: usize = 256;

/// An orchestrator to be.
pub struct Setup {
    /// The store.
    pub space: Space,
    /// The node; the orchestrator's own name is new with each start.
    pub node: Name,
    /// What all orchestrators agree on.
    pub settings: Settings,
    /// Changed as the mind decides.
    pub leave: Arc<Leave>,
    /// Ends the probes under way that [`Leave`] no longer allows, before it returns.
    pub cut: Box<dyn Fn() + Send>,
}

/// What it is told.
#[derive(Clone, Debug)]
pub enum Tell {
    /// A check brought a verdict.
    Found(Finding),
    /// This backend, whose verdict stands since this revision, is not known here: the verdict is taken back.
    Unknown(BackendId, Revision),
    /// All that the orchestrators check, and what each slot weighs by that.
    Wanted(Arc<Wanted>, Arc<[u64]>),
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Its name in the store.
    pub name: Name,
    /// The slots that it runs, and since which stay.
    pub stays: Arc<Stays>,
    /// Its epoch while it leads.
    pub leads: Option<Revision>,
    /// It leads and gives nothing anew, because more than half of the orchestrators vanished at once, or the store does
    /// not know who was there.
    pub frozen: bool,
}

/// What became of its writes of verdicts, and of its leases.
#[derive(Debug, Default)]
pub struct VerdictWrites {
    /// Done.
    pub written: AtomicU64,
    /// Refused by the store, because something had changed.
    pub refused: AtomicU64,
    /// Without an answer.
    pub failed: AtomicU64,
    /// Leases that were over while it was at work: it hung, or the store did not hear it, or gave them up.
    pub leases_lost: AtomicU64,
}

/// An orchestrator at work. Dropped, it works no more and gives nothing back, as if it had crashed.
#[derive(Debug)]
pub struct Orchestrating {
    /// How it stands.
    pub post: watch::Receiver<Post>,
    /// Where its checks tell what they found.
    pub tell: mpsc::Sender<Tell>,
    /// What became of its verdicts.
    pub writes: Arc<VerdictWrites>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Orchestrating {
    /// Begins, in the tokio runtime that this is called in.
    ///
    /// # Errors
    /// When the store's prefix is no key.
    pub fn start(setup: Setup) -> Result<Self, StoreError> {
        let Setup {
            space,
            node,
            settings,
            leave,
            cut,
        } = setup;
        let name = incarnation(&node, random());
        let member = Member::new(name.clone(), settings, leave.now_ms());
        let (post_out, post) = watch::channel(Post {
            name,
            stays: Arc::default(),
            leads: None,
            frozen: false,
        });
        let (tell, inbox) = mpsc::channel(INBOX);
        let (stop, stopped) = oneshot::channel();
        let writes = Arc::new(VerdictWrites::default());
        let shell = Shell {
            feed: Feed::start(&space)?,
            node,
            space,
            settings,
            member,
            leave,
            cut,
            calls: JoinSet::new(),
            revokes: JoinSet::new(),
            post: post_out,
            writes: writes.clone(),
            weights: None,
            next_stay: 1,
        };
        let task = tokio::spawn(shell.run(inbox, stopped));
        Ok(Self {
            post,
            tell,
            writes,
            stop: Some(stop),
            task,
        })
    }

    /// Stops for good and gives everything back, so that nobody waits for the lease; ends in any case within two
    /// thirds of the lease.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        // The task ends by itself; that it panicked would be in the log.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Orchestrating {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shell {
    space: Space,
    node: Name,
    settings: Settings,
    member: Member,
    leave: Arc<Leave>,
    cut: Box<dyn Fn() + Send>,
    feed: Feed,
    calls: JoinSet<(CallId, Answer)>,
    /// Leases on their way back: only the stopping waits for them.
    revokes: JoinSet<()>,
    post: watch::Sender<Post>,
    writes: Arc<VerdictWrites>,
    /// What it was last told. Without, it does not know yet what there is to check, and takes no part: what it was
    /// given would lie idle.
    weights: Option<Arc<[u64]>>,
    next_stay: u64,
}

impl Shell {
    async fn run(mut self, mut inbox: mpsc::Receiver<Tell>, mut stopped: oneshot::Receiver<()>) {
        self.handle(Event::CutOff);
        loop {
            let wake_at = self.leave.instant(self.member.wake_at());
            tokio::select! {
                // Sent or dropped, it means the same.
                _ = &mut stopped => break,
                Some(ended) = self.calls.join_next() => match ended {
                    Ok((id, answer)) => self.handle(Event::Answer(id, answer)),
                    Err(error) => tracing::error!("a fault of Evenkeel: {error}"),
                },
                events = self.feed.next(), if self.weights.is_some() => self.see(events),
                Some(told) = inbox.recv() => self.hear(told),
                () = tokio::time::sleep_until(wake_at) => self.handle(Event::Tick),
            }
        }
        self.handle(Event::Stop);
        while self.calls.join_next().await.is_some() {}
        while self.revokes.join_next().await.is_some() {}
    }

    fn hear(&mut self, told: Tell) {
        match told {
            Tell::Found(finding) => self.handle(Event::Found(finding)),
            Tell::Unknown(backend, revision) => self.handle(Event::Unknown(backend, revision)),
            Tell::Wanted(wanted, weights) => {
                self.weights = Some(weights.clone());
                self.handle(Event::Wanted(wanted));
                self.handle(Event::Weights(weights));
            }
        }
    }

    fn see(&mut self, events: Vec<Event>) {
        for event in events {
            if let Event::Listed(listing) = &event
                && listing.another
            {
                tracing::warn!(
                    "the store is another one than before, or went back: this orchestrator begins anew"
                );
                return self.begin_anew();
            }
            self.handle(event);
        }
    }

    /// The store is another one than before, brought back from a backup: nothing that was seen of it holds, and what
    /// stands there under the former name is somebody else's.
    fn begin_anew(&mut self) {
        self.leave.set_until(0);
        self.leave.set_slots(&BTreeSet::new());
        (self.cut)();
        self.calls.abort_all();
        self.calls.detach_all();
        let name = incarnation(&self.node, random());
        self.member = Member::new(name.clone(), self.settings, self.leave.now_ms());
        self.post.send_replace(Post {
            name,
            stays: Arc::default(),
            leads: None,
            frozen: false,
        });
        match Feed::start(&self.space) {
            Ok(feed) => self.feed = feed,
            // The same prefix was good before.
            Err(error) => tracing::error!("the store cannot be followed: {error}"),
        }
        self.handle(Event::CutOff);
        if let Some(weights) = self.weights.clone() {
            self.handle(Event::Weights(weights));
        }
    }

    fn handle(&mut self, event: Event) {
        let (had_lease, stops) = (self.member.acts_until() > 0, matches!(event, Event::Stop));
        let led = self.post.borrow().leads;
        let actions = self.member.handle(event, self.leave.now_ms());
        for action in actions {
            match action {
                Action::Run(slots) => {
                    let stays = self.stays(slots.iter().copied());
                    self.leave.set_slots(&slots);
                    (self.cut)();
                    self.post.send_modify(|post| post.stays = stays);
                }
                Action::Call(id, call) => self.call(id, call),
                Action::Revoke(lease) => self.revoke(lease),
            }
        }
        self.leave.set_until(self.member.acts_until());
        if had_lease && self.member.acts_until() == 0 && !stops {
            self.writes.leases_lost.fetch_add(1, Relaxed);
            let epoch = led.map_or_else(String::new, |epoch| {
                format!(", and leads no more (epoch {epoch})")
            });
            tracing::warn!(
                "the lease of this orchestrator is over: it hung, or could not reach the store. It has stopped its \
                 checks{epoch}; what it wrote and the store has not got yet will be refused. It begins anew"
            );
        }
        let (leads, frozen) = (self.member.leads(self.leave.now_ms()), self.member.is_frozen());
        self.post.send_if_modified(|post| {
            let changed = (post.leads, post.frozen) != (leads, frozen);
            (post.leads, post.frozen) = (leads, frozen);
            changed
        });
    }

    /// Those that stay keep their number; those that come have a new one.
    fn stays(&mut self, slots: impl Iterator<Item = reconcile::cluster::Slot>) -> Arc<Stays> {
        let now = self.post.borrow().stays.clone();
        let next = self.next_stay;
        self.next_stay += 1;
        let stays: BTreeMap<_, _> = slots
            .map(|slot| (slot, now.get(&slot).copied().unwrap_or(next)))
            .collect();
        Arc::new(stays)
    }

    fn call(&mut self, id: CallId, call: Call) {
        let (space, lease_ms) = (self.space.clone(), self.settings.lease_ms);
        let writes = is_verdict(&call).then(|| self.writes.clone());
        // A task of its own: whatever becomes of it, the mind has its answer.
        let asked = tokio::spawn(async move {
            let answered = timeout(patience(lease_ms), calls::carry_out(&space, call, lease_ms)).await;
            answered.unwrap_or(Answer::Failed)
        });
        self.calls.spawn(async move {
            let answer = asked.await.unwrap_or_else(|error| {
                tracing::error!("a fault of Evenkeel: {error}");
                Answer::Failed
            });
            if let Some(writes) = writes {
                writes.count(&answer);
            }
            (id, answer)
        });
    }

    fn revoke(&mut self, lease: reconcile::cluster::records::LeaseId) {
        while self.revokes.try_join_next().is_some() {}
        let (space, lease_ms) = (self.space.clone(), self.settings.lease_ms);
        self.revokes.spawn(async move {
            let revoked = space.store().revoke(store::LeaseId(lease.0));
            if let Ok(Err(error)) = timeout(patience(lease_ms), revoked).await {
                tracing::debug!("a lease could not be given back and ends by itself: {error}");
            }
        });
    }
}

impl VerdictWrites {
    fn count(&self, answer: &Answer) {
        let counter = match answer {
            Answer::Committed(_) => &self.written,
            Answer::Conflict => &self.refused,
            _ => &self.failed,
        };
        counter.fetch_add(1, Relaxed);
    }
}

fn is_verdict(call: &Call) -> bool {
    let Call::Commit(Transaction { writes, .. }) = call else {
        return false;
    };
    matches!(
        &writes[..],
        [Write::Put {
            key: Key::Verdict(_),
            ..
        }]
    )
}

/// How long a call may take: so short that one keep-alive may be lost.
fn patience(lease_ms: u64) -> Duration {
    Duration::from_millis(lease_ms / 3)
}

/// Each start has a name of its own: nothing that a former one had is taken for its own.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
