//! The part of a store that is one cluster's: all its keys begin with the same prefix.

use std::sync::Arc;
use std::time::Duration;

use reconcile::desired::poll::RETURN_SPREAD;
use store::notify::{Notifier, NotifierStatus};
use store::{Entry, Follow, Store, StoreError};

use crate::identity::IDENTITY;

/// A store, and the prefix of all keys in it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Space {
    store: Store,
    prefix: Arc<str>,
    notifier: Option<Notifier>,
    /// See [`Space::one_of_many`].
    return_within: Duration,
}

impl Space {
    /// `prefix` begins every key, as it stands: `/evenkeel/`.
    #[must_use]
    pub fn new(store: Store, prefix: &str) -> Self {
        Self {
            store,
            prefix: prefix.into(),
            notifier: None,
            return_within: Duration::ZERO,
        }
    }

    /// The same, for one of many nodes that do the same: who follows here and loses the store comes back at a moment of
    /// its own within [`RETURN_SPREAD`], so that they do not all ask at once.
    #[must_use]
    pub fn one_of_many(self) -> Self {
        Self {
            return_within: RETURN_SPREAD,
            ..self
        }
    }

    /// The same, whose changes are hinted at.
    #[must_use]
    pub fn telling(self, notifier: Notifier) -> Self {
        Self {
            notifier: Some(notifier),
            ..self
        }
    }

    /// Hints that the desired layer has a new revision, where there is somebody to tell. Waits for nothing.
    pub fn hint(&self, revision: u64) {
        if let Some(notifier) = &self.notifier {
            notifier.publish(revision);
        }
    }

    /// How the channel of hints is, where there is one.
    #[must_use]
    pub fn hints(&self) -> Option<NotifierStatus> {
        self.notifier.as_ref().map(Notifier::status)
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The whole key of a path below the prefix.
    #[must_use]
    pub fn key(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Follows all below a path, and notices when the store is another one than before.
    ///
    /// # Errors
    /// When the prefix is no key.
    pub fn follow(&self, path: &str) -> Result<Follow, StoreError> {
        self.store
            .follow_identified(&self.key(path), &self.key(IDENTITY), self.return_within)
    }

    /// The path of a key below the prefix; none of another cluster's key.
    #[must_use]
    pub fn path<'k>(&self, key: &'k str) -> Option<&'k str> {
        key.strip_prefix(&*self.prefix)
    }

    /// The path of an entry below the prefix.
    #[must_use]
    pub fn path_of<'e>(&self, entry: &'e Entry) -> Option<&'e str> {
        self.path(&entry.key)
    }
}
