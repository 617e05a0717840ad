//! Keys of etcd that are no text: somebody else's, below our prefix. They are nothing to us, and must not end a watch or
//! a list in which they come along.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use super::messages::KeyValue;
use super::revision_of;
use crate::types::{Entry, LeaseId};

/// What was passed over, counted; the first is told in the log.
#[derive(Debug, Default)]
pub(super) struct Skipped(AtomicU64);

impl Skipped {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// A key as text; none that is not.
    pub(super) fn key_of(&self, bytes: &[u8]) -> Option<String> {
        let key = String::from_utf8(bytes.to_vec());
        if key.is_err() && self.0.fetch_add(1, Relaxed) == 0 {
            tracing::warn!(
                "etcd has a key that is no text, \"{}\": it is passed over, as all others are that are none \
                 (evenkeel_store_keys_skipped_total). Whoever wrote it should do so elsewhere, or delete it",
                bytes.escape_ascii()
            );
        }
        key.ok()
    }

    pub(super) fn entry_of(&self, kv: KeyValue) -> Option<Entry> {
        Some(Entry {
            key: self.key_of(&kv.key)?,
            // A copy: what came is part of the whole answer, which would stay in memory for it.
            value: Bytes::copy_from_slice(&kv.value),
            created: revision_of(kv.create_revision),
            changed: revision_of(kv.mod_revision),
            lease: (kv.lease != 0).then_some(LeaseId(kv.lease)),
        })
    }
}
