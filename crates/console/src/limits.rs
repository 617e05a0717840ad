//! Every bound of the admin API, by name.

use std::time::Duration;

/// Connections served at the same time. Further ones wait in the kernel's queue of the listener.
pub const MAX_CONNECTIONS: usize = 128;
/// Connections that one address (of IPv6 a /64) may have; one more is closed at once, so that there is room for others.
pub const MAX_CONNECTIONS_PER_SOURCE: usize = 96;
/// Once no more than so many are left, an address may have no more than [`LAST_PER_SOURCE`].
pub const LAST_CONNECTIONS: usize = 24;
/// See [`LAST_CONNECTIONS`].
pub const LAST_PER_SOURCE: usize = 4;
/// Connections that only who is on this machine may have.
pub const CONNECTIONS_OF_LOOPBACK: usize = 8;
/// Connections that wait for the places that others have; one more is closed at once.
pub const MAX_WAITING: usize = 512;
/// Bytes of a request's line and header fields. Beyond: 431, and the connection closes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Header fields of a request. Beyond: 431, and the connection closes.
pub const MAX_HEADER_FIELDS: usize = 64;
/// Bytes of a request's body. Beyond: 413.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Bytes of a request's body that holds a whole config: the greatest file, and its quoting. Beyond: 413.
pub const MAX_CONFIG_BODY_BYTES: usize = 32 * 1024 * 1024;
/// Bodies with whole configs that are taken in at the same time, of those who may change the store, and of all others.
/// Further requests wait, within their time.
pub const MAX_CONFIGS_AT_ONCE: usize = 2;
/// Answers about everything that are made or wait to be read, which have megabytes on a large node: of the node (status,
/// events, config, plans), and of what the store has; each of callers with the role `admin`, and of all others. Further ones
/// wait their turn.
pub const MAX_ANSWERS_AT_ONCE: usize = 4;
/// Time that such a request waits for its turn. Then 503.
pub const MAX_ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Bytes of such an answer that are handed over at once; it keeps its turn until the last are.
pub const ANSWER_CHUNK_BYTES: usize = 64 * 1024;
/// Scrapes of the metrics that are written at the same time. Further ones wait, within their time.
pub const MAX_SCRAPES_AT_ONCE: usize = 2;
/// Bytes of a scrape that are written at once, and how many such pieces wait to be read.
pub const SCRAPE_CHUNK_BYTES: usize = 64 * 1024;
/// See [`SCRAPE_CHUNK_BYTES`].
pub const SCRAPE_CHUNKS: usize = 4;
/// Time to send the header of a request, and time that a connection may be idle. Then it closes.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time to make a TLS handshake. Then the connection closes.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes read, and forgotten, of a client that speaks in the clear where TLS is spoken.
pub const MAX_DRAINED_BYTES: u64 = 64 * 1024;
/// How often the files of `admin.tls` are looked at.
pub const TLS_FILES_POLL: Duration = Duration::from_secs(1);
/// Time from the header of a request to its response, the sending of its body included. Then 408.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Time that the owner of the state has to answer an order or a reload. Then 503.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Age at which a connection is asked to close after its running request, so that no client holds one for ever.
pub const MAX_CONNECTION_AGE: Duration = Duration::from_secs(300);
/// Time that a connection has for its running request when it must close.
pub const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// Pause after a failed accept, so that a lack of file descriptors does not become a busy loop.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Sources of failed logins that are told apart; all others share one bucket.
pub const MAX_LOGIN_SOURCES: usize = 4096;
/// Bytes of the audit log's file; a full one is put aside.
pub const MAX_AUDIT_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Files of the audit log that were put aside and are kept.
pub const AUDIT_FILES_KEPT: u32 = 4;
/// Records of the audit log that the API tells at once.
pub const MAX_AUDIT_SHOWN: usize = 1000;
/// Bytes of a text in a record of the audit log.
pub const MAX_AUDIT_TEXT: usize = 512;
/// Characters of the name in `by`.
pub const MAX_BY_CHARS: usize = 64;
/// Longest that an order may last; longer ones should have no end at all.
pub const MAX_LASTS: Duration = Duration::from_secs(10_000 * 3600);
/// Known names that an error repeats.
pub const KNOWN_SHOWN: usize = 20;
