//! The watches of an orchestrator and of those that look on: leader, workers, assignments.

use reconcile::cluster::member::Event;
use reconcile::cluster::records::{Key, Value};
use reconcile::cluster::view::{Changes, Listing, Prefix};
use store::{Follow, Followed, StoreError};

use crate::Space;

/// Three watches, and whether each of them is heard.
#[derive(Debug)]
pub(crate) struct Feed {
    space: Space,
    leader: Watched,
    workers: Watched,
    assignments: Watched,
}

#[derive(Debug)]
struct Watched {
    follow: Follow,
    listed: bool,
    cut_off: bool,
}

impl Watched {
    fn start(space: &Space, path: &str) -> Result<Self, StoreError> {
        Ok(Self {
            follow: space.follow(path)?,
            listed: false,
            cut_off: false,
        })
    }

    async fn next(&mut self) -> Followed {
        match self.follow.next().await {
            Some(followed) => followed,
            // The runtime ends.
            None => std::future::pending().await,
        }
    }

    fn is_whole(&self) -> bool {
        self.listed && !self.cut_off
    }
}

impl Feed {
    pub(crate) fn start(space: &Space) -> Result<Self, StoreError> {
        Ok(Self {
            leader: Watched::start(space, "leader")?,
            workers: Watched::start(space, "workers/")?,
            assignments: Watched::start(space, "assign/")?,
            space: space.clone(),
        })
    }

    /// What was seen next. May be dropped while it waits: nothing is lost.
    pub(crate) async fn next(&mut self) -> Vec<Event> {
        let (prefix, followed) = tokio::select! {
            followed = self.leader.next() => (Prefix::Leader, followed),
            followed = self.workers.next() => (Prefix::Workers, followed),
            followed = self.assignments.next() => (Prefix::Assignments, followed),
        };
        let was_whole = self.is_whole();
        let watched = match prefix {
            Prefix::Leader => &mut self.leader,
            Prefix::Workers => &mut self.workers,
            Prefix::Assignments => &mut self.assignments,
        };
        let mut events = Vec::new();
        match followed {
            Followed::Listed(listing) => {
                watched.listed = true;
                events.push(Event::Listed(read_listing(&self.space, prefix, listing, false)));
            }
            Followed::Another(listing) => {
                watched.listed = true;
                events.push(Event::Listed(read_listing(&self.space, prefix, listing, true)));
            }
            Followed::Changed(changes) => {
                events.push(Event::Changes(read_changes(&self.space, prefix, &changes)));
            }
            Followed::CutOff(error) => {
                watched.cut_off = true;
                tracing::debug!("the store is not heard: {error}");
                events.push(Event::CutOff);
            }
            Followed::Back => watched.cut_off = false,
        }
        if !was_whole && self.is_whole() {
            events.push(Event::Hearing);
        }
        events
    }

    /// Whether everything is heard.
    pub(crate) fn is_whole(&self) -> bool {
        self.leader.is_whole() && self.workers.is_whole() && self.assignments.is_whole()
    }
}

fn read_listing(space: &Space, prefix: Prefix, listing: store::Listing, another: bool) -> Listing {
    let entries = listing.entries.iter().filter_map(|entry| {
        let key = Key::parse(space.path_of(entry)?)?;
        let value = read(&key, entry);
        Some((key, entry.changed.0, value))
    });
    Listing {
        prefix,
        revision: listing.revision.0,
        another,
        entries: entries.collect(),
    }
}

fn read_changes(space: &Space, prefix: Prefix, changes: &store::Changes) -> Changes {
    let read = |event: &store::Event| {
        let key = Key::parse(space.path(event.key())?)?;
        let value = match event {
            store::Event::Put(entry) => Some(read(&key, entry)),
            store::Event::Deleted { .. } => None,
        };
        Some((key, value))
    };
    Changes {
        prefix,
        revision: changes.revision.0,
        changes: changes.events.iter().filter_map(read).collect(),
    }
}

/// What stands there; [`Value::Foreign`] when this version cannot read it.
pub(crate) fn read(key: &Key, entry: &store::Entry) -> Value {
    key.read(&entry.value).unwrap_or_else(|error| {
        tracing::warn!("what stands under {} cannot be read: {error}", key.path());
        Value::Foreign {
            leased: entry.lease.is_some(),
        }
    })
}
