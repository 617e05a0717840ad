//! What a route does besides choosing a pool: rewriting, header rules, redirects, answers, error pages, body limits.

use std::process::Command;

use crate::support::{Backend, Client, Evenkeel, Place, QUIET, curl, shop, shop_with_listener};

/// A load balancer with one backend and these routes.
fn routed(backend: &Backend, routes: &str) -> String {
    shop(&[backend], &format!("{QUIET}{routes}"))
}

/// The routes after the first lead to the pool.
const TO_POOL: &str = "[[load_balancers.shop.routes]]\npool = \"default\"\n";

/// The backend is asked for another path and host; it learns the client's host all the same.
#[test]
fn path_and_host_are_rewritten_for_the_backend_alone() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&routed(
        &one,
        "[[load_balancers.shop.routes]]\nmatch.path_prefix = \"/api\"\npool = \"default\"\n\
         rewrite = { path_prefix = \"/v2\", host = \"internal.test:81\" }\n\
         [[load_balancers.shop.routes]]\nmatch.path_prefix = \"/articles\"\npool = \"default\"\n\
         rewrite = { path_regex = \"/articles/([0-9]+)/(.*)\", path_to = \"/{2}?id={1}\" }\n",
    ));
    let mut client = evenkeel.client();
    for (asked, got) in [
        ("/api", "/v2"),
        ("/api/", "/v2/"),
        ("/api/a/../b?x=1&y=%2F", "/v2/b?x=1&y=%2F"),
        ("/articles/17/old", "/old?id=17"),
        ("/articles/17/old?page=2", "/old?id=17&page=2"),
        ("/articles/17/%3Fx=1", "/%3Fx=1?id=17"),
        ("/articles/none", "/articles/none"),
    ] {
        assert_eq!(client.get(asked).status(), 200);
        assert_eq!(one.last().target(), got, "{asked}");
    }
    client.ask("GET /api/x HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    let last = one.last();
    assert_eq!(last.field("host"), Some("internal.test:81"));
    assert_eq!(last.field("x-forwarded-host"), Some("shop.test"));
}

/// Rules apply to what came and to what we add; their values tell about the request, and nothing in a request can
/// end a field.
#[test]
fn header_rules_set_add_and_remove_in_both_directions() {
    let one = Backend::saying(
        "HTTP/1.1 200 OK\r\nServer: secret/1.0\r\nX-Powered-By: x\r\nCache-Control: private\r\nContent-Length: 2\r\n\r\nok",
    );
    let evenkeel = Evenkeel::start(&routed(
        &one,
        "[[load_balancers.shop.routes]]\nname = \"main\"\npool = \"default\"\n\
         request_headers = { set = { X-Env = \"prod\", X-Info = \"{client_address} {method} {host} {path}{query} {route} {scheme}\", \
         X-Id = \"{request_id}\" }, add = { X-Tag = \"b\" }, remove = [\"X-Debug\", \"Cookie\"] }\n\
         response_headers = { set = { Cache-Control = \"no-store\", X-Path = \"{path}\" }, remove = [\"Server\", \"X-Powered-By\"] }\n",
    ));
    let answer = evenkeel.client().ask(
        "GET /a%0d%0ab?c=%0d%0aX-Evil: HTTP/1.1\r\nHost: Shop.Test:8080\r\nX-Env: dev\r\nx-env: test\r\nX-Tag: a\r\n\
         X-Debug: 1\r\nCookie: a=b\r\n\r\n",
    );
    let got = one.last();
    assert_eq!(got.all("x-env"), ["prod"]);
    assert_eq!(got.all("x-tag"), ["a", "b"]);
    assert_eq!((got.field("x-debug"), got.field("cookie")), (None, None));
    assert_eq!(
        got.field("x-info"),
        Some("127.0.0.1 GET shop.test /a%0D%0Ab?c=%0d%0aX-Evil: main http")
    );
    assert_eq!(got.field("x-id"), got.field("x-request-id"));
    assert_eq!(answer.all("cache-control"), ["no-store"]);
    assert_eq!(answer.field("x-path"), Some("/a%0D%0Ab"));
    assert_eq!(
        (answer.field("server"), answer.field("x-powered-by")),
        (None, None)
    );
    assert_eq!(answer.text(), "ok");
}

/// Every status; HEAD and HTTP/1.0 get the same head; a path cannot lead to another host.
#[test]
fn redirects_name_the_address_and_nothing_that_a_client_may_choose() {
    let one = Backend::named("one");
    let routes = "[[load_balancers.shop.routes]]\nmatch.path_prefix = \"/old\"\n\
         redirect = { to = \"https://new.test{path}{query}\", status = 301 }\n\
         [[load_balancers.shop.routes]]\nmatch.path_prefix = \"/here\"\nredirect = { to = \"{scheme}://{host}:8443/there\" }\n\
         [[load_balancers.shop.routes]]\nmatch.host = \"slash.test\"\nredirect = { to = \"{path}x\" }\n";
    let evenkeel = Evenkeel::start(&routed(&one, &format!("{routes}{TO_POOL}")));
    let mut client = evenkeel.client();
    let moved = client.ask("GET /old/a?b=c HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(
        (moved.status(), moved.field("location")),
        (301, Some("https://new.test/old/a?b=c"))
    );
    assert_eq!(moved.field("content-length"), Some("0"));
    client.send("HEAD /here HTTP/1.1\r\nHost: SHOP.test:80\r\n\r\n");
    let head = client.head();
    assert_eq!(
        (head.status(), head.field("location")),
        (308, Some("http://shop.test:8443/there"))
    );
    let slashes = client.ask("GET //evil.test/ HTTP/1.1\r\nHost: slash.test\r\n\r\n");
    assert_eq!(slashes.field("location"), Some("/evil.test/x"));
    // Posts with a body not read: answered, and the connection ends.
    let post = client.ask("POST /old HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000\r\n\r\n");
    assert!(post.status() == 301 && post.closes());
    let mut old = evenkeel.client();
    let modern = old.ask("GET /here HTTP/1.0\r\n\r\n");
    assert_eq!((modern.status(), modern.reason()), (400, "bad_host"));
    assert_eq!(one.count(), 0);
}

/// `rewrite ^/old/(.*)$ /new/$1 permanent` of nginx: the groups of the route's pattern, which lead to no other host.
#[test]
fn a_redirect_names_the_groups_of_its_path() {
    let one = Backend::named("one");
    let routes = "[[load_balancers.shop.routes]]\n\
         match.path_regex = \"/articles/(?<year>[0-9]{4})/(.*?)(\\\\.html)?\"\n\
         redirect = { to = \"https://new.test/{2}/{1}{3}{query}\", status = 301 }\n\
         [[load_balancers.shop.routes]]\nmatch.path_regex = \"/go(.*)\"\nredirect = { to = \"/{1}\" }\n";
    let evenkeel = Evenkeel::start(&routed(&one, &format!("{routes}{TO_POOL}")));
    let mut client = evenkeel.client();
    for (path, to) in [
        ("/articles/2024/a/b?c=d", "https://new.test/a/b/2024?c=d"),
        ("/articles/2024/a.html", "https://new.test/a/2024.html"),
        ("/articles/2024/", "https://new.test//2024"),
        ("/go/evil.test/x", "/evil.test/x"),
        ("/go//evil.test", "/evil.test"),
        ("/go", "/"),
    ] {
        assert_eq!(client.get(path).field("location"), Some(to), "{path}");
    }
    let told = evenkeel.cli_ok(&["explain", "--listener", "shop", "GET", "/articles/2024/a.html"]);
    assert!(
        told.contains("redirects with 301 to https://new.test/a/2024.html"),
        "{told}"
    );
    let full = evenkeel.cli_ok(&["status"]);
    assert!(
        full.contains("redirect 301 to https://new.test/{2}/{1}{3}{query}"),
        "{full}"
    );
    assert_eq!(one.count(), 0);
}

/// One line sends a whole listener to HTTPS; a backend is never asked.
#[test]
fn a_listener_sends_everything_to_https() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop_with_listener(&[&one], "redirect_to_https = true", QUIET));
    let url = format!("http://{}/a/b?c", evenkeel.address());
    let told = curl(&[
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{redirect_url}",
        "-H",
        "Host: shop.test:80",
        &url,
    ]);
    assert_eq!(
        String::from_utf8(told.stdout).unwrap(),
        "308 https://shop.test/a/b?c"
    );
    assert_eq!(one.count(), 0);
}

/// A fixed body from the config and one from a file; the file is read again with the config.
#[test]
fn a_route_answers_by_itself() {
    let one = Backend::named("one");
    let place = Place::new("");
    let page = place.path().join("closed.html");
    std::fs::write(&page, "<h1>closed</h1>").unwrap();
    let routes = format!(
        "[[load_balancers.shop.routes]]\nmatch.path = \"/robots.txt\"\nrespond = {{ body = \"User-agent: *\\n\" }}\n\
         [[load_balancers.shop.routes]]\nmatch.path = \"/closed\"\nrespond = {{ status = 503, body_file = \"{}\" }}\n\
         response_headers = {{ set = {{ Retry-After = \"60\" }} }}\n\
         [[load_balancers.shop.routes]]\nmatch.path = \"/none\"\nrespond = {{ status = 204 }}\n{TO_POOL}",
        page.display()
    );
    let config = routed(&one, &routes);
    let evenkeel = Evenkeel::start(&config);
    let mut client = evenkeel.client();
    let robots = client.get("/robots.txt");
    assert_eq!(robots.text(), "User-agent: *\n");
    assert_eq!(robots.field("content-type"), Some("text/plain; charset=utf-8"));
    client.send("HEAD /robots.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head();
    assert_eq!(head.field("content-length"), Some("14"));
    let closed = client.get("/closed");
    assert_eq!((closed.status(), closed.text()), (503, "<h1>closed</h1>"));
    assert_eq!(closed.field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(closed.field("retry-after"), Some("60"));
    let none = client.get("/none");
    assert_eq!((none.status(), none.field("content-length")), (204, None));
    std::fs::write(&page, "open soon").unwrap();
    evenkeel.reload(&config);
    assert_eq!(evenkeel.client().get("/closed").text(), "open soon");
    std::fs::remove_file(&page).unwrap();
    let refused = evenkeel.try_reload(&config);
    assert!(refused.text().contains("closed.html"), "{}", refused.text());
    assert_eq!(evenkeel.client().get("/closed").text(), "open soon");
}

/// Own pages for our own failures, and for backends' where asked; the status stays what it was.
#[test]
fn own_pages_stand_in_the_place_of_failures() {
    let one = Backend::answering(|request| {
        let (status, more) = match request.target() {
            "/intercepted/404" => ("404 Not Found", ""),
            "/intercepted/401" => (
                "401 Unauthorized",
                "WWW-Authenticate: Basic\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nAllow: GET\r\n",
            ),
            "/plain/404" => ("404 Not Found", ""),
            _ => ("200 OK", ""),
        };
        format!("HTTP/1.1 {status}\r\n{more}X-Inner: 1\r\nContent-Length: 5\r\n\r\ninner").into_bytes()
    });
    let place = Place::new("");
    let page = |name: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, format!("own {name}")).unwrap();
        path.display().to_string()
    };
    let pages = format!(
        "error_pages = {{ \"404\" = \"{}\", \"4xx\" = \"{}\", \"5xx\" = \"{}\" }}\n",
        page("404.html"),
        page("4xx.txt"),
        page("5xx.html")
    );
    let routes = format!(
        "[[load_balancers.shop.routes]]\nmatch.path_prefix = \"/intercepted\"\npool = \"default\"\n{pages}intercept_errors = true\n\
         response_headers.remove = [\"Allow\"]\n\
         [[load_balancers.shop.routes]]\npool = \"default\"\n{pages}max_body = \"10B\"\n"
    );
    place.write(&routed(&one, &routes));
    let evenkeel = place.start();
    let mut client = evenkeel.client();
    let found = client.get("/intercepted/200");
    assert_eq!((found.status(), found.text()), (200, "inner"));
    let own = client.get("/intercepted/404");
    assert_eq!(
        (own.status(), own.text(), own.field("x-inner")),
        (404, "own 404.html", None)
    );
    assert_eq!(own.field("content-type"), Some("text/html; charset=utf-8"));
    client.send("HEAD /intercepted/404 HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status(), head.field("content-length")), (404, Some("12")));
    let own = client.get("/intercepted/401");
    assert_eq!((own.status(), own.text()), (401, "own 4xx.txt"));
    assert_eq!(own.field("www-authenticate"), Some("Basic"));
    assert_eq!(
        (own.all("set-cookie"), own.field("allow")),
        (vec!["a=1", "b=2"], None)
    );
    // A call knows no pages.
    let call = client.ask(
        "POST /intercepted/404 HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!((call.status(), call.text()), (404, "inner"));
    assert_eq!(client.get("/plain/404").text(), "inner");
    let large = client.ask("POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n12345678901");
    assert_eq!(
        (large.status(), large.text(), large.reason()),
        (413, "own 4xx.txt", "body_too_large")
    );
    one.kill();
    let mut client = evenkeel.client();
    let failed = client.get("/plain");
    assert_eq!(
        (failed.status(), failed.text(), failed.reason()),
        (502, "own 5xx.html", "connect_refused")
    );
}

/// A route may allow more than its listener, and less; each body is held to its own route's limit, however framed.
#[test]
fn a_route_has_its_own_limit_on_bodies() {
    let one = Backend::named("one");
    let config = shop_with_listener(
        &[&one],
        "limits = { body_bytes = \"100B\" }",
        &format!(
            "{QUIET}[[load_balancers.shop.routes]]\nmatch.path = \"/more\"\npool = \"default\"\nmax_body = \"1000B\"\n\
             [[load_balancers.shop.routes]]\nmatch.path = \"/less\"\npool = \"default\"\nmax_body = \"10B\"\n{TO_POOL}"
        ),
    );
    let evenkeel = Evenkeel::start(&config);
    let length = |path: &str, size: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{}",
            "x".repeat(size)
        )
    };
    let chunked = |path: &str, size: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n{}\r\n0\r\n\r\n",
            "x".repeat(size)
        )
    };
    for (path, limit) in [("/more", 1000), ("/less", 10), ("/", 100)] {
        for request in [length(path, limit), chunked(path, limit)] {
            assert_eq!(
                Client::connect(evenkeel.address()).ask(&request).status(),
                200,
                "{path}"
            );
        }
        for request in [length(path, limit + 1), chunked(path, limit + 1)] {
            let refused = Client::connect(evenkeel.address()).ask(&request);
            assert_eq!(
                (refused.status(), refused.reason()),
                (413, "body_too_large"),
                "{path}"
            );
        }
    }
}

/// RFC 9110 section 6.6.1: who has a clock and makes an answer says when; what a backend says is its own.
#[test]
fn answers_of_our_own_say_when_they_were_made() {
    let one = Backend::saying(
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n",
    );
    let evenkeel = Evenkeel::start(&routed(
        &one,
        "[[load_balancers.shop.routes]]\nmatch.path = \"/moved\"\nredirect.to = \"https://new.test/\"\n\
         [[load_balancers.shop.routes]]\nmatch.path = \"/fixed\"\nrespond = { body = \"ok\" }\n\
         [[load_balancers.shop.routes]]\nmatch.path = \"/there\"\npool = \"default\"\n",
    ));
    let before = std::time::SystemTime::now();
    for path in ["/moved", "/fixed", "/none", "/bad%2Fpath"] {
        let answer = evenkeel.client().get(path);
        let date = answer.field("date").unwrap_or_default();
        let read = Command::new("date")
            .args(["-u", "+%s", "-d", date])
            .output()
            .unwrap();
        let second: u64 = String::from_utf8_lossy(&read.stdout).trim().parse().unwrap();
        let now = before.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(
            date.len() == 29 && (now..now + 600).contains(&second),
            "{path}: {date}"
        );
    }
    let there = evenkeel.client().get("/there");
    assert_eq!(there.field("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
}

/// RFC 9110 section 6.6.1: a response that comes without a time goes on with that of its arrival, once.
#[test]
fn responses_without_a_date_get_one() {
    let one = Backend::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let evenkeel = Evenkeel::start(&routed(
        &one,
        "[[load_balancers.shop.routes]]\nmatch.path = \"/edited\"\npool = \"default\"\n\
         response_headers.set = { \"X-Own\" = \"1\" }\n\
         [[load_balancers.shop.routes]]\nmatch.path = \"/set\"\npool = \"default\"\n\
         response_headers.set = { \"Date\" = \"Sun, 06 Nov 1994 08:49:37 GMT\" }\n\
         [[load_balancers.shop.routes]]\npool = \"default\"\n",
    ));
    for path in ["/plain", "/edited", "/set"] {
        let answer = evenkeel.client().get(path);
        let dates = answer.head.to_ascii_lowercase().matches("\r\ndate: ").count();
        assert_eq!((answer.status(), dates), (200, 1), "{path}: {}", answer.head);
        let was_set = answer.field("date") == Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(was_set, path == "/set", "{}", answer.head);
    }
}

/// `explain` says what would be done, and calls no redirect a failure.
#[test]
fn explain_says_what_a_route_would_do() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&routed(
        &one,
        "[[load_balancers.shop.routes]]\nmatch.path_prefix = \"/old\"\nredirect = { to = \"https://new.test{path}\" }\n\
         [[load_balancers.shop.routes]]\nmatch.path_prefix = \"/api\"\npool = \"default\"\nrewrite = { path_prefix = \"/v2\" }\n\
         request_headers = { set = { X-Env = \"prod\" } }\n",
    ));
    let redirected = evenkeel.cli_ok(&["explain", "--listener", "shop", "GET", "/old/a"]);
    assert!(
        redirected.contains("redirects with 308 to https://new.test/old/a"),
        "{redirected}"
    );
    assert!(!redirected.contains("refused"), "{redirected}");
    let sent = evenkeel.cli_ok(&["explain", "--listener", "shop", "GET", "/api/a"]);
    assert!(sent.contains("asks the backend for /v2/a"), "{sent}");
    assert!(sent.contains("sets in the request: x-env: prod"), "{sent}");
    assert!(sent.contains(&format!("goes to {}", one.address)), "{sent}");
}

/// The rules of a route hold for the answer with which a backend agrees to switch, too.
#[test]
fn rules_hold_for_a_switch_of_protocols() {
    let one = Backend::scripted(|conversation| {
        if conversation.request().is_some() {
            conversation.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Server: inner\r\nX-Mode: inner\r\nX-Request-Id: inner\r\n\r\n",
            );
            conversation.hold();
        }
    });
    let rules = "response_headers = { set = { X-Mode = \"own\" }, remove = [\"Server\"] }";
    let routes = format!("[[load_balancers.shop.routes]]\npool = \"default\"\n{rules}\n");
    let evenkeel = Evenkeel::start(&routed(&one, &routes));
    let mut client = evenkeel.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let agreed = client.head();
    assert_eq!(agreed.status(), 101);
    assert_eq!(
        (agreed.all("x-mode"), agreed.field("server")),
        (vec!["own"], None)
    );
    let ids = agreed.all("x-request-id");
    assert!(ids.len() == 1 && ids != ["inner"], "{ids:?}");
}
