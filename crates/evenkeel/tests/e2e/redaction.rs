//! What is secret is told to nobody: every secret of a config and of requests is marked, and the marks are looked for
//! in everything that leaves the process, at the most talkative level of its log.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{
    Authority, Backend, Client, Evenkeel, Message, Place, PythonPeer, QUIET, curl, free_address, free_ip,
    program, wait_until,
};

const COLLECTOR: &str = include_str!("collector.py");

/// Secrets of the config that are texts of one's own choice.
const ADMIN_TOKEN: &str = "mark-of-the-admin-token";
const NODE_SECRET: &str = "mark-of-the-secret-of-the-node";
const STICKY_SECRET: &str = "mark-of-the-secret-of-a-pool";
const RECEIVER_PATH: &str = "mark-of-the-url-of-a-receiver";
const RECEIVER_TOKEN: &str = "mark-of-the-token-for-a-receiver";
const RECEIVER_SECRET: &str = "mark-of-the-secret-of-signatures";
const COLLECTOR_FIELD: &str = "mark-of-the-field-for-the-collector";
/// What requests carry.
const REQUEST_TOKEN: &str = "mark-of-a-clients-authorization";
const REQUEST_COOKIE: &str = "mark-of-a-clients-cookie";
/// Characters told before and after a mark that was found.
const SHOWN_AROUND: usize = 120;
/// What a stranger tries.
const WRONG_TOKEN: &str = "mark-of-a-wrong-token";

/// A process with a secret in every key that takes one, and what is looked for.
struct Vault {
    authority: Authority,
    place: Place,
    collector: PythonPeer,
    marks: Vec<(String, String)>,
    config: String,
    _backend: Backend,
}

impl Vault {
    fn new() -> Self {
        let (authority, place) = (Authority::new(), Place::new(""));
        authority.issue("shop", &["localhost"]);
        authority.issue("edge", &[]);
        let collector = PythonPeer::start(COLLECTOR);
        let fields = place.path().join("collector-fields");
        std::fs::write(&fields, format!("Authorization: Bearer {COLLECTOR_FIELD}\n")).unwrap();
        let file = |name: &str, text: String| std::fs::write(place.path().join(name), text).unwrap();
        let nobody = free_address();
        file(
            "receiver-url",
            format!("http://{nobody}/{RECEIVER_PATH}?key={RECEIVER_PATH}\n"),
        );
        file("receiver-token", format!("{RECEIVER_TOKEN}\n"));
        file("receiver-secret", format!("{RECEIVER_SECRET}\n"));
        let (shop_key, edge_key) = (pem(&authority, "shop.key"), pem(&authority, "edge.key"));
        let made = program()
            .args(["token", "create", "--name", "ci", "--role", "operator"])
            .output()
            .unwrap();
        let token = String::from_utf8(made.stderr).unwrap();
        let token = token
            .lines()
            .find(|line| line.starts_with("ek_"))
            .unwrap()
            .to_owned();
        let entry = String::from_utf8(made.stdout).unwrap();
        let hash = entry.split("sha256:").nth(1).unwrap()[..64].to_owned();
        let backend = Backend::named("one");
        let config = config(&Parts {
            authority: &authority,
            place: &place,
            collector: collector.address(),
            fields: &fields.display().to_string(),
            keys: [&shop_key, &edge_key],
            entry: &entry,
            backends: [backend.address, free_address()],
        });
        place.write(&config);
        let named = |name: &str, mark: &str| (name.to_owned(), mark.to_owned());
        let marks = vec![
            named("admin.token", ADMIN_TOKEN),
            named("admin.tokens: the token", &token),
            named("admin.tokens.hash", &hash),
            named("node.secret", NODE_SECRET),
            named("sticky.secret", STICKY_SECRET),
            named("tracing.headers_file", COLLECTOR_FIELD),
            named("alerts.webhooks.url_file", RECEIVER_PATH),
            named("alerts.webhooks.token_file", RECEIVER_TOKEN),
            named("alerts.webhooks.secret_file", RECEIVER_SECRET),
            named("certificates.key_pem", second_line(&shop_key)),
            named("client_certificate.key_pem", second_line(&edge_key)),
            named("Authorization of a request", REQUEST_TOKEN),
            named("Cookie of a request", REQUEST_COOKIE),
            named("Authorization at the admin API", WRONG_TOKEN),
        ];
        Self {
            authority,
            place,
            collector,
            marks,
            config,
            _backend: backend,
        }
    }

    fn token(&self) -> &str {
        &self.marks[1].1
    }

    /// Everything in which a mark stands, as `what: which`.
    fn found_in(&self, what: &str, text: &str) -> Vec<String> {
        let place = |(name, mark): &(String, String)| {
            let at = text.find(mark.as_str())?;
            let around: String = text[..at].chars().rev().take(SHOWN_AROUND).collect();
            let before: String = around.chars().rev().collect();
            let after: String = text[at..].chars().take(mark.len() + SHOWN_AROUND).collect();
            Some(format!("{what}: {name}: …{before}{after}…"))
        };
        self.marks.iter().filter_map(place).collect()
    }
}

fn pem(authority: &Authority, name: &str) -> String {
    std::fs::read_to_string(authority.path(name)).unwrap()
}

/// Of a key in PEM: all of it is secret, and this is in every key another.
fn second_line(pem: &str) -> &str {
    pem.lines().nth(1).unwrap()
}

struct Parts<'a> {
    authority: &'a Authority,
    place: &'a Place,
    collector: SocketAddr,
    fields: &'a str,
    keys: [&'a str; 2],
    entry: &'a str,
    backends: [SocketAddr; 2],
}

fn config(parts: &Parts<'_>) -> String {
    let log = parts.place.path().join("access.log").display().to_string();
    let collector = parts.collector;
    let [shop_key, edge_key] = parts.keys;
    let (shop, edge) = (pem(parts.authority, "shop.pem"), pem(parts.authority, "edge.pem"));
    let [alive, dead] = parts.backends;
    let (ip, other_ip) = (free_ip(), free_ip());
    format!(
        r#"
[node]
secret = ["{NODE_SECRET}", "{NODE_SECRET}-of-before"]
[admin]
token = "{ADMIN_TOKEN}"
{entry}
[access_log]
to = "file:{log}"
[tracing]
endpoint = "http://{collector}"
sample = "100%"
headers_file = "{fields}"
[[alerts.webhooks]]
url_file = "{place}/receiver-url"
token_file = "{place}/receiver-token"
secret_file = "{place}/receiver-secret"
[load_balancers.shop]
listeners = [
    {{ address = "{ip}:0" }},
    {{ address = "{other_ip}:0", protocol = "https", name = "secure", tls = {{ certificates = [{{ cert_pem = '''{shop}''', key_pem = '''{shop_key}''' }}] }} }},
]
routes = [
    {{ pool = "hashed", match = {{ path = "/hashed" }}, name = "hashed" }},
    {{ pool = "by-cookie", match = {{ path = "/by-cookie" }}, name = "by-cookie" }},
    {{ pool = "sticky", match = {{ path = "/sticky" }}, name = "sticky" }},
    {{ pool = "learned", match = {{ path = "/learned" }}, name = "learned" }},
    {{ pool = "dead", match = {{ path = "/dead" }}, name = "dead" }},
    {{ pool = "tls", match = {{ path = "/tls" }}, name = "tls" }},
    {{ pool = "sticky", match = {{ path = "/limited" }}, name = "limited", rate_limit = [{{ requests = 1, per = "1h", key = "header:Authorization" }}, {{ name = "two", requests = 1, per = "1h", key = "cookie:sid" }}] }},
    {{ pool = "sticky", match = {{ path = "/matched", headers = {{ Authorization = "Bearer x" }}, cookies = {{ sid = "x" }} }}, name = "matched" }},
    {{ pool = "hashed", name = "rest" }},
]
[load_balancers.shop.pools.hashed]
backend_servers = ["{alive}"]
algorithm = "consistent_hash"
hash = {{ key = "header:Authorization" }}
{QUIET}
[load_balancers.shop.pools.by-cookie]
backend_servers = ["{alive}"]
algorithm = "consistent_hash"
hash = {{ key = "cookie:sid" }}
{QUIET}
[load_balancers.shop.pools.sticky]
backend_servers = ["{alive}"]
sticky = {{ cookie = "evk", secret = "{STICKY_SECRET}" }}
{QUIET}
[load_balancers.shop.pools.learned]
backend_servers = ["{alive}"]
sticky = {{ app_cookie = "sid" }}
{QUIET}
[load_balancers.shop.pools.dead]
backend_servers = ["{dead}"]
{QUIET}
[load_balancers.shop.pools.tls]
backend_servers = ["{alive}"]
tls = {{ insecure = true, client_certificate = {{ cert_pem = '''{edge}''', key_pem = '''{edge_key}''' }} }}
{QUIET}
"#,
        fields = parts.fields,
        entry = parts.entry,
        place = parts.place.path().display(),
    )
}

/// Requests of every kind that carry the marks, over each protocol.
fn visit(vault: &Vault, evenkeel: &Evenkeel) {
    let plain = status_of(vault, evenkeel, "http");
    let fields = format!(
        "Host: shop.test\r\nAuthorization: Bearer {REQUEST_TOKEN}\r\nProxy-Authorization: Basic {REQUEST_TOKEN}\r\n\
         Cookie: sid={REQUEST_COOKIE}; evk={REQUEST_COOKIE}\r\n"
    );
    for path in [
        "/hashed",
        "/by-cookie",
        "/sticky",
        "/learned",
        "/dead",
        "/tls",
        "/limited",
        "/limited",
        "/matched",
        "/none",
    ] {
        Client::connect(plain).ask(&format!("GET {path} HTTP/1.1\r\n{fields}\r\n"));
    }
    // What cannot be understood.
    for broken in [
        format!("GET /a b HTTP/1.1\r\n{fields}\r\n"),
        format!("GET / HTTP/1.1\r\n{fields}Authorization: Bearer {REQUEST_TOKEN}\r\nX y: 1\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nCookie: sid={REQUEST_COOKIE}\u{1}\r\n{fields}\r\n"),
    ] {
        Client::connect(plain).ask(&broken);
    }
    let secure = status_of(vault, evenkeel, "secure");
    let cookie = format!("Cookie: sid={REQUEST_COOKIE}");
    let bearer = format!("Authorization: Bearer {REQUEST_TOKEN}");
    for url in [
        format!("http://{plain}/hashed"),
        format!("http://{plain}/dead"),
        format!("https://{secure}/sticky"),
    ] {
        let version = if url.starts_with("https") {
            "--http2"
        } else {
            "--http2-prior-knowledge"
        };
        curl(&[version, "--insecure", "-H", &cookie, "-H", &bearer, &url]);
    }
}

fn status_of(vault: &Vault, evenkeel: &Evenkeel, listener: &str) -> SocketAddr {
    let status: Value =
        serde_json::from_slice(&admin(vault, evenkeel, "GET", "/api/v1/status", "").body).unwrap();
    let listeners = status["load_balancers"][0]["listeners"].as_array().unwrap();
    let found = listeners.iter().find(|l| l["name"] == listener).unwrap();
    found["address"].as_str().unwrap().parse().unwrap()
}

/// The admin API, asked with its token.
fn admin(vault: &Vault, evenkeel: &Evenkeel, method: &str, path: &str, body: &str) -> Message {
    let token = if path.ends_with("audit") {
        ADMIN_TOKEN
    } else {
        vault.token()
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Client::connect(evenkeel.admin).ask(&request)
}

/// The config with each of its secrets in a place where it is wrong.
fn mistakes(vault: &Vault) -> Vec<String> {
    let mut wrong: Vec<String> = vault
        .marks
        .iter()
        .filter(|(_, mark)| vault.config.contains(mark.as_str()))
        .flat_map(|(_, mark)| {
            [
                vault.config.replace(mark.as_str(), &format!("{mark} ")),
                vault.config.replace(mark.as_str(), &format!("{mark}\u{7}")),
                vault.config.replace(mark.as_str(), &format!("{mark}\"")),
            ]
        })
        .collect();
    for (right, slip) in [
        ("secret = [", "secrt = ["),
        ("token = \"mark", "tokn = \"mark"),
        ("hash = \"sha256", "hsh = \"sha256"),
        ("secret = \"mark", "secrets = \"mark"),
        ("key_pem = ", "keypem = "),
        ("token = \"mark", "token_file = \"/none\"\ntoken = \"mark"),
    ] {
        assert!(vault.config.contains(right), "{right}");
        wrong.push(vault.config.replace(right, slip));
    }
    // A token in the place of its hash.
    let hash = format!("sha256:{}", vault.marks[2].1);
    wrong.push(vault.config.replace(&hash, vault.token()));
    wrong
}

/// Scenario: a day in the life of a process whose secrets all carry a mark: traffic of every kind, each question to its
/// API, configs with mistakes around the secrets, changes of the secrets, strangers at the door. None of the marks is
/// in any answer, log, trace, record or message.
#[test]
fn no_secret_is_told_to_anybody() {
    let vault = Vault::new();
    let mut command = vault.place.command();
    let evenkeel = Evenkeel::spawn(command.args(["--log-level", "trace"]));
    visit(&vault, &evenkeel);
    let mut found = Vec::new();
    let mut answers = 0;
    let mut look = |what: &str, text: &str| {
        answers += 1;
        found.extend(vault.found_in(what, text));
    };
    // A stranger, an order, and a reload.
    let request =
        format!("GET /api/v1/status HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {WRONG_TOKEN}\r\n\r\n");
    look(
        "a failed login",
        Client::connect(evenkeel.admin).ask(&request).text(),
    );
    for wrong in mistakes(&vault) {
        let query = json!({ "text": wrong, "format": "toml", "name": "evenkeel.toml" });
        look(
            "plan of a mistake",
            admin(&vault, &evenkeel, "POST", "/api/v1/plan", &query.to_string()).text(),
        );
        vault.place.write(&wrong);
        look(
            "reload of a mistake",
            admin(&vault, &evenkeel, "POST", "/api/v1/reload", "").text(),
        );
        let path = vault.place.config().display().to_string();
        for args in [
            &["check", &path][..],
            &["check", "--json", &path],
            &["check", "--effective", &path],
        ] {
            let output = program().args(args).output().unwrap();
            look("check of a mistake", &String::from_utf8_lossy(&output.stdout));
            look("check of a mistake", &String::from_utf8_lossy(&output.stderr));
        }
    }
    // Alerts that cannot be delivered.
    look(
        "alerts test",
        admin(&vault, &evenkeel, "POST", "/api/v1/alerts/test", "").text(),
    );
    // The secrets change: what is told of that?
    let changed = vault.config.replace("-of-before", "-of-after");
    let query = json!({ "text": changed, "format": "toml", "name": "evenkeel.toml" });
    look(
        "plan",
        admin(&vault, &evenkeel, "POST", "/api/v1/plan", &query.to_string()).text(),
    );
    vault.place.write(&changed);
    look(
        "reload",
        admin(&vault, &evenkeel, "POST", "/api/v1/reload", "").text(),
    );
    let asked = json!({
        "listener": "shop/http", "method": "GET", "target": "/hashed",
        "headers": [["host", "a"], ["authorization", format!("Bearer {REQUEST_TOKEN}")], ["cookie", format!("sid={REQUEST_COOKIE}")]]
    });
    for path in [
        "/hashed",
        "/by-cookie",
        "/sticky",
        "/learned",
        "/limited",
        "/matched",
    ] {
        let mut asked = asked.clone();
        asked["target"] = path.into();
        look(
            "explain",
            admin(&vault, &evenkeel, "POST", "/api/v1/explain", &asked.to_string()).text(),
        );
    }
    let contract: Value =
        serde_json::from_slice(&admin(&vault, &evenkeel, "GET", "/api/v1/openapi.json", "").body).unwrap();
    let records = admin(&vault, &evenkeel, "GET", "/api/v1/requests?last=100&all=true", "");
    look("requests", records.text());
    let records: Value = serde_json::from_slice(&records.body).unwrap();
    let id = records["requests"][0]["id"].as_str().unwrap().to_owned();
    for (path, operations) in contract["paths"].as_object().unwrap() {
        if operations.get("get").is_some() {
            let path = path.replace("{id}", &id);
            look(&path, admin(&vault, &evenkeel, "GET", &path, "").text());
        }
    }
    assert!(answers > 100, "{answers}");
    // Not the header fields that it got, which it tells as well.
    let spans = || {
        let told = Client::connect(vault.collector.address()).get("/");
        let told: Value = serde_json::from_slice(&told.body).unwrap();
        told["spans"].to_string()
    };
    wait_until("the spans are there", || spans().contains("/limited"));
    let file = |name: &str| std::fs::read_to_string(vault.place.path().join(name)).unwrap_or_default();
    wait_until("the access log is written", || {
        file("access.log").contains("/limited")
    });
    for (what, text) in [
        ("traces", spans()),
        ("the access log", file("access.log")),
        ("the audit log", file("data/audit.log")),
        ("the log", evenkeel.log()),
    ] {
        assert!(!text.is_empty(), "{what} is there");
        found.extend(vault.found_in(what, &text));
    }
    assert!(vault.authority.path("ca.pem").exists());
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{found:#?}");
}
