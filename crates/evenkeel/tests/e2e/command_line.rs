//! The commands beside `run`, and the admin API behind them.

use std::process::Output;

use model::config::TokenHash;
use serde_json::Value;

use crate::support::{
    Backend, Client, Evenkeel, Place, QUIET, free_address, free_ip, program, shop, wait_until,
};

fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const WRONG: &str = "[load_balancers.shop]\nlisten = \"0.0.0.0:99999\"\nalgoritm = \"random\"\n\
    backend_servers = [\"10.0.0.1:9001\", \"10.0.0.1:9001\", \"nonsense\"]\npoll_frequency = \"5 parsecs\"\n\
    [nod]\n";

/// All errors at once, each with place, cause and suggestion; as text and as JSON.
#[test]
fn check_lists_every_error() {
    let place = Place::new(WRONG);
    let file = place.config();
    let file = file.to_str().unwrap();
    let output = run(&["check", file]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    for needed in [
        "evenkeel.toml:2:",
        "99999",
        "evenkeel.toml:3:1",
        "`algoritm`",
        "did you mean `algorithm`?",
        "evenkeel.toml:4:",
        "10.0.0.1:9001",
        "nonsense",
        "evenkeel.toml:5:",
        "5 parsecs",
        "evenkeel.toml:6:",
        "`nod`",
        "did you mean `node`?",
    ] {
        assert!(said.contains(needed), "{needed}: {said}");
    }
    assert!(said.trim_end().ends_with("6 errors"), "{said}");
    let output = run(&["check", "--json", file]);
    assert_eq!(output.status.code(), Some(1));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (
            result["valid"].clone(),
            result["errors"].as_array().unwrap().len()
        ),
        (false.into(), 6)
    );
}

/// The files that a config names are looked at too, all of them at once, and what is wrong with one stands at the
/// line that names it; what is valid and probably not meant is a warning.
#[test]
fn check_reads_the_files_that_are_named() {
    let place = Place::new(
        "[node]\ngeoip = \"/nonexistent/countries.mmdb\"\nuser = \"no-such-user\"\n\
         [admin]\ntoken_file = \"/nonexistent/token\"\n\
         [tracing]\nendpoint = \"http://127.0.0.1:4318\"\nheaders_file = \"/nonexistent/headers\"\n\
         [load_balancers.shop]\n\
         backend_servers = [\"10.0.0.1:9001\"]\ntls = { ca = \"/nonexistent/ca.pem\" }\n\
         [[load_balancers.shop.listeners]]\naddress = \"127.0.0.1:8443\"\nprotocol = \"https\"\n\
         tls.certificates = [{ cert = \"/nonexistent/a.pem\", key = \"/nonexistent/a.key\" }]\n\
         tls.acme = { domains = [\"a.test\"], directory_ca = \"/nonexistent/ca.pem\" }\n\
         [[load_balancers.shop.routes]]\npool = \"default\"\nmatch = { path_prefix = \"/api/*\" }\n\
         error_pages = { \"404\" = \"/nonexistent/404.html\" }\n\
         [[load_balancers.shop.routes]]\nrespond = { body_file = \"/nonexistent/closed.html\" }\n",
    );
    let file = place.config();
    let output = run(&["check", "--json", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let told: Vec<(u64, &str)> = result["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| (error["line"].as_u64().unwrap(), error["cause"].as_str().unwrap()))
        .collect();
    for ((line, cause), (at, names)) in told.iter().zip([
        (2, "countries.mmdb"),
        (3, "there is no user `no-such-user`"),
        (5, "cannot read the token file /nonexistent/token: No such file"),
        (8, "cannot read /nonexistent/headers: No such file"),
        (11, "ca.pem"),
        (15, "a.pem"),
        (16, "ca.pem"),
        (20, "404.html"),
        (22, "closed.html"),
    ]) {
        assert!(*line == at && cause.contains(names), "{told:?}");
    }
    assert_eq!(told.len(), 9, "{told:?}");

    let place = Place::new(
        "[load_balancers.shop]\nbackend_servers = [\"10.0.0.1:9001\"]\n[[load_balancers.shop.routes]]\n\
         pool = \"default\"\nmatch = { path_prefix = \"/api/*\" }\n",
    );
    let output = run(&["check", place.config().to_str().unwrap()]);
    let (said, warned) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success() && said.ends_with("1 warning)\n"),
        "{said}"
    );
    assert!(warned.contains(":5:25: `*` stands for itself"), "{warned}");
}

/// A valid file; its full form means the same and is its own full form.
#[test]
fn check_effective_is_a_round_trip() {
    let one = Backend::named("one");
    let place = Place::new(&shop(
        &[&one],
        "health_endpoint = \"/health\"\npoll_frequency = 5000\n",
    ));
    let file = place.config();
    let output = run(&["check", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text(&output.stdout).ends_with("evenkeel.toml: ok (1 load balancer, 1 backend)\n"),
        "{}",
        text(&output.stdout)
    );
    let full = text(&run(&["check", "--effective", file.to_str().unwrap()]).stdout);
    assert!(
        full.contains("interval = \"5s\"") && full.contains("path = \"/health\""),
        "{full}"
    );
    let again = Place::new(&full);
    let twice = text(&run(&["check", "--effective", again.config().to_str().unwrap()]).stdout);
    assert_eq!(full, twice);
    // The running process says the same of itself, but for what the flags changed.
    let evenkeel = again.start();
    let running = evenkeel.get("/api/v1/config");
    let pools = |text: &str| text[text.find("[load_balancers").unwrap()..].to_owned();
    assert_eq!(pools(running.text()), pools(&full));
}

#[test]
fn check_of_a_file_that_is_not_there() {
    let output = run(&["check", "/nonexistent/evenkeel.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot read /nonexistent/evenkeel.toml"));
    assert_eq!(run(&["check"]).status.code(), Some(2), "wrong usage");
}

#[test]
fn the_schema_is_a_schema() {
    let output = run(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"));
    assert!(schema["properties"]["load_balancers"].is_object());
}

/// The table for people and the JSON for programs say the same.
#[test]
fn status() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    two.kill();
    let more =
        "slow_start = 0\nhealth = { interval = \"200ms\", fast_interval = \"50ms\", fall = 1, rise = 1 }\n";
    let evenkeel = Evenkeel::start(&shop(&[&one, &two], more));
    evenkeel.wait_for_state(two.address, "down");
    wait_until("the other is up", || {
        evenkeel.backend(one.address)["health"] == "up"
    });
    assert_eq!(evenkeel.client().get("/").status(), 200);
    wait_until("the request is counted", || {
        evenkeel.backend(one.address)["requests"] == 1
    });
    let table = evenkeel.cli_ok(&["status"]);
    for needed in [
        "config revision 1",
        "listener http on",
        "pool default (round_robin)",
        &one.address.to_string(),
        "eligible",
        "up: connected",
        "down: connection refused",
        "backend_down",
    ] {
        assert!(table.contains(needed), "{needed}: {table}");
    }
    let json: Value = serde_json::from_str(&evenkeel.cli_ok(&["status", "--json"])).unwrap();
    assert_eq!(
        json["load_balancers"][0]["pools"][0]["backends"][0]["requests"],
        1
    );
}

/// `explain` names route, candidates and choice, and a real request goes there.
#[test]
fn explain_tells_where_a_request_goes() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let config = format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\nroutes = [{{ name = \"api\", match = {{ path_prefix = \"/api\" }}, \
         pool = \"hashed\" }}, {{ pool = \"plain\" }}]\n\
         [load_balancers.shop.pools.hashed]\nalgorithm = \"consistent_hash\"\nhash = {{ key = \"header:x-user\" }}\n\
         backend_servers = [\"{}\", \"{}\", \"{}\"]\n{QUIET}\
         [load_balancers.shop.pools.plain]\nbackend_servers = [\"{}\"]\n",
        free_ip(),
        a.address,
        b.address,
        c.address,
        c.address
    );
    let evenkeel = Evenkeel::start(&config);
    let mut client = evenkeel.client();
    let mut chosen = std::collections::BTreeSet::new();
    for user in 0..20 {
        let header = format!("X-User: {user}");
        let args = [
            "explain",
            "--json",
            "--listener",
            "shop",
            "GET",
            "/api/x?y",
            "-H",
            &header,
            "-H",
            "Host: shop.test",
        ];
        let explained: Value = serde_json::from_str(&evenkeel.cli_ok(&args)).unwrap();
        assert_eq!(
            (&explained["pool"], &explained["path"]),
            (&"hashed".into(), &"/api/x".into())
        );
        assert_eq!(explained["candidates"].as_array().unwrap().len(), 3);
        let answer = client.ask(&format!(
            "GET /api/x?y HTTP/1.1\r\nHost: shop.test\r\n{header}\r\n\r\n"
        ));
        let index = ["a", "b", "c"]
            .iter()
            .position(|name| *name == answer.text())
            .unwrap();
        let went = [&a, &b, &c][index].address.to_string();
        assert_eq!(explained["chosen"]["address"], went, "{explained}");
        chosen.insert(went);
    }
    assert!(chosen.len() > 1, "{chosen:?}");
    // The last of them is counted after its client has its answer.
    evenkeel.wait_for_metric("evenkeel_requests_total", &[], 20.0);
    let text = evenkeel.cli_ok(&["explain", "--listener", "shop", "GET", "/other"]);
    for needed in [
        "route api: passed over",
        "route default: taken",
        "pool plain: round_robin",
        "goes to",
    ] {
        assert!(text.contains(needed), "{needed}: {text}");
    }
    evenkeel.cli_ok(&["backend", "drain", "shop", &c.address.to_string()]);
    let text = evenkeel.cli_ok(&["explain", "--listener", "shop/http", "GET", "/other"]);
    assert!(
        text.contains("refused with 503 no_backend") && text.contains("drain"),
        "{text}"
    );
    let text = evenkeel.cli_ok(&[
        "explain",
        "--listener",
        &evenkeel.address().to_string(),
        "GET",
        "/a%2fb",
    ]);
    assert!(
        text.contains("400 bad_path"),
        "what hygiene refuses is explained too: {text}"
    );
    let output = evenkeel.cli(&["explain", "--listener", "shp", "GET", "/"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        self::text(&output.stderr).contains("shop"),
        "{}",
        self::text(&output.stderr)
    );
    assert_eq!(
        evenkeel.metric("evenkeel_requests_total", &[]),
        20.0,
        "no traffic was sent"
    );
}

/// Nobody at the admin address: said with what to do.
#[test]
fn a_process_that_is_not_there() {
    let url = format!("http://{}", free_address());
    for command in [
        vec!["status"],
        vec!["reload"],
        vec!["backend", "drain", "shop", "10.0.0.1:1"],
    ] {
        let output = program()
            .args(&command)
            .env("EVENKEEL_ADMIN", &url)
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(&url) && said.contains("Is evenkeel running there?"),
            "{said}"
        );
    }
}

/// Off loopback without TLS and a token: not started, from the file as by the flag.
#[test]
fn the_admin_api_stays_on_loopback_without_tls_and_a_token() {
    let one = Backend::named("one");
    let config = shop(&[&one], QUIET);
    let place = Place::new(&format!("[admin]\nlisten = \"0.0.0.0:0\"\n{config}"));
    let output = run(&["run", "--config", place.config().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("without TLS and a token"),
        "{}",
        text(&output.stderr)
    );
    let place = Place::new(&format!("[admin]\ntoken = \"long-enough-for-a-test\"\n{config}"));
    let output = run(&[
        "run",
        "--config",
        place.config().to_str().unwrap(),
        "--admin",
        "0.0.0.0:0",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("without TLS"),
        "{}",
        text(&output.stderr)
    );
}

/// With a token: everything but the probes wants it, it is in no output, and the commands read it from a file.
#[test]
fn a_token_opens_the_admin_api() {
    const TOKEN: &str = "correct-horse-battery-staple";
    let one = Backend::named("one");
    let place = Place::new("");
    let file = place.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    place.write(&format!(
        "[admin]\ntoken_file = \"{}\"\n{}",
        file.display(),
        shop(&[&one], QUIET)
    ));
    let mut command = program();
    command
        .args(["run", "--admin", "127.0.0.1:0", "--config"])
        .arg(place.config());
    let evenkeel = Evenkeel::spawn(command.arg("--data-dir").arg(place.data()));
    assert_eq!(
        (evenkeel.get("/livez").status(), evenkeel.get("/readyz").status()),
        (200, 200)
    );
    for path in [
        "/api/v1/status",
        "/metrics",
        "/api/v1/openapi.json",
        "/nonexistent",
    ] {
        let refused = evenkeel.get(path);
        assert_eq!(refused.status(), 401, "{path}");
        assert_eq!(refused.field("content-type"), Some("application/problem+json"));
    }
    let with = |token: &str, path: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: any.test\r\nAuthorization: Bearer {token}\r\n\r\n");
        Client::connect(evenkeel.admin).ask(&request)
    };
    assert_eq!(with(TOKEN, "/api/v1/status").status(), 200);
    assert_eq!(with("wrong", "/api/v1/status").status(), 401);
    assert!(!with(TOKEN, "/api/v1/config").text().contains(TOKEN));
    assert!(!evenkeel.log().contains(TOKEN));
    let url = format!("http://127.0.0.1:{}", evenkeel.admin.port());
    let refused = run(&["status", "--admin", &url]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("--token-file"),
        "{}",
        text(&refused.stderr)
    );
    let taken = run(&["status", "--admin", &url, "--token-file", file.to_str().unwrap()]);
    assert_eq!(taken.status.code(), Some(0), "{}", text(&taken.stderr));
}

/// A web page in the operator's browser cannot use the API behind his back.
#[test]
fn foreign_pages_cannot_use_the_admin_api() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let ask = |fields: &str| {
        let request = format!("POST /api/v1/reload HTTP/1.1\r\n{fields}Content-Length: 0\r\n\r\n");
        Client::connect(evenkeel.admin).ask(&request)
    };
    assert_eq!(ask("Host: rebound.test\r\n").status(), 403);
    let host = format!("Host: {}\r\n", evenkeel.admin);
    assert_eq!(ask(&format!("{host}Origin: http://evil.test\r\n")).status(), 403);
    assert_eq!(ask(&host).status(), 200);
}

/// The contract is served, and its paths exist.
#[test]
fn the_openapi_document_is_served() {
    let one = Backend::named("one");
    let evenkeel = Evenkeel::start(&shop(&[&one], QUIET));
    let document: Value = serde_json::from_slice(&evenkeel.get("/api/v1/openapi.json").body).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut seen = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        // A path with a name in it needs a thing of that name, and some questions need a word more.
        let asks = |parameter: &Value| parameter["in"] == "query" && parameter["required"] == true;
        let needs_more = methods["get"]["parameters"]
            .as_array()
            .is_some_and(|all| all.iter().any(asks));
        if methods.get("get").is_some() && !path.contains('{') && !needs_more {
            assert_eq!(evenkeel.get(path).status(), 200, "{path}");
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen}");
    let missing = evenkeel.get("/api/v1/nothing");
    assert_eq!(missing.status(), 404);
    assert!(
        missing.text().contains("\"reason\":\"not_found\""),
        "{}",
        missing.text()
    );
}

/// Version and help are there; nonsense is wrong usage.
#[test]
fn version_and_help() {
    let output = run(&["--version"]);
    assert_eq!(
        text(&output.stdout),
        format!("evenkeel {}\n", env!("CARGO_PKG_VERSION"))
    );
    for command in [
        "run", "check", "schema", "status", "backend", "route", "explain", "why", "reload", "demo",
    ] {
        let output = run(&[command, "--help"]);
        assert!(
            output.status.success() && text(&output.stdout).contains("Usage"),
            "{command}"
        );
    }
    assert_eq!(run(&["nonsense"]).status.code(), Some(2));
    assert_eq!(run(&[]).status.code(), Some(2));
}

/// Scenario: a token for the members of a pool, as `docs/members.md` makes it: the token is in the file, and what the
/// command prints is the line for the pool. Half of what the API's own tokens need is refused.
#[test]
fn a_token_for_members_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.token");
    let create = |more: &[&str]| {
        let mut command = program();
        command.args(["token", "create", "--write"]).arg(&file).args(more);
        command.output().unwrap()
    };
    assert!(!create(&["--name", "shop"]).status.success());
    let output = create(&[]);
    assert!(output.status.success(), "{output:?}");
    let token = std::fs::read_to_string(&file).unwrap();
    let hash = TokenHash::of(token.trim().as_bytes());
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(told, format!("token_hash = \"{hash}\"\n"));
}
