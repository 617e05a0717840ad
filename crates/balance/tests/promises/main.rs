//! What each algorithm promises, with figures. `docs/algorithms.md` quotes them; seeds are fixed, so a figure that
//! holds once holds always.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

extern crate evenkeel_balance as balance;

mod all;
mod ejection;
mod explain;
mod hashing;
mod least_loaded;
mod moved;
mod overload;
mod peak_ewma;
mod random;
mod rates;
mod round_robin;
mod sessions;
mod simulation;
mod split;
mod support;
