//! How many connections each source has, so that neither one nor a few take all there are.
//!
//! A source is an address, or a /64 of IPv6. One may have many while many are left, and few of the last ones; some are
//! for who is on this machine. Whoever is over its share is closed at once rather than kept waiting: what waits stands
//! in one queue with everybody else. In it are those for whom there would be room if others had not come first.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits::{
    CONNECTIONS_OF_LOOPBACK, LAST_CONNECTIONS, LAST_PER_SOURCE, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_SOURCE,
    MAX_WAITING,
};

/// Where connections (`C`) come in.
#[derive(Debug)]
pub(crate) struct Entrance<C> {
    sources: Sources,
    waiting: VecDeque<(IpAddr, C)>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoPlace {
    /// The source has its share.
    Share,
    /// All are taken that it could have.
    Full,
}

impl<C> Default for Entrance<C> {
    fn default() -> Self {
        Self {
            sources: Sources::default(),
            waiting: VecDeque::new(),
        }
    }
}

impl<C> Entrance<C> {
    /// Takes one that has come: with its place when there is one for it, later ([`Entrance::next`]) when it is to wait.
    ///
    /// # Errors
    /// When it is to go: its source has its share, or too many wait.
    pub(crate) fn enter(&mut self, from: IpAddr, one: C) -> Result<Option<(C, Place)>, C> {
        match self.sources.place(from) {
            Ok(place) => Ok(Some((one, place))),
            Err(NoPlace::Full) if self.waiting.len() < MAX_WAITING => {
                self.waiting.push_back((from, one));
                Ok(None)
            }
            Err(_) => Err(one),
        }
    }

    /// The first of those who wait that has a place now. One whose source has its share by then is passed over, and
    /// waits on.
    pub(crate) fn next(&mut self) -> Option<(C, Place)> {
        let places = self.waiting.iter().enumerate();
        let mut found = places.filter_map(|(n, (from, _))| Some((n, self.sources.place(*from).ok()?)));
        let (n, place) = found.next()?;
        let (_, one) = self.waiting.remove(n)?;
        Some((one, place))
    }
}

/// All sources that have connections; no more than there are connections. A clone is another handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    counts: Arc<Mutex<BTreeMap<u64, usize>>>,
}

/// A connection's place; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    sources: Sources,
    source: u64,
}

impl Sources {
    /// A place for a connection from there.
    fn place(&self, from: IpAddr) -> Result<Place, NoPlace> {
        let source = source_of(from);
        let mut counts = self.counts();
        let kept = match from.to_canonical().is_loopback() {
            true => 0,
            false => CONNECTIONS_OF_LOOPBACK,
        };
        let taken: usize = counts.values().sum();
        let left = MAX_CONNECTIONS.saturating_sub(taken + kept);
        let most = match left {
            0 => return Err(NoPlace::Full),
            1..=LAST_CONNECTIONS => LAST_PER_SOURCE,
            _ => MAX_CONNECTIONS_PER_SOURCE,
        };
        if counts.get(&source).is_some_and(|count| *count >= most) {
            return Err(NoPlace::Share);
        }
        *counts.entry(source).or_default() += 1;
        Ok(Place {
            sources: self.clone(),
            source,
        })
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.sources.counts();
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

/// The source that an address stands for: itself, or the /64 of IPv6, in which one client has all addresses.
pub(crate) fn source_of(address: IpAddr) -> u64 {
    match address.to_canonical() {
        // Below 2^32 there is no network that anybody has (RFC 4291 section 2.4).
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_source_has_its_share_and_gets_it_back() {
        let sources = Sources::default();
        let from = |text: &str| sources.place(text.parse().unwrap());
        let mut held: Vec<Place> = (0..MAX_CONNECTIONS_PER_SOURCE)
            .map(|n| from(&format!("2001:db8::{n:x}")).unwrap())
            .collect();
        assert_eq!(from("2001:db8::ffff").err(), Some(NoPlace::Share));
        assert!(from("2001:db8:0:1::1").is_ok() && from("192.0.2.1").is_ok());
        held.pop();
        assert!(from("2001:db8::ffff").is_ok());
        held.clear();
        assert!(sources.counts().is_empty());
    }

    /// Scenario: one address after the other takes all that it gets. The second one leaves room for the third, and so on
    /// up to the seventh; whatever strangers do, there is room for who is on the machine.
    #[test]
    fn a_few_sources_leave_room_for_others() {
        let sources = Sources::default();
        let mut held = Vec::new();
        let mut takes_all = |from: String| {
            let before = held.len();
            held.extend(std::iter::from_fn(|| sources.place(from.parse().unwrap()).ok()));
            held.len() - before
        };
        let shares = (1..=8).map(|n| takes_all(format!("192.0.2.{n}")));
        assert_eq!(shares.collect::<Vec<_>>(), [96, 4, 4, 4, 4, 4, 4, 0]);
        assert_eq!(takes_all("127.0.0.1".to_owned()), 4);
        assert_eq!(takes_all("::ffff:127.0.0.2".to_owned()), 4);
        assert_eq!(held.len(), MAX_CONNECTIONS);
    }

    /// Scenario: five hundred instances say that they live, all at once. None is sent away: those that come last wait for
    /// those before them, and meanwhile there is room for who is on the machine. Beyond the bound of those who wait one
    /// is sent away, as is a source that has its share.
    #[test]
    fn a_crowd_waits_its_turn() {
        let mut entrance = Entrance::default();
        let from = |n: u32| IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        let mut served = VecDeque::new();
        for n in 0..500 {
            served.extend(entrance.enter(from(n), n).unwrap());
        }
        assert_eq!(served.len(), MAX_CONNECTIONS - CONNECTIONS_OF_LOOPBACK);
        let own = entrance.enter("127.0.0.1".parse().unwrap(), 1000).unwrap();
        assert!(own.is_some());
        drop(own);
        let mut order = Vec::new();
        while let Some((n, place)) = served.pop_front() {
            order.push(n);
            drop(place);
            served.extend(entrance.next());
        }
        assert_eq!(order, (0..500).collect::<Vec<_>>());

        let all: Vec<_> = (0..120)
            .map(|n| entrance.enter(from(n), n).unwrap().unwrap())
            .collect();
        let most = u32::try_from(MAX_WAITING).unwrap();
        for n in 0..most {
            assert!(entrance.enter(from(1000 + n), n).unwrap().is_none());
        }
        assert_eq!(entrance.enter(from(9000), 9000).err(), Some(9000));
        drop(all);
    }
}
