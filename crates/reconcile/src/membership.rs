//! Members that register themselves, and those that say that they live.
//!
//! [`Roll`] keeps who is registered in one pool, [`Pulse`] who is silent among the members that did not register, and
//! [`Presence`] all of them for one node: it takes what instances say here and what other nodes have heard, and says
//! who is a member, what is to be written to the store, and what to tell the others.
//!
//! Each registration holds for a time; who does not renew it goes. When more than half of a pool falls silent at once
//! that is hardly the death of so many servers, but a network or an API that cannot be reached: then nobody goes, and
//! the checks say who works.
//!
//! Silence is only held against somebody by who could have heard him: while this node does not hear the others nobody
//! falls silent, and who was last heard by a node that is itself not heard waits for what becomes of that node
//! ([`Hearing`]; `docs/adr/0027-members-of-a-cluster.md`).
//!
//! Times are milliseconds of a clock that does not jump, of the caller's choice; clocks of different nodes are never
//! compared.

mod book;
mod hearing;
mod presence;
mod pulse;
mod records;
mod roll;

pub use book::{Outcome, Write};
pub use hearing::{Hearing, Last, QUIET_MS, SLACK_MS};
pub use presence::{Entry, Presence, REMOVED_AFTER_MS, REMOVED_WITHIN_MS};
pub use pulse::{Heard, Pulse};
pub use records::{Beats, MemberRecord, Said, beats_path, beats_teller, member_backend, member_path, teller};
pub use roll::{AT_ONCE_MS, Entered, Full, KEPT_AT_MOST_MS, Roll};

pub use book::{FACTS_EVERY_MS, RETRY_MS};
pub use presence::{BEATS_EVERY_MS, LET_GO_MS, MOST_BEATS_BYTES, PAUSE_MS, TESTIFY_EVERY_MS};
