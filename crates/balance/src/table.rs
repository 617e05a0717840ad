//! A table of bounded size from keys to small values, for many threads: what the rate limits and the learned
//! sessions are kept in.
//!
//! A key may stand in one of [`WAYS`] places. Where all are taken, the value that its user misses least gives way:
//! so the table never grows beyond its size, never searches further than eight neighbours and never sweeps. Memory
//! comes in pieces as keys come. Each piece has its own lock, held for the time of one look; threads meet on one
//! only by chance.

use std::sync::{Mutex, PoisonError};

use crate::hash::mix;
use crate::rng::scale;

/// Places that a key may stand in.
const WAYS: usize = 8;
/// Places in a piece.
const PIECE_SLOTS: usize = 8 * WAYS;

/// The table. `V::default()` is what a free place holds.
#[derive(Debug)]
pub(crate) struct Table<V> {
    pieces: Box<[Mutex<Piece<V>>]>,
    sets: u64,
    seed: u64,
}

/// Empty until the first of its keys comes.
type Piece<V> = Box<[Slot<V>]>;

/// A place; key 0 is free.
#[derive(Debug, Clone, Copy, Default)]
struct Slot<V> {
    key: u64,
    value: V,
}

/// What stood in the place that a key was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The key itself.
    Same,
    /// Nothing.
    Free,
    /// Another key, which gives way.
    Other,
}

impl<V: Copy + Default> Table<V> {
    /// A table for `size` keys, up to seven more. `seed` decides where keys stand: who does not know it cannot
    /// choose keys that crowd out others.
    pub(crate) fn new(size: usize, seed: u64) -> Self {
        let sets = size.div_ceil(WAYS).max(1);
        let pieces = sets.div_ceil(PIECE_SLOTS / WAYS);
        Self {
            pieces: (0..pieces).map(|_| Mutex::default()).collect(),
            sets: sets as u64,
            seed,
        }
    }

    /// Uses the place of `key`: the one it has, else a free one, else that of the key with the least `rank`.
    /// `use_it` gets the value there, which is another key's where it says so, and leaves that of this key.
    pub(crate) fn enter<R>(
        &self,
        key: u64,
        rank: impl Fn(&V) -> u64,
        use_it: impl FnOnce(&mut V, Found) -> R,
    ) -> R {
        self.at(key, |key, set| {
            let place = set.iter().position(|slot| slot.key == key);
            let place = place.or_else(|| set.iter().position(|slot| slot.key == 0));
            let least = || (0..set.len()).min_by_key(|i| set.get(*i).map(|slot| rank(&slot.value)));
            let place = place.or_else(least).unwrap_or(0);
            // A set is never empty; if it were, the value would be forgotten at once.
            let mut spare = Slot::default();
            let slot = set.get_mut(place).unwrap_or(&mut spare);
            let found = match slot.key {
                0 => Found::Free,
                held if held == key => Found::Same,
                _ => Found::Other,
            };
            slot.key = key;
            use_it(&mut slot.value, found)
        })
    }

    /// Uses the value of `key` where it is in the table.
    pub(crate) fn find<R>(&self, key: u64, use_it: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.at(key, |key, set| {
            let slot = set.iter_mut().find(|slot| slot.key == key)?;
            Some(use_it(&mut slot.value))
        })
    }

    fn at<R>(&self, key: u64, look: impl FnOnce(u64, &mut [Slot<V>]) -> R) -> R {
        let key = mix(key, self.seed).max(1);
        let set = scale(key, self.sets) as usize;
        let Some(piece) = self.pieces.get(set / (PIECE_SLOTS / WAYS)) else {
            return look(key, &mut [Slot::default()]);
        };
        // A value is copied in and out as a whole: a panic elsewhere leaves none half-written.
        let mut slots = piece.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.is_empty() {
            *slots = vec![Slot::default(); PIECE_SLOTS].into();
        }
        let start = set % (PIECE_SLOTS / WAYS) * WAYS;
        match slots.get_mut(start..start + WAYS) {
            Some(set) => look(key, set),
            None => look(key, &mut [Slot::default()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(table: &Table<u64>, key: u64, value: u64) -> Found {
        table.enter(
            key,
            |v| *v,
            |v, found| {
                *v = value;
                found
            },
        )
    }

    #[test]
    fn what_is_put_in_is_found_again_until_it_gives_way() {
        let table = Table::new(1000, 7);
        assert_eq!(put(&table, 1, 10), Found::Free);
        assert_eq!(put(&table, 1, 11), Found::Same);
        assert_eq!(table.find(1, |v| *v), Some(11));
        assert_eq!(table.find(2, |v| *v), None);
    }

    /// A table with room for eight: the ninth key takes the place of the least.
    #[test]
    fn the_least_gives_way() {
        let table = Table::new(8, 7);
        for key in 1..=8 {
            assert_eq!(put(&table, key, 100 + key), Found::Free);
        }
        assert_eq!(put(&table, 9, 200), Found::Other);
        assert_eq!(table.find(1, |v| *v), None);
        assert_eq!(table.find(2, |v| *v), Some(102));
        assert_eq!(table.find(9, |v| *v), Some(200));
    }

    /// Half as many keys as there is room for: hardly any is lost to its neighbours.
    #[test]
    fn half_full_it_loses_almost_nothing() {
        let table = Table::new(100_000, 7);
        for key in 0..50_000 {
            put(&table, key, key + 1);
        }
        let kept = (0..50_000)
            .filter(|key| table.find(*key, |_| ()).is_some())
            .count();
        assert!(kept > 49_000, "{kept}");
    }

    /// Millions of keys: as many are kept as there is room for, and memory stays what it was.
    #[test]
    fn it_never_grows_beyond_its_size() {
        let table = Table::new(10_000, 7);
        for key in 0..1_000_000u64 {
            put(&table, key, key);
        }
        let kept = (0..1_000_000)
            .filter(|key| table.find(*key, |_| ()).is_some())
            .count();
        assert!((9_900..=10_000).contains(&kept), "{kept}");
        let slots: usize = table.pieces.iter().map(|p| p.lock().unwrap().len()).sum();
        assert!(slots <= 10_000 + PIECE_SLOTS, "{slots}");
    }
}
