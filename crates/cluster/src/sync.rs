//! Following what is declared in the store: push, poll, and what was last known.
//!
//! - **Push**: a watch over all of `config/`. It brings the objects, the record and the head of a change, so that a
//!   change costs no read, however many nodes there are.
//! - **Poll**: the head is read every 30 s ± 20 %, when the store is found again (within 2 s, each node at its own
//!   time), and after a hint.
//! - **Disk**: what was taken is kept ([`Last`]), and a node starts from that when the store is away.
//!
//! A revision is taken whole or not at all: its state must have the digest that the head says, each load balancer
//! must read without an error, and whoever serves must agree ([`Offer`]). What was refused stays refused until the
//! head moves or the next poll, which tries again: a port may have become free.
//!
//! What it refuses: to believe a head whose content it cannot find. Then the old revision stays, and it says so.

mod fetch;
mod last;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::config::{LoadBalancer, Name};
use reconcile::desired::poll;
use reconcile::desired::records::{Digest, Head, State, keys};
use store::{Changes, Event, StoreError, Watch};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::Space;
use fetch::{Failed, Fetched, Pushed};
pub use last::Last;

/// The load balancers of a revision, read and valid each for itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Which revision; 0: nothing was ever declared.
    pub revision: u64,
    /// By name.
    pub load_balancers: BTreeMap<Name, Arc<LoadBalancer>>,
}

/// A revision on its way to whoever serves.
#[derive(Debug)]
pub struct Offer {
    /// What is to be served.
    pub desired: Arc<Desired>,
    /// Whether it is, or every reason why not.
    pub reply: oneshot::Sender<Result<(), Vec<String>>>,
}

/// How a node stands towards the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether the store is heard.
    pub connected: bool,
    /// Why not.
    pub trouble: Option<String>,
    /// The revision that the store has, as far as is known.
    pub head: u64,
    /// The revision that is served.
    pub served: u64,
    /// Whether it is known at all what the store has: from it, or from the disk.
    pub known: bool,
    /// What was refused, until something else is served.
    pub refused: Option<Refused>,
    /// Time from the writing of the last change to its being served here, however it was found; none for what the
    /// store had when this process found it first. By two clocks, where two machines have part in it.
    pub took: Option<Duration>,
    /// All such times.
    pub delays: Delays,
}

/// Upper bounds of the buckets of [`Delays`], in seconds.
pub const DELAY_BOUNDS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 36.0];

/// How long changes took to be served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// Changes per bucket of [`DELAY_BOUNDS`]; the last is beyond all of them.
    pub counts: [u64; DELAY_BOUNDS.len() + 1],
    /// All times together.
    pub sum: Duration,
}

impl Delays {
    fn add(&mut self, took: Duration) {
        let bucket = DELAY_BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound);
        self.counts[bucket.unwrap_or(DELAY_BOUNDS.len())] += 1;
        self.sum += took;
    }
}

/// A revision that is not served, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub revision: u64,
    /// Every reason.
    pub reasons: Vec<String>,
}

/// Why a head is not believed that is none.
const UNREADABLE: &str =
    "what stands under `config/head` in the store is no head that this version understands";
/// Why a store is not believed that has nothing any more.
const EMPTIED: &str = "the store has nothing any more: it was emptied, or is another one; what is served stays, and \
                       what is applied from now on is served";

/// Follows the desired layer.
#[derive(Debug)]
pub struct Sync {
    space: Space,
    last: Option<Last>,
    /// What is served, by the digests of its objects.
    state: State,
    /// What a head says of that.
    head: Head,
    read: Read,
    pushed: Pushed,
    /// The revision that the store had when this process first heard of one: nobody waited for it here.
    at_start: Option<u64>,
    /// What was refused last; not tried again before the next poll.
    tried: Option<Head>,
    /// When what is served could not be kept on the disk: the objects that lack there. Tried again with each look.
    unsaved: Option<BTreeMap<Digest, Bytes>>,
    standing: watch::Sender<Standing>,
    stored: watch::Sender<Option<Arc<Desired>>>,
}

/// What stands under the head's key.
#[derive(Clone, Debug)]
enum Found {
    Head(Head),
    Nothing,
    /// Something, but no head that this version understands.
    Unreadable,
}

/// Load balancers as read, with the digests of what they were read from.
type Read = BTreeMap<Name, (Digest, Arc<LoadBalancer>)>;

/// Where a session with the store ended.
enum Ended {
    /// Nobody listens any more.
    Unwanted,
    Store(StoreError),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Sync {
    /// Knows nothing yet. `last`: where to keep what is served; none where the store is on this disk anyway.
    #[must_use]
    pub fn new(space: Space, last: Option<Last>) -> Self {
        Self {
            space,
            last,
            state: State::default(),
            head: State::default().head(),
            read: Read::new(),
            pushed: Pushed::default(),
            at_start: None,
            tried: None,
            unsaved: None,
            standing: watch::Sender::default(),
            stored: watch::Sender::default(),
        }
    }

    /// How it stands, and a notice of each change of that.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// What the store says, whether or not this node serves it: of a revision that was refused here all that can be
    /// read, and what cannot as it was before. Others rely on this node for it. None: not known yet.
    #[must_use]
    pub fn stored(&self) -> watch::Receiver<Option<Arc<Desired>>> {
        self.stored.subscribe()
    }

    /// What is known before anything runs: what the disk has; with the embedded store, what that has. Blocks on files.
    /// Damage is told in the log, and nothing is known then.
    pub async fn first(&mut self) -> Option<Arc<Desired>> {
        let found = match &self.last {
            Some(last) => last.load(),
            None => self.first_of_store().await,
        };
        let (state, read) = found?;
        let desired = Arc::new(desired(&state, &read));
        (self.head, self.state, self.read) = (state.head(), state, read);
        self.stored.send_replace(Some(desired.clone()));
        self.standing.send_modify(|standing| {
            standing.known = true;
            standing.served = desired.revision;
            standing.head = desired.revision;
        });
        Some(desired)
    }

    async fn first_of_store(&mut self) -> Option<(State, Read)> {
        let head = self.head_of_store().await;
        let found = match head {
            Ok(Found::Head(head)) => self.fetch(&head).await.map(Some),
            Ok(Found::Nothing) => Ok(None),
            Ok(Found::Unreadable) => Err(Failed::Missing(UNREADABLE.to_owned())),
            Err(error) => Err(Failed::Store(error)),
        };
        match found {
            Ok(Some(fetched)) => Some((fetched.state, fetched.read)),
            Ok(None) => Some(Default::default()),
            Err(failed) => {
                tracing::error!("what is declared in the store cannot be read: {failed}");
                None
            }
        }
    }

    /// Says that what [`Sync::first`] gave cannot be served.
    pub fn first_was_refused(&mut self, reasons: Vec<String>) {
        let revision = self.state.revision;
        (self.state, self.read) = Default::default();
        self.head = self.state.head();
        self.standing.send_modify(|standing| {
            standing.served = 0;
            standing.refused = Some(Refused { revision, reasons });
        });
    }

    /// Follows until nobody takes offers any more. `hints`: each says that the head may have moved; what else it says
    /// counts for nothing.
    pub async fn run(mut self, offers: mpsc::Sender<Offer>, mut hints: mpsc::Receiver<()>) {
        let mut failures: u32 = 0;
        // The embedded store is this node's alone.
        if self.last.is_some() {
            let known = self.standing.borrow().known;
            sleep(poll::first(known, random())).await;
        }
        loop {
            let began = Instant::now();
            let Err(ended) = self.session(&offers, &mut hints).await;
            let error = match ended {
                Ended::Unwanted => return,
                Ended::Store(error) => error,
            };
            if began.elapsed() > poll::RETURN_SPREAD {
                failures = 0;
            }
            failures = failures.saturating_add(1);
            self.lost(&error);
            sleep(poll::again(failures, random())).await;
        }
    }

    fn lost(&self, error: &StoreError) {
        if self.standing.borrow().connected {
            tracing::warn!("the store is lost, what is served stays: {error}");
        }
        self.standing.send_modify(|standing| {
            standing.connected = false;
            standing.trouble = Some(error.to_string());
        });
    }

    /// Reads the head, then watches and polls until the store fails.
    async fn session(
        &mut self,
        offers: &mpsc::Sender<Offer>,
        hints: &mut mpsc::Receiver<()>,
    ) -> Result<Infallible, Ended> {
        let listing = self.space.store().list(&self.space.key(keys::HEAD)).await?;
        self.pushed = Pushed::default();
        let head = listing.entries.first();
        let head = head.map_or(Found::Nothing, |entry| fetch::head(&entry.value));
        // Before the watch: who may read and not watch, or has no watch for another reason, still follows, later.
        self.tried = None;
        self.take(head, offers).await?;
        let from = listing.revision.next();
        let mut watch = self.space.store().watch(&self.space.key("config/"), from).await?;
        self.found();
        let mut poll_at = Instant::now() + poll::interval(random());
        loop {
            tokio::select! {
                changes = watch.next() => {
                    if let Some(head) = self.note(&changes?) {
                        self.take(head, offers).await?;
                    }
                }
                () = sleep_until(poll_at) => {
                    poll_at = Instant::now() + poll::interval(random());
                    self.look(offers).await?;
                }
                Some(()) = hints.recv() => {
                    self.hinted(&mut watch, offers).await?;
                    while hints.try_recv().is_ok() {}
                }
                () = offers.closed() => return Err(Ended::Unwanted),
            }
        }
    }

    /// Gives the watch the chance to bring what was hinted at; then looks.
    async fn hinted(&mut self, watch: &mut Watch, offers: &mpsc::Sender<Offer>) -> Result<(), Ended> {
        let until = Instant::now() + poll::spread(poll::HINT_SPREAD, random());
        // Objects come before the head that refers to them.
        while let Ok(changes) = timeout_at(until, watch.next()).await {
            if let Some(head) = self.note(&changes?) {
                return self.take(head, offers).await;
            }
        }
        self.look(offers).await
    }

    async fn look(&mut self, offers: &mpsc::Sender<Offer>) -> Result<(), Ended> {
        let head = self.head_of_store().await?;
        // Tried again, even if it was refused: what stood in the way may be gone.
        self.tried = None;
        self.take(head, offers).await
    }

    fn found(&self) {
        let back = !self.standing.borrow().connected && self.standing.borrow().trouble.is_some();
        if back {
            tracing::info!("the store is heard again");
        }
        self.standing.send_modify(|standing| {
            standing.connected = true;
            standing.trouble = None;
        });
    }

    /// Keeps what a change brought; the head, when it moved.
    fn note(&mut self, changes: &Changes) -> Option<Found> {
        let mut moved = None;
        for event in changes.events.iter() {
            let Event::Put(entry) = event else {
                if self.space.path(event.key()) == Some(keys::HEAD) {
                    moved = Some(Found::Nothing);
                }
                continue;
            };
            match self.space.path_of(entry) {
                Some(keys::HEAD) => moved = Some(fetch::head(&entry.value)),
                Some(path) => self.pushed.note(path, &entry.value),
                None => {}
            }
        }
        moved
    }

    async fn head_of_store(&self) -> Result<Found, StoreError> {
        let entry = self.space.store().get(&self.space.key(keys::HEAD)).await?;
        Ok(entry.map_or(Found::Nothing, |entry| fetch::head(&entry.value)))
    }

    /// Takes what a head says, unless it is what is served or was refused already.
    async fn take(&mut self, found: Found, offers: &mpsc::Sender<Offer>) -> Result<(), Ended> {
        let head = match found {
            Found::Head(head) => head,
            Found::Nothing if self.state.revision == 0 => State::default().head(),
            // Nobody who works as agreed takes the head away: what is served, here and on the disk, is worth more.
            Found::Nothing => {
                self.refuse(0, vec![EMPTIED.to_owned()]);
                return Ok(());
            }
            Found::Unreadable => {
                self.refuse(self.state.revision, vec![UNREADABLE.to_owned()]);
                return Ok(());
            }
        };
        self.at_start.get_or_insert(head.revision);
        if head == self.head && self.standing.borrow().known {
            self.tried = None;
            if self.unsaved.is_some() {
                self.keep(BTreeMap::new()).await;
            }
            self.standing.send_if_modified(|standing| {
                let changed = standing.head != head.revision || standing.refused.is_some();
                (standing.head, standing.refused) = (head.revision, None);
                changed
            });
            return Ok(());
        }
        self.standing
            .send_modify(|standing| standing.head = head.revision);
        if self.tried.as_ref() == Some(&head) {
            return Ok(());
        }
        self.tried = Some(head.clone());
        let fetched = match self.fetch(&head).await {
            Ok(fetched) => fetched,
            Err(Failed::Store(error)) => return Err(error.into()),
            Err(Failed::Missing(reason)) => {
                self.refuse(head.revision, vec![reason]);
                return Ok(());
            }
            Err(Failed::Wrong(state, parsed)) => {
                self.has_in_part(&state, &parsed.read);
                self.refuse(head.revision, parsed.reasons);
                return Ok(());
            }
        };
        let (reply, answer) = oneshot::channel();
        let desired = Arc::new(desired(&fetched.state, &fetched.read));
        self.stored.send_replace(Some(desired.clone()));
        let offer = Offer { desired, reply };
        offers.send(offer).await.map_err(|_| Ended::Unwanted)?;
        match answer.await.map_err(|_| Ended::Unwanted)? {
            Err(reasons) => self.refuse(head.revision, reasons),
            Ok(()) => self.served(head, fetched).await,
        }
        Ok(())
    }

    /// The store has a state that cannot be read whole: what can be read, and the rest as it was.
    fn has_in_part(&self, state: &State, read: &Read) {
        let before = self.stored.borrow().clone();
        let mut stored = desired(state, read);
        for name in state.objects.keys().filter(|name| !read.contains_key(*name)) {
            let known = before.as_ref().and_then(|before| before.load_balancers.get(name));
            stored
                .load_balancers
                .extend(known.map(|known| (name.clone(), known.clone())));
        }
        self.stored.send_replace(Some(Arc::new(stored)));
    }

    fn refuse(&self, revision: u64, reasons: Vec<String>) {
        let refused = Refused { revision, reasons };
        let news = self.standing.send_if_modified(|standing| {
            let news = standing.refused.as_ref() != Some(&refused);
            standing.refused = Some(refused.clone());
            news
        });
        if news {
            let reasons = refused.reasons.join("; ");
            tracing::warn!("revision {revision} of the store is not served here: {reasons}");
        }
    }

    async fn served(&mut self, head: Head, fetched: Fetched) {
        let written = fetched.written.filter(|_| self.at_start != Some(head.revision));
        let took = written.map(|written| fetch::unix_time().saturating_sub(written));
        self.tried = None;
        self.pushed = Pushed::default();
        (self.head, self.state, self.read) = (head, fetched.state, fetched.read);
        self.keep(fetched.fresh).await;
        self.standing.send_modify(|standing| {
            standing.known = true;
            standing.served = self.state.revision;
            standing.refused = None;
            standing.took = took;
            if let Some(took) = took {
                standing.delays.add(took);
            }
        });
    }

    /// Keeps on the disk what is served; `fresh` is what is not there yet. What could not be kept before is kept with
    /// it, as far as it still counts.
    async fn keep(&mut self, fresh: BTreeMap<Digest, Bytes>) {
        let Some(last) = &self.last else { return };
        let wanted: BTreeSet<Digest> = self.state.objects.values().copied().collect();
        let mut missing = self.unsaved.take().unwrap_or_default();
        missing.extend(fresh);
        missing.retain(|digest, _| wanted.contains(digest));
        if !last.save(&self.state, &missing).await {
            self.unsaved = Some(missing);
        }
    }
}

fn desired(state: &State, read: &Read) -> Desired {
    let balancers = read
        .iter()
        .map(|(name, (_, balancer))| (name.clone(), balancer.clone()));
    Desired {
        revision: state.revision,
        load_balancers: balancers.collect(),
    }
}

/// Any number.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
