//! Sessions: what resumes, and what no longer does. Both sides are here, without a network between them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{House, handshake};
use evenkeel_tls as tls;
use rustls::crypto::aws_lc_rs::DEFAULT_CIPHER_SUITES;
use rustls::{ClientConfig, HandshakeKind};
use tls::{ServerSettings, Tickets};

/// Whether a session was resumed.
fn resumes(server: &ServerSettings, client: &Arc<ClientConfig>) -> bool {
    let server = handshake(server.for_offer(&[]), client);
    server.handshake_kind() == Some(HandshakeKind::Resumed)
}

#[test]
fn a_session_resumes_with_the_tickets_it_was_begun_with_and_no_others() {
    let house = House::new();
    let tickets = || Tickets::new(tls::TICKET_KEY_LIFE).unwrap();
    let (one, other) = (house.server(&tickets()), house.server(&tickets()));
    let client = house.client(DEFAULT_CIPHER_SUITES);
    assert!(!resumes(&one, &client));
    for _ in 0..3 {
        assert!(resumes(&one, &client));
    }
    assert!(!resumes(&other, &client));
}

/// Scenario: a key is stolen from memory. It opens the tickets of its time and of no later one, however few visitors
/// there were.
#[test]
fn keys_of_tickets_change_by_themselves() {
    let house = House::new();
    let tickets = Tickets::new(Duration::from_secs(1)).unwrap();
    let server = house.server(&tickets);
    // Each visit brings new tickets: every client comes back once.
    let clients: Vec<_> = (0..100).map(|_| house.client(DEFAULT_CIPHER_SUITES)).collect();
    for client in &clients {
        assert!(!resumes(&server, client));
    }
    let mut back = clients.iter();
    while resumes(
        &server,
        back.next().expect("tickets end while there are clients left"),
    ) {
        tickets.refresh();
        std::thread::sleep(Duration::from_millis(100)); // condition poll
    }
}
