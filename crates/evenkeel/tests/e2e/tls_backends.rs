//! TLS towards backends: nginx with certificates that are right, and that are not.

use crate::support::{Authority, Evenkeel, Nginx, Wish, free_ip, wait_until};

/// nginx with the certificate `name` of an authority, and further settings.
fn nginx(authority: &Authority, name: &str, more: &str) -> Nginx {
    let (cert, key) = (
        authority.file(&format!("{name}.pem")),
        authority.file(&format!("{name}.key")),
    );
    let settings = format!("ssl_certificate {cert};\nssl_certificate_key {key};\n{more}");
    Nginx::start_with(name, "ssl", &settings)
}

/// A config with one backend, and the keys of its `tls`.
fn config(backend: &Nginx, tls: &str, more: &str) -> String {
    format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\nbackend_servers = [\"{}\"]\ntls = {tls}\npassive = false\nslow_start = 0\n{more}",
        free_ip(),
        backend.address
    )
}

/// Scenario: the backends are servers of the same house, with certificates of its own authority, and want one too.
#[test]
fn nginx_is_spoken_to_over_tls_with_a_certificate_of_ours() {
    let authority = Authority::new();
    authority.issue("web", &["web.internal"]);
    authority.issue("edge", &["edge"]);
    let ca = authority.file("ca.pem");
    let backend = nginx(
        &authority,
        "web",
        &format!(
            "ssl_client_certificate {ca};\nssl_verify_client on;\nadd_header X-Client $ssl_client_s_dn;\nadd_header X-Name $ssl_server_name;\n"
        ),
    );
    let tls = format!(
        "{{ ca = \"{ca}\", server_name = \"web.internal\", client_certificate = {} }}",
        authority.entry("edge")
    );
    let evenkeel = Evenkeel::start(&config(&backend, &tls, "health_endpoint = \"/\"\n"));
    for _ in 0..3 {
        let answer = evenkeel.client().get("/");
        assert_eq!((answer.status(), answer.text()), (200, "web"));
        assert_eq!(answer.field("x-name"), Some("web.internal"));
        assert!(answer.field("x-client").unwrap().contains("CN=edge"));
    }
    // The check speaks TLS as the pool does.
    wait_until("the check has passed", || {
        evenkeel.backend(backend.address)["health_reason"] == "status 200"
    });
    // A certificate that nginx does not want is one that it does not get.
    let without = format!("{{ ca = \"{ca}\", server_name = \"web.internal\" }}");
    let evenkeel = Evenkeel::start(&config(&backend, &without, "health = false\n"));
    assert_eq!(evenkeel.client().get("/").status(), 400);
}

/// Scenario: wrong name, unknown authority, out of date: none of them is spoken to, and the reason is told.
#[test]
fn a_wrong_certificate_is_502_with_the_reason_in_log_metric_and_check() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let expired = Wish {
        expired: true,
        ..Wish::default()
    };
    authority.issue("right", &["web.internal"]);
    authority.issue_as("old", &["web.internal"], expired);
    let with_ca = |of: &Authority, name: &str| {
        format!("{{ ca = \"{}\", server_name = \"{name}\" }}", of.file("ca.pem"))
    };
    let (right, old) = (nginx(&authority, "right", ""), nginx(&authority, "old", ""));
    for (backend, tls, reason) in [
        (&right, with_ca(&authority, "other.internal"), "name_mismatch"),
        (&right, with_ca(&stranger, "web.internal"), "unknown_issuer"),
        (&old, with_ca(&authority, "web.internal"), "expired"),
    ] {
        let evenkeel = Evenkeel::start(&config(
            backend,
            &tls,
            "health_endpoint = \"/\"\nretries.attempts = 0\n",
        ));
        let answer = evenkeel.client().get("/");
        assert_eq!(
            (answer.status(), answer.reason()),
            (502, "backend_tls_failed"),
            "{reason}"
        );
        let failures = [("reason", reason)];
        evenkeel.wait_for_metric("evenkeel_backend_tls_failures_total", &failures, 1.0);
        wait_until("the log tells", || evenkeel.log().contains(reason));
        wait_until("the check fails", || {
            let why = evenkeel.backend(backend.address)["health_reason"].clone();
            why.as_str()
                .is_some_and(|why| why.starts_with("TLS: its certificate"))
        });
    }
}

/// Scenario: somebody switches verification off and should not forget it.
#[test]
fn insecure_works_and_is_warned_of_everywhere() {
    let authority = Authority::new();
    authority.issue("web", &["web.internal"]);
    let backend = nginx(&authority, "web", "");
    let evenkeel = Evenkeel::start(&config(&backend, "{ insecure = true }", "health = false\n"));
    assert_eq!(evenkeel.client().get("/").status(), 200);
    wait_until("the log tells", || evenkeel.log().contains("not verified"));
    let status = evenkeel.cli_ok(&["status"]);
    assert!(
        status.contains("WARNING: its backends' certificates are not verified"),
        "{status}"
    );
    let config = evenkeel.place().config();
    let output = crate::support::program()
        .arg("check")
        .arg(config)
        .output()
        .unwrap();
    assert!(output.status.success());
    let warned = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        warned.contains("warning:") && warned.contains("insecure"),
        "{warned}"
    );
}

/// Scenario: the backend is a plain server: what it says is no handshake.
#[test]
fn a_backend_that_speaks_no_tls_is_502() {
    let backend = Nginx::start("plain");
    let evenkeel = Evenkeel::start(&config(
        &backend,
        "{ insecure = true }",
        "health = false\nretries.attempts = 0\n",
    ));
    let answer = evenkeel.client().get("/");
    assert_eq!((answer.status(), answer.reason()), (502, "backend_tls_failed"));
    evenkeel.wait_for_metric(
        "evenkeel_backend_tls_failures_total",
        &[("reason", "not_tls")],
        1.0,
    );
}

/// Scenario: the check of a backend that wants certificates, by a load balancer that has none to show.
#[test]
fn a_check_without_the_certificate_that_the_backend_wants_fails() {
    let authority = Authority::new();
    authority.issue("web", &["web.internal"]);
    authority.issue("edge", &["edge"]);
    let ca = authority.file("ca.pem");
    let backend = nginx(
        &authority,
        "web",
        &format!("ssl_client_certificate {ca};\nssl_verify_client on;\n"),
    );
    let without = format!("{{ ca = \"{ca}\", server_name = \"web.internal\" }}");
    let evenkeel = Evenkeel::start(&config(&backend, &without, "health_endpoint = \"/\"\n"));
    wait_until("the check has failed", || {
        let backend = evenkeel.backend(backend.address);
        backend["health_reason"] == "status 400" && backend["eligibility"] != "eligible"
    });
    let own = authority.entry("edge");
    let with = format!("{{ ca = \"{ca}\", server_name = \"web.internal\", client_certificate = {own} }}");
    let evenkeel = Evenkeel::start(&config(&backend, &with, "health_endpoint = \"/\"\n"));
    wait_until("the check has passed", || {
        evenkeel.backend(backend.address)["health_reason"] == "status 200"
    });
}

/// Scenario: a copy of the traffic goes to a new version in another house, over TLS; that it is there, and that a
/// handshake with it fails, no client notices.
#[test]
fn requests_are_mirrored_to_a_pool_over_tls() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.issue("shadow", &["shadow.internal"]);
    let shadow = nginx(&authority, "shadow", "");
    let live = Nginx::start("live");
    for (ca, outcome) in [(&authority, "answered"), (&stranger, "failed")] {
        let ca = ca.file("ca.pem");
        let evenkeel = Evenkeel::start(&format!(
            "[load_balancers.shop]\nlisten = \"{}:0\"\n\
             [[load_balancers.shop.routes]]\npool = \"live\"\nmirror = {{ pool = \"shadow\" }}\n\
             [load_balancers.shop.pools.live]\nbackend_servers = [\"{}\"]\nhealth = false\n\
             [load_balancers.shop.pools.shadow]\nbackend_servers = [\"{}\"]\nhealth = false\n\
             tls = {{ ca = \"{ca}\", server_name = \"shadow.internal\" }}\n",
            free_ip(),
            live.address,
            shadow.address
        ));
        let mut client = evenkeel.client();
        for _ in 0..4 {
            assert_eq!(client.get("/").text(), "live");
        }
        evenkeel.wait_for_metric("evenkeel_mirrored_requests_total", &[("outcome", outcome)], 4.0);
        let done = evenkeel.metric("evenkeel_backend_tls_handshakes_total", &[("pool", "shadow")]);
        assert_eq!(done > 0.0, outcome == "answered");
        let timed = evenkeel.metric("evenkeel_backend_tls_seconds_count", &[("pool", "shadow")]);
        assert_eq!(timed, done);
        assert_eq!(evenkeel.metric("evenkeel_request_failures_total", &[]), 0.0);
    }
}
