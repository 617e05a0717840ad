//! One suite for both engines, the second of them a real etcd; then what only one of them can meet.
//!
//! Each scenario of `transactions`, `watches` and `leases` runs twice, by [`both_engines`]: what holds for one holds
//! for the other; `alike` compares their answers. `etcd`, `stalled` and `chaos` have what can happen on the way to etcd and to
//! its members, `embedded` what can happen to a file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
mod engines;

mod alike;
mod chaos;
mod embedded;
mod etcd;
mod leases;
mod stalled;
mod transactions;
mod watches;
