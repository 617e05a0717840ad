//! Members by names of the DNS: what is asked of resolvers, what their answers mean, and who leaves when.
//!
//! [`Watch`] looks after one name for as long as it is wanted. When a look is due it begins a [`Lookup`], which says
//! what to send where, takes what comes back, and ends in an [`Outcome`]. All times are milliseconds of a clock that
//! does not jump; randomness is an argument.
//!
//! Four rules: an answer counts only when it fits the question that was sent; a failure takes nobody out; who is
//! missing leaves with the second answer in a row that does not name it, asked for when no cache has the first one any
//! more; nothing grows beyond a bound, whatever a server says.

mod lookup;
mod message;
pub mod resolv;
mod watch;

pub use lookup::{Exchange, Failure, Lookup, MAX_QUESTIONS, Outcome, Transport};
pub use watch::{Seen, Watch};

/// Greatest answer that is asked for over UDP: what passes every path in one piece.
pub const UDP_SIZE: u16 = 1232;
