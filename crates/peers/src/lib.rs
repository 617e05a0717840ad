//! Real servers for tests, as processes that end with the test.
//!
//! Only tests use this room. Each server gets ports of its own and a folder that goes with it, and is ended by the
//! handle that started it. Starting one blocks the thread until it works. What must be installed for them,
//! `cargo xtask tools` installs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alertmanager;
mod etcd;
mod knot;
mod process;
mod redis;

pub use alertmanager::Alertmanager;
pub use etcd::{Etcd, Member};
pub use knot::Knot;
pub use process::{PATIENCE, free_ports, wait_until};
pub use redis::Redis;
