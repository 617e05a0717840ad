//! What is told of TLS afterwards (access log, recorder), and what was agreed in truth: the two must be the same.

use std::net::SocketAddr;

use rustls::NamedGroup;
use serde_json::Value;

use crate::support::{
    Authority, Backend, Evenkeel, QUIET, TlsClient, curl, free_address, python, shop_with_listener, wait_for,
    wait_until,
};

/// An OpenSSL of its own (pyOpenSSL), which knows the post-quantum groups: what it has agreed on with us.
const AGREE: &str = r#"
import socket, sys
from OpenSSL import SSL
host, port, name = sys.argv[1:4]
context = SSL.Context(SSL.TLS_CLIENT_METHOD)
connection = SSL.Connection(context, socket.create_connection((host, int(port))))
connection.set_tlsext_host_name(name.encode())
connection.set_connect_state()
connection.do_handshake()
connection.sendall(b"GET /openssl HTTP/1.1\r\nHost: %s\r\n\r\n" % name.encode())
assert connection.recv(4096).startswith(b"HTTP/1.1 200")
print(connection.get_protocol_version_name(), connection.get_cipher_name(), connection.get_group_name())
"#;

/// A shop over TLS whose access log is read.
struct Logged {
    evenkeel: Evenkeel,
    dir: tempfile::TempDir,
}

impl Logged {
    fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = format!(
            "[access_log]\nto = \"file:{}\"\n[recorder]\nsample = \"100%\"\n",
            path.display()
        );
        Self {
            evenkeel: Evenkeel::start(&format!("{log}{config}")),
            dir,
        }
    }

    /// The line of the request for this path.
    fn line(&self, path: &str) -> Value {
        wait_for("the line is there", || {
            let text = std::fs::read_to_string(self.dir.path().join("access.log")).unwrap_or_default();
            let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let mut lines = whole.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
            lines.find(|line| line["path"] == path)
        })
    }

    fn at(&self) -> SocketAddr {
        self.evenkeel.address()
    }
}

/// Scenario: somebody records traffic today to decrypt it in twenty years. A client of another implementation and one of
/// the same agree on a post-quantum group, and the log proves it; a client of yesterday is served too.
#[test]
fn the_key_exchange_is_post_quantum_with_who_knows_it() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let backend = Backend::named("one");
    let config = shop_with_listener(&[&backend], &authority.listener(&["shop"], ""), QUIET);
    let logged = Logged::start(&config);
    let at = logged.at();
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    let said = python(AGREE, &[&host, &port, "shop.test"]);
    assert_eq!(said.trim(), "TLSv1.3 TLS_AES_128_GCM_SHA256 X25519MLKEM768");
    let line = logged.line("/openssl");
    assert_eq!(
        (&line["tls_version"], &line["tls_cipher"], &line["tls_group"]),
        (
            &"TLSv1.3".into(),
            &"TLS_AES_128_GCM_SHA256".into(),
            &"X25519MLKEM768".into()
        )
    );
    for (group, name) in [
        (NamedGroup::X25519MLKEM768, "X25519MLKEM768"),
        (NamedGroup::X25519, "X25519"),
        (NamedGroup::secp256r1, "secp256r1"),
    ] {
        let mut client = TlsClient::connect(authority.client_with_group(group), at, "shop.test");
        client.ask("shop.test", &format!("/{name}")).unwrap();
        assert_eq!(client.group(), Some(group));
        assert_eq!(logged.line(&format!("/{name}"))["tls_group"], name);
    }
}

/// Scenario: who came how? Versions, sessions, protocols, names and certificates of clients are in the log as they were.
#[test]
fn the_access_log_tells_what_was_agreed() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    authority.issue("alice", &["alice"]);
    let backend = Backend::named("one");
    let ca = authority.file("ca.pem");
    let clients = format!(", client_certificates = {{ mode = \"optional\", ca = \"{ca}\" }}");
    let config = shop_with_listener(&[&backend], &authority.listener(&["shop"], &clients), QUIET);
    let logged = Logged::start(&config);
    let at = logged.at();
    let resolve = format!("shop.test:{}:{}", at.port(), at.ip());
    let ask = |path: &str, more: &[&str]| {
        let url = format!("https://shop.test:{}{path}", at.port());
        curl(&[&["--cacert", &ca, "--resolve", &resolve, &url][..], more].concat());
        logged.line(path)
    };
    let (cert, key) = (authority.file("alice.pem"), authority.file("alice.key"));
    let line = ask("/h2", &["--http2", "--cert", &cert, "--key", &key]);
    let expected = [
        ("tls_version", "TLSv1.3"),
        ("alpn", "h2"),
        ("sni", "shop.test"),
        ("protocol", "HTTP/2.0"),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{line}");
    }
    assert_eq!(line["tls_resumed"], false);
    assert!(
        line["client_subject"].as_str().unwrap().contains("CN=alice"),
        "{line}"
    );
    let line = ask("/old", &["--http1.1", "--tls-max", "1.2"]);
    assert_eq!(
        (&line["tls_version"], &line["alpn"]),
        (&"TLSv1.2".into(), &"http/1.1".into())
    );
    assert!(
        line["tls_cipher"]
            .as_str()
            .unwrap()
            .starts_with("TLS_ECDHE_ECDSA_WITH_"),
        "{line}"
    );
    assert_eq!(line["client_subject"], Value::Null);
    let config = authority.client_named("alice");
    for (path, resumed) in [("/first", false), ("/again", true)] {
        let mut client = TlsClient::connect(config.clone(), at, "shop.test");
        client.ask("shop.test", path).unwrap();
        let line = logged.line(path);
        assert_eq!(line["tls_resumed"], resumed, "{line}");
        assert_eq!(line["alpn"], Value::Null, "it offered none");
        assert!(
            line["client_subject"].as_str().unwrap().contains("CN=alice"),
            "{line}"
        );
    }
}

/// Scenario: a partner's request failed. `why` tells whose it was, and how it came.
#[test]
fn why_tells_the_tls_of_a_request() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    authority.issue("alice", &["alice"]);
    let ca = authority.file("ca.pem");
    let clients = format!(", client_certificates = {{ mode = \"require\", ca = \"{ca}\" }}");
    let backend = Backend::named("one");
    let config = shop_with_listener(&[&backend], &authority.listener(&["shop"], &clients), QUIET);
    let dead = config.replace(&backend.address.to_string(), &free_address().to_string());
    let evenkeel = Evenkeel::start(&dead);
    let mut client = TlsClient::connect(authority.client_named("alice"), evenkeel.address(), "shop.test");
    assert_eq!(client.ask("shop.test", "/lost").unwrap(), 502);
    // It may be remembered after its response.
    let record = wait_for("it is known", || {
        let listed: Value = serde_json::from_slice(&evenkeel.get("/api/v1/requests").body).unwrap();
        listed["requests"].get(0).cloned()
    });
    let tls = &record["tls"];
    assert_eq!(
        (&tls["version"], &tls["group"], &tls["resumed"], &tls["sni"]),
        (
            &"TLSv1.3".into(),
            &"X25519MLKEM768".into(),
            &false.into(),
            &"shop.test".into()
        )
    );
    let told = evenkeel.cli_ok(&["why", record["id"].as_str().unwrap()]);
    assert!(
        told.contains("TLSv1.3 for shop.test: TLS_AES_128_GCM_SHA256, X25519MLKEM768, full handshake\n"),
        "{told}"
    );
    assert!(
        told.contains("  client certificate ") && told.contains("CN=alice"),
        "{told}"
    );
}

/// Scenario: a dashboard shows the canary beside the rest. Counters go on over a reload, and nothing that a client sends
/// makes a series.
#[test]
fn requests_are_counted_by_route() {
    let backend = Backend::answering(|request| match request.target() {
        "/canary/broken" => b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    let routes = "[[load_balancers.shop.routes]]\nname = \"canary\"\nmatch = { host = \"shop.test\", path_prefix = \"/canary\" }\npool = \"default\"\n\
                  [[load_balancers.shop.routes]]\nname = \"rest\"\nmatch = { host = \"shop.test\" }\npool = \"default\"\n";
    let config = shop_with_listener(&[&backend], "", &format!("{QUIET}{routes}"));
    let evenkeel = Evenkeel::start(&config);
    let count = |route: &str, class: &str| {
        let labels = [("load_balancer", "shop"), ("route", route), ("class", class)];
        evenkeel.metric("evenkeel_route_requests_total", &labels)
    };
    let mut client = evenkeel.client();
    for (path, times) in [("/canary/a", 3), ("/canary/broken", 2), ("/cart", 4)] {
        for _ in 0..times {
            client.get(path);
        }
    }
    wait_until("the routes' requests are counted", || {
        (
            count("canary", "2xx"),
            count("canary", "5xx"),
            count("rest", "2xx"),
        ) == (3.0, 2.0, 4.0)
    });
    let nowhere = client.ask("GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n");
    assert_eq!((nowhere.status(), nowhere.reason()), (404, "no_route"));
    let all = || evenkeel.metric("evenkeel_route_requests_total", &[]);
    assert_eq!(all(), 9.0, "no route took it");
    evenkeel.wait_for_metric("evenkeel_requests_total", &[], 10.0);
    evenkeel.reload(&config.replace(QUIET, &format!("{QUIET}retries.attempts = 0\n")));
    client.get("/cart");
    wait_until("a reload begins nothing anew", || count("rest", "2xx") == 5.0);
}
