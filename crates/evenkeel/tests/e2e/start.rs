//! Starting: without a file, with the short form, with the full form, and not at all.

use std::process::Stdio;

use crate::support::{
    Backend, Client, Evenkeel, Place, QUIET, free_address, free_ip, program, shop, wait_for,
};

/// Flags alone make a load balancer named `default` that spreads requests evenly.
#[test]
fn runs_without_a_file() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let data = tempfile::tempdir().unwrap();
    let mut command = program();
    command.args([
        "run",
        "--admin",
        "127.0.0.1:0",
        "--listen",
        &format!("{}:0", free_ip()),
    ]);
    command.args([
        "--backend",
        &one.address.to_string(),
        "--backend",
        &two.address.to_string(),
    ]);
    command.arg("--data-dir").arg(data.path());
    let evenkeel = Evenkeel::spawn(&mut command);
    let status = evenkeel.status();
    assert_eq!(status["load_balancers"][0]["name"], "default");
    assert_eq!(status["config"]["source"], "command line");
    let mut client = evenkeel.client();
    let answers: Vec<String> = (0..10).map(|_| client.get("/").text().to_owned()).collect();
    for name in ["one", "two"] {
        assert_eq!(answers.iter().filter(|a| *a == name).count(), 5, "{answers:?}");
    }
    assert!(evenkeel.cli_ok(&["reload"]).contains("no file to read again"));
}

/// The short form of a file means one listener, one route, one pool.
#[test]
fn runs_with_the_short_form() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let evenkeel = Evenkeel::start(&shop(&[&one, &two], ""));
    let mut client = evenkeel.client();
    let mut answers = [
        client.get("/").text().to_owned(),
        client.get("/").text().to_owned(),
    ];
    answers.sort();
    assert_eq!(answers, ["one", "two"]);
    assert_eq!(evenkeel.get("/livez").status(), 200);
    assert_eq!(evenkeel.revision(), 1);
}

/// The full form: two listeners, routes by host and path to pools of their own, node and admin settings.
#[test]
fn runs_with_the_full_form() {
    let [shop, api, exact] = [
        Backend::named("shop"),
        Backend::named("api"),
        Backend::named("exact"),
    ];
    let ip = free_ip();
    let config = format!(
        r#"
        [node]
        name = "edge-1"
        threads = 2
        shutdown_timeout = "2s"

        [admin]
        listen = "127.0.0.1:0"

        [[load_balancers.web.listeners]]
        name = "main"
        address = "{ip}:0"
        [[load_balancers.web.listeners]]
        address = "{}:0"

        [[load_balancers.web.routes]]
        name = "api"
        match = {{ host = "api.shop.test", path_prefix = "/v1" }}
        pool = "api"
        [[load_balancers.web.routes]]
        name = "exact"
        match = {{ path = "/exact" }}
        pool = "exact"
        [[load_balancers.web.routes]]
        match = {{ host = "shop.test" }}
        pool = "shop"

        [load_balancers.web.pools.shop]
        algorithm = "least_connections"
        backend_servers = ["{}"]
        [load_balancers.web.pools.api]
        algorithm = "consistent_hash"
        hash = {{ key = "client_address", table = "maglev", bounded_load = "150%" }}
        backend_servers = [{{ address = "{}", weight = 7 }}]
        health = {{ type = "tcp", interval = "1s" }}
        passive = {{ consecutive_failures = 3 }}
        timeouts = {{ first_byte = "5s" }}
        retries = {{ attempts = 2, budget = "10%" }}
        connections = {{ max_idle = 8 }}
        [load_balancers.web.pools.exact]
        backend_servers = ["{}"]
        "#,
        free_ip(),
        shop.address,
        api.address,
        exact.address
    );
    let evenkeel = Evenkeel::start(&config);
    assert_eq!(evenkeel.status()["node"], "edge-1");
    let (main, second) = (
        evenkeel.listener("web", "main"),
        evenkeel.listener("web", "http-2"),
    );
    let ask = |address, host: &str, target: &str| {
        let answer = Client::connect(address).ask(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        match answer.status() {
            200 => answer.text().to_owned(),
            status => format!("{status} {}", answer.reason()),
        }
    };
    for address in [main, second] {
        assert_eq!(ask(address, "shop.test", "/"), "shop");
        assert_eq!(
            ask(address, "shop.test:8080", "/v1"),
            "shop",
            "a port is not part of the name"
        );
        assert_eq!(
            ask(address, "API.shop.test", "/v1/cart"),
            "api",
            "names have no case"
        );
        assert_eq!(ask(address, "api.shop.test", "/v10"), "404 no_route");
        assert_eq!(ask(address, "other.test", "/exact"), "exact");
        assert_eq!(
            ask(address, "other.test", "/a/../exact"),
            "exact",
            "routing sees what is forwarded"
        );
        assert_eq!(ask(address, "other.test", "/exact/"), "404 no_route");
    }
}

/// A request that no route matches is answered by us, and the connection goes on.
#[test]
fn no_route_is_404_and_keeps_the_connection() {
    let one = Backend::named("one");
    let config = format!(
        "[load_balancers.shop]\nlisten = \"{}:0\"\n\
         routes = [{{ match = {{ path_prefix = \"/in\" }}, pool = \"p\" }}]\n\
         [load_balancers.shop.pools.p]\nbackend_servers = [\"{}\"]\n",
        free_ip(),
        one.address
    );
    let evenkeel = Evenkeel::start(&config);
    let mut client = evenkeel.client();
    let refused = client.get("/out");
    assert_eq!((refused.status(), refused.reason()), (404, "no_route"));
    assert_eq!(client.get("/in/here").text(), "one");
}

/// A wrong file: every error at once with its place, exit 1, nothing is opened.
#[test]
fn a_wrong_file_does_not_start() {
    let address = free_address();
    let place = Place::new(&format!(
        "[load_balancers.shop]\nlisten = \"{address}\"\nalgoritm = \"random\"\nbackend_servers = [\"nonsense\"]\n"
    ));
    let output = place.command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for needed in [
        "evenkeel.toml:3:1",
        "algoritm",
        "did you mean `algorithm`?",
        "evenkeel.toml:4:",
        "nonsense",
    ] {
        assert!(said.contains(needed), "{needed}: {said}");
    }
    assert!(Client::refused(address));
}

/// A second process on an address that is taken says so and ends with 1; the first one is not disturbed.
#[test]
fn two_processes_on_one_address() {
    let one = Backend::named("one");
    let first = Evenkeel::start(&shop(&[&one], QUIET));
    let taken = first.address();
    let config = format!(
        "[load_balancers.b]\nlisten = \"{taken}\"\nbackend_servers = [\"{}\"]\n",
        one.address
    );
    let output = Place::new(&config).command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("cannot listen on {taken}")), "{said}");
    assert!(said.contains("another process listens there"), "{said}");
    let mut client = first.client();
    for _ in 0..20 {
        assert_eq!(client.get("/").status(), 200);
        assert_eq!(
            first.client().get("/").status(),
            200,
            "no connection may go to the second one"
        );
    }
}

/// The admin address is taken: said with what to do, exit 1, no listener is left open.
#[test]
fn the_admin_address_is_taken() {
    let one = Backend::named("one");
    let first = Evenkeel::start(&shop(&[&one], QUIET));
    let address = free_address();
    let place = Place::new(&format!(
        "[load_balancers.b]\nlisten = \"{address}\"\nbackend_servers = [\"{}\"]\n",
        one.address
    ));
    let mut command = program();
    command
        .args(["run", "--admin", &first.admin.to_string(), "--config"])
        .arg(place.config());
    let output = command.arg("--data-dir").arg(place.data()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("for the admin API") && said.contains("--admin"),
        "{said}"
    );
    assert!(Client::refused(address));
}

/// Two processes never share a data directory.
#[test]
fn the_data_directory_is_taken() {
    let one = Backend::named("one");
    let first = Evenkeel::start(&shop(&[&one], QUIET));
    let place = Place::new(&shop(&[&one], QUIET));
    let mut command = program();
    command
        .args(["run", "--admin", "127.0.0.1:0", "--config"])
        .arg(place.config());
    let output = command
        .arg("--data-dir")
        .arg(first.place().data())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("data directory") || said.contains("data_dir"),
        "{said}"
    );
}

/// A config in JSON, by the name of its file.
#[test]
fn runs_with_json() {
    let one = Backend::named("one");
    let place = Place::new("");
    let file = place.path().join("evenkeel.json");
    let config = format!(
        "{{\"load_balancers\": {{\"shop\": {{\"listen\": \"{}:0\", \"backend_servers\": [\"{}\"]}}}}}}",
        free_ip(),
        one.address
    );
    std::fs::write(&file, config).unwrap();
    let mut command = program();
    command
        .args(["run", "--admin", "127.0.0.1:0", "--config"])
        .arg(&file);
    let evenkeel = Evenkeel::spawn(command.arg("--data-dir").arg(place.data()));
    assert_eq!(evenkeel.client().get("/").text(), "one");
}

/// Log lines are JSON objects where that is asked for.
#[test]
fn logs_json() {
    let one = Backend::named("one");
    let place = Place::new(&shop(&[&one], ""));
    let mut child = place
        .command()
        .args(["--log-format", "json"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stderr));
    let line = wait_for("a log line about the admin API", || {
        let line = lines.next().expect("more lines").unwrap();
        line.contains("admin API").then_some(line)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(object["level"], "INFO");
}
