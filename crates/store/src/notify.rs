//! Hints that something has changed, over a channel of Redis.
//!
//! Whoever has written says so with the revision ([`Notifier::publish`]); all others hear it within milliseconds and
//! read the store, instead of waiting for their next look. A hint is only a hint: what is true stands in the store,
//! and with Redis away everything works, later. So nothing here is waited for and nothing fails a caller: of several
//! revisions to be told the newest wins, and what comes in, however wrong, old or hostile, costs the listener one
//! notice at most, and at most one each [`NOTICE_PAUSE`].
//!
//! Two connections, one that listens and one that tells, because a connection that listens may do nothing else in
//! RESP2, which every Redis speaks. The one that listens asks for a sign of life when it has heard nothing for
//! [`PING_AFTER`], so that a dead link is noticed within [`PING_AFTER`] and [`ANSWER_WITHIN`]. Lost connections are
//! opened again with pauses that grow and differ; where Redis refuses us (a wrong password), the pause is
//! [`REFUSED_PAUSE`], so that it is not stormed. After each reconnect there is a notice: hints may have been missed.

mod link;
mod resp;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::backoff;
use link::{Link, Trouble};
use resp::Reply;

pub use link::RedisSettings;

/// Silence after which the listener asks for a sign of life.
pub const PING_AFTER: Duration = Duration::from_secs(1);
/// Longest wait for an answer, and for a connection.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Pause after Redis has refused us.
pub const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// Least time between two notices.
pub const NOTICE_PAUSE: Duration = Duration::from_millis(20);

/// Tells others of changes. A clone is another handle of the same one; with the last one the tasks end.
#[derive(Clone, Debug)]
pub struct Notifier {
    newest: watch::Sender<u64>,
    shared: Arc<Shared>,
}

/// How the channel is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NotifierStatus {
    /// Whether hints are heard.
    pub connected: bool,
    /// Why not, or why hints cannot be told.
    pub trouble: Option<String>,
    /// Hints told.
    pub sent: u64,
    /// Hints heard.
    pub received: u64,
    /// Messages that are no hints.
    pub nonsense: u64,
    /// Connections of the listener that were lost, and attempts that failed.
    pub reconnects: u64,
}

#[derive(Debug, Default)]
struct Shared {
    sent: AtomicU64,
    received: AtomicU64,
    nonsense: AtomicU64,
    reconnects: AtomicU64,
    /// Of the listener: connected, or why not.
    listens: Mutex<Listens>,
    /// Why the last hint could not be told.
    mute: Mutex<Option<String>>,
}

#[derive(Clone, Debug, Default)]
struct Listens {
    connected: bool,
    trouble: Option<String>,
}

impl Notifier {
    /// Starts to listen and to tell; within a tokio runtime. Each notice says: look now, something may have changed.
    /// With one that is not yet read, further ones are not needed and not made.
    #[must_use]
    pub fn start(settings: RedisSettings) -> (Self, mpsc::Receiver<()>) {
        let (newest, told) = watch::channel(0);
        let (notices, heard) = mpsc::channel(1);
        let shared = Arc::new(Shared::default());
        let settings = Arc::new(settings);
        let listener = Listener {
            settings: Arc::clone(&settings),
            shared: Arc::clone(&shared),
            notices,
            last: None,
            wanted: false,
            noticed: None,
        };
        tokio::spawn(listener.run(told.clone()));
        tokio::spawn(tell(settings, Arc::clone(&shared), told));
        (Self { newest, shared }, heard)
    }

    /// Tells that the store has this revision. Returns at once, whatever becomes of it; older revisions than the
    /// newest one told are not told.
    pub fn publish(&self, revision: u64) {
        self.newest.send_if_modified(|newest| {
            let newer = revision > *newest;
            *newest = revision.max(*newest);
            newer
        });
    }

    /// How the channel is now.
    #[must_use]
    pub fn status(&self) -> NotifierStatus {
        let listens = lock(&self.shared.listens).clone();
        NotifierStatus {
            connected: listens.connected,
            trouble: listens.trouble.or_else(|| lock(&self.shared.mute).clone()),
            sent: self.shared.sent.load(Relaxed),
            received: self.shared.received.load(Relaxed),
            nonsense: self.shared.nonsense.load(Relaxed),
            reconnects: self.shared.reconnects.load(Relaxed),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears hints.
struct Listener {
    settings: Arc<RedisSettings>,
    shared: Arc<Shared>,
    notices: mpsc::Sender<()>,
    /// The last revision heard: the same one again is no news.
    last: Option<u64>,
    /// The consumer should look.
    wanted: bool,
    noticed: Option<Instant>,
}

impl Listener {
    /// Until nobody listens or tells any more.
    async fn run(mut self, mut owner: watch::Receiver<u64>) {
        let mut failures = 0;
        let gone = async move { while owner.changed().await.is_ok() {} };
        tokio::pin!(gone);
        loop {
            let notices = self.notices.clone();
            let trouble = tokio::select! {
                trouble = self.listen(&mut failures) => trouble,
                () = notices.closed() => return,
                () = &mut gone => return,
            };
            failures += 1;
            self.shared.reconnects.fetch_add(1, Relaxed);
            self.lost(&trouble);
            tokio::select! {
                () = sleep(trouble.pause(failures)) => {}
                () = notices.closed() => return,
                () = &mut gone => return,
            }
        }
    }

    /// Connects and hears, until that is over.
    async fn listen(&mut self, failures: &mut u32) -> Trouble {
        match self.hear(failures).await {
            Err(trouble) => trouble,
            Ok(never) => match never {},
        }
    }

    async fn hear(&mut self, failures: &mut u32) -> Result<std::convert::Infallible, Trouble> {
        let settings = Arc::clone(&self.settings);
        let channel = settings.channel.as_bytes();
        let mut link = Link::open(&settings).await?;
        link.send(&[b"SUBSCRIBE", channel]).await?;
        if !link.answer(ANSWER_WITHIN).await?.is_about("subscribe") {
            return Err(Trouble::Lost("it does not let us listen".to_owned()));
        }
        *failures = 0;
        self.found();
        // What was told meanwhile was not heard.
        self.wanted = true;
        loop {
            let wait = self.notice();
            let reply = match timeout(wait.unwrap_or(PING_AFTER), link.next()).await {
                Ok(reply) => reply?,
                Err(_) if wait.is_some() => continue,
                Err(_) => {
                    link.send(&[b"PING"]).await?;
                    link.answer(ANSWER_WITHIN).await?
                }
            };
            if let Some(message) = reply.message(channel) {
                self.hint(message);
            }
        }
    }

    fn hint(&mut self, message: &[u8]) {
        let Some(revision) = revision(message) else {
            self.shared.nonsense.fetch_add(1, Relaxed);
            return;
        };
        self.shared.received.fetch_add(1, Relaxed);
        self.wanted |= self.last.replace(revision) != Some(revision);
    }

    /// Lets the consumer look, where that is wanted and its time has come; otherwise when it comes. One notice that
    /// waits says it all.
    fn notice(&mut self) -> Option<Duration> {
        if !self.wanted {
            return None;
        }
        let wait = self.noticed.and_then(|at| NOTICE_PAUSE.checked_sub(at.elapsed()));
        if wait.is_none() {
            self.noticed = Some(Instant::now());
            self.wanted = false;
            let _ = self.notices.try_send(());
        }
        wait
    }

    fn found(&self) {
        let mut listens = lock(&self.shared.listens);
        if listens.trouble.is_some() {
            tracing::info!("hints over Redis are heard again");
        }
        *listens = Listens {
            connected: true,
            trouble: None,
        };
    }

    fn lost(&self, trouble: &Trouble) {
        let mut listens = lock(&self.shared.listens);
        if listens.trouble.is_none() {
            tracing::warn!(
                "no hints over Redis: {trouble}; the store is looked at from time to time instead"
            );
        }
        *listens = Listens {
            connected: false,
            trouble: Some(trouble.to_string()),
        };
    }
}

/// Tells the newest revision, until no handle is left.
async fn tell(settings: Arc<RedisSettings>, shared: Arc<Shared>, mut newest: watch::Receiver<u64>) {
    let mut link: Option<Link> = None;
    let mut failures = 0;
    while newest.changed().await.is_ok() {
        loop {
            let revision = *newest.borrow_and_update();
            let reused = link.is_some();
            let Err(trouble) = tell_once(&settings, &mut link, revision).await else {
                shared.sent.fetch_add(1, Relaxed);
                *lock(&shared.mute) = None;
                failures = 0;
                break;
            };
            link = None;
            // A connection that was idle may have ended long ago: that says nothing of Redis now.
            if reused {
                continue;
            }
            failures += 1;
            *lock(&shared.mute) = Some(trouble.to_string());
            tokio::select! {
                () = sleep(trouble.pause(failures)) => {}
                // A newer one takes its place, but the pause stands.
                closed = closed(newest.clone()) => return closed,
            }
        }
    }
}

/// Ends when no handle is left.
async fn closed(mut newest: watch::Receiver<u64>) {
    while newest.changed().await.is_ok() {}
}

async fn tell_once(settings: &RedisSettings, link: &mut Option<Link>, revision: u64) -> Result<(), Trouble> {
    let link = match link {
        Some(link) => link,
        none => none.insert(Link::open(settings).await?),
    };
    let text = revision.to_string();
    link.send(&[b"PUBLISH", settings.channel.as_bytes(), text.as_bytes()])
        .await?;
    match link.answer(ANSWER_WITHIN).await? {
        Reply::Integer(_) => Ok(()),
        _ => Err(Trouble::Lost("it answers something else than asked".to_owned())),
    }
}

impl Trouble {
    /// How long to wait after so many failures in a row.
    fn pause(&self, failures: u32) -> Duration {
        match self {
            Self::Lost(_) => backoff::pause(failures),
            Self::Refused(_) => REFUSED_PAUSE,
        }
    }
}

/// A revision as it is told: decimal digits, nothing else.
fn revision(message: &[u8]) -> Option<u64> {
    let digits = (1..=20).contains(&message.len()) && message.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(message).ok().filter(|_| digits)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{REFUSED_PAUSE, Trouble, revision};

    /// However often it failed before: a wrong password is not tried in a loop. A loss is.
    #[test]
    fn who_is_refused_waits_for_long() {
        for failures in [1, 2, 100] {
            let refused = Trouble::Refused("WRONGPASS".to_owned());
            assert_eq!(refused.pause(failures), REFUSED_PAUSE);
            let lost = Trouble::Lost("reset".to_owned());
            assert!(lost.pause(failures) < REFUSED_PAUSE);
        }
    }

    #[test]
    fn a_hint_is_a_number_and_nothing_else() {
        assert_eq!(revision(b"42"), Some(42));
        assert_eq!(revision(b"18446744073709551615"), Some(u64::MAX));
        for wrong in [
            &b""[..],
            b"-1",
            b"+1",
            b" 1",
            b"18446744073709551616",
            b"1e3",
            b"\xff",
            &[b'1'; 21],
        ] {
            assert_eq!(revision(wrong), None, "{wrong:?}");
        }
    }
}
