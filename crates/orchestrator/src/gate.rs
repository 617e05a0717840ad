//! Which checks may be made right now, by somebody else's leave.
//!
//! An orchestrator that shares its work with others checks only what it was given, and only while its lease stands.
//! Both may end at any moment, so the question is asked right before each probe, and the probes under way are ended
//! when the leave is taken back. A probe starts under the same lock under which they are ended: none can slip
//! through in between.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::{AbortHandle, Id};

use crate::schedule::CheckId;

/// Says which checks may be made, and knows those under way.
pub struct Gate {
    may: Box<dyn Fn(SocketAddr) -> bool + Send + Sync>,
    under_way: Mutex<Vec<Probe>>,
}

/// A probe under way.
pub(crate) struct Probe {
    pub(crate) check: CheckId,
    pub(crate) address: SocketAddr,
    pub(crate) handle: AbortHandle,
}

impl Gate {
    /// `may` is asked right before each check of an address; it must be quick and never block.
    pub fn new(may: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            may: Box::new(may),
            under_way: Mutex::default(),
        })
    }

    /// One that lets everything through.
    pub fn open() -> Arc<Self> {
        Self::new(|_| true)
    }

    /// Ends the probes under way that may no longer be made: when this returns none of them does anything any more
    /// but what it may just be in the middle of, and what they find counts for nothing.
    pub fn cut(&self) {
        for probe in self.lock().iter().filter(|probe| !(self.may)(probe.address)) {
            probe.handle.abort();
        }
    }

    /// Starts a probe, if it may be made.
    pub(crate) fn start(
        &self,
        check: CheckId,
        address: SocketAddr,
        spawn: impl FnOnce() -> AbortHandle,
    ) -> bool {
        let mut under_way = self.lock();
        let may = (self.may)(address);
        if may {
            under_way.push(Probe {
                check,
                address,
                handle: spawn(),
            });
        }
        may
    }

    /// Ends those that nobody wants any more; their end is then of no check.
    pub(crate) fn keep(&self, wanted: impl Fn(CheckId) -> bool) {
        self.lock().retain(|probe| {
            let wanted = wanted(probe.check);
            if !wanted {
                probe.handle.abort();
            }
            wanted
        });
    }

    /// Takes out the check of a probe that has ended.
    pub(crate) fn ended(&self, task: Id) -> Option<CheckId> {
        let mut under_way = self.lock();
        let place = under_way.iter().position(|probe| probe.handle.id() == task)?;
        Some(under_way.swap_remove(place).check)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Probe>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("under_way", &self.lock().len())
            .finish_non_exhaustive()
    }
}
