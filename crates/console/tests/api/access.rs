//! Who may ask.

use std::time::{Duration, Instant};

use model::config::AdminRole;

use crate::contract;
use crate::support::{Api, Response, config_with_roles, token_of};

const PROTECTED: [(&str, &str); 18] = [
    ("GET", "/metrics"),
    ("GET", "/api/v1/status"),
    ("GET", "/api/v1/events"),
    ("GET", "/api/v1/config"),
    ("GET", "/api/v1/openapi.json"),
    ("POST", "/api/v1/explain"),
    ("POST", "/api/v1/plan"),
    ("GET", "/api/v1/alerts"),
    ("POST", "/api/v1/alerts/test"),
    ("GET", "/api/v1/desired"),
    ("GET", "/api/v1/desired/history"),
    ("GET", "/api/v1/desired/history/7"),
    ("GET", "/api/v1/desired/diff"),
    ("POST", "/api/v1/desired/changes"),
    ("POST", "/api/v1/desired/confirm"),
    ("POST", "/api/v1/reload"),
    ("POST", crate::support::ORDER),
    ("GET", "/api/v1/no-such-path"),
];

/// Without the token nothing is told, not even which paths exist; the two probes stay open.
#[tokio::test]
async fn a_token_guards_everything_but_the_probes() {
    for (method, path) in PROTECTED {
        // Each its own: failures are limited.
        let api = Api::start(Some("s3cret")).await;
        for fields in [
            &[][..],
            &["Authorization: Bearer wrong"],
            &["Authorization: Bearer s3cre"],
            &["Authorization: Bearer "],
            &["Authorization: Basic s3cret"],
        ] {
            let response = api.call(method, path, fields, "").await;
            assert_eq!(
                response.problem(),
                (401, "unauthorized".into()),
                "{path} {fields:?}"
            );
            assert_eq!(
                response.field("www-authenticate"),
                Some("Bearer realm=\"evenkeel\"")
            );
            assert!(!response.body.contains("s3cret"));
        }
    }
    let api = Api::start(Some("s3cret")).await;
    for open in ["/livez", "/readyz"] {
        assert_eq!(api.get(open).await.status, 200);
    }
}

/// Scenario: each role asks each route that the contract knows. Below the role that the contract names the answer is
/// 403 and says which role is needed; from it on, the route answers.
#[tokio::test]
async fn each_route_wants_the_role_that_the_contract_names() {
    let api = Api::start_as(None, config_with_roles()).await;
    let mut denied = 0;
    for (method, path, needed) in contract::operations() {
        // Whose token that is, is another question: `members`.
        if needed == "pool token" {
            continue;
        }
        for role in AdminRole::ALL {
            let field = format!("Authorization: Bearer {}", token_of(role));
            let response = api.call(&method, &path, &[&field], "").await;
            let enough = AdminRole::parse(&needed).is_none_or(|needed| role >= needed);
            if enough {
                assert!(
                    ![401, 403].contains(&response.status),
                    "{method} {path} as {role:?}"
                );
            } else {
                denied += 1;
                assert_eq!(
                    response.problem(),
                    (403, format!("needs_{needed}")),
                    "{method} {path}"
                );
                let told = response.detail();
                assert!(
                    told.contains(&format!("`the-{}` has the role", role.as_str())),
                    "{told}"
                );
            }
        }
        let response = api.call(&method, &path, &[], "").await;
        let expected = if needed == "none" { 200 } else { 401 };
        assert_eq!(response.status, expected, "{method} {path} without a login");
    }
    assert!(denied >= 3, "{denied}");
}

/// Who ordered something is told by the login. What the request says of it stands beside that, and cannot look like
/// it.
#[tokio::test]
async fn an_order_is_signed_by_the_login() {
    let api = Api::start_as(Some("s3cret"), config_with_roles()).await;
    let order = async |token: &str, body: &str| {
        let fields = [
            &format!("Authorization: Bearer {token}"),
            "Content-Type: application/json",
        ];
        api.call("POST", crate::support::ORDER, &fields, body).await
    };
    let operator = token_of(AdminRole::Operator);
    for (token, by, signed) in [
        (operator.as_str(), None, "the-operator"),
        (&operator, Some("the-operator"), "the-operator"),
        (&operator, Some("alice"), "alice via the-operator"),
        (&operator, Some("the-admin"), "the-admin via the-operator"),
        ("s3cret", None, "admin token"),
        ("s3cret", Some("alice"), "alice via admin token"),
    ] {
        let by = by.map_or_else(String::new, |by| format!(r#", "by": "{by}""#));
        let response = order(token, &format!(r#"{{"action": "drain"{by}}}"#)).await;
        assert_eq!(response.json()["order"]["by"], signed);
    }
    let forged = order(&operator, r#"{"action": "drain", "by": "alice via the-admin"}"#).await;
    assert_eq!(forged.problem(), (422, "bad_order".into()));
}

async fn with_token(api: &Api, token: &str) -> Response {
    let field = format!("Authorization: Bearer {token}");
    api.call("GET", "/api/v1/status", &[&field], "").await
}

/// The first guess that is told to wait.
struct Limited {
    /// Guesses before it, which were looked at.
    looked_at: u64,
    asked: Instant,
    /// In seconds, rounded up.
    wait: u64,
}

async fn guess_until_limited(api: &Api) -> Limited {
    for looked_at in 0..100 {
        let asked = Instant::now();
        let response = with_token(api, &format!("guess-{looked_at}")).await;
        if response.status == 401 {
            assert_eq!(response.problem(), (401, "unauthorized".into()));
            continue;
        }
        assert_eq!(response.problem(), (429, "too_many_failures".into()));
        let wait: u64 = response.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=7).contains(&wait), "{wait}");
        return Limited {
            looked_at,
            asked,
            wait,
        };
    }
    panic!("nobody is told to wait");
}

/// Scenario: somebody guesses tokens, at an address that operators come from too. After ten he is told to wait, and a
/// token that could be guessed is not looked at any more, not even the right one; generated tokens open the door all
/// the while, and who shows nothing at all is told so as before.
#[tokio::test]
async fn failed_logins_are_limited_and_lock_nobody_out() {
    let api = Api::start_as(Some("s3cret"), config_with_roles()).await;
    assert_eq!(with_token(&api, "s3cret").await.status, 200);
    let begun = Instant::now();
    let first = guess_until_limited(&api).await;
    // Ten at once, then one each six seconds.
    let most = 10 + begun.elapsed().as_secs() / 6;
    assert!((10..=most).contains(&first.looked_at), "{}", first.looked_at);
    let (mut failed, mut limited) = (first.looked_at, 1);
    let wrong = format!("ek_{}", "f".repeat(64));
    for token in ["guess", "s3cret", &wrong] {
        let mut tries = 0..100;
        loop {
            assert!(tries.next().is_some(), "{token} is let through each time");
            let told = guess_until_limited(&api).await;
            (failed, limited) = (failed + told.looked_at, limited + 1);
            let response = with_token(&api, token).await;
            if response.status == 429 {
                assert_eq!(response.problem(), (429, "too_many_failures".into()), "{token}");
                limited += 1;
                break;
            }
            // Only on a machine so slow that the wait is over.
            assert!(
                told.asked.elapsed() >= Duration::from_secs(told.wait - 1),
                "{token}"
            );
            failed += u64::from(response.status == 401);
        }
    }
    for role in AdminRole::ALL {
        assert_eq!(with_token(&api, &token_of(role)).await.status, 200);
    }
    assert_eq!(
        api.get("/api/v1/status").await.problem(),
        (401, "unauthorized".into())
    );
    assert_eq!(api.get("/livez").await.status, 200);
    let counts = api.counters.failed_logins();
    let count = |why: &str| counts.iter().find(|(name, _)| *name == why).unwrap().1;
    assert_eq!(
        (count("wrong_token"), count("limited"), count("no_credential")),
        (failed, limited, 1)
    );
}

/// `/metrics` is open to everyone only where the config says so; nothing else is.
#[tokio::test]
async fn metrics_are_open_where_the_config_says_so() {
    let closed = config_with_roles();
    let api = Api::start_as(None, closed.clone()).await;
    assert_eq!(api.get("/metrics").await.status, 401);
    let mut open = model::config::Config::clone(&closed);
    open.admin.open_metrics = true;
    let api = Api::start_as(None, open.into()).await;
    assert_eq!(api.get("/metrics").await.status, 200);
    assert_eq!(api.call("POST", "/metrics", &[], "").await.status, 405);
    for path in ["/api/v1/status", "/metrics/", "/metrics%2f"] {
        assert_eq!(api.get(path).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn the_token_opens_everything() {
    let api = Api::start(Some("s3cret")).await;
    for (method, path) in PROTECTED {
        let response = api
            .call(method, path, &["Authorization: bearer s3cret"], "")
            .await;
        assert_ne!(response.status, 401, "{path}");
    }
    // Whoever has the token may come under any name and from any page.
    let fields = [
        "Authorization: Bearer s3cret",
        "Host: console.example",
        "Origin: https://ops.example",
    ];
    assert_eq!(api.call("GET", "/api/v1/status", &fields, "").await.status, 200);
}

/// DNS rebinding: a page of a foreign name that resolves to loopback asks for the state.
#[tokio::test]
async fn without_a_token_a_foreign_host_name_is_refused() {
    let api = Api::start(None).await;
    let asked_as = async |host: &str| api.call("GET", "/api/v1/status", &[host], "").await;
    for host in ["Host: evil.example", "Host: evil.example:7700"] {
        assert_eq!(asked_as(host).await.problem(), (403, "host_not_allowed".into()));
    }
    for host in ["Host: localhost:7700", "Host: 127.0.0.1", "Host: [::1]:7700"] {
        assert_eq!(asked_as(host).await.status, 200, "{host}");
    }
}

/// Request forgery: a page in the operator's browser posts to loopback.
#[tokio::test]
async fn without_a_token_another_pages_requests_are_refused() {
    let api = Api::start(None).await;
    for origin in ["https://evil.example", "http://127.0.0.1:1", "null"] {
        let origin = format!("Origin: {origin}");
        let response = api.call("POST", "/api/v1/reload", &[&origin], "").await;
        assert_eq!(response.problem(), (403, "cross_origin".into()), "{origin}");
    }
    let own = format!("Origin: http://{}", api.address);
    assert_eq!(api.call("POST", "/api/v1/reload", &[&own], "").await.status, 200);
}
