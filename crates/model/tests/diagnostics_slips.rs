//! What a person is told who moves over from another proxy and writes what that one would take, or who writes what
//! is valid and does nothing: one test for each slip.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_model::diagnostic::Diagnostic;
use evenkeel_model::parse::{check_toml, parse_toml};

/// A load balancer with these lines and one backend.
fn shop(lines: &str) -> String {
    format!("[load_balancers.shop]\nbackend_servers = [\"10.0.0.1:9001\"]\n{lines}\n")
}

/// The same with one route.
fn route(lines: &str) -> String {
    shop(&format!(
        "[[load_balancers.shop.routes]]\npool = \"default\"\n{lines}"
    ))
}

/// The only error of a text.
#[track_caller]
fn error(text: &str) -> Diagnostic {
    only(parse_toml(text, "evenkeel.toml").unwrap_err())
}

/// The only warning of a valid text.
#[track_caller]
fn warning(text: &str) -> Diagnostic {
    only(check_toml(text, "evenkeel.toml").unwrap().warnings)
}

#[track_caller]
fn only(mut found: Vec<Diagnostic>) -> Diagnostic {
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[track_caller]
fn says(diagnostic: &Diagnostic, text: &str, cause: &str, help: &str) {
    assert_eq!(diagnostic.text, text, "{diagnostic}");
    assert!(diagnostic.cause.contains(cause), "{diagnostic}");
    let suggestion = diagnostic.suggestion.as_deref().unwrap_or("");
    assert!(suggestion.contains(help), "{diagnostic}");
}

/// `/api/*` of Envoy and of an ALB would never match anything here.
#[test]
fn a_star_in_a_path_stands_for_itself() {
    for (written, meant) in [
        ("path_prefix = \"/api/*\"", "`path_prefix = \"/api\"`"),
        ("path = \"/images/*\"", "`path_prefix = \"/images\"`"),
        ("path = \"/*\"", "`path_prefix = \"/\"`"),
        ("path = \"/*.png\"", "`path_regex`"),
    ] {
        let told = warning(&route(&format!("match = {{ {written} }}")));
        let (_, text) = written.split_once(" = ").unwrap();
        says(&told, text, "`*` stands for itself", meant);
    }
}

#[test]
fn a_route_that_excludes_everything() {
    let told = warning(&route("match = { not = {} }"));
    says(&told, "not", "this never matches", "not = {");
}

/// ISO 3166 knows no `UK`: a route for it would never match.
#[test]
fn countries_that_are_none() {
    let head = "[node]\ngeoip = \"x.mmdb\"\n";
    for (code, help) in [
        ("UK", "`GB`"),
        ("uk", "`GB`"),
        ("EL", "`GR`"),
        ("XX", "ISO 3166-1"),
        ("DEU", "ISO"),
    ] {
        let told = error(&format!(
            "{head}{}",
            route(&format!("match.country = \"{code}\""))
        ));
        says(&told, &format!("\"{code}\""), "is not a country code", help);
    }
    let valid = route("match.country = [\"gb\", \"XK\"]");
    parse_toml(&format!("{head}{valid}"), "x").unwrap();
}

#[test]
fn hosts_as_they_stand_in_a_browser() {
    for (host, help) in [
        (
            "https://shop.example/cart",
            "leave out the scheme and any path: `shop.example`",
        ),
        ("http://shop.example:8080", "`shop.example`"),
        ("bücher.example", "xn--"),
    ] {
        let told = error(&route(&format!("match.host = \"{host}\"")));
        says(&told, &format!("\"{host}\""), "is not a host name", help);
    }
}

/// Units as nginx, Envoy and people write them.
#[test]
fn units_of_others() {
    for (line, help) in [
        ("slow_start = \"5 sec\"", "write `slow_start = \"5s\"`"),
        ("slow_start = \"1 minute\"", "write `slow_start = \"1m\"`"),
        ("slow_start = \"2d\"", "write `slow_start = \"48h\"`"),
        (
            "retries = { replay_bytes = \"64k\" }",
            "write `replay_bytes = \"64KiB\"`",
        ),
        (
            "retries = { replay_bytes = \"1 mb\" }",
            "write `replay_bytes = \"1MB\"`",
        ),
        ("slow_start = \"1000\"", "a bare number is milliseconds"),
    ] {
        let told = error(&shop(line));
        let (_, text) = line.rsplit_once("= ").unwrap();
        says(&told, text.trim_end_matches(" }"), " is not a ", help);
    }
    let told = error(&shop("slow_start = \"soon\""));
    says(&told, "\"soon\"", "is not a duration", "it takes 0s to 1h");
}

/// Where a redirect leads is the operator's choice: what clients write stands behind the host.
#[test]
fn groups_in_the_host_of_a_redirect() {
    let to = |to: &str| {
        let lines = format!("match.path_regex = \"/go/(.*)\"\nredirect.to = \"{to}\"\n");
        format!("[load_balancers.shop]\n[[load_balancers.shop.routes]]\n{lines}")
    };
    for chosen in [
        "https://a{1}",
        "https://{1}.a/",
        "https://a{query}{1}",
        "{scheme}://{host}{1}/x",
    ] {
        let told = error(&to(chosen));
        assert!(told.cause.contains("choose the host"), "{told}");
    }
    for fixed in [
        "/{1}",
        "https://a/{1}",
        "https://a{path}{1}",
        "https://a?b={1}",
        "{scheme}://{host}/{1}",
        "{path}{0}",
    ] {
        assert!(parse_toml(&to(fixed), "x").is_ok(), "{fixed}");
    }
    // Where there is no host, browsers take what comes behind the slashes.
    for missing in [
        "{scheme}:///{1}",
        "{scheme}://{path}",
        "{scheme}://{query}",
        "{scheme}://?{1}",
        "https://{path}",
    ] {
        let told = error(&to(missing));
        assert!(told.cause.contains("no address to send clients to"), "{told}");
    }
}

/// What follows a heading or list that is not closed would be told where it does not stand: it is not told.
#[test]
fn a_text_that_is_torn() {
    let full = include_str!("../../../examples/full.toml");
    let lines: Vec<&str> = full.lines().collect();
    let mut torn = (0, 0);
    for (i, line) in lines.iter().enumerate() {
        let without_last = |line: &str| {
            let mut changed: Vec<&str> = lines.clone();
            let cut = line.get(..line.len() - 1).unwrap_or("").to_owned();
            changed[i] = &cut;
            parse_toml(&changed.join("\n"), "x").unwrap_err()
        };
        if line.starts_with('[') {
            torn.0 += 1;
            let told = only(without_last(line));
            assert_eq!(told.line as usize, i + 1, "{told}");
            assert!(told.cause.starts_with("not TOML: "), "{told}");
        } else if line.contains(" = [") && line.ends_with(']') {
            torn.1 += 1;
            let told = without_last(line);
            assert_eq!(told.len(), 1, "{told:?}");
            says(&told[0], &told[0].text, "array", "close it with `]`");
        }
    }
    assert!(torn.0 > 20 && torn.1 > 10, "{torn:?}");

    let lost = error(&shop("health = { interval = \"1s\"\nslow_start = 5"));
    says(&lost, &lost.text, "key-value pairs", "close it with `}`");
    let opened = error("load_balancers.shop]\nbackend_server = []\n");
    says(&opened, "", "not TOML", "");
    // A match that cannot be read is not said to be the same as another.
    let same = route("match = { path = \"/a\" }\n[[load_balancers.shop.routes]]\npool = \"default\"");
    let matched = error(&format!("{same}\nmatch = path = \"/a\""));
    assert!(matched.cause.starts_with("not TOML"), "{matched}");
}

#[test]
fn what_does_nothing() {
    let empty = warning("[load_balancers.shop]\nbackend_servers = []\n");
    says(&empty, "backend_servers", "there is no backend", "");
    let idle = warning(&shop("queue = { size = 10 }"));
    says(&idle, "queue", "nothing ever waits", "max_requests = 100");
    let capped = shop("max_requests = 5\nqueue = { size = 10 }");
    assert!(check_toml(&capped, "x").unwrap().warnings.is_empty());
}

/// `Secure` by the request and `SameSite=None` do not go together where requests come in clear text.
#[test]
fn a_cookie_for_other_sites_over_clear_http() {
    let cookie = "sticky = { cookie = \"s\", same_site = \"none\" }";
    let told = warning(&shop(cookie));
    says(&told, "\"none\"", "listener `http` takes", "add `secure = true`");
    assert_eq!(told.line, 3);
    let always = shop("sticky = { cookie = \"s\", same_site = \"none\", secure = true }");
    let listener = |lines: &str| {
        shop(&format!(
            "{cookie}\n[[load_balancers.shop.listeners]]\naddress = \"0.0.0.0:80\"\n{lines}"
        ))
    };
    for fine in [
        always,
        listener("redirect_to_https = true"),
        listener("trusted_proxies = [\"10.0.0.0/8\"]"),
        listener("protocol = \"https\"\ntls = { certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }"),
    ] {
        let warnings = check_toml(&fine, "x").unwrap().warnings;
        assert!(warnings.is_empty(), "{fine}\n{warnings:?}");
    }
}

/// A mirror that cannot work is marked itself, not its load balancer.
#[test]
fn a_mirror_that_speaks_another_protocol() {
    let text = "[load_balancers.shop.pools.web]\nbackend_servers = [\"10.0.0.1:1\"]\n\
                [load_balancers.shop.pools.copies]\nbackend_servers = [\"10.0.0.2:1\"]\nprotocol = \"http2\"\n\
                [[load_balancers.shop.routes]]\npool = \"web\"\nmirror = { pool = \"copies\" }\n";
    let told = error(text);
    says(&told, "mirror", "which speaks HTTP/2", "without `protocol");
    assert_eq!(told.line, 8);
}

/// What is shown to be written can be written.
#[test]
fn examples_fit_their_key() {
    let listener = |tls: &str| {
        format!(
            "[load_balancers.shop]\nbackend_servers = [\"10.0.0.1:1\"]\n[[load_balancers.shop.listeners]]\n\
             address = \"0.0.0.0:443\"\nprotocol = \"https\"\ntls = {tls}\n"
        )
    };
    let key = error(&listener("{ certificates = [{ cert = \"a.pem\" }] }"));
    says(
        &key,
        "{ cert = \"a.pem\" }",
        "needs `key`",
        "`key = \"/etc/evenkeel/shop.key\"`",
    );
    let ip = error(&listener("{ acme = { domains = [\"10.0.0.1\"] } }"));
    says(&ip, "\"10.0.0.1\"", "is an IP address, not a DNS name", "");
    let pool = error(&shop(
        "[[load_balancers.shop.routes]]\nmatch.path = \"/a\"\n[[load_balancers.shop.routes]]\npool = \"default\"",
    ));
    says(
        &pool,
        "[[load_balancers.shop.routes]]",
        "needs one of `pool`",
        "`pool = \"default\"`",
    );
}

/// What forwards nothing needs no backend; what may forward something says what is missing.
#[test]
fn a_load_balancer_without_backends() {
    let listener = "[[load_balancers.x.listeners]]\naddress = \"0.0.0.0:80\"\n";
    let to_https = format!("{listener}redirect_to_https = true\n");
    let moved = "[[load_balancers.x.routes]]\nredirect.to = \"https://y.test{path}\"\n";
    let closed = "[[load_balancers.x.routes]]\nmatch.path = \"/a\"\nrespond.status = 503\n";
    for valid in [
        to_https.clone(),
        format!("{moved}{closed}"),
        format!("{to_https}{closed}"),
    ] {
        let config = parse_toml(&valid, "x.toml").unwrap();
        let full = evenkeel_model::effective::to_toml(&config);
        assert_eq!(parse_toml(&full, "full.toml").unwrap(), config, "{full}");
    }
    let second = "[[load_balancers.x.listeners]]\naddress = \"0.0.0.0:81\"\n";
    for lacking in [
        listener.to_owned(),
        format!("{to_https}{second}"),
        format!("{to_https}redirect_to_https = false\n").replace("redirect_to_https = true\n", ""),
    ] {
        let told = error(&lacking);
        assert!(
            told.cause.contains("needs `backend_servers` or `pools`"),
            "{told}"
        );
    }
    let forwarding = format!("{closed}[[load_balancers.x.routes]]\npool = \"default\"\n");
    assert!(
        error(&forwarding)
            .cause
            .contains("needs `backend_servers` or `pools`")
    );
    let misspelt = error(
        "[load_balancers.x]\nbackend_server = []\n[[load_balancers.x.listeners]]\naddress = \"0.0.0.0:80\"\n",
    );
    says(&misspelt, "backend_server", "unknown key", "`backend_servers`");
}

/// A socket belongs to one listener, also where its port is chosen when it opens.
#[test]
fn two_listeners_on_a_free_port_of_one_address() {
    let text = "[load_balancers.a]\nlisten = \"127.0.0.1:0\"\nbackend_servers = [\"10.0.0.1:1\"]\n\
                [load_balancers.b]\nlisten = [\"127.0.0.2:0\", \"127.0.0.1:0\"]\nbackend_servers = [\"10.0.0.1:1\"]\n\
                [admin]\nlisten = \"127.0.0.1:0\"\n";
    let told = error(text);
    says(
        &told,
        "\"127.0.0.1:0\"",
        "127.0.0.1:0 is listened on twice",
        "of its own",
    );
    assert_eq!(told.line, 5);
}

/// A key with control characters is named without them, also in what is said about the keys below it.
#[test]
fn names_that_would_command_a_terminal() {
    let text = "[load_balancers.shop.pools.\"\\u001b[2Jweb\"]\nbackend_servers = []\nalgoritm = \"random\"\n";
    let told = parse_toml(text, "evenkeel.toml").unwrap_err();
    assert!(
        told.iter().any(|d| d.cause.contains("unknown key `algoritm`")),
        "{told:?}"
    );
    for diagnostic in told {
        assert!(!diagnostic.to_string().contains('\u{1b}'), "{diagnostic}");
        assert!(!diagnostic.key.contains('\u{1b}'), "{diagnostic:?}");
    }
}

/// A document of another form says which form it takes.
#[test]
fn documents_of_another_form() {
    let json = parse_toml("{\"shop\": {\"backend_servers\": []}}", "evenkeel.toml").unwrap_err();
    says(&json[0], "", "not TOML", "a name that ends in `.json`");
    let list = parse_toml("[[load_balancers]]\nbackend_servers = []\n", "x").unwrap_err();
    says(
        &list[0],
        "[[load_balancers]]",
        "not a list",
        "`[load_balancers.NAME]`",
    );
    let bare = parse_toml("[shop]\nbackend_servers = []\n", "x").unwrap_err();
    says(&bare[1], "shop", "unknown key `shop`", "`[load_balancers.shop]`");
}
