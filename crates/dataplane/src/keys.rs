//! What requests are told apart by, for stickiness and rate limits: the client's address, a header field, a cookie.

use std::net::IpAddr;

use http::{RequestHead, forward};
use model::config::{LimitKey, Listener, SessionKey};

use crate::routing::hash_address;

/// A request with where it came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    pub(crate) head: &'a RequestHead,
    /// What `head` was parsed from.
    pub(crate) bytes: &'a [u8],
    pub(crate) listener: &'a Listener,
    /// The other end of the connection.
    pub(crate) peer: IpAddr,
    /// Whether the peer is one of `trusted_proxies`.
    pub(crate) trusted: bool,
}

impl<'a> Sender<'a> {
    /// The client's address: what trusted proxies report, else the peer's.
    pub(crate) fn address(&self) -> IpAddr {
        if self.trusted {
            let trusted = &self.listener.trusted_proxies;
            forward::client_address(self.bytes, self.head, self.peer, trusted)
        } else {
            self.peer.to_canonical()
        }
    }

    /// What a rate limit counts this request by.
    pub(crate) fn limit_key(&self, key: &LimitKey) -> u64 {
        let value = match key {
            LimitKey::ClientAddress => None,
            LimitKey::Header(name) => self.head.field(self.bytes, name),
            LimitKey::Cookie(name) => self.head.cookie(self.bytes, name),
            LimitKey::Route => Some(&b""[..]),
        };
        // Values and addresses must not be taken for each other: a client could write another's address.
        match value {
            Some(value) => balance::hash(value) | 1,
            None => hash_subscriber(self.address()) & !1,
        }
    }

    /// What names the session of this request; `None` when it has none.
    pub(crate) fn session_key(&self, key: &SessionKey) -> Option<u64> {
        match key {
            SessionKey::AppCookie(name) => self.head.cookie(self.bytes, name).map(balance::hash),
            SessionKey::Header(name) => self.head.field(self.bytes, name).map(balance::hash),
            SessionKey::ClientAddress => Some(hash_address(self.address())),
        }
    }
}

/// The hash of what one subscriber has: an IPv4 address, or the first 64 bits of an IPv6 address (RFC 6177).
fn hash_subscriber(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(a) => balance::hash(&a.octets()),
        IpAddr::V6(a) => balance::hash(a.octets().first_chunk::<8>().map_or(&[][..], |half| &half[..])),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use http::Parsed;

    fn key(peer: &str, fields: &str, key: &LimitKey) -> u64 {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
        let text = "[load_balancers.shop]\nbackend_servers = []\n";
        let config = model::parse::parse_toml(text, "test.toml").unwrap();
        let listener = &config.load_balancers.values().next().unwrap().listeners[0];
        let mut head = RequestHead::new();
        assert_eq!(head.parse(&bytes, &listener.limits), Ok(Parsed::Complete));
        let sender = Sender {
            head: &head,
            bytes: &bytes,
            listener,
            peer: peer.parse().unwrap(),
            trusted: false,
        };
        sender.limit_key(key)
    }

    /// A subscriber has 2^64 addresses of IPv6 and may use a new one for every request.
    #[test]
    fn a_rate_limit_takes_a_network_of_ipv6_for_one() {
        let by_address = |peer| key(peer, "", &LimitKey::ClientAddress);
        assert_eq!(by_address("2001:db8:1:2::1"), by_address("2001:db8:1:2:ffff::9"));
        assert_ne!(by_address("2001:db8:1:2::1"), by_address("2001:db8:1:3::1"));
        assert_ne!(by_address("10.0.0.1"), by_address("10.0.0.2"));
        assert_eq!(by_address("::ffff:10.0.0.1"), by_address("10.0.0.1"));
    }

    /// Leaving the field out is no way around the limit, and nobody can write himself into another's bucket.
    #[test]
    fn a_request_without_the_key_counts_by_address() {
        let by_field = LimitKey::Header("x-key".into());
        let by_address = key("10.0.0.1", "", &LimitKey::ClientAddress);
        assert_eq!(key("10.0.0.1", "", &by_field), by_address);
        // The very bytes of the address 97.97.97.97.
        let same_bytes = key("10.0.0.2", "X-Key: aaaa\r\n", &by_field);
        assert_ne!(same_bytes, key("97.97.97.97", "", &by_field));
        assert_eq!(
            key("10.0.0.1", "X-Key: a\r\n", &by_field),
            key("10.0.0.2", "X-Key: a\r\n", &by_field)
        );
    }
}
