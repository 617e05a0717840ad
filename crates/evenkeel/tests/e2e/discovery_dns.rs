//! Members by names of the DNS, with a real name server: they come and go with its records while requests run, and what
//! it does not answer takes nobody out.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use peers::Knot;

use crate::support::{Backend, Client, Evenkeel, Load, Place, free_ip, wait_until};

/// The load balancer `shop` whose one pool has the records of a name, asked of this server.
fn named(dns: &Knot, keys: &str, more: &str) -> String {
    format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\n{FAST}{more}\n[load_balancers.shop.discovery.dns]\n{}{keys}\n",
        free_ip(),
        quick(dns)
    )
}

const FAST: &str = "slow_start = 0\nhealth = { interval = \"200ms\", fast_interval = \"100ms\" }\n";

/// Looks are a second apart, and fail soon where nobody listens; who is slow is waited for.
fn quick(dns: &Knot) -> String {
    format!(
        "resolvers = \"127.0.0.1:{}\"\nmin_ttl = \"1s\"\ntimeout = \"5s\"\n",
        dns.port
    )
}

fn members(evenkeel: &Evenkeel) -> f64 {
    evenkeel.metric("evenkeel_pool_members", &[("source", "dns")])
}

fn is_stale(evenkeel: &Evenkeel) -> bool {
    evenkeel.metric("evenkeel_pool_source_stale", &[("source", "dns")]) == 1.0
}

/// Backends on one port: the first with an IPv6 address, the others on addresses of 127.0.0.0/8.
fn on_one_port<const N: usize>(names: [&'static str; N]) -> [Backend; N] {
    let port = TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap().port();
    let mut first = true;
    names.map(|name| {
        let v4 = !std::mem::take(&mut first);
        let address: SocketAddr = match v4 {
            true => (free_ip(), port).into(),
            false => format!("[::1]:{port}").parse().unwrap(),
        };
        Backend::named_at(address, name)
    })
}

/// Records of `app.test` for these backends.
fn records(backends: &[&Backend]) -> String {
    let record = |backend: &&Backend| match backend.address {
        SocketAddr::V4(v4) => format!("app 1 A {}\n", v4.ip()),
        SocketAddr::V6(v6) => format!("app 1 AAAA {}\n", v6.ip()),
    };
    backends.iter().map(record).collect()
}

/// A and AAAA records come and go under load: every request succeeds, what is new is served, and what is gone drains
/// and gets nothing more.
#[test]
fn addresses_of_a_name_come_and_go_under_load() {
    let backends = on_one_port(["six", "two", "three"]);
    let [six, two, three] = &backends;
    let mut dns = Knot::start(&records(&[six, two]));
    let port = six.address.port();
    let place = Place::new(&named(&dns, &format!("name = \"App.Test.\"\nport = {port}"), ""));
    let evenkeel = place.start();
    for backend in [six, two] {
        evenkeel.wait_for_state(backend.address, "eligible");
    }
    assert_eq!(evenkeel.backend(six.address)["source"], "dns");
    let load = Load::start(evenkeel.address(), 8);
    load.wait_for_more(100);
    dns.set(&records(&[six, two, three]));
    evenkeel.wait_for_state(three.address, "eligible");
    wait_until("the new one is used", || three.count() > 20);
    dns.set(&records(&[two, three]));
    wait_until("the first one has left", || members(&evenkeel) == 2.0);
    wait_until("nothing more runs on it", || six.open_connections() == 0);
    let before = six.count();
    load.wait_for_more(100);
    assert_eq!(six.count(), before, "who has left gets nothing");
    load.stop().assert_nothing_failed();
    let told = evenkeel.events("members_changed").join("\n");
    assert!(
        told.contains(&format!("dns: left: {} (2 members)", six.address)),
        "{told}"
    );
    let table = evenkeel.cli_ok(&["status"]);
    let line = format!("by 127.0.0.1:{}, for 1s", dns.port);
    assert!(
        table.contains("dns: 2 members of app.test (ip), answered"),
        "{table}"
    );
    assert!(table.contains(&line), "{table}");
    let labels = [("name", "app.test"), ("type", "ip"), ("result", "good")];
    assert!(evenkeel.metric("evenkeel_dns_lookups_total", &labels) >= 4.0);
    assert!(
        evenkeel.metric(
            "evenkeel_dns_last_answer_timestamp_seconds",
            &[("name", "app.test")]
        ) > 1e9
    );
}

/// The server dies: the members stay, with traffic on them, for as long as it is away, and status, metric and event say
/// so. It comes back with other records: they hold.
#[test]
fn a_server_that_dies_takes_nobody_out() {
    let backends = on_one_port(["one", "two"]);
    let [one, two] = &backends;
    let mut dns = Knot::start(&records(&[one]));
    let port = one.address.port();
    let place = Place::new(&named(&dns, &format!("name = \"app.test\"\nport = {port}"), ""));
    let evenkeel = place.start();
    evenkeel.wait_for_state(one.address, "eligible");
    let load = Load::start(evenkeel.address(), 4);
    dns.crash();
    wait_until("it is missed", || is_stale(&evenkeel));
    let failed = [("result", "failed")];
    wait_until("it was asked a few times", || {
        evenkeel.metric("evenkeel_dns_lookups_total", &failed) >= 2.0
    });
    let told = evenkeel.events("members_stale").join("\n");
    let expected = format!("dns: A of app.test: 127.0.0.1:{} cannot be reached", dns.port);
    assert!(
        told.contains(&expected) && told.contains("the one known member stays"),
        "{told}"
    );
    let table = evenkeel.cli_ok(&["status"]);
    assert!(
        table.contains("STALE for") && table.contains("failed since"),
        "{table}"
    );
    load.wait_for_more(50);
    dns.start_again(&records(&[two]));
    evenkeel.wait_for_state(two.address, "eligible");
    wait_until("the old one has left", || members(&evenkeel) == 1.0);
    load.stop().assert_nothing_failed();
    assert_eq!(evenkeel.client().get("/").text(), "two");
    assert!(!is_stale(&evenkeel));
    assert_eq!(evenkeel.events("members_fresh").len(), 1);
}

/// Services: ports and weights are those of the records, and those of a later priority are not used.
#[test]
fn services_have_ports_and_weights() {
    let backends = ["one", "two", "reserve"].map(Backend::named);
    let [one, two, reserve] = &backends;
    let target = |name: &str, backend: &Backend| format!("{name} 1 A {}\n", backend.address.ip());
    let srv = |priority, weight, backend: &Backend, name: &str| {
        format!(
            "_http._tcp 1 SRV {priority} {weight} {} {name}\n",
            backend.address.port()
        )
    };
    let zone = [
        srv(10, 1, one, "s1"),
        srv(10, 3, two, "s2"),
        srv(20, 9, reserve, "s3"),
        target("s1", one),
        target("s2", two),
        target("s3", reserve),
    ];
    let mut dns = Knot::start(&zone.concat());
    let place = Place::new(&named(&dns, "name = \"_http._tcp.test\"\ntype = \"srv\"", ""));
    let evenkeel = place.start();
    for backend in [one, two] {
        evenkeel.wait_for_state(backend.address, "eligible");
    }
    assert_eq!(members(&evenkeel), 2.0);
    assert_eq!(evenkeel.backend(two.address)["weight"], 3);
    let of_backends = || backends.each_ref().map(Backend::count);
    let asked = || {
        let requests = [one, two].map(|b| b.requests().iter().filter(|m| m.target() == "/shop").count());
        (requests[0], requests[1])
    };
    let mut client = evenkeel.client();
    for _ in 0..40 {
        assert_eq!(client.get("/shop").status(), 200);
    }
    let (first, second) = asked();
    assert!(
        (8..=12).contains(&first) && first + second == 40,
        "{first} {second}"
    );
    assert_eq!(of_backends()[2], 0, "the reserve is not used");
    // The first priority goes: the next is the first.
    dns.set(&[srv(20, 9, reserve, "s3"), target("s3", reserve)].concat());
    evenkeel.wait_for_state(reserve.address, "eligible");
    wait_until("the others have left", || members(&evenkeel) == 1.0);
    assert_eq!(evenkeel.client().get("/").text(), "reserve");
}

/// A hundred and fifty addresses do not fit into a datagram; two pools that want the same name share its look-ups, each
/// with a port of its own.
#[test]
fn a_large_answer_is_shared_by_two_pools() {
    let many = (1..=150).map(|n| Ipv4Addr::new(127, 5, 0, n));
    let dns = Knot::start(&many.map(|ip| format!("app 1 A {ip}\n")).collect::<String>());
    let pool = |name: &str, port| {
        format!(
            "[load_balancers.shop.pools.{name}]\nhealth = false\n[load_balancers.shop.pools.{name}.discovery.dns]\nname = \"app.test\"\nport = {port}\n{}",
            quick(&dns)
        )
    };
    let config = format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\nroutes = [{{ pool = \"a\", match = {{ path = \"/a\" }} }}, {{ pool = \"b\" }}]\n{}{}",
        free_ip(),
        pool("a", 8081),
        pool("b", 8082)
    );
    let place = Place::new(&config);
    let evenkeel = place.start();
    for name in ["a", "b"] {
        let labels = [("pool", name), ("source", "dns")];
        wait_until("all are members", || {
            evenkeel.metric("evenkeel_pool_members", &labels) == 150.0
        });
    }
    for port in [8081, 8082] {
        let address = (Ipv4Addr::new(127, 5, 0, 7), port).into();
        assert_eq!(evenkeel.backend(address)["source"], "dns");
    }
    let looks = evenkeel.metrics();
    let series = looks
        .series()
        .filter(|(name, ..)| *name == "evenkeel_dns_last_answer_timestamp_seconds");
    assert_eq!(series.count(), 1);
}

/// A name that is gone: believed with the second answer, and no sooner; and when it is back, its members are.
#[test]
fn a_name_that_is_gone_is_believed_the_second_time() {
    let [one] = on_one_port(["one"]);
    let mut dns = Knot::start(&records(&[&one]));
    let port = one.address.port();
    let place = Place::new(&named(
        &dns,
        &format!("name = \"app.test\"\ntype = \"aaaa\"\nport = {port}"),
        "",
    ));
    let evenkeel = place.start();
    evenkeel.wait_for_state(one.address, "eligible");
    let looks = || evenkeel.metric("evenkeel_dns_lookups_total", &[("result", "good")]);
    let before = looks();
    dns.set("");
    wait_until("it has left", || members(&evenkeel) == 0.0);
    assert!(looks() >= before + 2.0);
    assert_eq!(evenkeel.client().get("/").status(), 503);
    dns.set(&records(&[&one]));
    evenkeel.wait_for_state(one.address, "eligible");
    assert_eq!(evenkeel.client().get("/").text(), "one");
}

/// The process ends and starts again while the server is away: the members of before serve at once, and leave as any
/// others do when it is back without them.
#[test]
fn members_outlive_a_restart_without_their_server() {
    let [one, two] = on_one_port(["one", "two"]);
    let mut dns = Knot::start(&records(&[&one]));
    let port = one.address.port();
    let place = Place::new(&named(&dns, &format!("name = \"app.test\"\nport = {port}"), ""));
    let mut evenkeel = place.start();
    evenkeel.wait_for_state(one.address, "eligible");
    wait_until("that is on disk", || {
        let text = std::fs::read_to_string(place.data().join("members.json"));
        text.is_ok_and(|text| text.contains("\"proven\":true"))
    });
    evenkeel.kill();
    dns.crash();
    let evenkeel = place.start();
    assert_eq!(Client::connect(evenkeel.address()).get("/").text(), "one");
    assert!(is_stale(&evenkeel));
    dns.start_again(&records(&[&two]));
    evenkeel.wait_for_state(two.address, "eligible");
    wait_until("the old one has left", || members(&evenkeel) == 1.0);
}
