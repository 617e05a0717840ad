//! Turns of those who send whole configs: a body is taken in, and looked at, only in one, because both take memory and
//! processor by the whole config.
//!
//! Who may change the store has turns of his own: a viewer who sends his text slowly must not keep an administrator
//! from changing anything.

use model::config::AdminRole;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::limits::MAX_CONFIGS_AT_ONCE;

/// A turn; over when it is dropped.
pub(crate) type Turn = Option<SemaphorePermit<'static>>;

static OF_ADMINS: Semaphore = Semaphore::const_new(MAX_CONFIGS_AT_ONCE);
static OF_OTHERS: Semaphore = Semaphore::const_new(MAX_CONFIGS_AT_ONCE);

/// Waits for a turn of somebody with this role.
pub(crate) async fn turn(role: AdminRole) -> Turn {
    let turns = match role {
        AdminRole::Admin => &OF_ADMINS,
        _ => &OF_OTHERS,
    };
    // Nobody ever closes them.
    turns.acquire().await.ok()
}
