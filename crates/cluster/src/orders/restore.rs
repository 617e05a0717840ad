//! Orders that a store has lost are written to it again, by whoever still has them in force.
//!
//! Every node of a cluster has the same ones, and notices at about the same time. So each waits for a moment of its
//! own ([`pause`]), looks what stands by then, and writes what is absent, under the condition that it still is: the
//! first one writes, and what was ordered in the new store counts.

use std::collections::BTreeSet;
use std::time::Duration;

use store::{Committed, StoreError, Transaction};
use tokio::time::sleep;

use super::{InForce, OrderKey, now};
use crate::{Space, identity};

/// The longest wait of a node.
const SPREAD: Duration = Duration::from_secs(2);
/// Pause before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// What became of them.
#[derive(Debug, Default)]
pub struct Restored {
    /// About these the store says something.
    pub there: Vec<OrderKey>,
    /// So many of these were written here.
    pub written: usize,
    /// Why it is not all.
    pub trouble: Option<StoreError>,
}

/// Waits for a moment of this node's own: after it, what is lacking still is to be written. `failed`: it was tried
/// before.
pub async fn pause(failed: bool) {
    let least = if failed { AGAIN } else { Duration::ZERO };
    sleep(least + SPREAD.mul_f64(identity::share())).await;
}

/// Writes orders that the store lacks at this moment.
pub async fn restore(space: &Space, orders: Vec<(OrderKey, InForce)>) -> Restored {
    let mut restored = Restored::default();
    if let Err(error) = write(space, orders, &mut restored).await {
        restored.trouble = Some(error);
    }
    restored
}

async fn write(
    space: &Space,
    orders: Vec<(OrderKey, InForce)>,
    restored: &mut Restored,
) -> Result<(), StoreError> {
    let listing = space.store().list(&space.key("orders/")).await?;
    let there: BTreeSet<&str> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
    for (key, order) in orders {
        let whole = space.key(&key.path());
        if !there.contains(whole.as_str()) && !order.is_over(now()) {
            let transaction = Transaction::new().absent(&whole).put(&whole, order.json());
            if space.store().commit(transaction).await? != Committed::Conflict {
                restored.written += 1;
            }
        }
        restored.there.push(key);
    }
    Ok(())
}
