//! TLS made at random; keys are named, not given, because what is secret is not written out.

use std::path::PathBuf;

use evenkeel_model::acme::Challenge;
use evenkeel_model::config::{
    Acme, BackendTls, Certificate, ClientCertificates, ListenerTls, Pem, PrivateKey, TlsVersion,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn file() -> impl Strategy<Value = PathBuf> {
    "[^\\pC]{1,20}".prop_map(PathBuf::from)
}

fn pem() -> impl Strategy<Value = Pem> {
    let inline = "-----BEGIN [A-Z]{1,8}-----\n[A-Za-z0-9+/=\n]{0,20}\n-----END [A-Z]{1,8}-----\n";
    prop_oneof![file().prop_map(Pem::File), inline.prop_map(Pem::Inline)]
}

fn certificate() -> impl Strategy<Value = Certificate> {
    (pem(), file(), option::of(file())).prop_map(|(cert, key, ocsp)| Certificate {
        cert,
        key: PrivateKey::File(key),
        ocsp,
    })
}

fn acme() -> impl Strategy<Value = Acme> {
    let challenge = prop_oneof![Just(Challenge::Http01), Just(Challenge::TlsAlpn01)];
    (
        vec("[a-z0-9]{1,9}(\\.[a-z0-9]{1,9}){0,2}", 1..3),
        option::of("[a-z]{1,9}@[a-z]{1,9}"),
        "https://[a-z0-9./]{1,20}",
        option::of(file()),
        challenge,
    )
        .prop_map(|(domains, email, directory, directory_ca, challenge)| Acme {
            domains,
            email,
            directory,
            directory_ca,
            challenge,
        })
}

fn version() -> impl Strategy<Value = TlsVersion> {
    prop_oneof![Just(TlsVersion::V1_2), Just(TlsVersion::V1_3)]
}

pub(crate) fn listener_tls() -> impl Strategy<Value = ListenerTls> {
    let client_certificates = (any::<bool>(), pem(), option::of(file()))
        .prop_map(|(required, ca, crl)| ClientCertificates { required, ca, crl });
    (
        vec(certificate(), 1..3),
        option::of(acme()),
        version(),
        option::of(client_certificates),
    )
        .prop_map(
            |(certificates, acme, min_version, client_certificates)| ListenerTls {
                certificates,
                acme,
                min_version,
                client_certificates,
            },
        )
}

pub(crate) fn backend_tls() -> impl Strategy<Value = BackendTls> {
    (
        option::of(pem()),
        option::of("[a-z0-9.-]{1,12}"),
        option::of(certificate()),
        version(),
        any::<bool>(),
    )
        .prop_map(
            |(ca, server_name, certificate, min_version, insecure)| BackendTls {
                ca: ca.filter(|_| !insecure),
                server_name,
                client_certificate: certificate.map(|c| Certificate { ocsp: None, ..c }),
                min_version,
                insecure,
            },
        )
}
