//! What is read from files: what fits is taken, what does not is refused with a sentence that helps.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_tls as tls;
use model::config::{BackendTls, Certificate, ClientCertificates, Pem, PrivateKey, Secret};
use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_RSA_SHA256};
use tempfile::TempDir;
use tls::{Stamp, load};

/// 2026-11-21, give or take.
const NOW: i64 = 1_795_000_000;
const DAY: i64 = 86_400;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn file(dir: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A self-signed certificate for these names, valid from a day before `NOW` for `days`.
fn certificate(dir: &TempDir, name: &str, hosts: &[&str], days: i64) -> Certificate {
    let key = KeyPair::generate().unwrap();
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    let at = |s: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(s.unsigned_abs());
    params.not_before = at(NOW - DAY);
    params.not_after = at(NOW + days * DAY);
    let certificate = params.self_signed(&key).unwrap();
    Certificate {
        cert: Pem::File(file(dir, &format!("{name}.pem"), &certificate.pem())),
        key: PrivateKey::File(file(dir, &format!("{name}.key"), &key.serialize_pem())),
        ocsp: None,
    }
}

fn why(certificate: &Certificate) -> String {
    load(certificate, NOW).unwrap_err().to_string()
}

#[test]
fn a_certificate_and_its_key_are_taken_with_names_and_dates() {
    let dir = folder();
    let loaded = load(&certificate(&dir, "a", &["Shop.Example", "*.example"], 30), NOW).unwrap();
    assert_eq!(loaded.names, ["shop.example", "*.example"]);
    assert_eq!(loaded.not_after, NOW + 30 * DAY);
    assert_eq!(loaded.invalid_at(NOW), None);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn a_certificate_in_the_config_itself_is_as_good_as_a_file() {
    let dir = folder();
    let files = certificate(&dir, "a", &["shop.example"], 30);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let (Pem::File(cert), PrivateKey::File(key)) = (&files.cert, &files.key) else {
        unreachable!("both are files");
    };
    let inline = Certificate {
        cert: Pem::Inline(read(cert)),
        key: PrivateKey::Inline(Secret::new(read(key))),
        ocsp: None,
    };
    assert_eq!(load(&inline, NOW).unwrap().names, ["shop.example"]);
}

/// The commonest slip of a renewal: one of the two files is the old one.
#[test]
fn a_key_of_another_certificate_is_refused() {
    let dir = folder();
    let (a, b) = (
        certificate(&dir, "a", &["a"], 30),
        certificate(&dir, "b", &["b"], 30),
    );
    let mixed = Certificate { key: b.key, ..a };
    let why = why(&mixed);
    assert!(
        why.contains("b.key does not belong to the certificate in"),
        "{why}"
    );
}

#[test]
fn what_is_no_certificate_or_no_key_is_named() {
    let dir = folder();
    let good = certificate(&dir, "a", &["a"], 30);
    let with_cert = |path: PathBuf| Certificate {
        cert: Pem::File(path),
        ..good.clone()
    };
    let with_key = |path: PathBuf| Certificate {
        key: PrivateKey::File(path),
        ..good.clone()
    };
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (certificate, says) in [
        (with_cert(dir.path().join("none.pem")), "cannot read"),
        (with_cert(file(&dir, "e", "")), "holds no certificate"),
        (with_cert(file(&dir, "x", broken)), "certificate 1 in"),
        (with_key(file(&dir, "k", "hello")), "holds no private key in PEM"),
        (with_key(file(&dir, "p", encrypted)), "is encrypted"),
    ] {
        let why = why(&certificate);
        assert!(why.contains(says), "{why}");
        assert!(!why.contains("hello"), "{why}");
    }
}

#[test]
fn an_expired_certificate_is_read_and_says_since_when() {
    let dir = folder();
    let mut params = certificate(&dir, "old", &["a"], 0);
    params.ocsp = None;
    let loaded = load(&params, NOW + 3 * DAY).unwrap();
    assert_eq!(loaded.invalid_at(NOW + 3 * DAY).unwrap(), "it expired 3 days ago");
    assert_eq!(loaded.invalid_at(NOW - 9 * DAY).unwrap(), "it is not valid yet");
}

#[test]
fn a_chain_in_the_wrong_order_is_warned_of() {
    let dir = folder();
    let (ca_key, leaf_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.distinguished_name.push(rcgen::DnType::CommonName, "authority");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let leaf = CertificateParams::new(vec!["a".to_owned()]).unwrap();
    let leaf_pem = leaf.signed_by(&leaf_key, &issuer).unwrap().pem();
    let other = certificate(&dir, "other", &["other"], 30);
    let Pem::File(other) = &other.cert else {
        unreachable!("it is a file");
    };
    let other = std::fs::read_to_string(other).unwrap();
    let chain = |text: String| Certificate {
        cert: Pem::File(file(&dir, "chain.pem", &text)),
        key: PrivateKey::File(file(&dir, "chain.key", &leaf_key.serialize_pem())),
        ocsp: None,
    };
    let good = load(&chain(format!("{leaf_pem}{ca_pem}")), NOW).unwrap();
    assert!(good.warnings.is_empty(), "{:?}", good.warnings);
    let odd = load(&chain(format!("{leaf_pem}{other}{ca_pem}")), NOW).unwrap();
    assert!(
        odd.warnings[0].contains("certificate 2 is not the issuer"),
        "{:?}",
        odd.warnings
    );
}

#[test]
fn a_response_that_is_no_ocsp_response_is_refused() {
    let dir = folder();
    let certificate = Certificate {
        ocsp: Some(file(&dir, "a.ocsp", "not DER")),
        ..certificate(&dir, "a", &["a"], 30)
    };
    let why = why(&certificate);
    assert!(why.contains("is not a successful OCSP response"), "{why}");
}

/// Written in place, replaced by rename, gone: each is another stamp.
#[test]
fn a_stamp_tells_one_content_from_the_next() {
    let dir = folder();
    let path = file(&dir, "a", "one");
    let files = [path.clone()];
    let first = Stamp::of(&files);
    assert_eq!(first, Stamp::of(&files));
    std::fs::rename(file(&dir, "b", "two"), &path).unwrap();
    let second = Stamp::of(&files);
    assert_ne!(first, second);
    std::fs::remove_file(&path).unwrap();
    assert_ne!(second, Stamp::of(&files));
}

#[test]
fn authorities_and_revocation_lists_are_read_or_named() {
    let dir = folder();
    let clients = |ca: &str, crl: Option<&str>| ClientCertificates {
        required: true,
        ca: Pem::File(file(&dir, "ca.pem", ca)),
        crl: crl.map(|text| file(&dir, "crl.pem", text)),
    };
    let Pem::File(path) = certificate(&dir, "ca", &["ca"], 30).cert else {
        unreachable!("it is a file");
    };
    let good = std::fs::read_to_string(path).unwrap();
    assert!(tls::client_verifier(&clients(&good, None)).is_ok());
    let why = |clients| tls::client_verifier(&clients).unwrap_err().to_string();
    assert!(why(clients("", None)).contains("holds no certificate"));
    assert!(why(clients(&good, Some("x"))).contains("holds no list of revoked certificates"));
}

#[test]
fn a_name_that_no_certificate_can_have_is_refused() {
    let named = |name: &str| BackendTls {
        server_name: Some(name.to_owned()),
        insecure: true,
        ..BackendTls::default()
    };
    let config = |name| tls::client_config(&named(name), &[], NOW);
    assert!(config("web.internal").is_ok());
    assert!(config("10.0.0.1").is_ok());
    assert!(config("[::1]").is_ok());
    assert!(config("-a..b").unwrap_err().to_string().contains("is not a name"));
}

/// RSA beside ECDSA is told apart, which decides whom each is shown to.
#[test]
fn an_rsa_key_is_taken_too() {
    let dir = folder();
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
    let certificate = Certificate {
        cert: Pem::File(file(&dir, "r.pem", &params.self_signed(&key).unwrap().pem())),
        key: PrivateKey::File(file(&dir, "r.key", &key.serialize_pem())),
        ocsp: None,
    };
    assert!(load(&certificate, NOW).is_ok());
}
