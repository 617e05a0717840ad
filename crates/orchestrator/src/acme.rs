//! Certificates from an authority that speaks ACME (RFC 8555): ordered, kept, renewed.
//!
//! [`run`] is one task. It asks [`reconcile::renewal::Renewal`] when each certificate is due, makes one order at a
//! time (authorities limit us more than we could them), publishes the answers to the challenges for as long as the
//! order runs, and replaces the file of the certificate in one step; whoever serves it watches that file. Accounts
//! and certificates live in one directory, readable by its owner alone:
//!
//! - `accounts/HASH.json`: the account with its key, one for each directory and contact;
//! - `certificates/NAME.pem`: private key and chain.
//!
//! What it refuses: ordering in a loop when something is wrong (failures wait, longer each time), and touching a
//! certificate in use before its successor is complete.

mod files;
mod order;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::acme::{Challenges, Managed};
use reconcile::renewal::{Ordered, Renewal, Validity};
use tokio::sync::{mpsc, watch};

/// Longest an order may take, its challenges included. Others wait for it.
const ORDER_DEADLINE: Duration = Duration::from_secs(120);
/// Longest sleep, so that a wall clock that was set is noticed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Puts the answers to challenges in force before it returns; the empty set withdraws them.
pub type Publish = Arc<dyn Fn(Challenges) + Send + Sync>;

/// What became of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcmeEvent {
    /// There is a new certificate.
    Issued {
        /// Name of the managed certificate.
        name: String,
        /// Its names.
        domains: Vec<String>,
        /// Seconds since the Unix epoch.
        not_after_s: u64,
    },
    /// There is none; the old one, if there is, stays in use.
    Failed {
        /// Name of the managed certificate.
        name: String,
        /// What went wrong, as the authority or the network said it.
        why: String,
        /// When it is tried again: seconds since the Unix epoch.
        next_s: u64,
    },
}

/// Keeps all `wanted` certificates fresh below `directory` until either channel closes.
///
/// A certificate that is no longer wanted keeps its file: wanting it again costs no order.
pub async fn run(
    directory: PathBuf,
    mut wanted: watch::Receiver<Vec<Managed>>,
    publish: Publish,
    events: mpsc::Sender<AcmeEvent>,
) {
    let mut renewals: BTreeMap<Managed, Renewal> = BTreeMap::new();
    loop {
        let list = wanted.borrow_and_update().clone();
        renewals.retain(|managed, _| list.contains(managed));
        for managed in list {
            let validity = files::validity(&directory, &managed);
            renewals
                .entry(managed)
                .or_insert_with(|| Renewal::new(now_s(), validity, random()));
        }
        let next = renewals.iter_mut().min_by_key(|(_, renewal)| renewal.due_s());
        let due_s = next.as_ref().map(|(_, renewal)| renewal.due_s());
        if let Some((managed, renewal)) = next.filter(|(_, renewal)| renewal.due_s() <= now_s()) {
            let event = renew(&directory, managed, renewal, &publish).await;
            if events.send(event).await.is_err() {
                return;
            }
            continue;
        }
        let wait = due_s.map_or(LONGEST_SLEEP, |due| {
            Duration::from_secs(due.saturating_sub(now_s()))
        });
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = events.closed() => return,
            () = tokio::time::sleep(wait.min(LONGEST_SLEEP)) => {}
        }
    }
}

/// Makes one order and notes how it ended.
async fn renew(directory: &Path, managed: &Managed, renewal: &mut Renewal, publish: &Publish) -> AcmeEvent {
    let ordered = tokio::time::timeout(ORDER_DEADLINE, order::order(directory, managed, publish)).await;
    publish(Challenges::default());
    let issued = match ordered {
        Ok(Ok(issued)) => files::store_certificate(directory, managed, &issued.pem).map(|()| issued.validity),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!(
            "the order was not done within {} s",
            ORDER_DEADLINE.as_secs()
        )),
    };
    let outcome = match &issued {
        Ok(validity) => Ordered::Issued(*validity),
        Err(_) => Ordered::Failed { wait_s: None },
    };
    renewal.handle(now_s(), outcome, random());
    let name = managed.name.clone();
    match issued {
        Ok(Validity { not_after_s, .. }) => AcmeEvent::Issued {
            name,
            domains: managed.domains.clone(),
            not_after_s,
        },
        Err(why) => AcmeEvent::Failed {
            name,
            why,
            next_s: renewal.due_s(),
        },
    }
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn random() -> u64 {
    RandomState::new().hash_one(())
}
