//! What of the store nothing needs any more.
//!
//! Of the history stays what is within two bounds: the last [`KEEP`] revisions, in whole blocks, and of these so many
//! that what they need besides what is in force has [`KEEP_BYTES`]. The first follows from the head alone. Where the
//! second cuts, which may be within a block, is written under [`keys::OLDEST`] before anything goes, so that everybody
//! says the same of what is kept. Records go by whole blocks, for a state is counted from the first of its block;
//! objects go when no revision that is kept needs them, be it that theirs went or that they were put by somebody who
//! never came to refer to them.
//!
//! Who collects does so in transactions that compare the head and change [`keys::GARBAGE`]: an object
//! that was put to be referred to can vanish before that, and then its writer's transaction does not hold; once it
//! is referred to, the head is another, and it is the collector's that does not.

use std::collections::{BTreeMap, BTreeSet};

use super::records::{BLOCK, BrokenLog, Digest, LogRecord, State, keys};

/// Revisions that are kept, and up to two blocks more, where [`KEEP_BYTES`] has room for them.
pub const KEEP: u64 = 1000;
/// Bytes of what older revisions need: their objects, as far as they are not in force, and their records.
pub const KEEP_BYTES: u64 = 64 * 1024 * 1024;

/// The first block of which something is kept, when `head` is the revision in force and `cut` the one under
/// [`keys::OLDEST`]; 0 where there is none.
pub fn first_kept_block(head: u64, cut: u64) -> u64 {
    keys::block_of(oldest_kept(head, cut))
}

/// The oldest revision that is kept.
pub fn oldest_kept(head: u64, cut: u64) -> u64 {
    let block = keys::block_of(head).saturating_sub(KEEP.div_ceil(BLOCK));
    (block * BLOCK + 1).max(cut).min(head)
}

/// How much of the history is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Bytes of what older revisions need, as with [`KEEP_BYTES`].
    pub bytes: u64,
    /// The revisions from this one on stay whatever they need.
    pub spared: u64,
}

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The oldest revision; 0 where there is none.
    pub oldest: u64,
    /// The objects of all of them.
    pub needed: BTreeSet<Digest>,
}

/// What is kept of the revisions from `oldest` on. `records`: those of its block and of all later ones, in their order,
/// each with its size; `sizes`: of the objects that are there.
///
/// # Errors
/// When the records do not tell the states. Nothing may be collected then.
pub fn kept(
    records: &[(LogRecord, u64)],
    sizes: &BTreeMap<Digest, u64>,
    oldest: u64,
    wanted: Wanted,
) -> Result<Kept, BrokenLog> {
    let Some(((first, _), rest)) = records.split_first() else {
        return Ok(Kept::default());
    };
    let mut state = State::of_block(std::slice::from_ref(first), first.revision)?;
    let mut steps = Vec::with_capacity(rest.len());
    for (record, bytes) in rest {
        let before = &state.objects;
        let replaced: Vec<Digest> = match &record.all {
            Some(_) => before.values().copied().collect(),
            None => record
                .changed
                .keys()
                .filter_map(|name| before.get(name).copied())
                .collect(),
        };
        state.step(record)?;
        steps.push((record.parent, replaced, *bytes));
    }
    let mut kept = Kept {
        oldest: state.revision,
        needed: state.objects.values().copied().collect(),
    };
    // Back from what is in force: each revision needs what was replaced after it.
    let mut spent = 0_u64;
    for (revision, replaced, of_record) in steps.into_iter().rev() {
        let more: BTreeSet<Digest> = replaced.into_iter().collect();
        let objects = more
            .difference(&kept.needed)
            .filter_map(|digest| sizes.get(digest));
        spent = spent.saturating_add(of_record + objects.sum::<u64>());
        if revision < oldest || revision < wanted.spared && spent > wanted.bytes {
            break;
        }
        kept.needed.extend(more);
        kept.oldest = revision;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use model::config::Name;
    use model::state::Timestamp;

    #[test]
    fn the_last_thousand_stay_in_whole_blocks() {
        let first = |head| first_kept_block(head, 0);
        let oldest = |head| oldest_kept(head, 0);
        assert_eq!((first(0), oldest(0)), (0, 0));
        assert_eq!((first(1), oldest(1)), (0, 1));
        assert_eq!(first(16 * BLOCK + 1), 0);
        assert_eq!(first(17 * BLOCK + 1), 1);
        for head in 1..5000 {
            let oldest = oldest(head);
            assert!(head - oldest + 1 >= KEEP.min(head), "{head}");
            assert!(head - oldest < KEEP + 2 * BLOCK, "{head}");
            assert_eq!(keys::block_of(oldest), first(head));
        }
        assert_eq!((first_kept_block(200, 100), oldest_kept(200, 100)), (1, 100));
        assert_eq!(oldest_kept(2000, 100), oldest(2000));
    }

    fn digest(content: u64) -> Digest {
        Digest::of(&content.to_string())
    }

    /// A log of changes of two load balancers by turns, each to a content of its own, from `first` on; records of 10 bytes.
    fn log(first: u64, last: u64) -> Vec<(LogRecord, u64)> {
        let mut state = State::default();
        let mut records = Vec::new();
        for revision in 1..=last {
            let name = Name::parse(["shop", "blog"][usize::try_from(revision % 2).unwrap()]).unwrap();
            let mut record = LogRecord {
                revision,
                parent: revision - 1,
                author: String::new(),
                at: Timestamp(0),
                what: String::new(),
                message: String::new(),
                token: String::new(),
                changed: BTreeMap::from([(name, Some(digest(revision)))]),
                all: None,
            };
            state.step(&record).unwrap();
            record.all = keys::begins_block(revision).then(|| state.objects.clone());
            records.push((record, 10));
        }
        records.retain(|(record, _)| record.revision >= first);
        records
    }

    fn sizes() -> BTreeMap<Digest, u64> {
        (1..=1000).map(|content| (digest(content), 90)).collect()
    }

    /// Scenario: each older revision needs one object of 90 bytes and a record of 10. So many are kept as have room, also
    /// when that is within a block; those that are spared whatever they need, and what was cut already never again.
    #[test]
    fn older_revisions_stay_as_far_as_there_is_room() {
        let keep = |oldest, bytes, spared| {
            let records = log(keys::block_of(oldest) * BLOCK + 1, 200);
            let kept = kept(&records, &sizes(), oldest, Wanted { bytes, spared }).unwrap();
            // Two are in force at each: its own change, and the one before.
            let needed: BTreeSet<Digest> = (kept.oldest.max(2) - 1..=200).map(digest).collect();
            assert_eq!(kept.needed, needed);
            kept.oldest
        };
        assert_eq!(keep(1, 100_000, 200), 1);
        assert_eq!(keep(1, 0, 200), 200);
        assert_eq!(keep(1, 1000, 200), 190);
        assert_eq!(keep(1, 1099, 200), 190);
        assert_eq!(keep(1, 10_000, 200), 100);
        assert_eq!(keep(1, 0, 150), 150);
        assert_eq!(keep(1, 5500, 150), 145);
        assert_eq!(keep(140, 100_000, 200), 140);
        assert_eq!(keep(140, 100_000, 100), 140);
    }

    /// Scenario: the log does not begin with a whole state, or has a hole, or there is none.
    #[test]
    fn what_the_log_does_not_tell_is_not_guessed() {
        let wanted = Wanted { bytes: 0, spared: 0 };
        let whole = log(1, 100);
        assert!(kept(&whole[1..], &sizes(), 1, wanted).is_err());
        let mut hole = whole.clone();
        hole.remove(50);
        assert!(kept(&hole, &sizes(), 1, wanted).is_err());
        assert_eq!(kept(&[], &sizes(), 0, wanted), Ok(Kept::default()));
    }
}
