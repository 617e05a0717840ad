//! Alerts: looks at the state of the node, and tells the receivers of the config what is wrong.
//!
//! [`run`] is one task. What is worth an alert, when it fires and what is told next are decided by
//! [`reconcile::alerts`]; here are the clock, the deliveries and the figures. A delivery is one `POST` on a thread of
//! its own with a deadline; each receiver has one at a time, so there are at most
//! [`model::config::MAX_RECEIVERS`] of them. Nothing waits for this task: it reads the newest state when it can.
//!
//! What it refuses: proxies of the environment, redirects, and saying a token, a secret or a URL from a file anywhere.

mod deliver;
mod message;

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::alert::{AlertState, AlertStatus, AlertsStatus, Deliveries, Facts, ReceiverStatus, TestResult};
use model::config::{Alerts, Receiver, ReceiverUrl};
use model::state::Timestamp;
use reconcile::alerts::Moment;
use reconcile::alerts::board::Board;
use reconcile::alerts::conditions::conditions;
use reconcile::alerts::outbox::{Outbox, Outcome, Timing};
use reconcile::alerts::recent::Recent;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use deliver::Failure;

pub use deliver::check_files;

/// Least time between two looks at the state: with a hundred thousand backends a look costs some milliseconds.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Longest time between two looks: certificates end without a change of the state.
const LOOK_ANYWAY: Duration = Duration::from_secs(30);

/// What the task listens to, and where it tells what it knows.
#[derive(Debug)]
pub struct Inputs {
    /// State of the node.
    pub facts: watch::Receiver<Facts>,
    /// Whether this process tells of what several nodes see; where nobody else does, it must be true.
    pub sends: watch::Receiver<bool>,
    /// Requests for a test alert to each receiver; answered with what came of it. One is served at a time.
    pub tests: mpsc::Receiver<oneshot::Sender<Vec<TestResult>>>,
    /// The alerts, for whoever shows them.
    pub status: watch::Sender<AlertsStatus>,
}

/// Tells of alerts until the sender of facts is gone.
pub async fn run(inputs: Inputs) {
    let Inputs {
        mut facts,
        mut sends,
        mut tests,
        status,
    } = inputs;
    let mut desk = Desk::new();
    let mut testing = JoinSet::new();
    let mut looked: Option<Instant> = None;
    let mut dirty = true;
    loop {
        if looked.is_none_or(|at| at.elapsed() >= if dirty { LOOK_PAUSE } else { LOOK_ANYWAY }) {
            dirty = false;
            looked = Some(Instant::now());
            let facts = facts.borrow_and_update().clone();
            desk.look(&facts);
        }
        desk.tell(*sends.borrow_and_update());
        status.send_replace(desk.status());
        let look = looked.map(|at| at + if dirty { LOOK_PAUSE } else { LOOK_ANYWAY });
        let wake = desk.next().into_iter().chain(look).min();
        tokio::select! {
            changed = facts.changed(), if !dirty => match changed {
                Ok(()) => dirty = true,
                Err(_) => return,
            },
            // A sender that is gone leaves its last word.
            Ok(()) = sends.changed() => {}
            Some(ended) = desk.flights.join_next() => {
                if let Ok(ended) = ended {
                    desk.landed(ended);
                }
            }
            Some(reply) = tests.recv(), if testing.is_empty() => {
                testing.spawn(test(desk.rules.clone(), reply));
            }
            Some(_) = testing.join_next() => {}
            () = tokio::time::sleep_until(wake.unwrap_or_else(|| Instant::now() + LOOK_ANYWAY)) => {}
        }
    }
}

/// Where what is known and what was told come together.
struct Desk {
    epoch: Instant,
    recent: Recent,
    board: Board,
    rules: Alerts,
    told: Vec<Told>,
    flights: JoinSet<Landed>,
    sends: bool,
    /// The board's generation and who sends, when the outboxes were last brought up to date.
    synced: Option<(u64, bool)>,
}

/// A receiver and what became of its messages.
struct Told {
    receiver: Receiver,
    outbox: Outbox,
    deliveries: Deliveries,
    last_delivered: Option<Timestamp>,
    error: Option<String>,
}

/// The end of a delivery.
struct Landed {
    receiver: Receiver,
    result: Result<(), Failure>,
}

impl Desk {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            recent: Recent::default(),
            board: Board::default(),
            rules: Alerts::default(),
            told: Vec::new(),
            flights: JoinSet::new(),
            sends: false,
            synced: None,
        }
    }

    fn now(&self) -> Moment {
        Moment {
            ms: u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX),
            wall: wall(),
        }
    }

    /// Looks at what holds now, by the config of now.
    fn look(&mut self, facts: &Facts) {
        let alerts = &facts.snapshot.config.alerts;
        if self.rules != *alerts {
            self.rules = alerts.clone();
            self.take_receivers();
        }
        let now = self.now();
        self.recent.note(now.wall, facts.cluster.as_ref());
        let found = self
            .recent
            .conditions(now.wall)
            .chain(conditions(facts, now.wall));
        self.board.observe(now, &facts.node, found, &self.rules);
    }

    /// Receivers that are as they were keep what they have been told; the others begin anew.
    fn take_receivers(&mut self) {
        let mut before = std::mem::take(&mut self.told);
        for receiver in &self.rules.receivers {
            let timing = Timing::of(receiver.kind, &self.rules);
            let known = before.iter().position(|told| told.receiver == *receiver);
            let mut told = match known {
                Some(place) => before.swap_remove(place),
                None => Told {
                    receiver: receiver.clone(),
                    outbox: Outbox::new(receiver.kind, timing),
                    deliveries: Deliveries::default(),
                    last_delivered: None,
                    error: None,
                },
            };
            told.outbox.set_timing(timing);
            self.told.push(told);
        }
        self.synced = None;
    }

    /// Lets fire what is due, and starts the deliveries that are.
    fn tell(&mut self, sends: bool) {
        let now = self.now();
        self.sends = sends;
        self.board.advance(now, &self.rules);
        let state = (self.board.generation(), sends);
        let fresh = self.synced == Some(state);
        self.synced = Some(state);
        for told in &mut self.told {
            if !fresh {
                told.outbox.sync(now, &self.board, sends);
            }
            let Some(notification) = told.outbox.take(now) else {
                continue;
            };
            let receiver = told.receiver.clone();
            let body = message::of(receiver.kind, &notification, &self.rules.labels, now.wall);
            let timeout = self.rules.timeout;
            self.flights.spawn(async move {
                let result = deliver::deliver(&receiver, timeout, body).await;
                Landed { receiver, result }
            });
        }
    }

    fn landed(&mut self, landed: Landed) {
        let now = self.now();
        let known = self.told.iter_mut().find(|told| told.receiver == landed.receiver);
        // A reload may have removed it meanwhile.
        let Some(told) = known else {
            return;
        };
        let name = &told.receiver.name;
        let outcome = match landed.result {
            Ok(()) => {
                if told.error.take().is_some() {
                    tracing::info!("alerts: {name} takes messages again");
                }
                told.deliveries.delivered += 1;
                told.last_delivered = Some(now.wall);
                Outcome::Delivered
            }
            Err(failure) => {
                match failure.outcome {
                    Outcome::Refused => told.deliveries.refused += 1,
                    _ => told.deliveries.failed += 1,
                }
                if told.error.is_none() {
                    tracing::warn!(
                        "alerts: {name} took no message: {}; it is tried again",
                        failure.what
                    );
                }
                told.error = Some(failure.what);
                failure.outcome
            }
        };
        told.outbox.done(now, outcome, RandomState::new().hash_one(()));
    }

    /// When something is due next.
    fn next(&self) -> Option<Instant> {
        let of_receivers = self.told.iter().filter_map(|told| told.outbox.next_ms());
        let due = of_receivers.chain(self.board.next_ms(&self.rules)).min()?;
        self.epoch.checked_add(Duration::from_millis(due))
    }

    fn status(&self) -> AlertsStatus {
        let shown = |(alert, firing): (&Arc<model::alert::Alert>, bool)| AlertStatus {
            name: alert.id.kind.as_str().to_owned(),
            state: match firing {
                true => AlertState::Firing,
                false => AlertState::Pending,
            },
            severity: alert.id.kind.severity(),
            labels: alert.id.labels(),
            summary: alert.summary.clone(),
            since: alert.since,
            fingerprint: alert.id.fingerprint(),
        };
        AlertsStatus {
            sends: self.sends,
            alerts: self.board.all().map(shown).collect(),
            pushed_out: self.board.pushed_out(),
            left_out: self.board.left_out(),
            receivers: self.told.iter().map(Told::status).collect(),
        }
    }
}

impl Told {
    fn status(&self) -> ReceiverStatus {
        ReceiverStatus {
            name: self.receiver.name.clone(),
            kind: self.receiver.kind.as_str().to_owned(),
            to: shown(&self.receiver),
            last_delivered: self.last_delivered,
            error: self.error.clone(),
            deliveries: self.deliveries,
            forgotten: self.outbox.forgotten(),
        }
    }
}

/// Sends a test alert to each receiver, and says what came of it.
async fn test(rules: Alerts, reply: oneshot::Sender<Vec<TestResult>>) {
    let mut tests = JoinSet::new();
    for (place, receiver) in rules.receivers.iter().cloned().enumerate() {
        let body = message::of_test(receiver.kind, &rules.labels, wall());
        let timeout = rules.timeout;
        tests.spawn(async move {
            let begun = Instant::now();
            let result = deliver::deliver(&receiver, timeout, body).await;
            let result = TestResult {
                to: shown(&receiver),
                receiver: receiver.name,
                error: result.err().map(|failure| failure.what),
                took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            };
            (place, result)
        });
    }
    let mut results = tests.join_all().await;
    results.sort_by_key(|(place, _)| *place);
    // Whoever asked may have gone.
    let _ = reply.send(results.into_iter().map(|(_, result)| result).collect());
}

/// Where a receiver is, in words that hold no secret.
fn shown(receiver: &Receiver) -> String {
    match &receiver.url {
        ReceiverUrl::Url(url) => url.clone(),
        ReceiverUrl::File(path) => of_file(path),
    }
}

fn of_file(path: &Path) -> String {
    format!("the URL in {}", path.display())
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
