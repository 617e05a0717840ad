//! Alerts: what is worth one, when it fires, and what a receiver is told: fixed scenarios, and a seeded simulation
//! with receivers that fail, are slow, lose their answers and come back, judged by a shadow model.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod board;
mod conditions;
mod leaders;
mod outbox;
mod recent;
mod simulation;
mod support;
