//! Who is silent among the members of one pool that did not register.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use model::config::Name;

use super::{Hearing, Last};

/// Who is silent among the members of one pool.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// When each was last heard, or was first expected.
    heard: BTreeMap<SocketAddr, Last>,
    silent: BTreeSet<SocketAddr>,
    /// How long each may be silent, as said last.
    timeout_ms: u64,
}

/// A member that fell silent, or is heard again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which.
    pub address: SocketAddr,
    /// Whether it is silent now.
    pub silent: bool,
}

impl Pulse {
    /// Only these are expected from now on. A new one has the whole time until it must be heard, and is not silent,
    /// whatever was said of it when it was expected before: that is told.
    pub fn expect(&mut self, now_ms: u64, members: &BTreeSet<SocketAddr>) -> Vec<Heard> {
        self.heard.retain(|address, _| members.contains(address));
        self.silent.retain(|address| members.contains(address));
        let mut new = Vec::new();
        for address in members.iter().copied() {
            self.heard.entry(address).or_insert_with(|| {
                new.push(Heard {
                    address,
                    silent: false,
                });
                Last::awaited(now_ms)
            });
        }
        new
    }

    /// A member was heard here, now; news when it was silent. `None` also when nobody expects it.
    pub fn beat(&mut self, now_ms: u64, address: SocketAddr) -> Option<Heard> {
        self.heard.get_mut(&address)?.hear(now_ms, None);
        self.wake(address)
    }

    /// A member was heard then, by that node; news when it was silent, unless that is too long ago. `None` also when
    /// nobody expects it.
    pub fn vouch(
        &mut self,
        now_ms: u64,
        (address, at_ms): (SocketAddr, u64),
        (by, hearing): (&Name, &Hearing),
    ) -> Option<Heard> {
        let last = self.heard.get_mut(&address)?;
        last.hear(at_ms, Some(by));
        match hearing.is_recent(now_ms, at_ms, self.timeout_ms) {
            true => self.wake(address),
            false => None,
        }
    }

    fn wake(&mut self, address: SocketAddr) -> Option<Heard> {
        self.silent.remove(&address).then_some(Heard {
            address,
            silent: false,
        })
    }

    /// Whether this member is expected to be heard.
    pub fn expects(&self, address: SocketAddr) -> bool {
        self.heard.contains_key(&address)
    }

    /// Who has fallen silent since the last call.
    pub fn listen(&mut self, now_ms: u64, timeout_ms: u64, hearing: &Hearing) -> Vec<Heard> {
        self.timeout_ms = timeout_ms;
        let silent = self.heard.iter().filter(|(address, last)| {
            !self.silent.contains(*address) && hearing.is_over(now_ms, last, timeout_ms)
        });
        let silent: Vec<SocketAddr> = silent.map(|(address, _)| *address).collect();
        self.silent.extend(&silent);
        silent
            .into_iter()
            .map(|address| Heard {
                address,
                silent: true,
            })
            .collect()
    }

    /// All have their whole time once more; who is silent stays so until it is heard.
    pub(super) fn spare(&mut self, now_ms: u64, only: impl Fn(&Last) -> bool) {
        let those = self.heard.values_mut().filter(|last| only(last));
        those.for_each(|last| last.spare(now_ms));
    }

    /// A node is gone that heard some of them.
    pub(super) fn orphan(&mut self, now_ms: u64, node: &Name) {
        self.heard.values_mut().for_each(|last| last.orphan(now_ms, node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u16) -> SocketAddr {
        ([10, 0, 0, 1], number).into()
    }

    #[test]
    fn who_is_silent_is_told_once_and_who_comes_back_too() {
        let (mut pulse, alone) = (Pulse::default(), Hearing::alone());
        let both = BTreeSet::from([address(1), address(2)]);
        let told = |number, silent| Heard {
            address: address(number),
            silent,
        };
        assert_eq!(pulse.expect(0, &both), [told(1, false), told(2, false)]);
        assert_eq!(pulse.expect(0, &both), []);
        assert_eq!(pulse.beat(5_000, address(1)), None);
        assert_eq!(pulse.beat(5_000, address(9)), None, "nobody expects it");
        assert_eq!(pulse.listen(15_000, 15_000, &alone), [told(2, true)]);
        assert_eq!(pulse.listen(16_000, 15_000, &alone), []);
        assert_eq!(pulse.beat(17_000, address(2)), Some(told(2, false)));
        assert_eq!(pulse.expect(17_000, &BTreeSet::from([address(2)])), []);
        assert!(!pulse.expects(address(1)));
        assert_eq!(pulse.listen(31_999, 15_000, &alone), []);
        assert_eq!(pulse.listen(32_000, 15_000, &alone), [told(2, true)]);
    }

    /// Scenario: a backend is silent, its heartbeat is taken out of the config and put back: it begins as any other,
    /// and whoever still holds its silence against it is told so.
    #[test]
    fn who_is_expected_anew_is_not_silent() {
        let (mut pulse, alone) = (Pulse::default(), Hearing::alone());
        let one = BTreeSet::from([address(1)]);
        pulse.expect(0, &one);
        assert_eq!(pulse.listen(15_000, 15_000, &alone).len(), 1);
        let mut again = Pulse::default();
        let told = again.expect(16_000, &one);
        assert_eq!(told.len(), 1);
        assert!(!told[0].silent);
    }
}
