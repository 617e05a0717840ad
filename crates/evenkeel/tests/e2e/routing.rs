//! Routing on real traffic: what is matched, in which order, and how requests are shared out.

use std::net::Ipv4Addr;

use crate::support::{Backend, Evenkeel, Load, Place, database, free_address, free_ip, program, wait_until};

/// The load balancer `shop` with pools `blue` and `green` of one backend each, and these routes.
fn two_pools(blue: &Backend, green: &Backend, head: &str, routes: &str) -> String {
    let listener = format!("{}:0", free_ip());
    two_pools_on(&listener, blue, green, head, routes)
}

fn two_pools_on(listener: &str, blue: &Backend, green: &Backend, head: &str, routes: &str) -> String {
    format!(
        "{head}\n[[load_balancers.shop.listeners]]\naddress = \"{listener}\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
         [load_balancers.shop.pools.blue]\nbackend_servers = [\"{}\"]\nhealth = false\n\
         [load_balancers.shop.pools.green]\nbackend_servers = [\"{}\"]\nhealth = false\n{routes}",
        blue.address, green.address
    )
}

fn blue_and_green() -> (Backend, Backend) {
    (Backend::named("blue"), Backend::named("green"))
}

const REST_TO_BLUE: &str = "[[load_balancers.shop.routes]]\nname = \"rest\"\npool = \"blue\"\n";

fn to_green(name: &str, matches: &str) -> String {
    format!("[[load_balancers.shop.routes]]\nname = \"{name}\"\npool = \"green\"\nmatch = {{ {matches} }}\n")
}

/// Each condition sends the requests that it is about to `green`, and leaves the others with `blue`.
#[test]
fn every_condition_on_real_requests() {
    let (blue, green) = blue_and_green();
    for (matches, matching, other) in [
        (
            "host = \"*.beta.test\"",
            "GET / HTTP/1.1\r\nHost: a.b.BETA.test:80\r\n",
            "GET / HTTP/1.1\r\nHost: beta.test\r\n",
        ),
        (
            "path_regex = \"/v[0-9]+/.*\"",
            "GET /v12/x HTTP/1.1\r\nHost: a\r\n",
            "GET /x/v12/x HTTP/1.1\r\nHost: a\r\n",
        ),
        (
            "method = [\"PUT\", \"PATCH\"]",
            "PATCH / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
        ),
        (
            "headers = { X-Beta-User = \"1\" }",
            "GET / HTTP/1.1\r\nHost: a\r\nx-beta-user: 1\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX-Beta-User: 2\r\n",
        ),
        (
            "cookies = { group = { regex = \"beta-.*\" } }",
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; group=beta-7\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nCookie: group=alpha\r\n",
        ),
        (
            "query = { preview = true }",
            "GET /?a=1&preview HTTP/1.1\r\nHost: a\r\n",
            "GET /?a=preview HTTP/1.1\r\nHost: a\r\n",
        ),
        (
            "client_address = \"203.0.113.0/24\"",
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
        ),
        (
            "language = \"de\"",
            "GET / HTTP/1.1\r\nHost: a\r\nAccept-Language: fr, de-AT;q=0.5\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nAccept-Language: en, de;q=0\r\n",
        ),
        (
            "any = [{ path_prefix = \"/x\" }, { headers = { x = true } }], not = { method = \"HEAD\" }",
            "GET /x/y HTTP/1.1\r\nHost: a\r\n",
            "GET /xy HTTP/1.1\r\nHost: a\r\n",
        ),
        (
            "all = [{ path_prefix = \"/x\" }, { headers = { x = false } }]",
            "GET /x HTTP/1.1\r\nHost: a\r\n",
            "GET /x HTTP/1.1\r\nHost: a\r\nX: 1\r\n",
        ),
    ] {
        let routes = format!("{}{REST_TO_BLUE}", to_green("it", matches));
        let evenkeel = Evenkeel::start(&two_pools(&blue, &green, "", &routes));
        let mut client = evenkeel.client();
        for (request, expected) in [(matching, "green"), (other, "blue")] {
            let answer = client.ask(&format!("{request}\r\n"));
            assert_eq!(answer.text(), expected, "{matches}: {request}");
        }
    }
}

/// A priority goes before what is more specific, and without a route there is a 404.
#[test]
fn a_priority_goes_first() {
    let (blue, green) = blue_and_green();
    let routes = format!(
        "{}{}priority = 5\n{}",
        "[[load_balancers.shop.routes]]\nname = \"exact\"\npool = \"blue\"\nmatch = { path = \"/a/b\" }\n",
        to_green("broad", "path_prefix = \"/a\", headers = { x = true }"),
        "[[load_balancers.shop.routes]]\nname = \"a\"\npool = \"blue\"\nmatch = { path_prefix = \"/a\" }\n",
    );
    let evenkeel = Evenkeel::start(&two_pools(&blue, &green, "", &routes));
    let mut client = evenkeel.client();
    assert_eq!(client.get("/a/b").text(), "blue");
    assert_eq!(
        client.ask("GET /a/b HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n").text(),
        "green"
    );
    assert_eq!(client.get("/").status(), 404);
    evenkeel.wait_for_failures("no_route", 1);
}

/// The country of the client's address, from a database that is read again when it changes; a damaged one changes
/// nothing and is told, and without a database no start.
#[test]
fn countries_from_a_database_that_changes() {
    let (blue, green) = blue_and_green();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("countries.mmdb");
    let replace = |bytes: &[u8]| {
        let beside = files.path().join("new");
        std::fs::write(&beside, bytes).unwrap();
        std::fs::rename(&beside, &file).unwrap();
    };
    let net = |a, country: &'static str, continent: &'static str| {
        (Ipv4Addr::new(a, 0, 0, 0), 8, country, continent)
    };
    let head = format!("[node]\ngeoip = \"{}\"\n", file.display());
    let routes = format!(
        "{}{REST_TO_BLUE}",
        to_green("german", "country = \"DE\", continent = \"EU\"")
    );
    let place = Place::new(&two_pools(&blue, &green, &head, &routes));
    let refused = place.command().output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("cannot read the database of countries"),
        "{said}"
    );
    replace(&database(&[net(81, "DE", "EU"), net(8, "US", "NA")]));
    let evenkeel = place.start();
    let from = |address: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {address}\r\n\r\n");
        evenkeel.client().ask(&request).text().to_owned()
    };
    assert_eq!(
        [from("81.1.2.3"), from("8.8.8.8"), from("9.9.9.9")],
        ["green", "blue", "blue"]
    );
    let explained = evenkeel.cli_ok(&[
        "explain",
        "--listener",
        "shop",
        "GET",
        "/",
        "--client-address",
        "81.1.2.3",
    ]);
    assert!(explained.contains("country DE, continent EU"), "{explained}");
    replace(b"no database");
    wait_until("the damaged file is told", || {
        evenkeel.events("geoip_failed").len() == 1
    });
    assert_eq!(from("81.1.2.3"), "green");
    replace(&database(&[net(9, "DE", "EU")]));
    wait_until("the new one is in force", || from("9.9.9.9") == "green");
    assert_eq!(from("81.1.2.3"), "blue");
    evenkeel.wait_for_metric("evenkeel_geoip_failed_total", &[], 1.0);
    assert!(evenkeel.metric("evenkeel_geoip_loaded_total", &[]) >= 1.0);
    evenkeel.wait_for_metric("evenkeel_geoip_built_timestamp_seconds", &[], 1_767_225_600.0);
}

const SPLIT: &str = "[[load_balancers.shop.routes]]\nname = \"all\"\n\
                     split = [{ pool = \"blue\", weight = 80 }, { pool = \"green\", weight = 20 }]\n";

/// Requests are shared out by weight: of a thousand, a fifth, give or take ten standard deviations.
#[test]
fn a_split_shares_requests_out() {
    let (blue, green) = blue_and_green();
    let evenkeel = Evenkeel::start(&two_pools(&blue, &green, "", SPLIT));
    let mut client = evenkeel.client();
    let greens = (0..1000).filter(|_| client.get("/").text() == "green").count();
    assert!((74..=326).contains(&greens), "{greens}");
}

/// With a key a user stays, also after a restart; more weight for green moves users to green and none back.
#[test]
fn a_split_by_key_stays_put() {
    let (blue, green) = blue_and_green();
    let config = two_pools(
        &blue,
        &green,
        "",
        &format!("{SPLIT}split_key = \"cookie:user\"\n"),
    );
    let place = Place::new(&config);
    let pools = |evenkeel: &Evenkeel| -> Vec<String> {
        let mut client = evenkeel.client();
        let ask = |user| format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: user={user}\r\n\r\n");
        (0..200)
            .map(|user| client.ask(&ask(user)).text().to_owned())
            .collect()
    };
    let first = place.start();
    let before = pools(&first);
    assert_eq!(before, pools(&first));
    assert!(before.iter().any(|pool| pool == "blue") && before.iter().any(|pool| pool == "green"));
    drop(first);
    let second = place.start();
    assert_eq!(before, pools(&second));
    second.cli_ok(&["route", "weight", "shop", "all", "blue=50", "green=50"]);
    let after = pools(&second);
    let moved = before.iter().zip(&after).filter(|(was, is)| was != is).count();
    assert!(moved > 0);
    for (was, is) in before.iter().zip(&after) {
        assert!(was == is || is == "green", "a user left the pool that grew");
    }
}

/// Blue/green in one command: in force at once, shown with who and since when, kept over `kill -9`, ended by
/// `reset` or by itself, and refused with reasons where it makes no sense.
#[test]
fn blue_green_in_one_command() {
    let (blue, green) = blue_and_green();
    let place = Place::new(&two_pools(&blue, &green, "", SPLIT));
    let mut evenkeel = place.start();
    let said = evenkeel.cli_ok(&[
        "route",
        "weight",
        "shop",
        "all",
        "blue=0",
        "green=100",
        "--by",
        "alice",
    ]);
    assert!(said.contains("shop/all: blue=0 green=100 by alice"), "{said}");
    let only = |evenkeel: &Evenkeel, pool: &str| {
        let mut client = evenkeel.client();
        (0..30).all(|_| client.get("/").text() == pool)
    };
    assert!(only(&evenkeel, "green"));
    let table = evenkeel.cli_ok(&["status"]);
    assert!(
        table.contains("route all: blue 0, green 100 (blue=0 green=100 by alice"),
        "{table}"
    );
    evenkeel.kill();
    drop(evenkeel);
    let evenkeel = place.start();
    assert!(only(&evenkeel, "green"));
    let order = &evenkeel.status()["load_balancers"][0]["splits"][0]["order"];
    assert_eq!(order["by"], "alice");
    for (args, why) in [
        (
            &["route", "weight", "shop", "none", "blue=1"][..],
            "has no route `none`; there are: all",
        ),
        (
            &["route", "weight", "shop", "all", "red=1"],
            "name pools of its split",
        ),
        (
            &["route", "weight", "shop", "all", "blue=0"],
            "at least one with a weight above 0",
        ),
    ] {
        let refused = evenkeel.cli(args);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "{args:?}");
        assert!(said.contains(why.split(';').next().unwrap()), "{said}");
    }
    evenkeel.cli_ok(&["route", "weight", "shop", "all", "blue=1", "--for", "6s"]);
    assert!(only(&evenkeel, "blue"));
    wait_until("it lapses", || {
        evenkeel.status()["load_balancers"][0]["splits"][0]["order"] == serde_json::Value::Null
    });
    evenkeel.cli_ok(&["route", "weight", "shop", "all", "green=1"]);
    let said = evenkeel.cli_ok(&["route", "reset", "shop", "all"]);
    assert!(said.contains("as configured"), "{said}");

    // What stands can be ended when its subject is gone, too: it does not hold again when that is back.
    evenkeel.cli_ok(&["route", "weight", "shop", "all", "green=1", "blue=0"]);
    let drained = blue.address.to_string();
    evenkeel.cli_ok(&["backend", "drain", "shop", &drained]);
    let reload = |config: &str| {
        place.write(config);
        assert_eq!(evenkeel.post("/api/v1/reload", "").status(), 200);
    };
    let unsplit = format!("{}{REST_TO_BLUE}", to_green("api", "path_prefix = \"/api\""));
    reload(&two_pools(&green, &green, "", &unsplit));
    let reset = ["route", "reset", "shop", "all"];
    evenkeel.cli_ok(&reset);
    assert!(!evenkeel.cli(&reset).status.success(), "none stands any more");
    evenkeel.cli_ok(&["backend", "ready", "shop", &drained]);
    reload(&two_pools(&blue, &green, "", SPLIT));
    let mut answers = (0..60).map(|_| evenkeel.client().get("/").text() == "blue");
    assert!(answers.any(|blue| blue), "the weights of the config");
}

/// A route that nothing reaches is a warning with its line; the config is valid all the same.
#[test]
fn check_warns_of_routes_that_nothing_reaches() {
    let (blue, green) = blue_and_green();
    let routes = format!(
        "{}{}",
        to_green("api", "path_prefix = \"/api\""),
        "[[load_balancers.shop.routes]]\nname = \"versions\"\npool = \"blue\"\nmatch = { path_regex = \"/api/v[0-9]+/.*\" }\n",
    );
    let place = Place::new(&two_pools(&blue, &green, "", &routes));
    let check = |args: &[&str]| {
        program()
            .arg("check")
            .args(args)
            .arg(place.config())
            .output()
            .unwrap()
    };
    let told = check(&[]);
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.status.success(), "{said}");
    assert!(
        said.contains("warning: ") && said.contains("no request reaches the route `versions`: `api` in line"),
        "{said}"
    );
    assert!(String::from_utf8_lossy(&told.stdout).contains("1 warning"));
    let json: serde_json::Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert_eq!(json["valid"], true);
    assert_eq!(json["warnings"][0]["key"], "load_balancers.shop.routes[1]");
}

/// `explain` tells every route tried, why it was passed over, the language and the split.
#[test]
fn explain_tells_the_whole_decision() {
    let (blue, green) = blue_and_green();
    let routes = format!(
        "{}{SPLIT}split_key = \"header:X-User\"\n",
        to_green("german", "language = \"de\"")
    );
    let evenkeel = Evenkeel::start(&two_pools(&blue, &green, "", &routes));
    let told = evenkeel.cli_ok(&[
        "explain",
        "--listener",
        "shop",
        "GET",
        "/",
        "-H",
        "Accept-Language: fr",
        "-H",
        "X-User: 7",
    ]);
    for part in [
        "route german: passed over: language (none) is not de",
        "route all: taken: matches everything",
        "split: blue 80, green 20; by header x-user = \"7\"",
    ] {
        assert!(told.contains(part), "`{part}` is not in {told}");
    }
}

/// Routes and weights change under load: no request is lost, no connection closed.
#[test]
fn routes_change_under_load() {
    let (blue, green) = blue_and_green();
    let listener = free_address().to_string();
    let config = |routes: &str| two_pools_on(&listener, &blue, &green, "", routes);
    let evenkeel = Evenkeel::start(&config(SPLIT));
    let load = Load::start(evenkeel.address(), 8);
    for round in 0..5 {
        evenkeel.reload(&config(&format!(
            "{}{REST_TO_BLUE}",
            to_green("load", "path = \"/load\"")
        )));
        load.wait_for_more(50);
        evenkeel.reload(&config(SPLIT));
        let weight = format!("green={}", round + 1);
        evenkeel.cli_ok(&["route", "weight", "shop", "all", "blue=1", &weight]);
        load.wait_for_more(50);
    }
    let report = load.stop();
    report.assert_nothing_failed();
    assert_eq!(report.connections, 8);
}
