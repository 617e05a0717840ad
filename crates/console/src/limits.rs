//! Every bound of the admin API, by name.

use std::time::Duration;

/// Connections served at the same time. Further ones wait in the kernel's queue of the listener.
pub const MAX_CONNECTIONS: usize = 128;
/// Bytes of a request's line and header fields. Beyond: 431, and the connection closes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Header fields of a request. Beyond: 431, and the connection closes.
pub const MAX_HEADER_FIELDS: usize = 64;
/// Bytes of a request's body. Beyond: 413.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Bytes of a request's body that holds a whole config: the greatest file, and its quoting. Beyond: 413.
pub const MAX_CONFIG_BODY_BYTES: usize = 32 * 1024 * 1024;
/// Bodies with whole configs that are taken in at the same time. Further requests wait, within their time.
pub const MAX_CONFIGS_AT_ONCE: usize = 2;
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
