//! The whole mind of one orchestrator: session, duty, findings, office.
//!
//! - **Session** (`session`): a lease in the store, and until when it may be relied on.
//! - **Duty** (`duty`): the worker: registers, takes its assignment, acknowledges.
//! - **Findings** (`findings`): verdicts on their way into the store.
//! - **Office** (`office`): stands for election, plans rounds while it leads.
//!
//! [`Member::handle`] takes one event and says what to do. Each part looks at what is and asks for what is missing,
//! so that an answer that never comes, or comes twice, leaves nothing hanging. Driving it:
//!
//! - carry out the [`Action`]s in order, before the next event;
//! - answer each [`Call`] once, with [`Answer::Failed`] when its outcome is not known (then it may still happen), and
//!   within a third of the lease, so that one keep-alive may be lost;
//! - send [`Event::Tick`] at [`Member::wake_at`], however late;
//! - ask [`Member::may_check`] right before each check. Later there is no telling whose the backend is.

mod duty;
mod findings;
mod office;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::config::Name;
use model::state::{BackendId, Health, Timestamp};

use super::records::{Key, LeaseId, Revision, Transaction, Value};
use super::roster::Wanted;
use super::view::{Changes, Listing, View};
use super::{SLOTS, Slot};

use duty::Duty;
use findings::Findings;
use office::Office;
use session::Session;

/// After a call that failed, the next attempt waits this long, in milliseconds.
pub const RETRY_MS: u64 = 200;

/// A leader looks at its view at least this often, in milliseconds; and whenever that changes.
pub const ROUND_MS: u64 = 500;

/// Verdicts on their way into the store at the same time. More wait their turn; of one backend only the last counts.
pub const WRITES_AT_ONCE: usize = 64;

/// What must be the same for all members of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Length of the leases, in milliseconds (whole seconds, as stores count them).
    pub lease_ms: u64,
    /// Slots that may be on the way from one live worker to another at the same time.
    pub max_moves: usize,
    /// Slots of the cluster.
    pub slots: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ms: 3000,
            max_moves: 32,
            slots: SLOTS,
        }
    }
}

/// A call, to find its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What the store is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A lease of [`Settings::lease_ms`]. Answer: [`Answer::Granted`].
    Grant,
    /// Keep it alive. Answer: [`Answer::Alive`] or [`Answer::Gone`].
    KeepAlive(LeaseId),
    /// Keys, all of one moment. Answer: [`Answer::Read`].
    Read(Vec<Key>),
    /// A transaction. Answer: [`Answer::Committed`] or [`Answer::Conflict`].
    Commit(Transaction),
}

/// What came of a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The lease.
    Granted(LeaseId),
    /// It is alive.
    Alive,
    /// The store knows no such lease.
    Gone,
    /// Each key in the order asked for.
    Read(Vec<Option<(Revision, Value)>>),
    /// It happened, and made this revision.
    Committed(Revision),
    /// A condition did not hold; nothing happened.
    Conflict,
    /// No answer: it may have happened, or not, or happen later.
    Failed,
}

/// A verdict of this process's checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// On whom.
    pub backend: BackendId,
    /// What.
    pub health: Health,
    /// Why, in words.
    pub reason: String,
    /// When, for people.
    pub at: Timestamp,
    /// The number of the membership that it is about; 0 where nobody counts.
    pub life: u64,
}

/// What a member is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// What came of a call.
    Answer(CallId, Answer),
    /// A watch brought something.
    Changes(Changes),
    /// A watch began, or began anew.
    Listed(Listing),
    /// A watch is broken, or has not begun yet.
    CutOff,
    /// All watches are whole again.
    Hearing,
    /// What each slot weighs: [`super::spread::weights`] of the config, one per slot.
    Weights(Arc<[u64]>),
    /// All backends that somebody wants checked.
    Wanted(Arc<Wanted>),
    /// A check that runs brought a verdict.
    Found(Finding),
    /// This backend's verdict, as it stands since this revision, is to be deleted: nobody here knows the backend.
    Unknown(BackendId, Revision),
    /// Stop for good: everything is given back, so that nobody has to wait for the lease to end.
    Stop,
}

/// What the shell does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run the checks of these slots and no others. Those that run already go on; those that are no longer named are
    /// cut off before the next action, with the probes that are under way, and what they knew is forgotten.
    Run(Arc<BTreeSet<Slot>>),
    /// Ask the store.
    Call(CallId, Call),
    /// Give the lease back, if it can be done; nobody waits for the answer.
    Revoke(LeaseId),
}

/// One orchestrator.
#[derive(Debug)]
pub struct Member {
    name: Name,
    settings: Settings,
    view: View,
    weights: Arc<[u64]>,
    session: Session,
    duty: Duty,
    findings: Findings,
    office: Office,
    /// Calls whose answer is waited for: one each of session, duty and office, and [`WRITES_AT_ONCE`].
    calls: BTreeMap<CallId, Sent>,
    /// Since when a watch has been broken.
    deaf_since: Option<u64>,
    next_call: u64,
    running: Arc<BTreeSet<Slot>>,
    stopped: bool,
    actions: Vec<Action>,
}

/// A call under way.
#[derive(Debug)]
struct Sent {
    /// When it was handed out: never after it was sent.
    at: u64,
    why: Purpose,
}

/// Whose call it is.
#[derive(Clone, Debug)]
enum Purpose {
    Grant,
    KeepAlive,
    Look,
    Register,
    Acknowledge(Revision),
    ReadOwn,
    Farewell,
    Campaign,
    Clear,
    TakeBack,
    Round,
    ReadVerdict(BackendId),
    WriteVerdict(BackendId),
}

impl Member {
    /// A process that has just begun. `name` must never have been used before: [`super::incarnation`].
    pub fn new(name: Name, settings: Settings, now: u64) -> Self {
        Self {
            name,
            settings,
            view: View::default(),
            weights: vec![1; usize::from(settings.slots)].into(),
            session: Session::new(now),
            duty: Duty::Out { retry_at: now },
            findings: Findings::default(),
            office: Office::new(settings, now),
            calls: BTreeMap::new(),
            deaf_since: None,
            next_call: 0,
            running: Arc::default(),
            stopped: false,
            actions: Vec::new(),
        }
    }

    /// Takes an event that is seen at `now`, and says what to do.
    pub fn handle(&mut self, event: Event, now: u64) -> Vec<Action> {
        // Before anything else: what may no longer be relied on is given up.
        self.expire(now);
        match event {
            Event::Tick => {}
            Event::Answer(id, answer) => self.answer(id, answer, now),
            Event::Changes(changes) => {
                self.view.apply(changes);
                self.office.look(now);
            }
            Event::Listed(listing) => {
                self.view.list(listing);
                self.office.look(now);
            }
            Event::CutOff => _ = self.deaf_since.get_or_insert(now),
            Event::Hearing => self.deaf_since = None,
            Event::Weights(weights) => {
                self.weights = weights;
                self.office.look(now);
            }
            Event::Wanted(wanted) => self.findings.keep_wanted(&wanted),
            Event::Found(finding) => self.found(finding),
            Event::Unknown(backend, revision) => self.take_back(&backend, revision, now),
            Event::Stop => self.stop(now),
        }
        if !self.stopped {
            self.keep_session(now);
            self.do_duty(now);
            self.hold_office(now);
            self.write_findings(now);
        }
        std::mem::take(&mut self.actions)
    }

    /// When the next [`Event::Tick`] is due. While calls are out it may be that nothing is.
    pub fn wake_at(&self) -> u64 {
        if self.stopped {
            return u64::MAX;
        }
        let mut wake_at = match self.session {
            Session::None { .. } if self.deaf_since.is_some() => u64::MAX,
            _ => self.session.wake_at(),
        };
        if matches!(self.session, Session::Held { .. }) {
            wake_at = wake_at.min(self.duty.wake_at()).min(self.deaf_until());
            if matches!(self.duty, Duty::In(_)) {
                wake_at = wake_at.min(self.office.wake_at()).min(self.findings.wake_at());
            }
        }
        wake_at
    }

    /// Whether a check of this slot may begin now.
    pub fn may_check(&self, slot: Slot, now: u64) -> bool {
        self.session.may_act(now) && self.running.contains(&slot)
    }

    /// No check may begin from then on, as far as is known now.
    pub fn acts_until(&self) -> u64 {
        self.session.until()
    }

    /// Its name in the store.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The slots whose checks it runs.
    pub fn running(&self) -> &BTreeSet<Slot> {
        &self.running
    }

    /// The epoch, while it leads as far as it may know.
    pub fn leads(&self, now: u64) -> Option<Revision> {
        self.office.epoch().filter(|_| self.session.may_act(now))
    }

    /// Whether it leads and holds back, because more than half of the workers vanished at once.
    pub fn is_frozen(&self) -> bool {
        self.office.is_frozen()
    }

    /// Backends of whose verdicts it remembers where they stand: those that it checks and has found something of, and
    /// for a while those that were.
    pub fn remembers(&self) -> usize {
        self.findings.len()
    }

    /// What it has seen of the store.
    pub fn view(&self) -> &View {
        &self.view
    }

    fn answer(&mut self, id: CallId, answer: Answer, now: u64) {
        // Answers to calls of a session that is over find nobody.
        let Some(Sent { at, why }) = self.calls.remove(&id) else {
            return;
        };
        match why {
            Purpose::Grant => self.session.granted(answer, at, now, self.settings.lease_ms),
            Purpose::KeepAlive => self.kept_alive(&answer, at, now),
            Purpose::Look => self.looked(answer, now),
            Purpose::Register => self.registered(&answer, now),
            Purpose::Acknowledge(revision) => self.acknowledged(&answer, revision, now),
            Purpose::ReadOwn => self.read_own(answer, now),
            Purpose::Campaign => self.campaigned(&answer, now),
            Purpose::Clear => self.cleared(now),
            Purpose::Farewell | Purpose::TakeBack => {}
            Purpose::Round => self.office.round_ended(&answer, now),
            Purpose::ReadVerdict(backend) => self.findings.read(&backend, id, answer, now),
            Purpose::WriteVerdict(backend) => self.findings.written(&backend, id, &answer, now),
        }
    }

    fn call(&mut self, why: Purpose, call: Call, now: u64) -> CallId {
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(id, Sent { at: now, why });
        self.actions.push(Action::Call(id, call));
        id
    }

    fn run(&mut self, slots: Arc<BTreeSet<Slot>>) {
        if self.running != slots {
            self.findings.keep_only(&slots, self.settings.slots);
            self.actions.push(Action::Run(slots.clone()));
            self.running = slots;
        }
    }

    fn stop(&mut self, now: u64) {
        let (lease, farewell) = (self.session.lease(), self.farewell());
        self.lose(now);
        self.stopped = true;
        if let Some(farewell) = farewell {
            self.call(Purpose::Farewell, Call::Commit(farewell), now);
        }
        self.actions.extend(lease.map(Action::Revoke));
    }
}
