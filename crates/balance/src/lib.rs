//! Which backend takes the next request, and which one is taken out for a while.
//!
//! A [`Balancer`] is an immutable table made from one [`model::snapshot::PoolState`]; it is thrown away and made
//! anew whenever that state changes. What must outlive it, and be the same for every thread that forwards, stands
//! beside it as plain atomics: a [`Load`] per backend (requests in flight, latency, failures) and a [`PoolLoad`]
//! per pool (whose turn it is, the retry budget). So a pick takes no lock and allocates nothing, and counts are
//! exact however many threads pick at once.
//!
//! Everything is weighted by [`model::snapshot::Member::effective_weight`], which already holds slow start,
//! orders, health and ejection; this crate only reads it. The time and the randomness are arguments: times are
//! microseconds since an epoch of the caller's choice and must not run backwards by more than thread skew.
//!
//! What this crate refuses: to hold the state of requests, to know of connections, to read a clock.
//! `docs/algorithms.md` tells users which algorithm to take; the tests in `tests/promises` hold its figures.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod alias;
mod balancer;
mod breaker;
mod cookie;
mod ejection;
mod explain;
mod hash;
mod latency;
mod line;
mod load;
mod maglev;
mod moved;
mod pool;
mod queue;
mod rate;
mod ring;
mod rng;
mod schedule;
mod sessions;
mod slots;
mod split;
mod table;
mod window;

pub use balancer::Balancer;
pub use breaker::{Admission, Circuit, Probe};
pub use cookie::{COOKIE_LENGTH, CookieKeys, NoTicket, Ticket, derive_seed};
pub use ejection::{FORGET_AFTER, MAX_EJECTION_FACTOR, Outcome};
pub use hash::hash;
pub use latency::{DECAY_US, STALE_US};
pub use line::{Settled, Shed};
pub use load::Load;
pub use maglev::{LARGE_TABLE, SMALL_TABLE};
pub use moved::moved_share;
pub use pool::{PoolLoad, RETRY_RESERVE};
pub use queue::Place;
pub use rate::{RateLimiter, Verdict};
pub use ring::{MAX_POINTS, POINTS_PER_WEIGHT};
pub use rng::Rng;
pub use schedule::MAX_TURNS;
pub use sessions::Sessions;
pub use slots::{Need, Take};
pub use split::Split;
