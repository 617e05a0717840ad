//! Who may come over TLS, and what is remembered of who came: revoked clients, sessions that resume and those that
//! must not, on every shard and over reloads.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::support::{
    Authority, Backend, Evenkeel, QUIET, TlsClient, free_ip, openssl, python, shop_on, shop_with_listener,
    wait_until,
};

/// Python's own TLS (OpenSSL): connects again and again with the session of the last time, and says each time whether
/// it was resumed.
const COME_BACK: &str = r#"
import socket, ssl, sys
host, port, name, ca, version, times = sys.argv[1:7]
context = ssl.create_default_context(cafile=ca)
context.maximum_version = context.minimum_version = getattr(ssl.TLSVersion, version)
session = None
for _ in range(int(times)):
    with socket.create_connection((host, int(port))) as tcp:
        with context.wrap_socket(tcp, server_hostname=name, session=session) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % name.encode())
            answer = b""
            while True:
                part = tls.recv(4096)
                if not part:
                    break
                answer += part
            assert answer.startswith(b"HTTP/1.1 200"), answer
            print("resumed" if tls.session_reused else "full")
            session = tls.session
"#;

/// What [`COME_BACK`] said of so many connections.
fn come_back(authority: &Authority, at: SocketAddr, version: &str, times: usize) -> Vec<String> {
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    let (ca, times) = (authority.file("ca.pem"), times.to_string());
    let said = python(COME_BACK, &[&host, &port, "shop.test", &ca, version, &times]);
    said.lines().map(str::to_owned).collect()
}

/// Connects and asks; whether it was answered, and whether a session was resumed.
fn visit(config: &Arc<ClientConfig>, at: SocketAddr) -> std::io::Result<bool> {
    let mut client = TlsClient::connect(config.clone(), at, "shop.test");
    client.get("shop.test").map(|status| {
        assert_eq!(status, 200);
        client.is_resumed()
    })
}

/// Keys of a listener that wants certificates of clients.
fn asking(authority: &Authority, mode: &str, crl: bool) -> String {
    let ca = authority.file("ca.pem");
    let crl = match crl {
        true => format!(", crl = \"{}\"", authority.file("clients.crl")),
        false => String::new(),
    };
    let clients = format!(", client_certificates = {{ mode = \"{mode}\", ca = \"{ca}\"{crl} }}");
    authority.listener(&["shop"], &clients)
}

/// Scenario: a partner's laptop is stolen. Its certificate is put on the list; that counts within seconds, also for who
/// has a session from before, and for nobody else.
#[test]
fn a_revoked_client_is_refused_once_the_list_says_so() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let alice = authority.issue("alice", &["alice"]);
    authority.issue("bob", &["bob"]);
    authority.revoke(&[]);
    let backend = Backend::named("one");
    let listener = asking(&authority, "require", true);
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], &listener, QUIET));
    let at = evenkeel.address();
    let (of_alice, of_bob) = (authority.client_named("alice"), authority.client_named("bob"));
    assert!(!visit(&of_alice, at).unwrap());
    assert!(visit(&of_alice, at).unwrap(), "her session resumes");
    assert!(!visit(&of_bob, at).unwrap());

    authority.revoke(&[alice]);
    wait_until("the list is read again", || {
        !evenkeel.events("certificate_reloaded").is_empty()
    });
    let refused = visit(&of_alice, at).unwrap_err();
    assert!(refused.to_string().contains("CertificateRevoked"), "{refused}");
    assert!(!visit(&of_bob, at).unwrap(), "his session began anew");
    let revoked = [("reason", "revoked")];
    wait_until("it is counted", || {
        evenkeel.metric("evenkeel_tls_handshake_failures_total", &revoked) == 1.0
    });

    // A list that cannot be read changes nothing.
    std::fs::write(authority.path("clients.crl"), "half of a li").unwrap();
    wait_until("it is refused", || {
        !evenkeel.events("certificate_refused").is_empty()
    });
    assert!(visit(&of_alice, at).is_err());
    assert!(visit(&of_bob, at).is_ok());
}

/// Scenario: from today on partners must show certificates. Who was here yesterday has a session, and no certificate.
#[test]
fn a_session_does_not_outlive_the_rules_it_began_under() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    authority.issue("alice", &["alice"]);
    let backend = Backend::named("one");
    let open = shop_with_listener(&[&backend], &authority.listener(&["shop"], ""), QUIET);
    let closed = |mode: &str| {
        open.replace(
            &authority.listener(&["shop"], ""),
            &asking(&authority, mode, false),
        )
    };
    let evenkeel = Evenkeel::start(&open);
    let at = evenkeel.address();
    // Of 1.2 there are sessions without tickets besides.
    let yesterday = [authority.client(), authority.client()];
    for config in &yesterday {
        assert!(!visit(config, at).unwrap());
        assert!(visit(config, at).unwrap(), "it resumes");
    }
    let (session, to) = (authority.file("session"), at.to_string());
    let keep = [
        "s_client",
        "-connect",
        &to,
        "-tls1_2",
        "-servername",
        "shop.test",
        "-sess_out",
        &session,
    ];
    openssl(&keep);
    let resume = [
        "s_client",
        "-connect",
        &to,
        "-tls1_2",
        "-servername",
        "shop.test",
        "-sess_in",
        &session,
    ];
    assert!(openssl(&resume).contains("Reused, TLSv1.2"));

    evenkeel.reload(&closed("require"));
    for config in &yesterday {
        let refused = visit(config, at).unwrap_err();
        assert!(refused.to_string().contains("CertificateRequired"), "{refused}");
    }
    assert!(!openssl(&resume).contains("Reused, TLSv1.2"));
    let none = [("reason", "no_certificate")];
    wait_until("all are counted", || {
        evenkeel.metric("evenkeel_tls_handshake_failures_total", &none) == 3.0
    });
    let alice = authority.client_named("alice");
    assert!(!visit(&alice, at).unwrap());

    // Nor do sessions with a certificate outlive the next change.
    assert!(visit(&alice, at).unwrap());
    evenkeel.reload(&closed("optional"));
    assert!(!visit(&alice, at).unwrap());
}

/// Scenario: a client comes back and meets another thread, and a config that changed in other ways meanwhile.
#[test]
fn a_session_resumes_on_every_shard_and_over_reloads() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    authority.issue("other", &["other.test"]);
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let ip = free_ip();
    let with = |backends: &[&Backend], names: &[&str]| {
        let addresses: Vec<SocketAddr> = backends.iter().map(|b| b.address).collect();
        let listen = format!("{ip}:0");
        let lb = shop_on(&listen, &addresses, QUIET).replace(&format!("listen = \"{listen}\"\n"), "");
        let listener = authority.listener(names, "");
        format!(
            "[node]\nthreads = 4\n{lb}[[load_balancers.shop.listeners]]\naddress = \"{listen}\"\n{listener}"
        )
    };
    let evenkeel = Evenkeel::start(&with(&[&one], &["shop"]));
    let at = evenkeel.address();
    for version in ["TLSv1_2", "TLSv1_3"] {
        let said = come_back(&authority, at, version, 9);
        assert_eq!(said[0], "full", "{version}");
        assert!(
            said[1..].iter().all(|how| how == "resumed"),
            "{version}: {said:?}"
        );
    }
    let config = authority.client();
    assert!(!visit(&config, at).unwrap());
    evenkeel.reload(&with(&[&one, &two], &["shop"]));
    assert!(visit(&config, at).unwrap(), "other backends");
    evenkeel.reload(&with(&[&one, &two], &["shop", "other"]));
    assert!(visit(&config, at).unwrap(), "one more certificate");
}

/// Scenario: two shops on two addresses; a session of the one is none of the other.
#[test]
fn a_session_is_of_one_listener() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let backend = Backend::named("one");
    let listener = authority.listener(&["shop"], "");
    let on = |name: &str| {
        let ip = free_ip();
        format!("[[load_balancers.shop.listeners]]\nname = \"{name}\"\naddress = \"{ip}:0\"\n{listener}\n")
    };
    let lb = format!(
        "[load_balancers.shop]\nbackend_servers = [\"{}\"]\n{QUIET}",
        backend.address
    );
    let evenkeel = Evenkeel::start(&format!("{lb}{}{}", on("a"), on("b")));
    let config = authority.client();
    assert!(!visit(&config, evenkeel.listener("shop", "a")).unwrap());
    assert!(!visit(&config, evenkeel.listener("shop", "b")).unwrap());
}

/// Scenario: a client of another age, and an address for 1.3 alone.
#[test]
fn versions_before_the_least_are_refused() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let backend = Backend::named("one");
    let try_with = |least: &str, version: &str, failures: f64| {
        let listener = authority.listener(&["shop"], least);
        let evenkeel = Evenkeel::start(&shop_with_listener(&[&backend], &listener, QUIET));
        let at = evenkeel.address().to_string();
        // OpenSSL itself offers old versions only when it is told to lower its guard.
        let cipher = "ALL:@SECLEVEL=0";
        let said = openssl(&["s_client", "-connect", &at, version, "-cipher", cipher]);
        let reason = [("reason", "version")];
        evenkeel.wait_for_metric("evenkeel_tls_handshake_failures_total", &reason, failures);
        said.contains("Cipher is (NONE)")
    };
    assert!(try_with("", "-tls1_1", 1.0));
    assert!(!try_with("", "-tls1_2", 0.0));
    let only_1_3 = ", min_version = \"1.3\"";
    assert!(try_with(only_1_3, "-tls1_2", 1.0));
    assert!(!try_with(only_1_3, "-tls1_3", 0.0));
}
