//! Sessions stay where they are: over reloads and restarts, while their backend drains, and until it dies. Filed by
//! what tells sessions apart; the cookie by section of RFC 6265.

use std::net::SocketAddr;

use crate::support::{Backend, Client, Evenkeel, Message, Place, QUIET, free_ip, shop, shop_on, wait_until};

const COOKIE: &str = "sticky = { cookie = \"evk\" }\n";

fn config(backends: &[&Backend], sticky: &str) -> String {
    shop(backends, &format!("{QUIET}{sticky}"))
}

fn ask(client: &mut Client, fields: &str) -> Message {
    client.ask(&format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n"))
}

fn with_cookie(client: &mut Client, cookie: &str) -> Message {
    ask(client, &format!("Cookie: other=1; {cookie}\r\n"))
}

/// `name=value` of the cookie that a response sets; `None` when it sets none.
fn set_cookie(response: &Message) -> Option<String> {
    let field = response.field("set-cookie")?;
    field.split(';').next().map(str::to_owned)
}

/// A new session: its cookie, and the backend that has it.
fn begin(client: &mut Client) -> (String, String) {
    let first = ask(client, "");
    assert_eq!(first.status(), 200);
    (set_cookie(&first).expect("a cookie"), first.text().to_owned())
}

fn order(evenkeel: &Evenkeel, action: &str, backend: SocketAddr) {
    evenkeel.cli_ok(&["backend", action, "shop", &backend.to_string()]);
}

/// Many requests of one session meet one backend and no new cookie; sessions are spread by the algorithm.
#[test]
fn a_session_stays_with_its_backend() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = Evenkeel::start(&config(&[&one, &two], COOKIE));
    let mut client = evenkeel.client();
    let (cookie, home) = begin(&mut client);
    let (_, other) = begin(&mut client);
    assert_ne!(home, other, "the algorithm spreads what is new");
    for _ in 0..20 {
        let answer = with_cookie(&mut client, &cookie);
        assert_eq!(answer.text(), home);
        assert_eq!(set_cookie(&answer), None, "nothing to say that is not said");
    }
    let outcomes = |outcome| {
        let labels = [("outcome", outcome)];
        evenkeel.metric("evenkeel_pool_session_requests_total", &labels)
    };
    wait_until("all are counted", || outcomes("kept") == 20.0);
    assert_eq!(
        (outcomes("new"), outcomes("moved"), outcomes("rejected")),
        (2.0, 0.0, 0.0)
    );
}

/// With every algorithm, the hashing ones too.
#[test]
fn it_works_with_every_algorithm() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    for algorithm in [
        "round_robin",
        "least_connections",
        "random",
        "power_of_two",
        "peak_ewma",
        "ip_hash",
        "consistent_hash",
    ] {
        let sticky = format!("algorithm = \"{algorithm}\"\n{COOKIE}");
        let evenkeel = Evenkeel::start(&config(&[&one, &two], &sticky));
        let mut client = evenkeel.client();
        let (cookie, home) = begin(&mut client);
        assert!(
            (0..10).all(|_| with_cookie(&mut client, &cookie).text() == home),
            "{algorithm}"
        );
    }
}

/// RFC 6265 section 4.1: what the field looks like; section 8.3: nothing in it tells of the inside.
#[test]
fn rfc6265_section_4_1_the_cookie_and_its_attributes() {
    let backend = Backend::named("one");
    let attributes = |sticky: &str, fields: &str, listener: &str| {
        let ip = free_ip();
        let text = format!(
            "[load_balancers.shop]\nbackend_servers = [\"{}\"]\n{QUIET}{sticky}\n\
             [[load_balancers.shop.listeners]]\naddress = \"{ip}:0\"\n{listener}\n",
            backend.address
        );
        let evenkeel = Evenkeel::start(&text);
        let answer = ask(&mut evenkeel.client(), fields);
        assert_eq!(
            answer.field("cache-control"),
            Some("private"),
            "no cache may share it"
        );
        answer.field("set-cookie").unwrap().to_owned()
    };
    let plain = attributes(COOKIE, "", "");
    let (pair, rest) = plain.split_once("; ").unwrap();
    assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax");
    let value = pair.strip_prefix("evk=").unwrap();
    assert_eq!(value.len(), 38);
    assert!(
        value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    );
    for secret in [backend.address.to_string(), backend.address.port().to_string()] {
        assert!(!value.contains(&secret), "{value} names {secret}");
    }
    let all = "sticky = { cookie = \"s\", ttl = \"1h\", secure = true, same_site = \"none\", http_only = false, \
               path = \"/app\", domain = \"shop.test\" }\n";
    let (_, rest) = attributes(all, "", "")
        .split_once("; ")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert_eq!(
        rest,
        "Path=/app; Domain=shop.test; Max-Age=3600; SameSite=None; Secure"
    );
    // Behind a proxy that speaks TLS; whoever is not trusted cannot say so.
    let https = "X-Forwarded-Proto: https\r\n";
    assert!(attributes(COOKIE, https, "trusted_proxies = [\"127.0.0.0/8\"]").ends_with("; Secure"));
    assert!(!attributes(COOKIE, https, "").contains("Secure"));
}

/// RFC 6265 section 4.2.2: several cookies of one name, in whatever order: the one of ours counts.
#[test]
fn rfc6265_section_4_2_several_cookies_of_one_name() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = Evenkeel::start(&config(&[&one, &two], COOKIE));
    let mut client = evenkeel.client();
    let (cookie, home) = begin(&mut client);
    for _ in 0..4 {
        assert_eq!(
            with_cookie(&mut client, &format!("evk=foreign; {cookie}")).text(),
            home
        );
        assert_eq!(
            with_cookie(&mut client, &format!("{cookie}; evk=foreign")).text(),
            home
        );
        assert_eq!(
            ask(&mut client, &format!("Cookie: a=b\r\nCookie: {cookie}\r\n")).text(),
            home
        );
    }
}

/// Whatever a client makes up or changes, it gets a new session, and it is counted.
#[test]
fn a_forged_cookie_is_replaced() {
    let backend = Backend::named("one");
    let evenkeel = Evenkeel::start(&config(&[&backend], COOKIE));
    let mut client = evenkeel.client();
    let (cookie, _) = begin(&mut client);
    let changed = match cookie.strip_suffix('A') {
        Some(start) => format!("{start}B"),
        None => format!("{}A", &cookie[..cookie.len() - 1]),
    };
    let made_up = [
        "evk=".to_owned(),
        "evk=1".to_owned(),
        format!("evk={}", "A".repeat(38)),
        changed,
    ];
    for forged in &made_up {
        let answer = with_cookie(&mut client, forged);
        assert_eq!(answer.status(), 200);
        assert!(set_cookie(&answer).is_some_and(|new| new != *forged), "{forged}");
    }
    let labels = [("outcome", "rejected")];
    let rejected = || evenkeel.metric("evenkeel_pool_session_requests_total", &labels);
    wait_until("all are counted", || rejected() == made_up.len() as f64);
}

/// A reload, a backend that is added and one that is listed elsewhere move no session; nor does a restart, because
/// the secret is kept in the data directory.
#[test]
fn a_session_survives_reload_and_restart() {
    let (one, two, three) = (
        Backend::named("one"),
        Backend::named("two"),
        Backend::named("three"),
    );
    let listen = format!("{}:0", free_ip());
    let text = |backends: &[&Backend]| {
        let addresses: Vec<SocketAddr> = backends.iter().map(|b| b.address).collect();
        shop_on(&listen, &addresses, &format!("{QUIET}{COOKIE}"))
    };
    let place = Place::new(&text(&[&one, &two]));
    let mut evenkeel = place.start();
    let mut client = evenkeel.client();
    let (cookie, home) = begin(&mut client);
    let stays = |client: &mut Client, when: &str| {
        for _ in 0..6 {
            let answer = with_cookie(client, &cookie);
            assert_eq!(
                (answer.text(), set_cookie(&answer)),
                (home.as_str(), None),
                "{when}"
            );
        }
    };
    place.write(&text(&[&three, &two, &one]));
    assert_eq!(evenkeel.post("/api/v1/reload", "").status(), 200);
    stays(&mut client, "after a reload");
    evenkeel.kill();
    drop(evenkeel);
    let evenkeel = place.start();
    stays(&mut evenkeel.client(), "after kill -9 and a start");
}

/// The secret is changed in two steps: no session moves, and the cookie is written anew with the new one.
#[test]
fn a_secret_is_changed_without_moving_a_session() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let listen = format!("{}:0", free_ip());
    let text = |secrets: &str| {
        let shop = shop_on(&listen, &[one.address, two.address], &format!("{QUIET}{COOKIE}"));
        format!("{shop}[node]\nsecret = {secrets}\n")
    };
    let (old, new) = ("\"the-old-secret-of-ours\"", "\"the-new-secret-of-ours\"");
    let place = Place::new(&text(old));
    let evenkeel = place.start();
    let mut client = evenkeel.client();
    let (cookie, home) = begin(&mut client);
    let put = |secrets: &str| {
        place.write(&text(secrets));
        assert_eq!(evenkeel.post("/api/v1/reload", "").status(), 200);
    };
    put(&format!("[{new}, {old}]"));
    let answer = with_cookie(&mut client, &cookie);
    assert_eq!(answer.text(), home);
    let renewed = set_cookie(&answer).expect("written anew");
    put(new);
    assert_eq!(with_cookie(&mut client, &renewed).text(), home);
    assert_eq!(set_cookie(&with_cookie(&mut client, &renewed)), None);
    assert!(
        set_cookie(&with_cookie(&mut client, &cookie)).is_some(),
        "the old one is nobody's now"
    );
}

/// Drained: old sessions stay, new ones go elsewhere, and after the deadline the old ones too, with a new cookie.
#[test]
fn a_drained_backend_keeps_its_sessions_up_to_the_deadline() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let sticky = "sticky = { cookie = \"evk\", drain_timeout = \"6s\" }\n";
    let evenkeel = Evenkeel::start(&config(&[&one, &two], sticky));
    let mut client = evenkeel.client();
    let (cookie, home) = begin(&mut client);
    let drained = if home == "one" { &one } else { &two };
    order(&evenkeel, "drain", drained.address);
    let kept = with_cookie(&mut client, &cookie);
    assert_eq!((kept.text(), set_cookie(&kept)), (home.as_str(), None));
    for _ in 0..6 {
        assert_ne!(ask(&mut client, "").text(), home, "no new session");
    }
    wait_until("its time is over", || {
        with_cookie(&mut client, &cookie).text() != home
    });
    let moved = with_cookie(&mut client, &cookie);
    let anew = set_cookie(&moved).expect("told where it is now");
    let elsewhere = moved.text().to_owned();
    assert_eq!(with_cookie(&mut client, &anew).text(), elsewhere);
    wait_until("no connection is kept", || drained.open_connections() == 0);
}

/// Maintenance moves them at once.
#[test]
fn maintenance_moves_sessions_at_once() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = Evenkeel::start(&config(&[&one, &two], COOKIE));
    let mut client = evenkeel.client();
    let (cookie, home) = begin(&mut client);
    let its = if home == "one" { &one } else { &two };
    order(&evenkeel, "maintenance", its.address);
    let moved = with_cookie(&mut client, &cookie);
    assert_ne!(moved.text(), home);
    assert!(set_cookie(&moved).is_some());
}

/// The backend dies: the request is answered elsewhere, with a cookie for there, and the session stays there.
#[test]
fn a_dead_backends_sessions_are_placed_anew() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = Evenkeel::start(&config(&[&one, &two], COOKIE));
    let mut client = evenkeel.client();
    let (cookie, home) = begin(&mut client);
    let (dead, alive) = if home == "one" {
        (&one, "two")
    } else {
        (&two, "one")
    };
    dead.kill();
    let moved = with_cookie(&mut client, &cookie);
    assert_eq!((moved.status(), moved.text()), (200, alive));
    let anew = set_cookie(&moved).expect("a new cookie");
    let answer = with_cookie(&mut client, &anew);
    assert_eq!((answer.text(), set_cookie(&answer)), (alive, None));
}

/// A session ends with its time; half of it over, it is prolonged.
#[test]
fn a_session_ends_with_its_time() {
    let backend = Backend::named("one");
    let sticky = "sticky = { cookie = \"evk\", ttl = \"2s\" }\n";
    let evenkeel = Evenkeel::start(&config(&[&backend], sticky));
    let mut client = evenkeel.client();
    let (cookie, _) = begin(&mut client);
    wait_until("it is prolonged", || {
        set_cookie(&with_cookie(&mut client, &cookie)).is_some()
    });
    let labels = [("outcome", "rejected")];
    wait_until("it has expired", || {
        with_cookie(&mut client, &cookie);
        evenkeel.metric("evenkeel_pool_session_requests_total", &labels) > 0.0
    });
}

/// An application's own session: where its backend answered from is learned from `Set-Cookie`.
#[test]
fn an_application_cookie_is_learned() {
    let app = |name: &'static str| {
        Backend::answering(move |request| {
            let cookie = match request.field("cookie") {
                Some(_) => String::new(),
                None => format!("Set-Cookie: JSESSIONID={name}-7; Path=/; HttpOnly\r\n"),
            };
            format!(
                "HTTP/1.1 200 OK\r\n{cookie}Content-Length: {}\r\n\r\n{name}",
                name.len()
            )
            .into_bytes()
        })
    };
    let (one, two) = (app("one"), app("two"));
    let evenkeel = Evenkeel::start(&config(
        &[&one, &two],
        "sticky = { app_cookie = \"JSESSIONID\" }\n",
    ));
    let mut client = evenkeel.client();
    let first = ask(&mut client, "");
    let home = first.text().to_owned();
    assert_eq!(
        set_cookie(&first).unwrap(),
        format!("JSESSIONID={home}-7"),
        "none of ours is added"
    );
    for _ in 0..7 {
        assert_eq!(
            with_cookie(&mut client, &format!("JSESSIONID={home}-7")).text(),
            home
        );
    }
    // One that we have not seen the beginning of is placed once, and stays.
    let placed = with_cookie(&mut client, "JSESSIONID=from-before")
        .text()
        .to_owned();
    assert!((0..6).all(|_| with_cookie(&mut client, "JSESSIONID=from-before").text() == placed));
    // It is kept over a drain, too.
    let drained = if home == "one" { &one } else { &two };
    order(&evenkeel, "drain", drained.address);
    assert_eq!(
        with_cookie(&mut client, &format!("JSESSIONID={home}-7")).text(),
        home
    );
    assert_ne!(ask(&mut client, "").text(), home);
}

/// By header field, and by client address.
#[test]
fn sessions_by_header_and_by_address() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = Evenkeel::start(&config(&[&one, &two], "sticky = { header = \"X-Session\" }\n"));
    let mut client = evenkeel.client();
    let of = |client: &mut Client, session: &str| {
        ask(client, &format!("X-Session: {session}\r\n"))
            .text()
            .to_owned()
    };
    let homes: Vec<String> = (0..6).map(|i| of(&mut client, &i.to_string())).collect();
    assert!(homes.iter().any(|h| h == "one") && homes.iter().any(|h| h == "two"));
    let again: Vec<String> = (0..6).map(|i| of(&mut client, &i.to_string())).collect();
    assert_eq!(homes, again);

    let evenkeel = Evenkeel::start(&config(&[&one, &two], "sticky = { client_address = true }\n"));
    let home = ask(&mut evenkeel.client(), "").text().to_owned();
    for _ in 0..8 {
        assert_eq!(
            ask(&mut evenkeel.client(), "").text(),
            home,
            "over new connections too"
        );
    }
}

/// `explain` tells where a session is and why it goes elsewhere.
#[test]
fn explain_tells_of_the_session() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = Evenkeel::start(&config(&[&one, &two], COOKIE));
    let mut client = evenkeel.client();
    let (cookie, home) = begin(&mut client);
    let address = if home == "one" { one.address } else { two.address };
    let explain =
        |header: &str| evenkeel.cli_ok(&["explain", "--listener", "shop", "--header", header, "GET", "/"]);
    let told = explain("X-A: 1");
    assert!(told.contains("no session yet, by cookie evk"), "{told}");
    let told = explain(&format!("Cookie: {cookie}"));
    assert!(told.contains(&format!("the session is at {address}")), "{told}");
    assert!(
        told.contains(&format!("goes to {address}: the session is there")),
        "{told}"
    );
    let told = explain("Cookie: evk=made-up");
    assert!(told.contains("cookie evk is not one of ours"), "{told}");
    order(&evenkeel, "maintenance", address);
    let told = explain(&format!("Cookie: {cookie}"));
    assert!(told.contains("which takes no requests"), "{told}");
}
