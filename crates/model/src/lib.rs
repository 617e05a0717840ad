//! The nouns of Evenkeel: what a load balancer *is*, as values.
//!
//! Three layers of truth meet here and are never mixed: [`config`] (desired, as declared),
//! [`state::Override`] (operators' orders) and [`state::Observed`] (what checks found).
//! [`snapshot::Snapshot`] is the pure function of the three from which every request is served.
//!
//! Everything is parsed to valid: a [`config::Config`] that exists is one that can be served.
//! This crate does no IO and reads no clock; times arrive as [`state::Timestamp`].
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod acme;
pub mod alert;
pub mod calendar;
pub mod cluster;
pub mod config;
pub mod desired;
pub mod diagnostic;
pub mod diff;
pub mod effective;
pub mod explain;
pub mod geography;
pub mod merge;
pub mod node;
pub mod parse;
pub mod plan;
pub mod reason;
pub mod record;
pub mod schema;
pub mod scrape;
mod shadow;
pub mod snapshot;
pub mod state;
pub mod status;
pub mod units;
