//! Stickiness: the backend of a request's session, if it has one, and what tells the client or us where it is.
//!
//! A session is looked up before the algorithm is asked and noted after it: a request goes to the backend of its
//! session while that takes it, else the algorithm chooses and the session is there from then on.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use balance::{Balancer, CookieKeys, NoTicket, Sessions, Ticket};
use http::{FieldList, ResponseHead};
use model::config::{Learned, SameSite, Secret, Secure, SessionKey, StickyBy, StickyCookie};
use model::snapshot::PoolState;

use crate::keys::Sender;
use crate::serving::PoolServing;
use crate::shard::Shard;
use crate::timers::Timers;

/// The stickiness of one pool, as it is in force.
#[derive(Debug)]
pub(crate) enum StickyServing {
    /// By a cookie of our own.
    Cookie {
        config: StickyCookie,
        keys: CookieKeys,
        /// What follows the value, without `Secure`.
        attributes: String,
    },
    /// By what is learned.
    Learned {
        key: SessionKey,
        sessions: Arc<Sessions>,
    },
}

impl StickyServing {
    /// For a pool in this state; `None` where it has no stickiness. `secrets` sign where the pool has none of its
    /// own, `sessions` finds the table of those learned.
    pub(crate) fn new(
        state: &PoolState,
        secrets: &[&[u8]],
        sessions: impl FnOnce(&Learned) -> Arc<Sessions>,
    ) -> Option<Self> {
        let sticky = state.config.sticky.as_ref()?;
        Some(match &sticky.by {
            StickyBy::Learned(learned) => Self::Learned {
                key: learned.key.clone(),
                sessions: sessions(learned),
            },
            StickyBy::Cookie(cookie) => {
                let own = cookie
                    .secrets
                    .iter()
                    .map(|secret| Secret::expose(secret).as_bytes());
                let own: Vec<&[u8]> = own.collect();
                let secrets = if own.is_empty() { secrets } else { &own };
                let members: Vec<SocketAddr> = state.members.iter().map(|m| m.id.address).collect();
                Self::Cookie {
                    keys: CookieKeys::new(
                        secrets.iter().copied(),
                        state.load_balancer.as_str(),
                        state.config.name.as_str(),
                        &members,
                    ),
                    attributes: attributes(cookie),
                    config: cookie.clone(),
                }
            }
        })
    }

    /// The table of what is learned.
    pub(crate) fn sessions(&self) -> Option<&Arc<Sessions>> {
        match self {
            Self::Learned { sessions, .. } => Some(sessions),
            Self::Cookie { .. } => None,
        }
    }
}

/// The attributes of the cookie (RFC 6265 section 4.1.2), without `Secure`.
fn attributes(cookie: &StickyCookie) -> String {
    let mut text = format!("; Path={}", cookie.path);
    if let Some(domain) = &cookie.domain {
        text.push_str("; Domain=");
        text.push_str(domain);
    }
    if let Some(ttl) = cookie.ttl {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if cookie.http_only {
        text.push_str("; HttpOnly");
    }
    text.push_str("; SameSite=");
    text.push_str(SameSite::attribute(cookie.same_site));
    text
}

/// The session of one request.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    of: Option<(&'a StickyServing, &'a Balancer, &'a Shard)>,
    found: Found,
    /// Under which key it is learned.
    key: Option<u64>,
    hold: RefCell<Option<Hold>>,
}

/// What is known of a session before a backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The request has none.
    None,
    /// It is at this member.
    At(Ticket),
    /// It was somewhere, or says so without proof: it is placed anew.
    Lost(NoTicket),
}

impl<'a> Session<'a> {
    /// The session of a request to this pool.
    pub(crate) fn find(shard: &'a Shard, pool: &'a PoolServing, sender: &Sender<'_>) -> Self {
        let mut session = Self {
            of: None,
            found: Found::None,
            key: None,
            hold: RefCell::default(),
        };
        let Some(sticky) = &pool.sticky else {
            return session;
        };
        session.of = Some((sticky, &pool.balancer, shard));
        session.key = match sticky {
            StickyServing::Cookie { .. } => None,
            StickyServing::Learned { key, .. } => sender.session_key(key),
        };
        session.found = found(
            sticky,
            &pool.balancer,
            sender,
            session.key,
            seconds(&shard.timers),
        );
        session
    }

    /// The member that the request should go to, when that takes it.
    pub(crate) fn member(&self, tried: &[usize], now_us: u64) -> Option<usize> {
        let (_, balancer, _) = self.of?;
        let Found::At(ticket) = self.found else {
            return None;
        };
        balancer
            .keeps_session(ticket.member, tried, now_us)
            .then_some(ticket.member)
    }

    /// What becomes of the session with a request that goes to this member, for the account: an index into
    /// [`crate::counters::SESSIONS`]. `None` without stickiness.
    pub(crate) fn outcome(&self, index: usize) -> Option<u8> {
        self.of?;
        Some(match self.found {
            Found::None => 1,
            Found::At(ticket) if ticket.member == index => 0,
            Found::At(_) | Found::Lost(NoTicket::Gone) => 2,
            Found::Lost(_) => 3,
        })
    }

    /// The request goes to this member: a learned session is there from now on, so that requests beside this one
    /// go there too.
    pub(crate) fn begin(&self, index: usize) {
        let Some((StickyServing::Learned { sessions, .. }, balancer, shard)) = self.of else {
            return;
        };
        let Some((key, id)) = self.key.zip(balancer.session_id(index)) else {
            return;
        };
        let mut hold = self.hold.borrow_mut();
        if hold.is_some() {
            sessions.remember(key, id, seconds(&shard.timers));
        } else {
            sessions.hold(key, id, seconds(&shard.timers));
            *hold = Some(Hold {
                sessions: sessions.clone(),
                key,
                timers: shard.timers.clone(),
            });
        }
    }

    /// What keeps a learned session from growing old, for a stream that outlives its request.
    pub(crate) fn take_hold(&self) -> Option<Hold> {
        self.hold.take()
    }

    /// This member answers with this head: tells the client where its session is, or learns a session that the
    /// application begins. `secure`: the request came over TLS.
    pub(crate) fn answered(
        &self,
        index: usize,
        buffer: &[u8],
        response: &ResponseHead,
        extra: &mut FieldList,
        secure: bool,
    ) {
        let Some((sticky, balancer, shard)) = self.of else {
            return;
        };
        match sticky {
            StickyServing::Cookie {
                config,
                keys,
                attributes,
            } => {
                let told = matches!(self.found, Found::At(t) if t.member == index && !t.renew);
                if !told {
                    let secure = match config.secure {
                        Secure::Auto => secure,
                        Secure::Always => true,
                        Secure::Never => false,
                    };
                    set_cookie(config, keys, attributes, index, secure, extra);
                }
            }
            StickyServing::Learned { key, sessions } => {
                let SessionKey::AppCookie(name) = key else {
                    return;
                };
                let began = response
                    .set_cookie(buffer, name)
                    .filter(|value| !value.is_empty());
                if let Some((value, id)) = began.zip(balancer.session_id(index)) {
                    sessions.remember(balance::hash(value), id, seconds(&shard.timers));
                }
            }
        }
    }
}

/// A request or stream of a learned session is under way.
#[derive(Debug)]
pub(crate) struct Hold {
    sessions: Arc<Sessions>,
    key: u64,
    timers: Rc<Timers>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.sessions.release(self.key, seconds(&self.timers));
    }
}

fn found(
    sticky: &StickyServing,
    balancer: &Balancer,
    sender: &Sender<'_>,
    key: Option<u64>,
    now_s: u32,
) -> Found {
    match sticky {
        StickyServing::Cookie { config, keys, .. } => {
            let ttl = config.ttl.map(|ttl| ttl.as_secs());
            let mut found = Found::None;
            // There may be several of one name, for different paths: the order says nothing (RFC 6265 section 4.2.2).
            for value in sender.head.cookies(sender.bytes, &config.name) {
                match keys.read(value, unix_seconds(), ttl) {
                    Ok(ticket) => return Found::At(ticket),
                    Err(why) => found = Found::Lost(why),
                }
            }
            found
        }
        StickyServing::Learned { sessions, .. } => {
            let Some(id) = key.and_then(|key| sessions.find(key, now_s)) else {
                return Found::None;
            };
            let member = balancer.session_member(id);
            member.map_or(Found::Lost(NoTicket::Gone), |member| {
                Found::At(Ticket { member, renew: false })
            })
        }
    }
}

/// Adds the cookie. A response with it is one user's: no cache may give it to others (RFC 9111 section 7.3).
fn set_cookie(
    config: &StickyCookie,
    keys: &CookieKeys,
    attributes: &str,
    index: usize,
    secure: bool,
    extra: &mut FieldList,
) {
    extra.push_with(b"Set-Cookie", |out| {
        out.extend_from_slice(config.name.as_bytes());
        out.push(b'=');
        keys.write(out, index, unix_seconds());
        out.extend_from_slice(attributes.as_bytes());
        if secure {
            out.extend_from_slice(b"; Secure");
        }
    });
    extra.push(b"Cache-Control", b"private");
}

/// Seconds that learned sessions are measured in: since the start.
fn seconds(timers: &Timers) -> u32 {
    u32::try_from(timers.recent_us() / 1_000_000).unwrap_or(u32::MAX)
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Where the session of a request is, in words; `None` without stickiness.
pub(crate) fn explain(
    pool: &PoolServing,
    sender: &Sender<'_>,
    now_us: u64,
) -> Option<(String, Option<usize>)> {
    let sticky = pool.sticky.as_ref()?;
    let now_s = u32::try_from(now_us / 1_000_000).unwrap_or(u32::MAX);
    let (what, key) = match sticky {
        StickyServing::Cookie { config, .. } => (format!("cookie {}", config.name), None),
        StickyServing::Learned { key, .. } => {
            let what = match key {
                SessionKey::AppCookie(name) => format!("application cookie {name}"),
                SessionKey::Header(name) => format!("header {name}"),
                SessionKey::ClientAddress => "client address".to_owned(),
            };
            (what, sender.session_key(key))
        }
    };
    let found = found(sticky, &pool.balancer, sender, key, now_s);
    Some(match found {
        Found::None => (format!("no session yet, by {what}: the algorithm chooses"), None),
        Found::Lost(why) => (format!("{what} {}: the algorithm chooses", why.words()), None),
        Found::At(ticket) => {
            let address = pool.backends.get(ticket.member).map(|b| b.id.address.to_string());
            let address = address.unwrap_or_default();
            if pool.balancer.keeps_session(ticket.member, &[], now_us) {
                (
                    format!("{what}: the session is at {address}"),
                    Some(ticket.member),
                )
            } else {
                let words = format!(
                    "{what}: the session was at {address}, which takes no requests: the algorithm chooses"
                );
                (words, None)
            }
        }
    })
}
