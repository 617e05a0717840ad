//! What of the store nothing needs any more.
//!
//! At least the last [`KEEP`] revisions stay, in whole blocks. Objects go when no record that stays refers to them,
//! be it that their revisions went or that they were put by somebody who never came to refer to them. Who collects
//! does so in transactions that compare the head and change [`keys::GARBAGE`]: an object
//! that was put to be referred to can vanish before that, and then its writer's transaction does not hold; once it
//! is referred to, the head is another, and it is the collector's that does not.

use std::collections::BTreeSet;
use std::ops::Range;

use super::records::{BLOCK, Digest, LogRecord, keys};

/// Revisions that are kept at least.
pub const KEEP: u64 = 1000;

/// The first block that is kept, when `head` is the revision in force.
pub fn first_kept_block(head: u64) -> u64 {
    keys::block_of(head).saturating_sub(KEEP.div_ceil(BLOCK))
}

/// The oldest revision that is kept.
pub fn oldest_kept(head: u64) -> u64 {
    (first_kept_block(head) * BLOCK + 1).min(head)
}

/// The revisions of a block.
pub fn revisions_of(block: u64) -> Range<u64> {
    block * BLOCK + 1..(block + 1) * BLOCK + 1
}

/// The objects that records refer to.
pub fn referred_to<'r>(records: impl IntoIterator<Item = &'r LogRecord>) -> BTreeSet<Digest> {
    let mut found = BTreeSet::new();
    for record in records {
        found.extend(record.changed.values().flatten());
        found.extend(record.all.iter().flat_map(|all| all.values()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_thousand_stay_in_whole_blocks() {
        assert_eq!((first_kept_block(0), oldest_kept(0)), (0, 0));
        assert_eq!((first_kept_block(1), oldest_kept(1)), (0, 1));
        assert_eq!(first_kept_block(16 * BLOCK + 1), 0);
        assert_eq!(first_kept_block(17 * BLOCK + 1), 1);
        for head in 1..5000 {
            let oldest = oldest_kept(head);
            assert!(head - oldest + 1 >= KEEP.min(head), "{head}");
            assert!(head - oldest < KEEP + 2 * BLOCK, "{head}");
            assert_eq!(keys::block_of(oldest), first_kept_block(head));
            assert!(revisions_of(first_kept_block(head)).contains(&oldest));
        }
    }
}
