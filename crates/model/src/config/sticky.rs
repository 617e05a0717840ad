//! Stickiness: how a user's later requests find the backend that had the first one.

use std::time::Duration;

use super::Secret;

/// How the requests of one session are kept together (`sticky` of a pool). Works with every algorithm, which
/// chooses for the first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// What tells sessions apart.
    pub by: StickyBy,
    /// How long after the order a drained backend still gets the requests of its old sessions; zero: not at all.
    pub drain_timeout: Duration,
}

/// Default of `sticky.drain_timeout`.
pub const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What tells sessions apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyBy {
    /// A cookie of our own, which says where the session is. Nothing is kept here.
    Cookie(StickyCookie),
    /// Something that requests carry anyway; where its sessions are is kept in a bounded table.
    Learned(Learned),
}

/// The cookie that is set (RFC 6265 section 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    /// Its name: a token.
    pub name: String,
    /// How long a session lasts without a request; `None`: until the browser ends it.
    pub ttl: Option<Duration>,
    /// Whether it is for TLS only.
    pub secure: Secure,
    /// `SameSite`.
    pub same_site: SameSite,
    /// Whether scripts are kept from it.
    pub http_only: bool,
    /// `Path`.
    pub path: String,
    /// `Domain`; `None`: exactly the host that was asked.
    pub domain: Option<String>,
    /// What it is signed with: the first signs, the others are accepted still. Empty: `node.secret`, or a key
    /// that is kept in the data directory.
    pub secrets: Vec<Secret>,
}

/// When a cookie is marked `Secure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secure {
    /// When its request came over TLS.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// `SameSite` of a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Sent to this site and when a link leads to it.
    Lax,
    /// Sent from this site only.
    Strict,
    /// Sent from everywhere; browsers want `Secure` with it.
    None,
}

impl SameSite {
    /// The name in the config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lax => "lax",
            Self::Strict => "strict",
            Self::None => "none",
        }
    }

    /// The value of the attribute.
    pub fn attribute(self) -> &'static str {
        match self {
            Self::Lax => "Lax",
            Self::Strict => "Strict",
            Self::None => "None",
        }
    }
}

/// Sessions that are learned from what passes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Learned {
    /// What names a session.
    pub key: SessionKey,
    /// How long one is remembered after its last request.
    pub ttl: Duration,
    /// How many are remembered; beyond it the one longest unused is forgotten.
    pub max_sessions: u32,
}

/// Default of `sticky.ttl` of learned sessions.
pub const DEFAULT_LEARNED_TTL: Duration = Duration::from_secs(30 * 60);
/// Default of `sticky.max_sessions`.
pub const DEFAULT_MAX_SESSIONS: u32 = 100_000;

/// What names a learned session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SessionKey {
    /// The value of this cookie, which the application sets.
    AppCookie(String),
    /// The value of this header field (lower case).
    Header(String),
    /// The client's IP address (behind trusted proxies: the one they report).
    ClientAddress,
}
