//! The orchestrator's brain: what the results of checks mean, and who makes them.
//!
//! [`health::HealthMachine`] turns probe results into verdicts and says when the next probe is due. [`cluster`] shares
//! the checks among orchestrators of which any may die; [`plan_b::PlanB`] is what an LB server does without them.
//! [`desired`] is what stands in the store that they share, and how it is changed. [`discovery`] reads what is said of the members of pools, [`membership`] keeps what
//! they say of themselves. [`renewal::Renewal`] says when
//! a certificate is ordered anew. All of it opens no socket, reads no clock and draws no random number: results,
//! time and randomness are arguments, so that every sequence of them can be replayed from a seed.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod alerts;
pub mod cluster;
pub mod desired;
pub mod discovery;
pub mod health;
pub mod membership;
pub mod plan_b;
pub mod renewal;
