//! The part of a store that is one cluster's: all its keys begin with the same prefix.

use std::sync::Arc;

use store::notify::{Notifier, NotifierStatus};
use store::{Entry, Store};

/// A store, and the prefix of all keys in it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Space {
    store: Store,
    prefix: Arc<str>,
    notifier: Option<Notifier>,
}

impl Space {
    /// `prefix` begins every key, as it stands: `/evenkeel/`.
    #[must_use]
    pub fn new(store: Store, prefix: &str) -> Self {
        Self {
            store,
            prefix: prefix.into(),
            notifier: None,
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
