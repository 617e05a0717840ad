//! Who may ask.

use crate::support::Api;

const PROTECTED: [(&str, &str); 10] = [
    ("GET", "/metrics"),
    ("GET", "/api/v1/status"),
    ("GET", "/api/v1/events"),
    ("GET", "/api/v1/config"),
    ("GET", "/api/v1/openapi.json"),
    ("POST", "/api/v1/explain"),
    ("POST", "/api/v1/plan"),
    ("POST", "/api/v1/reload"),
    ("POST", crate::support::ORDER),
    ("GET", "/api/v1/no-such-path"),
];

/// Without the token nothing is told, not even which paths exist; the two probes stay open.
#[tokio::test]
async fn a_token_guards_everything_but_the_probes() {
    let api = Api::start(Some("s3cret")).await;
    for (method, path) in PROTECTED {
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
    for open in ["/livez", "/readyz"] {
        assert_eq!(api.get(open).await.status, 200);
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
