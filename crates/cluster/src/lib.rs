//! The life of a node on the store: what is declared, ordered and found by others, and its own part in that.
//!
//! The store knows nothing of what its values mean, and the pure rooms know no store; this room stands between them.
//! What it learns goes to the hub of the process as values of `model`, over channels; nothing that serves requests
//! ever waits for it. It decides nothing that `reconcile` could decide.
//!
//! What it refuses: to be needed. Without the store a node serves what it last knew, also after a restart.

#![forbid(unsafe_code)]

pub mod checks;
pub mod desired;
mod disk;
pub mod identity;
pub mod member;
pub mod members;
pub mod nodes;
mod open;
pub mod orders;
mod space;
mod sync;
pub mod upkeep;

pub use open::{OpenError, notifying, open};
pub use space::Space;
pub use store::notify::NotifierStatus;
pub use store::{Store, StoreError};
pub use sync::{DELAY_BOUNDS, Delays, Desired, Last, Offer, Refused, Standing, Sync};
