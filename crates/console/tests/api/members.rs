//! What members say of themselves: only with the token of their pool, which opens nothing else.

use std::sync::Arc;

use model::config::{Config, TokenHash};

use crate::support::Api;

const REGISTER: &str = "/api/v1/load-balancers/shop/pools/web/members/10.0.0.1:9001";
const HEARTBEAT: &str = "/api/v1/load-balancers/shop/pools/web/heartbeats/10.0.0.1:9001";

fn token(digit: char) -> String {
    format!("ek_{}", digit.to_string().repeat(64))
}

/// Two pools: `web` takes registrations by the token of ones and heartbeats by that of twos, `api` registrations by
/// that of threes.
fn config() -> Arc<Config> {
    let hash = |digit| TokenHash::of(token(digit).as_bytes());
    let text = format!(
        "[load_balancers.shop]\nroutes = [{{ match = {{ path = \"/a\" }}, pool = \"api\" }}, {{ pool = \"web\" }}]\n\
         [load_balancers.shop.pools.web]\nbackend_servers = [\"10.0.0.1:9001\"]\n\
         registration = {{ token_hash = \"{}\" }}\nheartbeat = {{ token_hash = \"{}\" }}\n\
         [load_balancers.shop.pools.api]\nregistration = {{ token_hash = \"{}\" }}\n",
        hash('1'),
        hash('2'),
        hash('3')
    );
    Arc::new(model::parse::parse_toml(&text, "test.toml").unwrap())
}

fn with(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// Every combination of token and door: each opens its own and no other, and no administrator's opens theirs.
#[tokio::test]
async fn a_pools_token_opens_its_own_door_only() {
    let api = Api::start_as(Some("s3cret"), config()).await;
    let doors = [
        ("PUT", REGISTER, '1'),
        ("POST", HEARTBEAT, '2'),
        (
            "PUT",
            "/api/v1/load-balancers/shop/pools/api/members/10.0.0.1:9001",
            '3',
        ),
    ];
    for (method, path, right) in doors {
        for digit in ['1', '2', '3', '4'] {
            let response = api.call(method, path, &[&with(&token(digit))], "").await;
            let expected = digit == right;
            assert_eq!(response.status != 401, expected, "{method} {path} with {digit}");
        }
        for fields in [vec![], vec![with("s3cret")], vec![with("")]] {
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            assert_eq!(
                api.call(method, path, &fields, "").await.status,
                401,
                "{fields:?}"
            );
        }
    }
    for path in ["/api/v1/status", "/metrics", "/api/v1/config"] {
        assert_eq!(
            api.call("GET", path, &[&with(&token('1'))], "").await.status,
            401,
            "{path}"
        );
    }
    let unknown = "/api/v1/load-balancers/shop/pools/none/members/10.0.0.1:9001";
    assert_eq!(
        api.call("PUT", unknown, &[&with(&token('1'))], "").await.status,
        401
    );
}

/// On loopback, where operators need no login, members need their token all the same.
#[tokio::test]
async fn without_a_login_members_need_their_token_too() {
    let api = Api::start_as(None, config()).await;
    assert_eq!(api.get("/api/v1/status").await.status, 200);
    assert_eq!(api.call("PUT", REGISTER, &[], "").await.status, 401);
    let response = api.call("PUT", REGISTER, &[&with(&token('1'))], "").await;
    assert_eq!(response.status, 200);
    assert!(response.body.contains("\"ttl\":\"15s\""), "{}", response.body);
}

/// What makes no sense is refused with what is wrong.
#[tokio::test]
async fn nonsense_is_refused() {
    let api = Api::start_as(None, config()).await;
    let put =
        async |path: &str, body: &str| api.call("PUT", path, &[&with(&token('1'))], body).await.problem();
    for (body, problem) in [
        ("{", (400, "bad_json")),
        ("{\"wait\": 1}", (400, "bad_json")),
        ("{\"weight\": 1001}", (422, "bad_member")),
        ("{\"weight\": -1}", (400, "bad_json")),
        ("{\"load\": 101}", (422, "bad_member")),
        ("{\"zone\": \"a/b\"}", (400, "bad_json")),
        ("{\"ttl\": \"2h\"}", (422, "bad_member")),
        ("{\"ttl\": \"soon\"}", (422, "bad_member")),
    ] {
        assert_eq!(
            put(REGISTER, body).await,
            (problem.0, problem.1.to_owned()),
            "{body}"
        );
    }
    let huge = format!("{{\"zone\": \"{}\"}}", "x".repeat(70_000));
    assert_eq!(put(REGISTER, &huge).await, (413, "body_too_large".to_owned()));
    let base = "/api/v1/load-balancers/shop/pools/web/members";
    assert_eq!(
        put(&format!("{base}/10.0.0.1"), "").await,
        (400, "bad_address".to_owned())
    );
    assert_eq!(
        put(&format!("{base}/10.0.0.1:1"), "").await,
        (429, "too_many_members".to_owned())
    );
    let gone = api.call("DELETE", REGISTER, &[&with(&token('1'))], "").await;
    assert_eq!(gone.problem(), (404, "unknown_member".to_owned()));
    assert_eq!(
        api.call("POST", HEARTBEAT, &[&with(&token('2'))], "")
            .await
            .status,
        204
    );
}

/// Scenario: an instance registers, renews, changes what it says, and leaves: each is in the audit log but for the
/// renewal, with the pool's token as who said it.
#[tokio::test]
async fn what_is_new_of_a_member_is_recorded() {
    let api = Api::start_as(Some("s3cret"), config()).await;
    let fields = with(&token('1'));
    let path = |port| format!("/api/v1/load-balancers/shop/pools/web/members/10.0.0.1:{port}");
    let zone = r#"{"weight": 2, "zone": "eu-1"}"#;
    for (method, port, body) in [
        ("PUT", 9001, zone),
        ("PUT", 9001, r#"{"load": 40}"#),
        ("PUT", 9001, r#"{"draining": true}"#),
        ("DELETE", 2, ""),
        ("DELETE", 9001, ""),
    ] {
        api.call(method, &path(port), &[&fields], body).await;
    }
    let text = std::fs::read_to_string(api.dir.path().join("audit.log")).unwrap();
    let records: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = records
        .iter()
        .map(|record| (record["who"].as_str().unwrap(), record["what"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("pool token", "registered: weight 2, zone eu-1"),
            ("pool token", "changed: weight 1, draining"),
            ("pool token", "left"),
        ]
    );
    assert!(records.iter().all(|record| record.get("role").is_none()));
}
