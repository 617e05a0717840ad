//! Checks against real servers on this machine: what one comes to, how many become verdicts, what is bounded.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bounds;
mod reasons;
mod run;
mod shared;
mod support;
