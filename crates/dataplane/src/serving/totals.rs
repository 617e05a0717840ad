//! What all backends of a pool counted together, those that left it among them.
//!
//! A sum over the backends that are there would fall when one leaves, and to who reads it a counter that falls is one
//! that began anew: all that the others ever counted would count again. So a pool remembers the blocks of each cell of
//! a backend for as long as the cell is there, which is as long as a request or a connection holds it, in force or not;
//! then what it counted is folded into one block, for good. Each number is in exactly one of the two at any time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::counters::{BackendCounters, PerShard};

/// What the backends of one pool counted.
#[derive(Debug, Default)]
pub(crate) struct BackendTotals(Mutex<Parts>);

#[derive(Debug, Default)]
struct Parts {
    /// Of the cells that are there, by their serial numbers.
    present: BTreeMap<u64, PerShard<BackendCounters>>,
    /// Of those that are gone.
    departed: BackendCounters,
}

impl BackendTotals {
    /// A cell was made, which counts into these blocks.
    pub(super) fn enter(&self, serial: u64, blocks: &PerShard<BackendCounters>) {
        self.with(|parts| parts.present.insert(serial, blocks.shared()));
    }

    /// Nobody holds the cell any more, so nobody counts into its blocks.
    pub(super) fn leave(&self, serial: u64) {
        self.with(|parts| {
            let Some(blocks) = parts.present.remove(&serial) else {
                return;
            };
            blocks.all().for_each(|block| parts.departed.fold(block));
        });
    }

    /// The blocks of the cells that are there, and one of all that are gone, as of one moment.
    pub(crate) fn read(&self) -> (Vec<PerShard<BackendCounters>>, BackendCounters) {
        self.with(|parts| {
            let present = parts.present.values().map(PerShard::shared).collect();
            let departed = BackendCounters::default();
            departed.fold(&parts.departed);
            (present, departed)
        })
    }

    fn with<R>(&self, look: impl FnOnce(&mut Parts) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
