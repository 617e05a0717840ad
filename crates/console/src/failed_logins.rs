//! How often logins may fail, by where they come from.
//!
//! A bucket for each source ([`RATE`]). What is limited is failing, not
//! coming: a generated token or a certificate opens the door from anywhere at any time, because nobody can guess one.
//! So whoever shares an address with an attacker is not locked out by him. A token that a person chose could be
//! guessed, so it is not even looked at while its source is over the limit.
//!
//! Pure: the time is an argument.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::bucket::{Bucket, Rate};
use crate::limits::MAX_LOGIN_SOURCES;
use crate::sources::source_of;

/// Failures that a source has.
const RATE: Rate = Rate {
    burst: 10,
    interval: Duration::from_secs(6),
};
/// Least time between two looks for sources that can be forgotten.
const CLEANING: Duration = Duration::from_secs(1);

/// What is known of sources whose logins failed.
#[derive(Debug, Default)]
pub(crate) struct FailedLogins {
    sources: BTreeMap<u64, Bucket>,
    /// Of all sources that have no room in the table: they share one.
    others: Bucket,
    cleaned: Duration,
}

impl FailedLogins {
    /// How long this source has to wait until it may fail again; `None` when it may now.
    pub(crate) fn wait(&self, source: IpAddr, now: Duration) -> Option<Duration> {
        let source = source_of(source);
        let is_full = self.sources.len() >= MAX_LOGIN_SOURCES;
        match self.sources.get(&source) {
            Some(bucket) => bucket.wait(RATE, now),
            None if is_full => self.others.wait(RATE, now),
            None => None,
        }
    }

    /// Counts a failure.
    pub(crate) fn fail(&mut self, source: IpAddr, now: Duration) {
        let source = source_of(source);
        if self.sources.len() >= MAX_LOGIN_SOURCES && now.saturating_sub(self.cleaned) >= CLEANING {
            self.cleaned = now;
            self.sources.retain(|_, bucket| !bucket.is_whole(now));
        }
        let has_room = self.sources.len() < MAX_LOGIN_SOURCES;
        let bucket = match self.sources.get_mut(&source) {
            Some(bucket) => bucket,
            None if has_room => self.sources.entry(source).or_default(),
            None => &mut self.others,
        };
        bucket.take(RATE, now);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// How many of `tries` are let fail.
    fn failures(logins: &mut FailedLogins, source: IpAddr, tries: u32, now: Duration) -> u32 {
        (0..tries)
            .filter(|_| {
                let may = logins.wait(source, now).is_none();
                if may {
                    logins.fail(source, now);
                }
                may
            })
            .count() as u32
    }

    #[test]
    fn ten_at_once_then_one_each_six_seconds() {
        let mut logins = FailedLogins::default();
        let source = ip("192.0.2.1");
        assert_eq!(failures(&mut logins, source, 100, at(1000)), RATE.burst);
        assert_eq!(logins.wait(source, at(1000)), Some(RATE.interval));
        assert_eq!(logins.wait(source, at(1004)), Some(at(2)));
        assert_eq!(failures(&mut logins, source, 100, at(1006)), 1);
        assert_eq!(failures(&mut logins, source, 100, at(1018)), 2);
        assert_eq!(failures(&mut logins, source, 100, at(2000)), RATE.burst);
    }

    #[test]
    fn a_source_is_an_address_or_a_network_of_ipv6() {
        let mut logins = FailedLogins::default();
        failures(&mut logins, ip("2001:db8:1:2::1"), 100, at(0));
        assert!(logins.wait(ip("2001:db8:1:2:ffff::9"), at(0)).is_some());
        assert!(logins.wait(ip("2001:db8:1:3::1"), at(0)).is_none());
        failures(&mut logins, ip("192.0.2.1"), 100, at(0));
        assert!(logins.wait(ip("::ffff:192.0.2.1"), at(0)).is_some());
        assert!(logins.wait(ip("192.0.2.2"), at(0)).is_none());
    }

    /// Scenario: an attacker with more networks than the table has room for. It stays bounded, those in it keep
    /// their buckets, all others share one, and there is room again when the old ones are whole.
    #[test]
    fn a_full_table_has_one_bucket_for_all_others() {
        let mut logins = FailedLogins::default();
        let source = |n: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(n));
        let room = u32::try_from(MAX_LOGIN_SOURCES).unwrap();
        for n in 0..room {
            logins.fail(source(n), at(100));
        }
        let let_fail: u32 = (room..2 * room)
            .map(|n| failures(&mut logins, source(n), 1, at(100)))
            .sum();
        assert_eq!(let_fail, RATE.burst);
        assert_eq!(logins.sources.len(), MAX_LOGIN_SOURCES);
        assert_eq!(failures(&mut logins, source(0), 100, at(100)), RATE.burst - 1);
        assert_eq!(failures(&mut logins, source(2 * room), 100, at(107)), RATE.burst);
        assert_eq!(logins.sources.len(), 2, "those that were whole are forgotten");
    }
}
