//! The cluster of orchestrators: who checks what, decided so that any of them may die, hang or be cut off.
//!
//! **State stands in the store, decisions are functions of it.** [`member::Member`] is the whole mind of one
//! orchestrator: it holds a lease, takes the checks that it is given, acknowledges, writes verdicts, and leads when
//! the store says so. The shell carries out its [`member::Action`]s and tells it what came of them; it decides
//! nothing. [`plan::Planner`] is what a leader does with a [`view::View`] of the store, [`spread::spread`] is who
//! should have what, [`board::Board`] is what an LB server believes.
//!
//! # What is shared out
//!
//! Not single checks but **slots**: the address of a backend falls into one of [`SLOTS`] ([`Slot::of`]), and who has
//! the slot makes every check of every address in it. So an assignment stays small however many backends there are,
//! a new backend is checked at once without the leader, a change of a check's settings moves nothing, and no address
//! is ever checked by two, whatever their configs say. Load balancers that want the same check of the same address
//! share one: the owner of the slot sees that by itself.
//!
//! # Why never two
//!
//! 1. A slot is given only when nobody has it: it was never given, or who had it has acknowledged being without it,
//!    or is dead; the dead one's assignment is deleted *in the same transaction*, under the condition that its key
//!    is absent, so that it cannot come back to it.
//! 2. All rounds of all leaders follow one another: each compares the round before, and the leader's key. A round
//!    that arrives late, from a former leader or from a call given up, is refused by the store.
//! 3. A worker registers under the condition that its assignment is the one that it has just read, and every later
//!    write of its key compares the one before.
//! 4. It runs checks until its last successful keep-alive, counted from when that was *sent*, is 80 % of the lease
//!    ago, by its own clock. The rest is for clocks that run at different speeds (10 % each way).
//!
//! What no lease can prevent: a probe decided on just before the process is stopped leaves the machine when it goes
//! on. It is one packet; what it finds is dropped by the deadline, or refused by the store.
//!
//! # What it refuses
//!
//! No clock and no socket of its own. Times are milliseconds of any clock of the process that does not go backwards;
//! clocks of two machines are never compared.

pub mod board;
pub mod member;
pub mod plan;
pub mod records;
pub mod roster;
pub mod spread;
pub mod view;

use std::net::{IpAddr, SocketAddr};

use model::config::Name;
use serde::{Deserialize, Serialize};

/// Slots of a cluster: fine enough for a hundred orchestrators, few enough for an assignment of some kilobytes.
/// A part of what stands in the store: all versions must agree on it.
pub const SLOTS: u16 = 1024;

/// Share of the lease, in percent, during which a worker acts after it sent a successful keep-alive.
pub const ACTS_FOR_PERCENT: u64 = 80;

/// A share of all checks: those of the addresses that fall into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u16);

impl Slot {
    /// The slot of an address among `slots` of them (0 counts as 1). The same in every process and version.
    pub fn of(address: SocketAddr, slots: u16) -> Self {
        let ip = match address.ip().to_canonical() {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let halves = mixed((ip >> 64) as u64) ^ ip as u64;
        let hash = mixed(mixed(halves) ^ u64::from(address.port()));
        Self((hash % u64::from(slots.max(1))) as u16)
    }
}

/// The name of one life of a process: the node's name and a random number. A process that starts again is another
/// worker, which owns nothing of what the former one had. Long names lose their end.
pub fn incarnation(node: &Name, random: u64) -> Name {
    let tail = format!("-{:08x}", random as u32);
    let kept: String = node.as_str().chars().take(NAME_BYTES - tail.len()).collect();
    Name::parse(&(kept + &tail)).unwrap_or_else(|_| node.clone())
}

/// Bytes of the longest [`Name`].
const NAME_BYTES: usize = 63;

/// SplitMix64's finish: every bit of the input moves about half of the output's.
fn mixed(value: u64) -> u64 {
    let z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
