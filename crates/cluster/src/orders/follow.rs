//! Following the orders, also into another store: what a listing does not name was ended or lost ([`Silence`]).
//!
//! A store that is emptied under a standing watch (`etcdctl del --prefix`) tells so by single deletions. The identity of
//! the store went with them, which nobody deletes who ends an order.

use std::time::Duration;

use model::state::Overrides;
use store::{Event, Followed, Listing, Revision, StoreError, Transaction};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::book::InForce;
use super::silence::{Place, Silence};
use super::{OrderKey, Seen, all, now, read};
use crate::{Space, identity};

/// Between two attempts at what failed.
const RETRY: Duration = Duration::from_secs(1);
/// While nothing is ordered, the store is asked this often whether it is still there.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// Orders from before they were kept in a store.
pub struct Import {
    /// The orders.
    pub overrides: Overrides,
    /// Told when the store has them.
    pub done: Box<dyn FnOnce() + Send>,
}

/// Follows the orders until nobody listens any more. First of all it brings those of `imported` into the store for
/// which nothing stands there, and tells when that is done. `known` is where the orders were followed that are in force
/// already; none where they cannot be lost: the store is nobody else's.
///
/// # Errors
/// When the store's prefix is no key.
pub async fn follow(
    space: Space,
    imported: Option<Import>,
    known: Option<Place>,
    seen: mpsc::Sender<(Seen, Option<Place>)>,
) -> Result<(), StoreError> {
    if let Some(Import { overrides, done }) = imported {
        let mut told = false;
        while let Err(error) = import(&space, &overrides).await {
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    "orders of an earlier version cannot be brought into the store yet; until they are, this node \
                     hears of no other order: {error}"
                );
            }
            sleep(RETRY).await;
        }
        done();
    }
    let mut follow = space.follow("orders/")?;
    let place = known;
    let mut sight = Sight { space, place };
    let mut stands = false;
    loop {
        let told = match timeout(ASK_EVERY, follow.next()).await {
            Ok(None) => return Ok(()),
            // Whether it is another store is seen by what it says of the orders, and by its identity.
            Ok(Some(Followed::Listed(listing) | Followed::Another(listing))) => {
                Some(sight.listed(&listing).await)
            }
            Ok(Some(Followed::Changed(changes))) => Some(sight.changed(&changes).await),
            Ok(Some(Followed::CutOff(_))) => Some(Seen::CutOff),
            Ok(Some(Followed::Back)) => {
                // What was missed comes first.
                stands = true;
                None
            }
            Err(_) if stands => sight.still().await,
            Err(_) => None,
        };
        let Some(told) = told else { continue };
        stands = told != Seen::CutOff;
        if seen.send((told, sight.place.clone())).await.is_err() {
            return Ok(());
        }
    }
}

async fn import(space: &Space, overrides: &Overrides) -> Result<(), StoreError> {
    let backends = overrides.backends.iter();
    let backends =
        backends.map(|(key, order)| (OrderKey::Backend(key.clone()), InForce::Backend(order.clone())));
    let routes = overrides.routes.iter();
    let routes = routes.map(|(key, order)| (OrderKey::Route(key.clone()), InForce::Route(order.clone())));
    for (key, order) in backends.chain(routes) {
        let whole = space.key(&key.path());
        let transaction = Transaction::new().absent(&whole).put(&whole, order.json());
        space.store().commit(transaction).await?;
    }
    Ok(())
}

/// What is known of the store that is followed.
struct Sight {
    space: Space,
    place: Option<Place>,
}

impl Sight {
    async fn listed(&mut self, listing: &Listing) -> Seen {
        let revision = listing.revision.0;
        let orders = all(&self.space, listing);
        let Some(before) = self.place.take() else {
            return Seen::All(revision, orders, Silence::END);
        };
        let identity = match self.identity().await {
            Ok(found) => found.map(|(_, identity)| identity),
            // Nobody may see it: nothing says that it is another one.
            Err(_) => before.identity.clone(),
        };
        let heard = now();
        let silence = Silence::of(&before, identity.as_deref(), revision, heard);
        self.place = Some(Place {
            identity,
            revision,
            heard,
        });
        Seen::All(revision, orders, silence)
    }

    async fn changed(&mut self, changes: &store::Changes) -> Seen {
        let revision = changes.revision.0;
        let is_deletion = |event: &Event| matches!(event, Event::Deleted { .. });
        let may_be_emptied = self.place.is_some() && changes.events.iter().any(is_deletion);
        let identity = match may_be_emptied {
            true => self.identity().await.ok(),
            false => None,
        };
        if let Some(place) = &mut self.place {
            (place.revision, place.heard) = (revision, now());
        }
        if let Some(found) = identity
            && found.as_ref().is_none_or(|(made, _)| *made >= changes.revision)
        {
            if let Some(place) = &mut self.place {
                place.identity = found.map(|(_, identity)| identity);
            }
            return Seen::All(revision, Vec::new(), Silence::LOSS);
        }
        let changed = changes.events.iter().filter_map(|event| {
            let key = OrderKey::parse(self.space.path(event.key())?)?;
            let order = match event {
                Event::Put(entry) => read(&key, entry),
                Event::Deleted { .. } => None,
            };
            Some((key, order))
        });
        Seen::Some(revision, changed.collect())
    }

    /// Asks whether the store is still there while it says nothing by itself.
    async fn still(&mut self) -> Option<Seen> {
        let place = self.place.as_mut()?;
        let asked = now();
        let found = identity::of(&self.space).await.ok()?;
        place.heard = asked;
        if place.identity.is_none() {
            place.identity = found.map(|(_, identity)| identity);
        }
        Some(Seen::Still)
    }

    /// The identity of the store and the revision that made it, as soon as they can be known.
    async fn identity(&self) -> Result<Option<(Revision, String)>, StoreError> {
        loop {
            match identity::of(&self.space).await {
                Err(error) if error.retry_helps() => {
                    tracing::debug!("whether it is the same store is not known yet: {error}");
                    sleep(RETRY).await;
                }
                known => return known,
            }
        }
    }
}
