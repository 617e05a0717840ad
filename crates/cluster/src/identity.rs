//! The key that tells one store from another: `identity`, a random text and when it was made, written once by whoever
//! finds that it is missing.
//!
//! Revisions tell that a store has gone back, not that it was emptied, or replaced, and has been written to since until
//! it was further than before. Who was cut off meanwhile would go on from a revision of another store and know nothing
//! of what was written before that. So whoever follows something compares this key when it comes back
//! ([`Space::follow`]).
//!
//! What it cannot tell: a backup has the identity of what it is a backup of. Whoever restores one deletes this key, or
//! has the revision raised (`etcdutl snapshot restore --bump-revision N --mark-compacted`).

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::state::Timestamp;
use store::{Event, Revision, StoreError, Transaction};
use tokio::time::sleep;

use crate::Space;

/// Its path below the prefix.
pub(crate) const IDENTITY: &str = "identity";

/// Between two looks whether it is there.
const EVERY: Duration = Duration::from_secs(30);
/// Before the next attempt after one that failed.
const AGAIN: Duration = Duration::from_secs(2);

/// Sees to it that the store has an identity, until the runtime ends.
pub async fn keep(space: Space) {
    loop {
        let pause = match ensure(&space).await {
            Ok(()) => EVERY,
            Err(error) => {
                tracing::debug!("the store's identity could not be read or written: {error}");
                AGAIN
            }
        };
        // Up to twice as long: not all nodes at the same time.
        sleep(pause.mul_f64(1.0 + share())).await;
    }
}

/// Any share of a time, another one for each caller: 0 to 1.
pub(crate) fn share() -> f64 {
    (RandomState::new().hash_one(0) % 1000) as f64 / 1000.0
}

/// The identity of the store, and the revision that made it; none of one that has not got it yet.
pub(crate) async fn of(space: &Space) -> Result<Option<(Revision, String)>, StoreError> {
    let entry = space.store().get(&space.key(IDENTITY)).await?;
    Ok(entry.map(|entry| (entry.created, String::from_utf8_lossy(&entry.value).into_owned())))
}

/// Whether a store has had this identity for so long. Unknown of one that does not say since when: then it has not.
pub(crate) fn is_older(identity: &str, than: Duration, now: Timestamp) -> bool {
    let made = identity.split_once('-').and_then(|(_, made)| made.parse().ok());
    made.is_some_and(|made| now.since(Timestamp(made)) >= than)
}

/// Which of these revisions, each of which deleted something, took the identity along, as nobody does who works as
/// agreed: the store was emptied. One read says it of all, unless the identity is younger than the first of them.
pub(crate) async fn went_with(
    space: &Space,
    revisions: &BTreeSet<Revision>,
) -> Result<BTreeSet<Revision>, StoreError> {
    let mut went = BTreeSet::new();
    let made = of(space).await?.map(|(made, _)| made);
    for at in revisions {
        if made.is_none_or(|made| made >= *at) && went_in(space, *at).await? {
            went.insert(*at);
        }
    }
    Ok(went)
}

async fn went_in(space: &Space, at: Revision) -> Result<bool, StoreError> {
    // So that there is something to be seen after that revision, whatever happened in it.
    ensure(space).await?;
    let mut watch = space.store().watch(&space.key(IDENTITY), at).await?;
    let first = watch.next().await?;
    let deleted = |event: &Event| matches!(event, Event::Deleted { .. });
    Ok(first.revision == at && first.events.iter().any(deleted))
}

async fn ensure(space: &Space) -> Result<(), StoreError> {
    let key = space.key(IDENTITY);
    if space.store().get(&key).await?.is_none() {
        let random = RandomState::new();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (one, other) = (random.hash_one(1), random.hash_one(2));
        let text = format!("{one:016x}{other:016x}-{}", since.as_millis());
        // Whoever was faster has written it.
        space
            .store()
            .commit(Transaction::new().absent(&key).put(&key, text))
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_says_since_when() {
        let hour = Duration::from_secs(3600);
        assert!(is_older("0123-1000", hour, Timestamp(3_601_000)));
        assert!(!is_older("0123-1000", hour, Timestamp(3_600_999)));
        assert!(
            !is_older("0123-1000", hour, Timestamp(5)),
            "a clock that is behind"
        );
        assert!(!is_older("of before", hour, Timestamp(u64::MAX)));
    }
}
