//! Which cipher suite a handshake ends with.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{House, handshake};
use evenkeel_tls as tls;
use rustls::CipherSuite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, DEFAULT_CIPHER_SUITES, cipher_suite};
use rustls::{CipherSuite, SupportedCipherSuite};
use tls::Tickets;

/// What a client that offers `suites` gets.
fn chosen(suites: &[SupportedCipherSuite]) -> CipherSuite {
    let house = House::new();
    let settings = house.server(&Tickets::new(tls::TICKET_KEY_LIFE).unwrap());
    let offer: Vec<_> = suites.iter().map(|suite| suite.suite()).collect();
    let server = handshake(settings.for_offer(&offer), &house.client(suites));
    server.negotiated_cipher_suite().unwrap().suite()
}

/// Scenario: OpenSSL names AES-256 first though it does not need it; SHA-384 would cost a tenth of the handshake.
#[test]
fn aes_128_is_taken_whatever_of_aes_the_client_names_first() {
    assert_eq!(DEFAULT_CIPHER_SUITES[0].suite(), TLS13_AES_256_GCM_SHA384);
    assert_eq!(chosen(DEFAULT_CIPHER_SUITES), TLS13_AES_128_GCM_SHA256);
    let old: Vec<_> = ALL_CIPHER_SUITES
        .iter()
        .filter(|suite| suite.tls13().is_none())
        .copied()
        .collect();
    assert_eq!(chosen(&old), TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
}

/// Scenario: who must use AES-256 offers nothing else.
#[test]
fn a_client_that_offers_only_aes_256_gets_it() {
    assert_eq!(
        chosen(&[cipher_suite::TLS13_AES_256_GCM_SHA384]),
        TLS13_AES_256_GCM_SHA384
    );
}

/// Scenario: a telephone without instructions for AES names ChaCha20 first.
#[test]
fn a_client_that_wants_chacha20_most_gets_it() {
    let telephone = [
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS13_AES_128_GCM_SHA256,
    ];
    assert_eq!(chosen(&telephone), TLS13_CHACHA20_POLY1305_SHA256);
    let old = [
        cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ];
    assert_eq!(chosen(&old), TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
}

/// Scenario: a client begins its offer with a value that stands for nothing (RFC 8701), as browsers do.
#[test]
fn values_that_stand_for_nothing_are_passed_over() {
    let house = House::new();
    let settings = house.server(&Tickets::new(tls::TICKET_KEY_LIFE).unwrap());
    let grease = CipherSuite::Unknown(0x3a3a);
    let aes = settings.for_offer(&[grease, TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256]);
    let chacha20 = settings.for_offer(&[grease, TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256]);
    assert!(aes.ignore_client_order);
    assert!(!chacha20.ignore_client_order);
}
