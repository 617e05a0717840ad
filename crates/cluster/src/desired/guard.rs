//! Takes back what is not confirmed in time, or fails: see [`reconcile::desired::trial`].
//!
//! Every node does this; the transaction sees to it that it happens once. The time is counted from when the change was
//! seen here. A node that finds one when it starts goes by the time that stands in the store. What a node has seen of
//! the change stands in its own record ([`crate::nodes`]): who follows the nodes judges by all of them together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::cluster::ClusterNews;
use model::config::{LoadBalancer, Name};
use model::node::TrialShare;
use model::state::Timestamp;
use reconcile::desired::records::{Digest, Pending, keys};
use reconcile::desired::touched::{Touch, touched};
use reconcile::desired::trial::{SAMPLE_MS, Totals, Watcher, Why};
use store::{Event, Follow, Followed, StoreError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{DesiredError, Ledger};
use crate::nodes::Nodes;

/// Time between two looks at a change on trial.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two times that a node tells what it has seen of one, in milliseconds.
const TELL_MS: u64 = 5_000;
/// Times that it is read what a change touched, and the pause between two of them.
const ATTEMPTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(300);
/// Load balancers of a change that are compared route by route; of a greater one, each route counts as touched.
const MOST_LOOKED_AT: usize = 100;

/// What a guard is made of.
pub struct Guard {
    /// The load balancers of the store.
    pub ledger: Ledger,
    /// Who takes back.
    pub name: String,
    /// What was answered until now, by route; empty where nothing is forwarded.
    pub totals: Arc<dyn Fn() -> Totals + Send + Sync>,
    /// What the other nodes tell; none where they are not followed.
    pub nodes: watch::Receiver<Nodes>,
    /// What this node has to tell.
    pub told: watch::Sender<Option<TrialShare>>,
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
        let mut pending = self.ledger.space.follow(keys::PENDING)?;
        let began = Instant::now();
        let mut watcher = Watcher::default();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut sampled, mut told, mut is_new) = (None, None, true);
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
                        self.told.send_replace(None);
                        is_new = false;
                    }
                    Found::End => return Ok(()),
                },
                at = looks.tick() => {
                    let now = now(at);
                    if sampled.is_none_or(|last| now >= last + SAMPLE_MS) {
                        watcher.sample((self.totals)());
                        sampled = Some(now);
                    }
                    if watcher.awaits().is_none() {
                        continue;
                    }
                    let totals = (self.totals)();
                    if told.is_none_or(|last| now >= last + TELL_MS) {
                        self.tell(&watcher, &totals);
                        told = Some(now);
                    }
                    self.look(&mut watcher, now, &totals).await;
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
        // Of before it is asked what was touched: the change may be served while that is read.
        let totals = (self.totals)();
        let mut found = self.ledger.touched(&pending).await;
        for _ in 1..ATTEMPTS {
            if found.is_ok() {
                break;
            }
            sleep(PAUSE).await;
            found = self.ledger.touched(&pending).await;
        }
        let touched = match found {
            Ok(touched) => touched,
            Err(error) => {
                tracing::warn!(
                    "what revision {} changed is not known, its failures are not looked at: {error}",
                    pending.revision
                );
                BTreeMap::new()
            }
        };
        watcher.see(now, pending, &touched, left, totals);
    }

    fn tell(&self, watcher: &Watcher, totals: &Totals) {
        let share = watcher.share(totals);
        self.told.send_if_modified(|told| {
            let changed = *told != share;
            *told = share;
            changed
        });
    }

    async fn look(&self, watcher: &mut Watcher, now: u64, totals: &Totals) {
        let Some(pending) = watcher.awaits().cloned() else {
            return;
        };
        let nodes = self.nodes.borrow().clone();
        let others = nodes.iter().filter(|(name, _)| name.as_str() != self.name);
        let others = others.filter_map(|(_, record)| record.trial.as_ref());
        let Some(why) = watcher.judge(now, totals, others) else {
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

impl Ledger {
    /// The routes that a change touched, by load balancer.
    async fn touched(&self, pending: &Pending) -> Result<BTreeMap<Name, Touch>, DesiredError> {
        let changed = self.record(pending.revision).await?.changed;
        if changed.len() > MOST_LOOKED_AT {
            return Ok(changed.into_keys().map(|name| (name, Touch::All)).collect());
        }
        let before = self.digests_at(pending.back_to).await?;
        let mut meanings = Vec::new();
        for (name, after) in changed {
            let before = match before.get(&name) {
                Some(digest) => Some(self.meaning(&name, *digest).await),
                None => None,
            };
            let after = match after {
                Some(digest) => Some(self.meaning(&name, digest).await),
                None => None,
            };
            meanings.push((name, before, after));
        }
        let compared = tokio::task::spawn_blocking(move || {
            let each = meanings.into_iter().map(|(name, before, after)| {
                let touch = match (before, after) {
                    // This version cannot read it, or it could not be had.
                    (Some(None), _) | (_, Some(None)) => Touch::All,
                    (before, after) => touched(before.flatten().as_deref(), after.flatten().as_deref()),
                };
                (name, touch)
            });
            each.collect()
        });
        compared
            .await
            .map_err(|error| DesiredError::Damaged(format!("a fault of Evenkeel: {error}")))
    }

    async fn meaning(&self, name: &Name, digest: Digest) -> Option<Arc<LoadBalancer>> {
        self.one(name, digest).await.ok()?.meaning.ok()
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
            Some(Followed::Listed(listing) | Followed::Another(listing)) => {
                listing.entries.into_iter().find(|entry| entry.key == key)
            }
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
