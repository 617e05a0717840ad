//! The part of a store that is one cluster's: all its keys begin with the same prefix.

use std::sync::Arc;

use store::{Entry, Store};

/// A store, and the prefix of all keys in it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Space {
    store: Store,
    prefix: Arc<str>,
}

impl Space {
    /// `prefix` begins every key, as it stands: `/evenkeel/`.
    #[must_use]
    pub fn new(store: Store, prefix: &str) -> Self {
        Self {
            store,
            prefix: prefix.into(),
        }
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
