//! Alerts: what is wrong for longer than a moment, and what each receiver is told of it, and when.
//!
//! Three steps, each a value of its own:
//!
//! 1. [`conditions::conditions`] derives from a node's state what holds now: pure looking, no memory.
//! 2. [`board::Board`] remembers since when: an alert is *pending* until it has held for as long as its kind must,
//!    then it *fires*, and when it no longer holds it is gone.
//! 3. [`outbox::Outbox`], one for each receiver, compares what fires with what the receiver has been told, and says
//!    what to send next: grouped, repeated, tried again, as Alertmanager's `group_wait`, `group_interval` and
//!    `repeat_interval` mean it.
//!
//! There is **no queue of messages**. What is sent is the difference between the state now and the state that the
//! receiver knows, made at the moment of sending: a receiver that was away for an hour gets the newest state, once.
//! So nothing grows while it is away, and nothing old is ever told after something new.
//!
//! # What it promises
//!
//! - An alert that fires while its receiver can be reached is told, again in each `repeat_interval`, and its end once.
//! - No end is told of an alert that was never sent. Where an attempt broke off and nobody knows whether it arrived,
//!   the end is told: better twice than an alert that never ends.
//! - A group is told at most once in `group_interval`, however its alerts flap.
//! - At most [`MAX_ALERTS`] alerts are kept apart; for those beyond there is one that says how many.
//!
//! # What it refuses
//!
//! A memory on disk: after a restart what fires is told anew, and the end of what ended meanwhile is not. Receivers
//! that must know treat alerts that are not repeated as ended, as Alertmanager does by itself.

pub mod board;
pub mod conditions;
pub mod outbox;
pub mod recent;

use model::state::Timestamp;

/// Alerts that are kept apart, those that are pending included.
pub const MAX_ALERTS: usize = 1000;

/// Alerts that a receiver may have been told of without being told that they ended; beyond it the ends that have
/// waited for longest are forgotten, and counted.
pub const MAX_TOLD: usize = 2 * MAX_ALERTS;

/// A moment by both clocks: intervals are counted by the one that never goes backwards, people are told the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds of a clock of this process that does not go backwards.
    pub ms: u64,
    /// The time of day.
    pub wall: Timestamp,
}
