//! Where what is declared and decided is kept, so that several processes can share it.
//!
//! One type, [`Store`], over two engines: [`Store::embedded`], a database in a folder of this machine that one
//! process has, and [`Store::etcd`]. Both keep the promises of etcd, because an embedded engine can be made to keep
//! those and not the other way round; a `match` over two engines is all the abstraction there is. One suite of
//! tests (`tests/conformance`) holds both to the same behaviour.
//!
//! - Each write has a [`Revision`], one number that grows over the whole store. [`Store::commit`] compares, then
//!   writes all or nothing.
//! - [`Store::watch`] tells every later change, in order, grouped by revision. [`Store::follow`] is what consumers
//!   use: the whole prefix, then changes, for ever; it comes back by itself.
//! - [`Store::grant`] makes a lease: keys tied to it vanish with it.
//! - A [`StoreError`] says whose fault it was, whether the call may have happened all the same, and whether trying
//!   again helps.
//!
//! What it refuses: keys that are empty, longer than [`MAX_KEY_BYTES`] or hold a NUL; more than the bounds of
//! [`bounds`]; two writes to one key in one transaction. It knows nothing of what the values mean.

#![forbid(unsafe_code)]

mod backoff;
pub mod bounds;
mod embedded;
mod error;
mod etcd;
mod follow;
mod held;
pub mod notify;
mod transaction;
mod types;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use bounds::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use embedded::Embedded;
pub use error::{ErrorKind, Fault, Happened, StoreError};
use etcd::Etcd;
pub use etcd::{EtcdSettings, EtcdTls};
pub use follow::{Follow, Followed};
pub use held::{Held, Standing};
pub use transaction::Transaction;
pub use types::{
    Changes, Committed, Entry, Event, Granted, Kept, LeaseId, LeaseLeft, Listing, Revision, StoreStatus,
};

/// The store. A clone is another handle of the same one.
#[derive(Clone, Debug)]
pub struct Store {
    engine: Engine,
}

#[derive(Clone, Debug)]
enum Engine {
    Embedded(Embedded),
    Etcd(Arc<Etcd>),
}

impl Store {
    /// Opens the embedded engine in a folder, which is made (for its owner alone) when it is missing.
    ///
    /// Blocks the thread while the file is read. The file is given free when the last handle is dropped, which waits
    /// for writes that are under way; each [`Follow`] and [`Held`] has a handle too, until its task has ended.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] while another process has it; [`ErrorKind::Damaged`] when the file is no store;
    /// [`ErrorKind::Full`] and [`ErrorKind::Disk`].
    pub fn embedded(folder: &Path) -> Result<Self, StoreError> {
        let engine = Engine::Embedded(Embedded::open(folder)?);
        Ok(Self { engine })
    }

    /// Prepares the etcd engine. Connects with the first call, not before; its calls need a tokio runtime with
    /// time and IO.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the settings cannot be used: no endpoint, no URL, certificates that are none.
    pub fn etcd(settings: EtcdSettings) -> Result<Self, StoreError> {
        let engine = Engine::Etcd(Arc::new(Etcd::new(settings)?));
        Ok(Self { engine })
    }

    /// The entry of a key, as of the moment of the call.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        transaction::check_key(key)?;
        match &self.engine {
            Engine::Embedded(engine) => engine.get(key),
            Engine::Etcd(engine) => engine.get(key).await,
        }
    }

    /// All entries whose keys begin with `prefix`, in the order of their keys, and the revision of that moment.
    ///
    /// # Errors
    /// [`ErrorKind::TooMuch`] beyond [`bounds::MAX_LIST_BYTES`].
    pub async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        transaction::check_key(prefix)?;
        match &self.engine {
            Engine::Embedded(engine) => engine.list(prefix),
            Engine::Etcd(engine) => engine.list(prefix).await,
        }
    }

    /// The revision of the whole store at the moment of the call. `readable` is any key that we may read, there or
    /// not: etcd wants to know one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revision(&self, readable: &str) -> Result<Revision, StoreError> {
        transaction::check_key(readable)?;
        match &self.engine {
            Engine::Embedded(engine) => engine.revision(),
            Engine::Etcd(engine) => engine.revision(readable).await,
        }
    }

    /// Makes all writes of a transaction when all its comparisons hold, else none. When it returns
    /// [`Committed::Done`], the writes are on disk (with etcd: of a majority).
    ///
    /// # Errors
    /// [`StoreError::happened`] tells whether the writes may have been made. [`ErrorKind::LeaseGone`] when a write
    /// names a lease that has ended; [`ErrorKind::Invalid`] and [`ErrorKind::TooMuch`] for a transaction out of
    /// bounds.
    pub async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError> {
        transaction.check()?;
        match &self.engine {
            Engine::Embedded(engine) => engine.commit(transaction).await,
            Engine::Etcd(engine) => engine.commit(&transaction).await,
        }
    }

    /// Every change of keys that begin with `prefix`, from the revision `from` on (which counts).
    ///
    /// # Errors
    /// [`StoreError`]; that it goes too far back is told by [`Watch::next`].
    pub async fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        transaction::check_key(prefix)?;
        let inner = match &self.engine {
            Engine::Embedded(engine) => Inner::Embedded(engine.watch(prefix, from)),
            Engine::Etcd(engine) => Inner::Etcd(Box::new(engine.watch(prefix, from).await?)),
        };
        Ok(Watch { inner })
    }

    /// The entry of a key, and the revision of the whole store: one call for both.
    pub(crate) async fn get_at(&self, key: &str) -> Result<(Revision, Option<Entry>), StoreError> {
        match &self.engine {
            Engine::Embedded(engine) => Ok((engine.revision()?, engine.get(key)?)),
            Engine::Etcd(engine) => engine.get_at(key).await,
        }
    }

    /// As [`Store::watch`], for who has seen all that was before `from`; the last of that may be told once more.
    ///
    /// Versions of etcd before 2025 forget, with what is before a revision, also what that one deleted. So etcd is asked
    /// for one revision more: where `from` is such a one, that is forgotten, and told to be.
    pub(crate) async fn watch_on(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        let from = match &self.engine {
            Engine::Embedded(_) => from,
            Engine::Etcd(_) => from.before(),
        };
        self.watch(prefix, from).await
    }

    /// The whole prefix, then its changes, for as long as the answer is held. Must be called within a tokio
    /// runtime, in which a task then works.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a prefix that is no key.
    pub fn follow(&self, prefix: &str) -> Result<Follow, StoreError> {
        transaction::check_key(prefix)?;
        Ok(Follow::start(self.clone(), prefix, None, Duration::ZERO))
    }

    /// As [`Store::follow`], and what stands under the key `identity` tells one store from another: it is written once
    /// in the life of a store. When it is another one after a lost connection, all that was seen before is void
    /// ([`Followed::Another`]).
    ///
    /// Who loses the store comes back at a moment of its own, within `return_within` and an instant more: where many
    /// processes follow, all that were on one member of etcd lose it together.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a prefix or an identity that is no key.
    pub fn follow_identified(
        &self,
        prefix: &str,
        identity: &str,
        return_within: Duration,
    ) -> Result<Follow, StoreError> {
        transaction::check_key(prefix)?;
        transaction::check_key(identity)?;
        Ok(Follow::start(self.clone(), prefix, Some(identity), return_within))
    }

    /// Makes a lease of `seconds` (1 to [`bounds::MAX_LEASE_SECONDS`]). etcd may give more than was asked for.
    ///
    /// # Errors
    /// [`StoreError`]; a lease that was made though the call failed ends by itself.
    pub async fn grant(&self, seconds: u32) -> Result<Granted, StoreError> {
        transaction::check_lease_seconds(seconds)?;
        match &self.engine {
            Engine::Embedded(engine) => engine.grant(seconds).await,
            Engine::Etcd(engine) => engine.grant(seconds).await,
        }
    }

    /// Gives a lease its whole time again.
    ///
    /// # Errors
    /// [`ErrorKind::LeaseGone`] when it has ended.
    pub async fn keep_alive(&self, lease: LeaseId) -> Result<Kept, StoreError> {
        match &self.engine {
            Engine::Embedded(engine) => engine.keep_alive(lease),
            Engine::Etcd(engine) => engine.keep_alive(lease).await,
        }
    }

    /// Makes a lease and keeps it alive in a task for as long as the answer is held.
    ///
    /// # Errors
    /// As [`Self::grant`].
    pub async fn hold(&self, seconds: u32) -> Result<Held, StoreError> {
        let granted = self.grant(seconds).await?;
        Ok(Held::start(self.clone(), granted))
    }

    /// Ends a lease; the keys that are tied to it vanish in one revision. One that has ended already is no error.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Embedded(engine) => engine.revoke(lease).await,
            Engine::Etcd(engine) => engine.revoke(lease).await,
        }
    }

    /// What is left of a lease; none when it has ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lease_left(&self, lease: LeaseId) -> Result<Option<LeaseLeft>, StoreError> {
        match &self.engine {
            Engine::Embedded(engine) => engine.lease_left(lease),
            Engine::Etcd(engine) => engine.lease_left(lease).await,
        }
    }

    /// Forgets the changes before a revision; what is there stays. Who watches from further back is told
    /// [`ErrorKind::Compacted`]. etcd fills up unless somebody does this (or it is set up to do it by itself).
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a revision that is not reached yet. That it was done before is no error.
    pub async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        match &self.engine {
            Engine::Embedded(engine) => engine.compact(before),
            Engine::Etcd(engine) => engine.compact(before).await,
        }
    }

    /// How often a key was passed over that is no text, because somebody else wrote it below a prefix of ours.
    #[must_use]
    pub fn skipped_keys(&self) -> u64 {
        match &self.engine {
            Engine::Embedded(_) => 0,
            Engine::Etcd(engine) => engine.skipped_keys(),
        }
    }

    /// How the store is: for people who look.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn status(&self) -> Result<StoreStatus, StoreError> {
        match &self.engine {
            Engine::Embedded(engine) => engine.status(),
            Engine::Etcd(engine) => engine.status().await,
        }
    }
}

/// Changes as they come; see [`Store::watch`].
#[derive(Debug)]
pub struct Watch {
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Embedded(embedded::EmbeddedWatch),
    Etcd(Box<etcd::EtcdWatch>),
}

impl Watch {
    /// The next revision that changed something under the prefix, whole. May be dropped while it waits: nothing
    /// is lost.
    ///
    /// # Errors
    /// The watch has ended: [`ErrorKind::Compacted`] when it goes too far back; any other, when the connection was
    /// lost: a new watch from the revision after the last one seen goes on where this one ended.
    pub async fn next(&mut self) -> Result<Changes, StoreError> {
        match &mut self.inner {
            Inner::Embedded(watch) => watch.next().await,
            Inner::Etcd(watch) => watch.next().await,
        }
    }
}
