//! Calls of the mind, as calls to the store.

use reconcile::cluster::member::{Answer, Call};
use reconcile::cluster::records::{Condition, Key, LeaseId, Transaction, Write};
use store::{Committed, ErrorKind, Revision, StoreError};

use super::feed::read;
use crate::Space;

/// Asks the store, and says what came of it; a failure is [`Answer::Failed`], whether or not it happened.
pub(super) async fn carry_out(space: &Space, call: Call, lease_ms: u64) -> Answer {
    let answer = match call {
        Call::Grant => grant(space, lease_ms).await,
        Call::KeepAlive(lease) => keep_alive(space, lease).await,
        Call::Read(keys) => read_all(space, &keys).await,
        Call::Commit(transaction) => commit(space, &transaction).await,
    };
    answer.unwrap_or_else(|error| {
        tracing::debug!("a call of this orchestrator to the store failed: {error}");
        Answer::Failed
    })
}

async fn grant(space: &Space, lease_ms: u64) -> Result<Answer, StoreError> {
    let seconds = u32::try_from(lease_ms.div_ceil(1000)).unwrap_or(u32::MAX);
    let granted = space.store().grant(seconds).await?;
    Ok(Answer::Granted(LeaseId(granted.lease.0)))
}

async fn keep_alive(space: &Space, lease: LeaseId) -> Result<Answer, StoreError> {
    match space.store().keep_alive(store::LeaseId(lease.0)).await {
        Ok(_) => Ok(Answer::Alive),
        Err(error) if error.kind() == ErrorKind::LeaseGone => Ok(Answer::Gone),
        Err(error) => Err(error),
    }
}

/// One after the other: each later write compares what was read, so that it need not be of one moment.
async fn read_all(space: &Space, keys: &[Key]) -> Result<Answer, StoreError> {
    let mut entries = Vec::with_capacity(keys.len());
    for key in keys {
        let entry = space.store().get(&space.key(&key.path())).await?;
        entries.push(entry.map(|entry| (entry.changed.0, read(key, &entry))));
    }
    Ok(Answer::Read(entries))
}

async fn commit(space: &Space, transaction: &Transaction) -> Result<Answer, StoreError> {
    let mut wanted = store::Transaction::new();
    for condition in &transaction.conditions {
        wanted = match condition {
            Condition::Absent(key) => wanted.absent(space.key(&key.path())),
            Condition::Unchanged(key, revision) => {
                wanted.unchanged(space.key(&key.path()), Revision(*revision))
            }
        };
    }
    for write in &transaction.writes {
        wanted = match write {
            Write::Put { key, value, lease } => {
                let path = space.key(&key.path());
                let Ok(json) = serde_json::to_vec(value) else {
                    return Ok(Answer::Failed);
                };
                match lease {
                    Some(lease) => wanted.put_leased(path, json, store::LeaseId(lease.0)),
                    None => wanted.put(path, json),
                }
            }
            Write::Delete(key) => wanted.delete(space.key(&key.path())),
        };
    }
    match space.store().commit(wanted).await {
        Ok(Committed::Done(revision)) => Ok(Answer::Committed(revision.0)),
        Ok(Committed::Conflict) => Ok(Answer::Conflict),
        // It surely did not happen, and never will.
        Err(error) if error.kind() == ErrorKind::LeaseGone => Ok(Answer::Conflict),
        Err(error) => Err(error),
    }
}
