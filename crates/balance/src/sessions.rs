//! Learned sessions: which backend the requests with some key went to, for as long as they come.
//!
//! A bounded table, because keys come from clients. Where it is full, the session that was longest without a
//! request is forgotten; one with a request under way is not, and does not grow old while it has one (a tunnel may
//! be open for days).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use model::config::Learned;

use crate::table::{Found, Table};

/// The sessions of one pool.
#[derive(Debug)]
pub struct Sessions {
    table: Table<Session>,
    ttl_s: u32,
    displaced: AtomicU64,
}

/// Where a session is.
#[derive(Clone, Copy, Debug, Default)]
struct Session {
    backend: u64,
    used_s: u32,
    open: u32,
}

impl Sessions {
    /// No session is known. `seed` decides where keys stand in the table and should be nobody's guess.
    pub fn new(settings: &Learned, seed: u64) -> Self {
        Self {
            table: Table::new(settings.max_sessions as usize, seed),
            ttl_s: u32::try_from(settings.ttl.as_secs()).unwrap_or(u32::MAX),
            displaced: AtomicU64::new(0),
        }
    }

    /// The backend (see [`crate::Balancer::session_id`]) of the session with this key, a hash.
    pub fn find(&self, key: u64, now_s: u32) -> Option<u64> {
        let live = |session: &mut Session| self.is_live(session, now_s).then_some(session.backend);
        self.table.find(key, live).flatten()
    }

    /// The session is at this backend from now on.
    pub fn remember(&self, key: u64, backend: u64, now_s: u32) {
        self.use_session(key, backend, now_s, 0);
    }

    /// The same, with a request under way, which [`Sessions::release`] ends.
    pub fn hold(&self, key: u64, backend: u64, now_s: u32) {
        self.use_session(key, backend, now_s, 1);
    }

    /// A request of the session has ended.
    pub fn release(&self, key: u64, now_s: u32) {
        self.table.find(key, |session| {
            session.open = session.open.saturating_sub(1);
            session.used_s = now_s;
        });
    }

    /// Sessions that were forgotten before their time, for want of room.
    pub fn displaced(&self) -> u64 {
        self.displaced.load(Relaxed)
    }

    fn use_session(&self, key: u64, backend: u64, now_s: u32, more: u32) {
        let rank = |session: &Session| match session.open {
            0 => u64::from(session.used_s),
            _ => u64::MAX,
        };
        self.table.enter(key, rank, |session, found| {
            if found == Found::Other && self.is_live(session, now_s) {
                self.displaced.fetch_add(1, Relaxed);
            }
            let open = if found == Found::Same { session.open } else { 0 };
            *session = Session {
                backend,
                used_s: now_s,
                open: open.saturating_add(more),
            };
        });
    }

    fn is_live(&self, session: &Session, now_s: u32) -> bool {
        session.open > 0 || now_s.saturating_sub(session.used_s) < self.ttl_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::config::SessionKey;
    use std::time::Duration;

    fn sessions(ttl_s: u64) -> Sessions {
        let settings = Learned {
            key: SessionKey::ClientAddress,
            ttl: Duration::from_secs(ttl_s),
            max_sessions: 1000,
        };
        Sessions::new(&settings, 3)
    }

    #[test]
    fn a_session_lasts_while_requests_come_and_a_minute_more() {
        let sessions = sessions(60);
        sessions.remember(1, 77, 100);
        assert_eq!(sessions.find(1, 159), Some(77));
        sessions.hold(1, 77, 159);
        sessions.release(1, 160);
        assert_eq!(sessions.find(1, 219), Some(77));
        assert_eq!(sessions.find(1, 220), None);
        assert_eq!(sessions.find(2, 100), None);
    }

    #[test]
    fn a_session_moves_with_the_answer() {
        let sessions = sessions(60);
        sessions.remember(1, 77, 100);
        sessions.remember(1, 88, 101);
        assert_eq!(sessions.find(1, 102), Some(88));
    }

    /// A WebSocket that is open for a day: its session does not grow old, and no crowd pushes it out.
    #[test]
    fn a_session_with_a_stream_open_is_kept() {
        let sessions = sessions(60);
        sessions.hold(1, 77, 100);
        for key in 2..200_000 {
            sessions.remember(key, 5, 86_000);
        }
        assert_eq!(sessions.find(1, 86_500), Some(77));
        sessions.release(1, 86_500);
        assert_eq!(sessions.find(1, 86_559), Some(77));
        assert_eq!(sessions.find(1, 86_560), None);
    }

    /// More sessions than there is room for: those longest unused are forgotten, and that is counted.
    #[test]
    fn the_longest_unused_is_forgotten_first() {
        let sessions = sessions(86_400);
        for key in 0..20_000u64 {
            sessions.remember(key, key, 1 + (key / 10) as u32);
        }
        let kept = (19_500..20_000)
            .filter(|key| sessions.find(*key, 2001) == Some(*key))
            .count();
        assert!(kept > 450, "{kept}");
        assert!((0..10_000).all(|key| sessions.find(key, 2001).is_none()));
        assert!(sessions.displaced() > 18_000);
    }
}
