//! Certificates by ACME (RFC 8555, RFC 8737), ordered by the program itself from Pebble, Let's Encrypt's own test
//! authority.

#[path = "../../../orchestrator/tests/acme/pebble.rs"]
mod pebble;

use std::net::SocketAddr;

use crate::support::*;
use pebble::Pebble;

fn config(address: SocketAddr, backend: &Backend, pebble: &Pebble, more: &str) -> String {
    format!(
        r#"
[load_balancers.shop]
backend_servers = ["{}"]
{QUIET}
[[load_balancers.shop.listeners]]
address = "{address}"
protocol = "https"
[load_balancers.shop.listeners.tls.acme]
domains = ["shop.example.com"]
email = "ops@example.com"
directory = "{}"
directory_ca = "{}"
{more}"#,
        backend.address,
        pebble.directory(),
        pebble.ca().display(),
    )
}

/// What curl gets under the name, trusting the authority's root alone; `None` while that fails.
fn get(address: SocketAddr, root: &std::path::Path) -> Option<String> {
    let port = address.port();
    let output = std::process::Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--max-time", "60", "--cacert"])
        .arg(root)
        .args(["--resolve", &format!("shop.example.com:{port}:{}", address.ip())])
        .arg(format!("https://shop.example.com:{port}/"))
        .output()
        .expect("curl runs");
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A listener without a certificate: it opens with a placeholder, orders one over its own port (TLS-ALPN-01), and
/// serves it. After a restart the same certificate is served at once, and nothing is ordered.
#[test]
fn a_listener_gets_its_certificate_by_itself() {
    let address = free_address();
    let backend = Backend::named("one");
    let pebble = Pebble::start(address.ip(), 1, address.port());
    let place = Place::new(&config(address, &backend, &pebble, ""));
    let evenkeel = place.start();
    wait_until("the certificate is issued", || {
        !evenkeel.events("certificate_issued").is_empty()
    });
    let root = place.path().join("root.pem");
    std::fs::write(&root, curl(&["--insecure", &pebble.root()]).stdout).unwrap();
    wait_until("the certificate is served", || {
        get(address, &root).as_deref() == Some("one")
    });
    assert_eq!(
        place.data().join("acme/certificates").read_dir().unwrap().count(),
        1
    );
    drop(evenkeel);

    let evenkeel = place.start();
    assert_eq!(get(address, &root).as_deref(), Some("one"));
    assert!(evenkeel.events("certificate_issued").is_empty());
}

/// An authority that finds nobody under the name: the listener serves on, and says in an event what the authority
/// said and when it tries again.
#[test]
fn an_order_that_fails_is_told_of() {
    let address = free_address();
    let backend = Backend::named("one");
    // It asks at a port where nobody is.
    let pebble = Pebble::start(address.ip(), 1, 1);
    let evenkeel = Evenkeel::start(&config(address, &backend, &pebble, ""));
    let told = wait_for("the failure is told of", || {
        evenkeel.events("certificate_not_issued").first().cloned()
    });
    assert!(
        told.contains("shop.example.com") && told.contains("next try in"),
        "{told}"
    );
    curl(&["--insecure", &format!("https://{address}/")]);
}

/// The authority asks over plain HTTP (HTTP-01) at a listener that sends everybody else to HTTPS.
#[test]
fn a_challenge_over_http_is_answered_before_the_redirect() {
    let (address, plain) = (free_address(), free_address());
    let backend = Backend::named("one");
    let pebble = Pebble::start(plain.ip(), plain.port(), 1);
    let more = format!(
        "challenge = \"http-01\"\n[[load_balancers.shop.listeners]]\naddress = \"{plain}\"\nredirect_to_https = true\n"
    );
    let evenkeel = Evenkeel::start(&config(address, &backend, &pebble, &more));
    wait_until("the certificate is issued", || {
        assert_eq!(evenkeel.events("certificate_not_issued"), [""; 0]);
        !evenkeel.events("certificate_issued").is_empty()
    });
    let elsewhere = Client::connect(plain).get("/.well-known/acme-challenge/unknown");
    assert_eq!(elsewhere.status(), 308);
}
