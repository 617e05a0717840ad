//! Orchestrators and LB servers over a real etcd, with real probes: who checks what, and how fast it heals.
//!
//! Each node has a thread and a runtime of its own, so that one can be stopped dead while the others go on. What is
//! measured is printed; what is asserted is what ADR 0022 promises, with room for a slow machine.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backend;
mod faults;
mod line;
mod node;
mod plan_b;
mod sharing;
mod upkeep;
mod watcher;
