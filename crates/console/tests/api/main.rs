//! The admin API through real sockets. Every response in every test is held to `openapi.json` on the way.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod audit;
mod contract;
mod desired;
mod errors;
mod limits;
mod members;
mod paths;
mod scrape;
mod support;
