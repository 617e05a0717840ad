//! What it means that the store says nothing about an order that is in force here.
//!
//! Ending an order leaves a record for [`Terms::lapsed`]. So whoever was away for less than that finds the order or
//! that record, and where it finds neither, the order was lost: the store was emptied, put back from a backup or
//! replaced, whatever else can be seen of it. Whoever was away for longer may have missed both, and takes silence for
//! an end. Not so where the store has visibly lost something itself: its revision went back, or it is another one that
//! is too young to have had such a record deleted.
//!
//! What this does not see through: an order whose key was deleted by hand, or ended while the store had no room for a
//! record, while a node was away, is taken by that node for lost.

use std::time::Duration;

use model::state::Timestamp;
use serde::{Deserialize, Serialize};

use super::collect::Terms;
use crate::identity;

/// For clocks that differ, and for a lost connection that is noticed late: whoever was away for so much less than the
/// records are kept finds them.
const MARGIN: Duration = Duration::from_secs(600);

/// Where, and until when, the orders were followed that a node has in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The identity of the store; none that had none, as far as is known.
    pub identity: Option<String>,
    /// A revision that it had reached.
    pub revision: u64,
    /// When it was heard last. 0 where that is not known: long ago.
    #[serde(default)]
    pub heard: Timestamp,
}

/// What a listing does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// It is of another store than before, or of one that went back: revisions of the two cannot be compared.
    pub another: bool,
    /// The orders that it does not name are lost, and stand; else they were ended.
    pub lost: bool,
}

impl Silence {
    /// Of a store that has not changed: what is absent was ended.
    pub const END: Self = Self {
        another: false,
        lost: false,
    };
    /// Of one that was emptied: all is lost.
    pub const LOSS: Self = Self {
        another: true,
        lost: true,
    };

    /// Of a listing at `now`, with the identity and the revision of the store that it is of, to a node that followed
    /// the orders until `before`.
    #[must_use]
    pub fn of(before: &Place, identity: Option<&str>, revision: u64, now: Timestamp) -> Self {
        let kept = Terms::default().lapsed;
        let is_short = now.since(before.heard) < kept.saturating_sub(MARGIN);
        let differs = before.identity.is_some() && before.identity.as_deref() != identity;
        let went_back = !differs && revision < before.revision;
        let is_young = identity.is_none_or(|identity| !identity::is_older(identity, kept, now));
        Self {
            another: differs || went_back,
            lost: is_short || went_back || differs && is_young,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a node comes back after a short or a long time, to the same store, with a greater revision or a smaller
    /// one, to another that is young or old, and to one without identity.
    #[test]
    fn silence_is_an_end_only_after_a_long_time() {
        const MINUTE: u64 = 60_000;
        let now = Timestamp(1_000_000 * MINUTE);
        let made = |minutes_ago: u64| format!("0123-{}", now.0 - minutes_ago * MINUTE);
        let (same, young, old) = (made(5_000), made(50), made(61));
        let (same, young, old) = (Some(&*same), Some(&*young), Some(&*old));
        let nothing = None;
        // Minutes away, the identity found, its revision; is it another one, is silence loss.
        for (away, found, revision, another, lost) in [
            (0, same, 100, false, true),
            (49, same, 100, false, true),
            // As after a backup that was put back with a raised revision.
            (49, same, 1_000_000, false, true),
            (49, same, 99, true, true),
            (49, young, 1_000, true, true),
            (49, old, 1_000, true, true),
            (49, nothing, 7, true, true),
            (50, same, 100, false, false),
            (50, same, 1_000_000, false, false),
            (600, same, 99, true, true),
            (600, young, 1_000, true, true),
            (600, old, 1_000, true, false),
            (600, old, 7, true, false),
            (600, Some("of before"), 7, true, true),
            (600, nothing, 7, true, true),
        ] {
            let before = Place {
                identity: same.map(str::to_owned),
                revision: 100,
                heard: Timestamp(now.0 - away * MINUTE),
            };
            assert_eq!(
                Silence::of(&before, found, revision, now),
                Silence { another, lost },
                "{found:?} at {revision} after {away} min"
            );
            let unknown = Place {
                identity: None,
                ..before
            };
            assert_eq!(
                Silence::of(&unknown, found, 100, now),
                Silence {
                    another: false,
                    lost: away < 50
                },
                "the same, seen before it had an identity"
            );
        }
        let first = Silence::of(&Place::default(), same, 100, now);
        assert_eq!(first, Silence::END, "nothing is known from before");
        let of_the_future = Place {
            heard: Timestamp(now.0 + MINUTE),
            ..Place::default()
        };
        assert!(
            Silence::of(&of_the_future, same, 100, now).lost,
            "a clock was set back"
        );
    }
}
