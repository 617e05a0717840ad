//! The orchestrator's brain: what the results of checks mean.
//!
//! [`renewal::Renewal`] says when a certificate is ordered anew. [`health::HealthMachine`] turns probe results into verdicts and says when the next probe is due. It opens no
//! socket, reads no clock and draws no random number: results, time and randomness are arguments, so that every
//! sequence of them can be replayed from a seed.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod health;
pub mod renewal;
