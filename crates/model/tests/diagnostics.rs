//! What a person is told about a wrong config: all of it at once, each with place, text, cause and help.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use evenkeel_model::diagnostic::Diagnostic;
use evenkeel_model::parse::{check_json, parse_toml};

fn errors(text: &str) -> Vec<Diagnostic> {
    parse_toml(text, "evenkeel.toml").unwrap_err()
}

/// The only error of a text.
fn error(text: &str) -> Diagnostic {
    let mut found = errors(text);
    let first = found.remove(0);
    assert!(found.is_empty(), "{first}\nand more: {found:?}");
    first
}

/// The only error of the load balancer `shop` with these lines, beside one backend where none is given.
fn shop(lines: &str) -> Diagnostic {
    let backends = match lines.contains("backend_servers") {
        true => "",
        false => "backend_servers = [\"10.0.0.1:9001\"]\n",
    };
    error(&format!("[load_balancers.shop]\n{backends}{lines}\n"))
}

#[track_caller]
fn says(diagnostic: &Diagnostic, text: &str, cause: &str, help: &str) {
    assert_eq!(diagnostic.text, text, "{diagnostic}");
    assert!(diagnostic.cause.contains(cause), "{diagnostic}");
    let suggestion = diagnostic.suggestion.as_deref().unwrap_or("");
    assert!(suggestion.contains(help), "{diagnostic}");
}

// ---- form ----

/// The whole of one, as the terminal shows it.
#[test]
fn it_is_shown_like_an_error_of_the_compiler() {
    let text = "[load_balancers.shop]\nbackend_servers = []\nalgoritm = \"random\"\n";
    assert_eq!(
        error(text).to_string(),
        "evenkeel.toml:3:1: unknown key `algoritm` in load_balancers.shop\n \
         3 | algoritm = \"random\"\n   \
           | ^^^^^^^^\n\
         help: did you mean `algorithm`?"
    );
}

/// For programs: every part is a field.
#[test]
fn it_serialises_by_parts() {
    let text = "[load_balancers.shop]\nbackend_servers = []\nalgoritm = \"random\"\n";
    assert_eq!(
        serde_json::to_value(error(text)).unwrap(),
        serde_json::json!({
            "file": "evenkeel.toml", "line": 3, "column": 1, "text": "algoritm",
            "key": "load_balancers.shop.algoritm",
            "cause": "unknown key `algoritm` in load_balancers.shop",
            "suggestion": "did you mean `algorithm`?",
        })
    );
}

/// Errors of syntax and of meaning are told together, in the order of the text; where the syntax is wrong,
/// nothing is guessed about the meaning.
#[test]
fn all_errors_are_told_at_once() {
    let found = errors(
        r#"
[load_balancers.shop]
listen = "localhost:80"
poll_frequency = 5s
algorithm = "rand0m"
[load_balancers.blog]
listen = "0.0.0.0:81
backend_servers = ["10.0.0.1:9001", "10.0.0.1:9001"]
retries = { atempts = 1 }
"#,
    );
    let places: Vec<(u32, &str)> = found.iter().map(|d| (d.line, d.key.as_str())).collect();
    assert_eq!(
        places,
        [
            (3, "load_balancers.shop.listen"),
            (4, ""),
            (5, "load_balancers.shop.algorithm"),
            (7, ""),
            (8, "load_balancers.blog.backend_servers[1]"),
            (9, "load_balancers.blog.retries.atempts"),
        ]
    );
}

/// JSON has the same errors at their own lines and columns.
#[test]
fn json_has_places_too() {
    let text = "{\n  \"shop\": {\n    \"backend_servers\": [],\n    \"poll_frequency\": \"5\"\n  }\n}";
    let found = check_json(text, "shop.json").unwrap_err();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].line, found[0].column), (4, 23));
    assert_eq!(found[0].key, "shop.poll_frequency");
    says(&found[0], "\"5\"", "not a duration", "`poll_frequency = \"5s\"`");
}

/// JSON with an error of syntax says where.
#[test]
fn broken_json() {
    for (text, line, column) in [
        ("{\n  \"shop\": [1,,]\n}", 2, 14),
        ("{} x", 1, 4),
        ("{'a': 1}", 1, 2),
        ("{// x\n}", 1, 2),
    ] {
        let found = check_json(text, "a.json").unwrap_err();
        assert_eq!((found[0].line, found[0].column), (line, column), "{}", found[0]);
        assert!(found[0].cause.starts_with("not JSON: "), "{}", found[0]);
    }
    assert!(check_json("", "a.json").unwrap_err()[0].cause.contains("empty"));
}

/// The first of two is named by its line.
#[test]
fn what_is_given_twice_in_json() {
    let text = "{\"shop\": {\n\"backend_servers\": [],\n\"slow_start\": 1,\n\"slow_start\": 2}}";
    let found = check_json(text, "a.json").unwrap_err();
    assert_eq!((found.len(), found[0].line), (1, 4));
    says(&found[0], "\"slow_start\"", "first given in line 3", "");
}

/// A table given twice; text without quotes.
#[test]
fn slips_of_toml() {
    let twice =
        errors("[load_balancers.shop]\nbackend_servers = []\n[load_balancers.shop]\nslow_start = 0\n");
    says(
        &twice[0],
        "shop",
        "`shop` is given twice; it is first given in line 1",
        "",
    );
    let again = errors("[load_balancers.shop]\nbackend_servers = []\nslow_start = 0\nslow_start = 1\n");
    says(&again[0], "slow_start", "first given in line 3", "");
    let bare = errors("[load_balancers.shop]\nbackend_servers = []\nslow_start = 5s\n");
    says(
        &bare[0],
        "5s",
        "not TOML: string values must be quoted",
        "double quotes",
    );
}

/// An empty file, or one whose end was cut off, must not pass for a config without load balancers.
#[test]
fn nothing_is_not_a_config() {
    for text in ["", "# nothing\n", "[node]\nname = \"a\"\n"] {
        assert_eq!(
            error(text).cause,
            "the document needs `load_balancers` or `store`"
        );
    }
    // Who says where they are need not name any.
    assert!(parse_toml("[store]\n", "evenkeel.toml").is_ok());
    let none = error("[load_balancers]\n");
    assert_eq!(none.cause, "load_balancers needs at least one entry");
    assert!(check_json("{}", "a.json").is_err());
    assert!(check_json("[]", "a.json").is_err());
}

// ---- keys and types ----

#[test]
fn unknown_keys() {
    says(
        &shop("alogrithm = \"random\""),
        "alogrithm",
        "unknown key",
        "did you mean `algorithm`?",
    );
    says(
        &shop("backend-server = []"),
        "backend-server",
        "unknown key",
        "did you mean `backend_servers`?",
    );
    says(
        &shop("Retries = {}"),
        "Retries",
        "unknown key",
        "did you mean `retries`?",
    );
    says(
        &shop("expected_status = 200"),
        "expected_status",
        "unknown key",
        "belongs to health of a pool",
    );
    says(
        &shop("colour = \"red\""),
        "colour",
        "unknown key",
        "the keys here are: listen, listeners, routes",
    );
    says(
        &shop("health = { tiemout = 5 }"),
        "tiemout",
        "in load_balancers.shop.health",
        "`timeout`",
    );
    let top = errors("[load_balancer.shop]\nbackend_servers = []\n");
    says(
        &top[0],
        "load_balancer",
        "unknown key",
        "did you mean `load_balancers`?",
    );
}

#[test]
fn wrong_types() {
    says(
        &shop("poll_frequency = 1.5"),
        "1.5",
        "must be a duration such as `\"5s\"`, not a decimal number",
        "\"2s\"",
    );
    says(
        &shop("algorithm = 5"),
        "5",
        "must be one of `\"round_robin\"`",
        "algorithm = \"round_robin\"",
    );
    says(
        &shop("passive = true"),
        "true",
        "must be a table or `false`, not `true`",
        "",
    );
    says(
        &shop("health = []"),
        "[]",
        "must be a table or `false`, not a list",
        "",
    );
    says(
        &shop("connections = 5"),
        "5",
        "`connections` must be a table, not a whole number",
        "",
    );
    says(
        &shop("retries = { budget = 20 }"),
        "20",
        "must be a percentage",
        "budget = \"20%\"",
    );
    says(
        &shop("listen = 8080"),
        "8080",
        "an IP address and port such as",
        "listen = \"0.0.0.0:8080\"",
    );
    says(
        &shop("backend_servers = \"10.0.0.1:80\""),
        "\"10.0.0.1:80\"",
        "must be a list",
        "[\"10.0.0.1:9001\"]",
    );
    says(
        &shop("backend_servers = [5]"),
        "5",
        "not a whole number",
        "weight = 2",
    );
    says(
        &error("load_balancers = 5\n"),
        "5",
        "must be a table of tables by name",
        "",
    );
    let null = check_json(
        "{\"shop\": {\"backend_servers\": [], \"health\": null}}",
        "a.json",
    )
    .unwrap_err();
    says(&null[0], "null", "must be a table or `false`, not null", "");
}

#[test]
fn ranges() {
    says(
        &shop("poll_frequency = 5"),
        "5",
        "`poll_frequency` is 5, out of its range: 100ms to 1h",
        "",
    );
    says(
        &shop("timeouts = { total = \"1ms\" }"),
        "\"1ms\"",
        "is 1ms, out of its range: 0, or 10ms to 24h",
        "",
    );
    says(&shop("retries = { attempts = -1 }"), "-1", "0 to 5", "");
    says(&shop("health = { jitter = \"51%\" }"), "\"51%\"", "0% to 50%", "");
    let huge = "99999999999999999999999999999999999999999999999999";
    says(&shop(&format!("slow_start = {huge}")), huge, "0s to 1h", "");
    let heavy = "backend_servers = [{ address = \"10.0.0.1:80\", weight = 1001 }]";
    says(&shop(heavy), "1001", "0 to 1000", "");
}

#[test]
fn units() {
    says(
        &shop("poll_frequency = \"5 s\""),
        "\"5 s\"",
        "`5 s` is not a duration",
        "",
    );
    says(
        &shop("poll_frequency = \"5\""),
        "\"5\"",
        "not a duration",
        "`poll_frequency = \"5s\"`",
    );
    says(
        &shop("retries = { replay_bytes = \"64\" }"),
        "\"64\"",
        "not a size",
        "`replay_bytes = \"64KiB\"`",
    );
    says(
        &shop("retries = { budget = \"20\" }"),
        "\"20\"",
        "not a percentage",
        "`budget = \"20%\"`",
    );
}

#[test]
fn missing_keys() {
    says(
        &error("[load_balancers.shop]\nlisten = \"0.0.0.0:80\"\n"),
        "[load_balancers.shop]",
        "needs `backend_servers` or `pools`",
        "backend_servers = [\"10.0.0.1:9001\"]",
    );
    let address = shop("[[load_balancers.shop.listeners]]\nname = \"a\"");
    says(
        &address,
        "[[load_balancers.shop.listeners]]",
        "needs the key `address`",
        "address = \"0.0.0.0:8080\"",
    );
    assert_eq!(address.key, "load_balancers.shop.listeners[0].address");
}

// ---- addresses ----

#[test]
fn addresses_of_backends() {
    for (text, cause, help) in [
        ("web-1.internal:9001", "names a host", "names are not looked up"),
        ("localhost:9001", "not an IP address and port", "`127.0.0.1:9001`"),
        ("10.0.0.1", "not an IP address and port", "`10.0.0.1:8080`"),
        ("::1", "not an IP address and port", "`[::1]:8080`"),
        ("fe80::1:x", "not an IP address and port", "a port is a number"),
        (
            "http://10.0.0.1:80/x",
            "not an IP address and port",
            "`10.0.0.1:80`",
        ),
        ("10.0.0.1:65536", "not an IP address and port", "0 to 65535"),
        ("10.0.0.1:0", "port 0", ""),
        ("0.0.0.0:80", "no address of a server", "`127.0.0.1:80`"),
        (":80", "not an IP address and port", "`10.0.0.1:80`"),
        ("9001", "not an IP address and port", "`10.0.0.1:9001`"),
        ("10.0.0.256:80", "not an IP address and port", "`10.0.0.1:80`"),
        ("", "not an IP address and port", "`10.0.0.1:8080`"),
    ] {
        says(
            &shop(&format!("backend_servers = [\"{text}\"]")),
            &format!("\"{text}\""),
            cause,
            help,
        );
    }
}

#[test]
fn what_may_stand_only_once() {
    let backend = shop("backend_servers = [\n\"10.0.0.1:80\",\n{ address = \"10.0.0.1:80\" }]");
    says(
        &backend,
        "{ address = \"10.0.0.1:80\" }",
        "given twice; it first stands in line 3",
        "`weight`",
    );

    let listener = error(
        "[load_balancers.a]\nbackend_servers = []\n[load_balancers.b]\nbackend_servers = []\nlisten = \"0.0.0.0:8080\"\n",
    );
    says(
        &listener,
        "\"0.0.0.0:8080\"",
        "0.0.0.0:8080 is listened on twice; first by load_balancers.a.listen in line 1",
        "of its own",
    );
    let admin = shop("listen = \"127.0.0.1:7700\"");
    says(
        &admin,
        "\"127.0.0.1:7700\"",
        "first by the default of admin.listen",
        "",
    );

    let names = shop(
        "[[load_balancers.shop.listeners]]\nname = \"a\"\naddress = \"0.0.0.0:80\"\n\
         [[load_balancers.shop.listeners]]\nname = \"a\"\naddress = \"0.0.0.0:81\"\n",
    );
    says(
        &names,
        "\"a\"",
        "the name `a` is given twice; it is first used in line 4",
        "",
    );
}

#[test]
fn names() {
    let text = "[load_balancers.\"my shop\"]\nbackend_servers = []\n";
    says(&error(text), "\"my shop\"", "`my shop` is not a name", "");
}

#[test]
fn networks() {
    let listener = |net: &str| {
        shop(&format!(
            "[[load_balancers.shop.listeners]]\naddress = \"0.0.0.0:80\"\ntrusted_proxies = [\"{net}\"]\n"
        ))
    };
    says(
        &listener("10.0.0.1/8"),
        "\"10.0.0.1/8\"",
        "bits set beyond its prefix",
        "`10.0.0.0/8`",
    );
    says(
        &listener("10.0.0.0/33"),
        "\"10.0.0.0/33\"",
        "too long a prefix: at most 32",
        "",
    );
    says(&listener("cdn"), "\"cdn\"", "not an IP network", "`10.0.0.0/8`");
}

// ---- what goes together ----

/// The short form describes one listener and one pool; the full form says so itself.
#[test]
fn short_and_full_form_do_not_mix() {
    let listen = shop("listen = \"0.0.0.0:80\"\n[[load_balancers.shop.listeners]]\naddress = \"0.0.0.0:81\"");
    says(
        &listen,
        "listen",
        "`listen` and `listeners` may not both",
        "move it into `listeners`",
    );
    let pools = shop("backend_servers = []\n[load_balancers.shop.pools.web]\nbackend_servers = []");
    says(
        &pools,
        "backend_servers",
        "`backend_servers` and `pools` may not both",
        "into a table under `pools`",
    );
}

#[test]
fn checks() {
    let both = shop("health_endpoint = \"/\"\nhealth = { interval = \"1s\" }");
    says(
        &both,
        "health_endpoint",
        "may not both",
        "write it as `path` in `health`",
    );
    says(
        &shop("health_endpoint = \"health\""),
        "\"health\"",
        "does not start with `/`",
        "write `/health`",
    );
    says(
        &shop("health_endpoint = \"http://x/\""),
        "\"http://x/\"",
        "a whole address",
        "`/health`",
    );
    let tcp = shop("health = { type = \"tcp\", path = \"/\" }");
    says(
        &tcp,
        "path",
        "`path` has no meaning with `type = \"tcp\"`",
        "remove `path`",
    );
    let none = shop("health = { type = \"none\", interval = \"1s\" }");
    says(&none, "interval", "has no meaning with `type = \"none\"`", "");
    let head = shop("health = { method = \"HEAD\", body_contains = \"ok\" }");
    says(
        &head,
        "body_contains",
        "has no meaning with `method = \"HEAD\"`",
        "",
    );
    let slow = shop("health = { interval = \"1s\", timeout = \"2s\" }");
    says(
        &slow,
        "\"2s\"",
        "`timeout` is 2s, longer than `interval`, which is 1s",
        "raise `interval`",
    );
    let fast = shop("health = { interval = \"1s\", fast_interval = 1500 }");
    says(&fast, "1500", "`fast_interval` is 1s500ms, longer", "");
    says(
        &shop("health = { headers = { Host = \"x\" } }"),
        "Host",
        "written by the check itself",
        "`host`",
    );
    says(
        &shop("health = { headers = { x = \"1\", X = \"2\" } }"),
        "X",
        "first given in line 3",
        "",
    );
    says(
        &shop("health = { expected_status = [200, \"299-200\"] }"),
        "\"299-200\"",
        "ends before",
        "`200-299`",
    );
    says(
        &shop("health = { expected_status = [] }"),
        "[]",
        "needs at least one entry",
        "",
    );
}

/// A short interval does not trip over timeouts that nobody wrote.
#[test]
fn defaults_fit_a_short_interval() {
    let text = "[load_balancers.x]\nbackend_servers = []\npoll_frequency = 200\n";
    let config = parse_toml(text, "a.toml").unwrap();
    let pool = config
        .load_balancers
        .values()
        .next()
        .unwrap()
        .pools
        .values()
        .next()
        .unwrap();
    let check = pool.health.as_ref().unwrap();
    assert_eq!(
        [check.timeout, check.fast_interval].map(|d| d.as_millis()),
        [200, 200]
    );
}

#[test]
fn hashing() {
    let without = shop("hash = { key = \"path\" }");
    says(
        &without,
        "hash",
        "only with `algorithm = \"consistent_hash\"`",
        "add `algorithm",
    );
    let key = shop("algorithm = \"consistent_hash\"\nhash = { key = \"heder:x\" }");
    says(&key, "\"heder:x\"", "not a key to hash", "`header:NAME`");
    let load = shop("algorithm = \"consistent_hash\"\nhash = { bounded_load = \"100%\" }");
    says(&load, "\"100%\"", "101% to 10000%", "");
}

const POOLS: &str = "[load_balancers.shop.pools.web]\nbackend_servers = []\n\
                     [load_balancers.shop.pools.api]\nbackend_servers = []\n";

#[test]
fn routes_and_pools() {
    let none = error(POOLS);
    says(
        &none,
        "shop",
        "several pools, but no routes",
        "[[load_balancers.shop.routes]]",
    );
    let route =
        |pool: &str, more: &str| format!("[[load_balancers.shop.routes]]\npool = \"{pool}\"\n{more}\n");

    let left_over = error(&format!("{POOLS}{}", route("web", "")));
    says(
        &left_over,
        "[load_balancers.shop.pools.api]",
        "no route leads to the pool `api`",
        "pool = \"api\"",
    );

    let misspelt = error(&format!(
        "{POOLS}{}{}",
        route("web", ""),
        route("apii", "match = { path = \"/a\" }")
    ));
    says(
        &misspelt,
        "\"apii\"",
        "there is no pool `apii`",
        "did you mean `api`?",
    );

    let dead = error(&format!("{POOLS}{}{}", route("web", ""), route("api", "")));
    says(
        &dead,
        "[[load_balancers.shop.routes]]",
        "no request reaches this route: `default` in line 5",
        "",
    );

    let host = |host: &str| {
        error(&format!(
            "[load_balancers.shop]\nbackend_servers = []\n{}",
            route("default", &format!("match = {{ host = \"{host}\" }}"))
        ))
    };
    says(
        &host("www.*.com"),
        "\"www.*.com\"",
        "not a host name",
        "as in `*.example.com`",
    );
    says(
        &host("example.com:80"),
        "\"example.com:80\"",
        "not a host name",
        "leave out the port: `example.com`",
    );
    let path = |path: &str| {
        error(&format!(
            "[load_balancers.shop]\nbackend_servers = []\n{}",
            route("default", &format!("match = {{ path = \"{path}\" }}"))
        ))
    };
    says(&path("/a?b"), "\"/a?b\"", "has a query", "leave out `?`");
    says(&path("/a/../b"), "\"/a/../b\"", "can match no request", "");
    says(
        &path("/a b"),
        "\"/a b\"",
        "a character that a path may not have",
        "%20",
    );
}

// ---- admin ----

/// Scenario: an admin API that others can reach. Each thing that is missing is named, with what to write.
#[test]
fn admin_off_loopback_needs_tls_and_a_login() {
    let shop = "[load_balancers.shop]\nbackend_servers = []\n";
    const TLS: &str = "tls = { certificate = \"c\", key = \"k\" }\n";
    const MUTUAL: &str = "tls = { certificate = \"c\", key = \"k\", client_ca = \"a\" }\n\
                          certificates = [{ name = \"alice\", role = \"admin\" }]\n";
    const TOKENS: &str = "tokens = [{ name = \"ci\", role = \"viewer\", hash = \"sha256:\
                          9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }]\n";
    let at = |listen: &str, more: &str| format!("{shop}[admin]\nlisten = \"{listen}\"\n{more}");
    for (more, lacks, help) in [
        ("", "without TLS and a token", "evenkeel token create"),
        ("token = \"secret\"\n", "without TLS", "listen on loopback"),
        ("token_file = \"/run/token\"\n", "without TLS", "admin.pem"),
        (TOKENS, "without TLS", "admin.pem"),
        (TLS, "without a token or client certificates", "client_ca"),
    ] {
        let open = error(&at("0.0.0.0:7700", more));
        let cause = format!("may not listen on 0.0.0.0:7700 {lacks}");
        says(&open, "\"0.0.0.0:7700\"", &cause, help);
        assert!(parse_toml(&at("[::1]:7700", more), "").is_ok());
    }
    for more in [
        format!("{TLS}token_file = \"/run/token\"\n"),
        format!("{TLS}{TOKENS}"),
        MUTUAL.to_owned(),
    ] {
        assert!(parse_toml(&at("0.0.0.0:7700", &more), "").is_ok(), "{more}");
    }
}

/// Client certificates without an authority open nothing, nor does an authority without certificates.
#[test]
fn client_certificates_and_their_authority_go_together() {
    let shop = "[load_balancers.shop]\nbackend_servers = []\n[admin]\n";
    let alone = error(&format!(
        "{shop}certificates = [{{ name = \"alice\", role = \"admin\" }}]\n"
    ));
    assert!(alone.cause.contains("`tls` has no `client_ca`"), "{alone}");
    let idle = error(&format!(
        "{shop}tls = {{ certificate = \"c\", key = \"k\", client_ca = \"a\" }}\n"
    ));
    says(&idle, "\"a\"", "no `[[admin.certificates]]`", "name = \"alice\"");
}

/// What somebody did is told by name: two logins of one name could not be told apart.
#[test]
fn each_login_has_a_name_of_its_own() {
    let token = "name = \"ci\"\nrole = \"viewer\"\nhash = \"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\n";
    let twice = error(&format!(
        "[load_balancers.shop]\nbackend_servers = []\n[[admin.tokens]]\n{token}[[admin.tokens]]\n{token}"
    ));
    says(
        &twice,
        "\"ci\"",
        "the name of admin.tokens[0].name too",
        "of its own",
    );
}

/// Scenario: somebody writes the token where its hash belongs. It is in no message, and has been given away.
#[test]
fn a_token_in_place_of_its_hash_is_not_repeated() {
    let token = format!("ek_{}", "5ec2e7".repeat(10));
    for line in [
        format!("hash = \"{token}\""),
        format!("hash = {token}"),
        format!("hsh = \"{token}\""),
        format!("hash = [\"{token}\"]"),
    ] {
        let config = format!(
            "[load_balancers.shop]\nbackend_servers = []\n[[admin.tokens]]\nname = \"ci\"\nrole = \"viewer\"\n{line}\n"
        );
        for shown in errors(&config) {
            assert!(!format!("{shown:?}{shown}").contains("5ec2e7"), "{shown}");
        }
    }
    let mistaken = error(&format!(
        "[load_balancers.shop]\nbackend_servers = []\n[[admin.tokens]]\nname = \"ci\"\nrole = \"viewer\"\nhash = \"{token}\"\n"
    ));
    says(&mistaken, "<secret>", "a token, not its hash", "written down");
}

/// Whatever is wrong around it, a token is in no message.
#[test]
fn a_token_is_in_no_message() {
    let shop = "[load_balancers.shop]\nbackend_servers = []\n";
    for lines in [
        "token = \"hunter2 \"",
        "token = 'hunter2",
        "token = hunter2",
        "token = [\"hunter2\"]",
        "token = { x = \"hunter2\" }",
        "token.x = \"hunter2\"",
        "tokn = \"hunter2\"",
        "password = \"hunter2\"",
        "token = \"hunter2\"\ntoken_file = \"x\"",
        "token = \"hunter2\"\ntoken = \"hunter2\"",
        "token = \"\"\"\nhunter2\nhunter2\"\"\"",
    ] {
        let found = errors(&format!("{shop}[admin]\n{lines}\n"));
        for shown in found
            .iter()
            .map(|d| format!("{d}\n{}", serde_json::to_string(d).unwrap()))
        {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
    let json =
        "{\"load_balancers\": {\"x\": {}}, \"admin\": {\"token\": \"hunter2\", \"listn\": \"hunter2\"}}";
    for diagnostic in check_json(json, "a.json").unwrap_err() {
        assert!(!diagnostic.to_string().contains("hunter2"), "{diagnostic}");
    }
}

// ---- stickiness, rate limits, retries ----

/// What a session is must be said, once.
#[test]
fn stickiness_needs_to_know_what_a_session_is() {
    says(
        &shop("sticky = { drain_timeout = \"5m\" }"),
        "{ drain_timeout = \"5m\" }",
        "does not say what a session is",
        "cookie = \"evk\"",
    );
    says(
        &shop("sticky = { cookie = \"a\", app_cookie = \"b\" }"),
        "cookie",
        "`cookie` and `app_cookie` may not both be given",
        "keep one of them",
    );
    says(
        &shop("sticky = { header = \"X-A\", http_only = true }"),
        "http_only",
        "`http_only` needs `cookie`",
        "",
    );
}

/// Cookies that a browser would throw away are refused here, where someone reads the reason.
#[test]
fn cookies_that_browsers_drop() {
    says(
        &shop("sticky = { cookie = \"a\", same_site = \"none\", secure = false }"),
        "\"none\"",
        "browsers drop",
        "remove `secure = false`",
    );
    says(
        &shop("sticky = { cookie = \"__Host-a\", secure = true, path = \"/x\" }"),
        "\"__Host-a\"",
        "browsers drop",
        "remove `path`",
    );
    says(
        &shop("sticky = { cookie = \"__Secure-a\" }"),
        "\"__Secure-a\"",
        "browsers drop",
        "secure = true",
    );
    says(
        &shop("sticky = { cookie = \"a b\" }"),
        "\"a b\"",
        "not the name of a cookie",
        "",
    );
}

/// A secret is never shown, wherever it stands, also in what is said about it.
#[test]
fn a_bad_secret_is_not_repeated() {
    for line in [
        "sticky = { cookie = \"a\", secret = \"hunter2\" }",
        "sticky = { cookie = \"a\", secret = [\n\"0123456789abcdef\",\n\"hunter2\"\n] }",
        "sticky = { cookie = \"a\", secrets = \"hunter2\" }",
    ] {
        let shown = shop(line);
        let text = shown.to_string();
        assert!(!text.contains("hunter2") && !text.contains("cdef"), "{text}");
    }
    says(
        &shop("sticky = { cookie = \"a\", secret = \"hunter2\" }"),
        "<secret>",
        "16 to 1024",
        "openssl rand",
    );
}

#[test]
fn a_rate_limit_names_its_errors() {
    let route = |limit: &str| {
        shop(&format!(
            "[[load_balancers.shop.routes]]\npool = \"default\"\nrate_limit = {limit}"
        ))
    };
    says(
        &route("{ per = \"1s\" }"),
        "{ per = \"1s\" }",
        "needs the key `requests`",
        "requests = 1",
    );
    says(
        &route("{ requests = 1, key = \"ip\" }"),
        "\"ip\"",
        "nothing to count by",
        "client_address",
    );
    says(&route("{ requests = 1, per = 1 }"), "1", "100ms to 24h", "");
    says(
        &route("[{ name = \"a\", requests = 1 }, { name = \"a\", requests = 2 }]"),
        "{ name = \"a\", requests = 2 }",
        "two rate limits of this route have the name `a`",
        "a `name` of its own",
    );
}

#[test]
fn what_is_tried_elsewhere_names_its_errors() {
    says(
        &shop("retries = { on = [\"refused\"] }"),
        "\"refused\"",
        "no failure to try elsewhere",
        "connect",
    );
    says(
        &shop("retries = { on = [200] }"),
        "200",
        "no failure to try elsewhere",
        "400 to 599",
    );
    says(
        &shop("retries = { per_try_timeout = \"1s\" }"),
        "\"1s\"",
        "gives an attempt up",
        "\"timeout\"",
    );
}

/// Over HTTP/2 nothing would hold it: said in the pool and in an entry of its backends, with what to write instead.
#[test]
fn a_cap_of_connections_is_for_http_1() {
    says(
        &shop("protocol = \"http2\"\nmax_connections = 5"),
        "max_connections",
        "counts connections of HTTP/1",
        "`max_requests`",
    );
    says(
        &shop(
            "protocol = \"http2\"\n\
             backend_servers = [{ address = \"10.0.0.1:80\", max_connections = 5 }]",
        ),
        "max_connections",
        "counts connections of HTTP/1",
        "`max_requests`",
    );
}
