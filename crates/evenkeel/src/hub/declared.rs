//! What is declared: the node's own file and what the store has, and the one config that they are together.

use std::sync::Arc;

use cluster::Desired;
use model::config::{Config, Name};
use model::merge::{Before, merge_after};

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
        Self::after(file, stored, None)
    }

    /// The same, which shares what it can with what was declared before.
    ///
    /// # Errors
    /// Everything that does not go together.
    pub(crate) fn after(
        file: Arc<Config>,
        stored: Arc<Desired>,
        before: Option<&Self>,
    ) -> Result<Self, Vec<String>> {
        let before = before.map(|before| Before {
            file: &before.file,
            stored: &before.stored.load_balancers,
            whole: &before.config,
        });
        let merged = merge_after(&file, &stored.load_balancers, before)?;
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
