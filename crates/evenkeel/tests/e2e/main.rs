//! End to end: the program as a black box, through real sockets, against servers and clients that were not written
//! here and against scripted ones that misbehave to the byte. Filed by topic; each test says its scenario first.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod access_log;
mod acme;
mod actions;
mod admin;
mod alerts;
mod algorithms;
mod all_down;
mod bodies;
mod buffering;
mod circuit;
mod command_line;
mod compression;
mod connections;
mod death;
mod demo;
mod departures;
mod discovery;
mod events;
mod exhaustion;
mod expectations;
mod explain;
mod faults;
mod faults_mixes;
mod figures;
mod forwarding;
mod grpc;
mod hostile;
mod http2;
mod http2_abuse;
mod http2_backends;
mod http2_limits;
mod http2_mixes;
mod hygiene;
mod known_attacks;
mod limits;
mod orders;
mod overload;
mod plan;
mod privileges;
mod rate_limits;
mod reload;
mod responses;
mod retries;
mod retries_http2;
mod routing;
mod scrape;
mod shutdown;
mod start;
mod sticky;
mod sticky_cookies;
mod timeouts;
mod tls;
mod tls_backends;
mod tls_facts;
mod tls_operations;
mod tls_sessions;
mod traces;
mod websocket;
mod websocket_http2;
mod whole_bodies;
mod why;
