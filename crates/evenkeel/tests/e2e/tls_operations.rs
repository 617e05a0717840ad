//! Certificates over their life: swapped under load, near their end, with an OCSP response that goes stale.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{
    Authority, Backend, Conversation, Evenkeel, QUIET, TlsClient, TlsLoad, Wish, openssl, shop_on, wait_until,
};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";

/// Answers requests; one that upgrades hears itself from then on.
fn shop_with_chat(conversation: &mut Conversation) {
    while let Some(request) = conversation.request() {
        if request.target() != "/chat" {
            if !conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none") {
                return;
            }
            continue;
        }
        conversation.send(SWITCHED);
        loop {
            let bytes = conversation.read_some(4096);
            if bytes.is_empty() || !conversation.send(bytes) {
                return;
            }
        }
    }
}

/// Scenario: certificates are swapped by a program that writes the config and calls the API, again and again, while
/// people shop and chat.
#[test]
fn certificates_are_swapped_through_the_api_and_nobody_notices() {
    let authority = Authority::new();
    let backend = Backend::scripted(shop_with_chat);
    let read = |name: &str| std::fs::read_to_string(authority.path(name)).unwrap();
    let config_at = |listen: &str| {
        let (cert, key) = (read("shop.pem"), read("shop.key"));
        let lb = shop_on(listen, &[backend.address], QUIET).replace(&format!("listen = \"{listen}\"\n"), "");
        format!(
            "{lb}\n[[load_balancers.shop.listeners]]\naddress = \"{listen}\"\nprotocol = \"https\"\n\
             [[load_balancers.shop.listeners.tls.certificates]]\ncert_pem = '''{cert}'''\nkey_pem = '''{key}'''\n"
        )
    };
    authority.issue("shop", &["shop.test"]);
    let evenkeel = Evenkeel::start(&config_at("127.0.0.1:0"));
    let at = evenkeel.address();
    let config = authority.client();
    let mut chat = TlsClient::connect(config.clone(), at, "shop.test");
    chat.send(UPGRADE.as_bytes());
    let head = String::from_utf8(chat.until(b"\r\n\r\n")).unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let load = TlsLoad::start(&config, at, "shop.test");
    load.wait_for_more(20);
    let mut shown = Vec::new();
    for round in 0..5 {
        authority.issue("shop", &["shop.test"]);
        evenkeel.reload(&config_at("127.0.0.1:0"));
        let mut fresh = TlsClient::connect(authority.client(), at, "shop.test");
        assert_eq!(fresh.get("shop.test").unwrap(), 200);
        shown.push(fresh.certificate());
        let words = format!("still here in round {round}");
        chat.send(words.as_bytes());
        assert_eq!(chat.exactly(words.len()), words.as_bytes());
        load.wait_for_more(20);
    }
    assert_eq!(load.stop(), Vec::<String>::new());
    shown.dedup();
    assert_eq!(shown.len(), 5, "each certificate was shown at once");
    assert_eq!(evenkeel.metric("evenkeel_tunnels_opened_total", &[]), 1.0);
    assert_eq!(evenkeel.metric("evenkeel_tunnels", &[]), 1.0);
    assert_eq!(evenkeel.metric("evenkeel_request_failures_total", &[]), 0.0);
    let inline = evenkeel.get("/api/v1/config");
    assert!(!inline.text().contains("PRIVATE KEY"), "keys are never shown");
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Scenario: nobody renewed. The warning comes in time, once, and the metric says when the end is.
#[test]
fn a_certificate_near_its_end_is_warned_of() {
    let authority = Authority::new();
    let hours = |hours| Wish {
        hours: Some(hours),
        ..Wish::default()
    };
    authority.issue_as("soon", &["soon.test"], hours(132));
    authority.issue_as("later", &["later.test"], hours(4800));
    let backend = Backend::named("one");
    let listener = authority.listener(&["soon", "later"], "");
    let config = crate::support::shop_with_listener(&[&backend], &listener, QUIET);
    let began = now_s();
    let evenkeel = Evenkeel::start(&config);
    wait_until("it is warned of", || {
        !evenkeel.events("certificate_expires").is_empty()
    });
    let events = evenkeel.events("certificate_expires");
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(
        events[0].contains("soon.pem") && events[0].ends_with("it expires in 5 days"),
        "{events:?}"
    );
    wait_until("the log warns", || {
        let log = evenkeel.log();
        log.lines()
            .any(|line| line.contains("WARN") && line.contains("it expires in 5 days"))
    });
    let end = |name: &str| {
        let file = authority.file(name);
        evenkeel.metric(
            "evenkeel_certificate_expiry_timestamp_seconds",
            &[("certificate", &file)],
        )
    };
    for (name, hours) in [("soon.pem", 132), ("later.pem", 4800)] {
        let expected = (began + hours * 3600) as f64;
        assert!((end(name) - expected).abs() < 60.0, "{name}: {}", end(name));
    }
    let status = evenkeel.cli_ok(&["status"]);
    assert!(status.contains("soon.test"), "{status}");
}

/// Scenario: whatever fetches OCSP responses died a week ago. From the second in which the last one ends it is sent no
/// more, which is told and can be alerted on before.
#[test]
fn an_ocsp_response_is_left_out_from_its_end_on() {
    let authority = Authority::new();
    authority.issue("shop", &["shop.test"]);
    let response = authority.path("shop.ocsp");
    std::fs::write(&response, authority.ocsp_response("shop", now_s() + 7 * 86_400)).unwrap();
    let backend = Backend::named("one");
    let listener = authority.listener(&["shop"], "");
    let with = format!("shop.key\", ocsp = \"{}\"", response.display());
    let listener = listener.replace("shop.key\"", &with);
    let config = crate::support::shop_with_listener(&[&backend], &listener, QUIET);
    let evenkeel = Evenkeel::start(&config);
    let at = evenkeel.address().to_string();
    let stapled = || {
        let said = openssl(&["s_client", "-connect", &at, "-servername", "shop.test", "-status"]);
        said.contains("OCSP Response Status: successful")
    };
    assert!(stapled());
    // The same again, whose end comes while it is in use.
    let end = now_s() + 8;
    std::fs::write(&response, authority.ocsp_response("shop", end)).unwrap();
    wait_until("its end is told", || !evenkeel.events("ocsp_stale").is_empty());
    assert!(now_s() >= end);
    assert!(!stapled());
    let metric = "evenkeel_certificate_ocsp_expiry_timestamp_seconds";
    assert_eq!(evenkeel.metric(metric, &[]), end as f64);
    let events = evenkeel.events("ocsp_stale");
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(
        events[0].contains("shop.pem: its OCSP response is out of date"),
        "{events:?}"
    );
    // A fresh one is sent again; one that is old when it comes is not, and `check` warns of it.
    std::fs::write(&response, authority.ocsp_response("shop", now_s() + 86_400)).unwrap();
    wait_until("a fresh one is sent", stapled);
    std::fs::write(&response, authority.ocsp_response("shop", now_s() - 60)).unwrap();
    wait_until("an old one is told of", || {
        evenkeel.events("ocsp_stale").len() == 2
    });
    assert!(!stapled());
    let mut check = crate::support::program();
    let output = check
        .arg("check")
        .arg(evenkeel.place().config())
        .output()
        .unwrap();
    let warned = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && warned.contains("is out of date and not sent"),
        "{warned}"
    );
}
