//! The value of a sticky cookie: which backend a session is at, in a form that only we can write and that tells
//! nobody where that backend is.
//!
//! Twenty-eight bytes in base64url: eight that stand for the backend (a keyed hash of its address in this pool),
//! four for the second of issue, sixteen of authentication (HMAC-SHA256, cut as RFC 2104 section 5 allows). The key
//! is derived from the secret for this pool, so that a cookie of one pool says nothing to another. Several secrets
//! may be in use: the first writes, all are read. Nodes that share a secret read each other's cookies.
//!
//! Nothing is kept here per session, so cookies outlive reloads, restarts and this node.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a value before it is encoded.
const BYTES: usize = ID + TIME + TAG;
const ID: usize = 8;
const TIME: usize = 4;
const TAG: usize = 16;

/// Length of a value as text.
pub const COOKIE_LENGTH: usize = (BYTES * 8).div_ceil(6);

/// A cookie from this much later than now was not written by a clock that agrees with ours.
const MAX_AHEAD_S: u64 = 3600;

/// Writes and reads the cookies of one pool.
#[derive(Debug)]
pub struct CookieKeys {
    keys: Vec<PoolKey>,
}

#[derive(Debug)]
struct PoolKey {
    mac: Hmac<Sha256>,
    /// What stands for each member, in the order of the pool.
    ids: Vec<[u8; ID]>,
}

/// What a cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The member that the session is at.
    pub member: usize,
    /// Whether it should be written anew: its secret is no longer the first, or half of its time is over.
    pub renew: bool,
}

/// Why a cookie says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTicket {
    /// Not written by us, or with a secret that is no longer in use.
    Foreign,
    /// Its time is over.
    Expired,
    /// Its backend is no longer in the pool.
    Gone,
}

impl NoTicket {
    /// In words, for `explain`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Foreign => "is not one of ours",
            Self::Expired => "has expired",
            Self::Gone => "names a backend that is no longer in the pool",
        }
    }
}

impl CookieKeys {
    /// Keys for the pool with these members, from the secrets in use.
    pub fn new<'s>(
        secrets: impl IntoIterator<Item = &'s [u8]>,
        load_balancer: &str,
        pool: &str,
        members: &[SocketAddr],
    ) -> Self {
        let derive = |secret: &[u8]| {
            let mac = keyed(secret);
            // Names hold no NUL: no two pools are written alike.
            let derived = mac
                .chain_update(b"evenkeel sticky cookie 1\0")
                .chain_update(load_balancer)
                .chain_update(b"\0")
                .chain_update(pool)
                .finalize()
                .into_bytes();
            let mac = keyed(&derived);
            let id = |address: &SocketAddr| {
                let text = address.to_string();
                first(&mac.clone().chain_update(b"backend\0").chain_update(text))
            };
            PoolKey {
                ids: members.iter().map(id).collect(),
                mac,
            }
        };
        Self {
            keys: secrets.into_iter().map(derive).collect(),
        }
    }

    /// Appends the value that says that the session is at this member. `now_s`: seconds since the Unix epoch.
    pub fn write(&self, out: &mut Vec<u8>, member: usize, now_s: u64) {
        let Some(key) = self.keys.first() else { return };
        let id = key.ids.get(member).copied().unwrap_or_default();
        let issued = u32::try_from(now_s).unwrap_or(u32::MAX).to_be_bytes();
        let tag: [u8; TAG] = first(&key.tag_of(&id, &issued));
        let mut text = [0; COOKIE_LENGTH];
        let bytes = [&id[..], &issued, &tag].concat();
        // The text has exactly the room that it needs.
        if let Ok(length) = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text) {
            out.extend_from_slice(text.get(..length).unwrap_or_default());
        }
    }

    /// What a value says. `ttl_s`: how long it counts; `None`: for ever.
    ///
    /// # Errors
    /// Why it says nothing.
    pub fn read(&self, value: &[u8], now_s: u64, ttl_s: Option<u64>) -> Result<Ticket, NoTicket> {
        let mut bytes = [0; BYTES];
        let decoded = (value.len() == COOKIE_LENGTH)
            .then(|| URL_SAFE_NO_PAD.decode_slice(value, &mut bytes).ok())
            .flatten();
        if decoded != Some(BYTES) {
            return Err(NoTicket::Foreign);
        }
        let (id, rest) = bytes.split_first_chunk::<ID>().ok_or(NoTicket::Foreign)?;
        let (issued, tag) = rest.split_first_chunk::<TIME>().ok_or(NoTicket::Foreign)?;
        // Compared in constant time.
        let signed = |key: &PoolKey| key.tag_of(id, issued).verify_truncated_left(tag).is_ok();
        let by = self.keys.iter().position(signed).ok_or(NoTicket::Foreign)?;
        let issued_s = u64::from(u32::from_be_bytes(*issued));
        if issued_s > now_s.saturating_add(MAX_AHEAD_S) {
            return Err(NoTicket::Expired);
        }
        let age = now_s.saturating_sub(issued_s);
        if ttl_s.is_some_and(|ttl| age >= ttl) {
            return Err(NoTicket::Expired);
        }
        let ids = self
            .keys
            .get(by)
            .map(|key| key.ids.as_slice())
            .unwrap_or_default();
        let member = ids.iter().position(|known| known == id).ok_or(NoTicket::Gone)?;
        let renew = by > 0 || ttl_s.is_some_and(|ttl| age >= ttl / 2);
        Ok(Ticket { member, renew })
    }
}

impl PoolKey {
    fn tag_of(&self, id: &[u8; ID], issued: &[u8; TIME]) -> Hmac<Sha256> {
        self.mac
            .clone()
            .chain_update(b"cookie\0")
            .chain_update(id)
            .chain_update(issued)
    }
}

/// A seed for a table, which nobody can guess who does not know the secret.
pub fn derive_seed(secret: &[u8], what: &[u8]) -> u64 {
    let mac = keyed(secret)
        .chain_update(b"evenkeel table seed 1\0")
        .chain_update(what);
    u64::from_le_bytes(first(&mac))
}

/// HMAC takes a key of any length.
fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::new_from_slice(secret);
    mac.unwrap_or_else(|_| Hmac::new(&Default::default()))
}

/// The first bytes of a MAC.
fn first<const N: usize>(mac: &Hmac<Sha256>) -> [u8; N] {
    let whole = mac.clone().finalize().into_bytes();
    let mut bytes = [0; N];
    for (to, from) in bytes.iter_mut().zip(whole) {
        *to = from;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members() -> Vec<SocketAddr> {
        ["10.0.0.1:9001", "10.0.0.2:9001", "[2001:db8::7]:80"]
            .map(|a| a.parse().unwrap())
            .to_vec()
    }

    fn keys(secrets: &[&str]) -> CookieKeys {
        CookieKeys::new(secrets.iter().map(|s| s.as_bytes()), "shop", "web", &members())
    }

    fn written(keys: &CookieKeys, member: usize, now_s: u64) -> Vec<u8> {
        let mut out = Vec::new();
        keys.write(&mut out, member, now_s);
        assert_eq!(out.len(), COOKIE_LENGTH);
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let keys = keys(&["a secret of ours"]);
        for member in 0..3 {
            let value = written(&keys, member, 1_000);
            assert_eq!(
                keys.read(&value, 2_000_000_000, None),
                Ok(Ticket { member, renew: false })
            );
        }
    }

    /// Half of its time over, it is written anew; all of it, it counts no more.
    #[test]
    fn it_ages() {
        let keys = keys(&["a secret of ours"]);
        let value = written(&keys, 1, 1_000);
        let read = |now_s| keys.read(&value, now_s, Some(60));
        assert_eq!(
            read(1_029),
            Ok(Ticket {
                member: 1,
                renew: false
            })
        );
        assert_eq!(
            read(1_030),
            Ok(Ticket {
                member: 1,
                renew: true
            })
        );
        assert_eq!(
            read(1_059),
            Ok(Ticket {
                member: 1,
                renew: true
            })
        );
        assert_eq!(read(1_060), Err(NoTicket::Expired));
        // Another node's clock may be ahead a little; not by a day.
        assert!(read(500).is_ok());
        assert_eq!(written(&keys, 1, 100_000).len(), COOKIE_LENGTH);
        assert_eq!(
            keys.read(&written(&keys, 1, 100_000), 1_000, None),
            Err(NoTicket::Expired)
        );
    }

    /// The secret is changed: old cookies are taken and written anew; without the old secret they are nobody's.
    #[test]
    fn a_secret_is_changed_without_moving_a_session() {
        let old = keys(&["the old secret"]);
        let both = keys(&["the new secret", "the old secret"]);
        let new = keys(&["the new secret"]);
        let value = written(&old, 2, 1_000);
        assert_eq!(
            both.read(&value, 1_000, None),
            Ok(Ticket {
                member: 2,
                renew: true
            })
        );
        assert_eq!(new.read(&value, 1_000, None), Err(NoTicket::Foreign));
        assert_eq!(
            new.read(&written(&both, 2, 1_000), 1_000, None),
            Ok(Ticket {
                member: 2,
                renew: false
            })
        );
    }

    /// A cookie of another pool, of another load balancer, or for a backend that was removed.
    #[test]
    fn it_counts_in_its_own_pool_only() {
        let own = keys(&["a secret of ours"]);
        let secret = || [&b"a secret of ours"[..]];
        let value = written(&own, 0, 1_000);
        for (lb, pool) in [("shop", "api"), ("blog", "web")] {
            let other = CookieKeys::new(secret(), lb, pool, &members());
            assert_eq!(other.read(&value, 1_000, None), Err(NoTicket::Foreign));
        }
        let fewer = CookieKeys::new(secret(), "shop", "web", &members()[1..]);
        assert_eq!(fewer.read(&value, 1_000, None), Err(NoTicket::Gone));
        assert_eq!(
            fewer.read(&written(&own, 1, 1_000), 1_000, None),
            Ok(Ticket {
                member: 0,
                renew: false
            }),
            "the place in the list does not count"
        );
    }

    /// Nothing of an address is in it, in any of the forms one might look for.
    #[test]
    fn it_names_no_address() {
        let keys = keys(&["a secret of ours"]);
        for (member, address) in members().iter().enumerate() {
            let value = written(&keys, member, 1_000);
            let text = String::from_utf8(value.clone()).unwrap();
            assert!(!text.contains(&address.to_string()));
            let bytes = URL_SAFE_NO_PAD.decode(&value).unwrap();
            let port = address.port().to_be_bytes();
            if let SocketAddr::V4(v4) = address {
                assert!(!bytes.windows(4).any(|w| w == v4.ip().octets()));
                assert!(!bytes.windows(2).take(ID).any(|w| w == port));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever a client makes up, it is not ours; nor is one of ours with any bit changed.
        #[test]
        fn nothing_made_up_is_taken(value in prop::collection::vec(any::<u8>(), 0..64), at in 0..COOKIE_LENGTH, to in "[A-Za-z0-9_=-]") {
            let keys = keys(&["a secret of ours", "another one of ours"]);
            prop_assert_eq!(keys.read(&value, 1_000, None), Err(NoTicket::Foreign));
            let mut forged = written(&keys, 1, 1_000);
            let changed = to.as_bytes()[0];
            prop_assume!(forged[at] != changed);
            forged[at] = changed;
            prop_assert_eq!(keys.read(&forged, 1_000, None), Err(NoTicket::Foreign));
        }
    }
}
