//! Buffers that tasks borrow while they have bytes in hand and give back before they wait.
//!
//! A connection that waits holds none, so memory follows the work in progress, not the number of connections.

use std::cell::RefCell;

/// Size of a buffer: holds almost every header whole, and a body piece worth a system call.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;

/// Buffers kept for reuse; beyond that they go back to the allocator.
const MAX_KEPT: usize = 256;

/// The spare buffers of a shard.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    spare: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty buffer of [`BUFFER_BYTES`].
    pub(crate) fn take(&self) -> Vec<u8> {
        self.spare
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back. One that grew (an unusual header) is dropped instead.
    pub(crate) fn give(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if buffer.capacity() == BUFFER_BYTES && spare.len() < MAX_KEPT {
            buffer.clear();
            spare.push(buffer);
        }
    }
}
