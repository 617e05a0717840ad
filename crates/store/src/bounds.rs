//! What the store takes, and how much of it. What lies beyond is refused, never cut.

use std::time::Duration;

/// Bytes of a key.
pub const MAX_KEY_BYTES: usize = 512;
/// Bytes of a value.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Comparisons of a transaction, and its writes and deletions: etcd's own bound as it is set when nobody sets it.
pub const MAX_OPERATIONS: usize = 128;
/// Keys and values of a transaction together, in bytes: below etcd's bound of a request, 1.5 MiB.
pub const MAX_TRANSACTION_BYTES: usize = 1280 * 1024;
/// Keys and values of one answer to `list`, in bytes.
pub const MAX_LIST_BYTES: usize = 256 * 1024 * 1024;
/// Seconds of a lease: a day.
pub const MAX_LEASE_SECONDS: u32 = 86_400;

/// Embedded: keys and values together, in bytes; all of them are in memory.
pub const MAX_EMBEDDED_BYTES: usize = MAX_LIST_BYTES;
/// Embedded: leases at a time.
pub const MAX_EMBEDDED_LEASES: usize = 10_000;
/// Embedded: revisions whose changes are kept for watches.
pub const MAX_HISTORY_REVISIONS: usize = 10_000;
/// Embedded: keys and values of the changes that are kept, in bytes.
pub const MAX_HISTORY_BYTES: usize = 64 * 1024 * 1024;
/// Embedded: writes that wait for the disk. One more is refused as [`crate::ErrorKind::Busy`].
pub const MAX_QUEUED_WRITES: usize = 1024;
/// Embedded: writes that go to the disk together.
pub const MAX_GROUPED_WRITES: usize = 64;

/// etcd: endpoints.
pub const MAX_ENDPOINTS: usize = 32;
/// etcd: calls at a time; others wait within their deadline.
pub const MAX_CALLS: usize = 128;
/// etcd: watches at a time. Each may hold back a window of the connection when nobody reads it.
pub const MAX_WATCHES: usize = 48;
/// etcd: entries that are asked for at once when a prefix is listed.
pub const LIST_PAGE: usize = 128;
/// etcd: bytes of one message of an answer: a page of the largest entries, and what is around them.
pub const MAX_MESSAGE_BYTES: usize = (LIST_PAGE + 2) * (MAX_VALUE_BYTES + MAX_KEY_BYTES);

/// etcd: time for a connection to an endpoint, with TLS and the first question.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// etcd: time for a call, with all connections and repetitions that it takes.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
// So that an endpoint that does not answer leaves time for the next one.
const _: () = assert!(2 * CONNECT_TIMEOUT.as_millis() < CALL_TIMEOUT.as_millis());
/// etcd: a connection over which nothing was carried out for this long is asked whether it is still of use.
pub const PROBE_AFTER: Duration = Duration::from_millis(500);
/// etcd: without a sign of life for this long then, the connection is dead.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// etcd: when nothing can be read there for this long, the member is left. Longer than choosing a leader takes as etcd
/// is set when nobody sets it (1 to 2 s), and shorter, with [`PROBE_AFTER`], than a lease lives on with the next leader
/// (at least 3 s from then): a leader of old whose disk stalls may tell us that it keeps one alive.
pub const READ_TIMEOUT: Duration = Duration::from_millis(2500);
/// First pause after all endpoints failed; twice that after the next time, and so on, each time ±50 %.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest such pause.
pub const BACKOFF_MOST: Duration = Duration::from_secs(2);

/// `follow`: what was found and not yet taken.
pub const FOLLOW_QUEUE: usize = 16;
