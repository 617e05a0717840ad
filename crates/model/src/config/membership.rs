//! Members of a pool beside those that are declared, and who says that they live.

use std::path::PathBuf;

use crate::state::Source;

/// Where a pool's further members come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// They are looked up.
    pub discovery: Option<Discovery>,
}

impl Membership {
    /// Whether the pool may have members that are not declared.
    pub fn is_dynamic(&self) -> bool {
        self.discovery.is_some()
    }

    /// Whether this source is asked for members.
    pub fn asks(&self, source: Source) -> bool {
        match source {
            Source::Declared => true,
            Source::File => matches!(self.discovery, Some(Discovery::File(_))),
            Source::Registered | Source::Dns => false,
        }
    }
}

/// Where members are looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Discovery {
    /// In a file, one member a line or as JSON.
    File(PathBuf),
}
