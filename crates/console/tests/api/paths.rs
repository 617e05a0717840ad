//! Each path does what it is for.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::support::{Api, ORDER};

#[tokio::test]
async fn liveness_and_readiness_are_one_bit_each() {
    let api = Api::start(None).await;
    assert_eq!(api.get("/livez").await.body, "alive\n");
    assert_eq!(api.get("/readyz").await.body, "ready\n");
    api.ready.store(false, Ordering::Relaxed);
    assert_eq!(api.get("/livez").await.status, 200);
    assert_eq!(api.get("/readyz").await.problem(), (503, "not_ready".into()));
}

/// The media type is that of the text, by which Prometheus chooses its parser.
#[tokio::test]
async fn metrics_are_openmetrics() {
    let response = Api::start(None).await.get("/metrics").await;
    assert_eq!(
        response.field("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert_eq!(response.field("transfer-encoding"), Some("chunked"));
    let text = "# HELP evenkeel_requests Requests.\n# TYPE evenkeel_requests counter\n\
                evenkeel_requests_total 7\n# EOF\n";
    assert_eq!(response.body, format!("{:X}\r\n{text}\r\n0\r\n\r\n", text.len()));
}

#[tokio::test]
async fn status_and_events_show_the_state() {
    let api = Api::start(None).await;
    let status = api.get("/api/v1/status").await.json();
    let backend = &status["load_balancers"][0]["pools"][0]["backends"][0];
    assert_eq!(backend["health"], "up");
    assert_eq!(backend["order"]["by"], "alice");
    assert_eq!(backend["in_flight"], 0);
    let events = api.get("/api/v1/events").await.json();
    assert_eq!(events["events"], status["events"]);
}

#[tokio::test]
async fn remembered_requests_are_told_by_id_and_as_a_list() {
    let api = Api::start(None).await;
    let one = api.get("/api/v1/requests/full").await.json();
    assert_eq!(one["requests"][0]["attempts"][0]["then"], "tried again");
    let count = |response: &crate::support::Response| response.json()["requests"].as_array().unwrap().len();
    assert_eq!(count(&api.get("/api/v1/requests").await), 2);
    assert_eq!(count(&api.get("/api/v1/requests?last=1").await), 1);
    assert_eq!(count(&api.get("/api/v1/requests?last=1&all=true").await), 2);
}

#[tokio::test]
async fn what_is_not_remembered_or_asked_wrongly_is_said_so() {
    let api = Api::start(None).await;
    let unknown = api.get("/api/v1/requests/a%2Fb").await;
    assert_eq!(unknown.problem(), (404, "unknown_request".into()));
    assert!(
        unknown.detail().starts_with("`a/b` is not remembered"),
        "{}",
        unknown.detail()
    );
    for query in ["last=0", "last=1001", "last=x", "all=1", "lasst=1"] {
        let response = api.get(&format!("/api/v1/requests?{query}")).await;
        assert_eq!(response.problem(), (422, "bad_query".into()), "{query}");
    }
}

#[tokio::test]
async fn the_config_in_force_is_toml() {
    let response = Api::start(None).await.get("/api/v1/config").await;
    assert_eq!(response.field("content-type"), Some("application/toml"));
    assert_eq!(response.body, "[load_balancers.shop]\n");
}

#[tokio::test]
async fn the_api_describes_itself() {
    let document = Api::start(None).await.get("/api/v1/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
}

/// A GET path answers HEAD with the same head and no body.
#[tokio::test]
async fn head_is_get_without_a_body() {
    let response = Api::start(None).await.call("HEAD", "/livez", &[], "").await;
    assert_eq!((response.status, response.body.as_str()), (200, ""));
    assert_eq!(response.field("content-length"), Some("6"));
}

#[tokio::test]
async fn responses_are_not_stored_and_not_sniffed() {
    let api = Api::start(None).await;
    for path in ["/livez", "/api/v1/status", "/nowhere"] {
        let response = api.get(path).await;
        assert_eq!(response.field("cache-control"), Some("no-store"));
        assert_eq!(response.field("x-content-type-options"), Some("nosniff"));
    }
}

/// Each action reaches the owner of the state with its weight, time and author, and what stands comes back.
#[tokio::test]
async fn orders_are_passed_on() {
    let api = Api::start(None).await;
    let standing = async |body: &str| {
        let response = api.order(body).await;
        assert_eq!(response.status, 200, "{response:?}");
        let json = response.json();
        assert_eq!(json["load_balancer"], "shop");
        assert_eq!(json["address"], "10.0.0.1:9001");
        json["order"].clone()
    };
    assert_eq!(
        standing(r#"{"action": "drain", "for": "10m", "by": "alice"}"#).await,
        json!({"mode": "drain", "by": "alice", "since": 1000, "expires": 601_000})
    );
    assert_eq!(
        standing(r#"{"action": "maintenance"}"#).await,
        json!({"mode": "maintenance", "by": "api", "since": 1000})
    );
    assert_eq!(
        standing(r#"{"action": "weight", "weight": 0}"#).await,
        json!({"mode": "ready", "weight": 0, "by": "api", "since": 1000})
    );
    assert_eq!(standing(r#"{"action": "ready"}"#).await, json!(null));
}

/// An IPv6 backend in a path: brackets as they are or percent-encoded.
#[tokio::test]
async fn an_ipv6_backend_can_be_named() {
    let api = Api::start(None).await;
    for address in ["%5B::1%5D:9001", "%5b%3a%3a1%5d%3a9001"] {
        let path = ORDER.replace("10.0.0.1:9001", address);
        let response = api.post(&path, r#"{"action": "drain"}"#).await;
        assert_eq!(response.json()["address"], "[::1]:9001");
    }
}

#[tokio::test]
async fn explain_answers_with_the_decision() {
    let api = Api::start(None).await;
    let query = r#"{"listener": "shop", "method": "GET", "target": "/cart", "headers": [["x-user", "7"]]}"#;
    let taken = api.post("/api/v1/explain", query).await.json();
    assert_eq!(taken["chosen"]["address"], "10.0.0.1:9001");
    assert_eq!(taken["hash_key"], "header x-user = \"7\"");
    let query = r#"{"listener": "shop", "method": "GET", "target": "/nowhere", "client": "192.0.2.1"}"#;
    let refused = api.post("/api/v1/explain", query).await.json();
    assert_eq!(refused["refused"]["reason"], "no_route");
}

/// A plan tells what would change; a config with errors all of them.
#[tokio::test]
async fn a_plan_tells_what_would_change() {
    let api = Api::start(None).await;
    let nothing = api.post("/api/v1/plan", r#"{"text": ""}"#).await.json();
    assert_eq!(nothing["changes"], json!([]));
    let much = api.post(
        "/api/v1/plan",
        r#"{"text": "{}", "format": "json", "name": "new.json"}"#,
    );
    let much = much.await.json();
    assert_eq!(much["drains"][0]["in_flight"], 4);
    assert_eq!(much["moved"][0]["share"], 0.25);
    let bad = api.post("/api/v1/plan", r#"{"text": "bad"}"#).await;
    assert_eq!(bad.problem(), (422, "bad_config".into()));
    assert_eq!(bad.detail(), "2 errors; nothing was changed");
    assert_eq!(bad.json()["errors"], json!(["line 3: no", "line 9: no"]));
}

/// A config may be greater than other bodies.
#[tokio::test]
async fn a_plan_takes_a_great_config() {
    let api = Api::start(None).await;
    let text = "#".repeat(1024 * 1024);
    let planned = api
        .post("/api/v1/plan", &format!(r#"{{"text": "{text}"}}"#))
        .await;
    assert_eq!(planned.status, 200);
    let other = api
        .post("/api/v1/explain", &format!(r#"{{"listener": "{text}"}}"#))
        .await;
    assert_eq!(other.problem().0, 413);
}

/// The first reload succeeds; the second meets a bad file and lists every error.
#[tokio::test]
async fn a_reload_reports_what_came_of_it() {
    let api = Api::start(None).await;
    let good = api.call("POST", "/api/v1/reload", &[], "").await;
    assert_eq!(good.status, 200);
    assert_eq!(good.json()["messages"], json!(["backend 10.0.0.3:9001 added"]));
    let bad = api.call("POST", "/api/v1/reload", &[], "").await;
    assert_eq!(bad.problem(), (422, "reload_refused".into()));
    assert_eq!(bad.detail(), "2 errors in the new config");
    assert_eq!(
        bad.json()["errors"],
        json!(["line 3: unknown key `algoritm`", "line 9: no such pool"])
    );
}
