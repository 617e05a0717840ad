//! What is declared: the node's own file and what the store has, and the one config that they are together.

use std::sync::Arc;

use cluster::Desired;
use model::config::{Config, Name};
use model::merge::merge;

/// Both parts and the whole, which go together.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    /// The node's own file, or its flags.
    pub(crate) file: Arc<Config>,
    /// What the store has.
    pub(crate) stored: Arc<Desired>,
    /// The whole.
    pub(crate) config: Arc<Config>,
    /// Of the store, what the file has too; the file's is served.
    pub(crate) shadowed: Vec<Name>,
}

impl Declared {
    /// # Errors
    /// Everything that does not go together.
    pub(crate) fn new(file: Arc<Config>, stored: Arc<Desired>) -> Result<Self, Vec<String>> {
        let merged = merge(&file, &stored.load_balancers)?;
        Ok(Self {
            file,
            stored,
            config: Arc::new(merged.config),
            shadowed: merged.shadowed,
        })
    }
}

/// A file alone.
#[cfg(test)]
impl From<Arc<Config>> for Declared {
    fn from(file: Arc<Config>) -> Self {
        Self {
            config: file.clone(),
            file,
            stored: Arc::default(),
            shadowed: Vec::new(),
        }
    }
}
