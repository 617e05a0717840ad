//! Takes back what is not confirmed in time, or fails: see [`reconcile::desired::trial`].
//!
//! Every node does this; the transaction sees to it that it happens once. The time is counted from when the change was
//! seen here. A node that finds one when it starts goes by the time that stands in the store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::cluster::ClusterNews;
use model::state::Timestamp;
use reconcile::desired::records::{Pending, keys};
use reconcile::desired::trial::{SAMPLE_MS, Totals, Watcher, Why};
use store::{Event, Follow, Followed, StoreError};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{DesiredError, Ledger};

/// Time between two looks at a change on trial.
const LOOK: Duration = Duration::from_secs(1);

/// What a guard is made of.
pub struct Guard {
    /// The load balancers of the store.
    pub ledger: Ledger,
    /// Who takes back.
    pub name: String,
    /// What was answered until now, by load balancer; empty where nothing is forwarded.
    pub totals: Arc<dyn Fn() -> Totals + Send + Sync>,
    /// The wall clock.
    pub wall: fn() -> Timestamp,
    /// Told what was taken back.
    pub news: mpsc::Sender<ClusterNews>,
}

impl Guard {
    /// Looks on until the process ends.
    ///
    /// # Errors
    /// When the prefix of the store is no key.
    pub async fn run(self) -> Result<(), StoreError> {
        let key = self.ledger.space.key(keys::PENDING);
        let mut pending = self.ledger.space.store().follow(&key)?;
        let began = Instant::now();
        let mut watcher = Watcher::default();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sampled, mut is_new) = (None, true);
        loop {
            let now = |at: Instant| u64::try_from((at - began).as_millis()).unwrap_or(u64::MAX);
            tokio::select! {
                found = next(&mut pending, &key) => match found {
                    Found::Pending(found) => {
                        self.see(&mut watcher, now(Instant::now()), found, is_new).await;
                        is_new = false;
                    }
                    Found::Nothing => {
                        watcher.over();
                        is_new = false;
                    }
                    Found::End => return Ok(()),
                },
                at = looks.tick() => {
                    let now = now(at);
                    if sampled.is_none_or(|last| now >= last + SAMPLE_MS) {
                        watcher.sample(now, (self.totals)());
                        sampled = Some(now);
                    }
                    self.look(&mut watcher, now).await;
                }
            }
        }
    }

    async fn see(&self, watcher: &mut Watcher, now: u64, pending: Pending, is_new: bool) {
        let left = match is_new {
            // It may have waited for long before this process began.
            true => {
                let left = pending.until.since((self.wall)());
                u64::try_from(left.as_millis())
                    .unwrap_or(u64::MAX)
                    .min(pending.lasts_ms)
            }
            false => pending.lasts_ms,
        };
        let touched: BTreeSet<_> = match self.ledger.record(pending.revision).await {
            Ok(record) => record.changed.into_keys().collect(),
            Err(error) => {
                tracing::warn!(
                    "what revision {} changed is not known, its failures are not looked at: {error}",
                    pending.revision
                );
                BTreeSet::new()
            }
        };
        watcher.see(now, pending, &touched, left, (self.totals)());
    }

    async fn look(&self, watcher: &mut Watcher, now: u64) {
        let Some(pending) = watcher.awaits().cloned() else {
            return;
        };
        let Some(why) = watcher.judge(now, &(self.totals)()) else {
            return;
        };
        match self.revert(&pending, &why).await {
            Ok(made) => {
                watcher.over();
                let news = ClusterNews::Reverted {
                    revision: pending.revision,
                    made,
                    why: why.to_string(),
                };
                // Who listens has gone with the process.
                let _ = self.news.send(news).await;
            }
            // Somebody else did it, or it was confirmed: the watch tells which.
            Err(DesiredError::Refused(_)) => watcher.over(),
            Err(error) => {
                tracing::warn!(
                    "revision {} ({why}) is not taken back yet, and tried again: {error}",
                    pending.revision
                );
            }
        }
    }

    async fn revert(&self, pending: &Pending, why: &Why) -> Result<Option<u64>, DesiredError> {
        let (author, why) = (format!("evenkeel on {}", self.name), why.to_string());
        let done = self.ledger.revert(pending, &author, &why, (self.wall)()).await?;
        Ok(done.change.map(|change| change.head.revision))
    }
}

/// What is found to await confirmation.
enum Found {
    Pending(Pending),
    Nothing,
    End,
}

/// The next thing to know about the key.
async fn next(follow: &mut Follow, key: &str) -> Found {
    loop {
        let entry = match follow.next().await {
            None => return Found::End,
            Some(Followed::CutOff(_) | Followed::Back) => continue,
            Some(Followed::Listed(listing)) => listing.entries.into_iter().find(|entry| entry.key == key),
            Some(Followed::Changed(changes)) => {
                match changes.events.iter().find(|event| event.key() == key) {
                    None => continue,
                    Some(Event::Put(entry)) => Some(entry.clone()),
                    Some(Event::Deleted { .. }) => None,
                }
            }
        };
        let Some(entry) = entry else {
            return Found::Nothing;
        };
        match serde_json::from_slice(&entry.value) {
            Ok(pending) => return Found::Pending(pending),
            Err(error) => {
                tracing::warn!("what awaits confirmation cannot be read: {error}");
                return Found::Nothing;
            }
        }
    }
}
