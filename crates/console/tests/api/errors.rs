//! What is wrong is said in words and by a stable code.

use tokio::sync::mpsc;

use crate::support::{Api, ORDER};

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let api = Api::start(None).await;
    for path in [
        "/",
        "/api",
        "/api/v1/",
        "/api/v2/status",
        "/metrics/",
        "/api/v1/status/x",
    ] {
        let response = api.get(path).await;
        assert_eq!(response.problem(), (404, "not_found".into()));
        assert!(response.detail().contains(&format!("`{path}`")), "{response:?}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_one() {
    let api = Api::start(None).await;
    for (method, path, allow) in [
        ("DELETE", "/api/v1/status", "GET,HEAD"),
        ("GET", "/api/v1/reload", "POST"),
        ("PUT", ORDER, "POST"),
    ] {
        let response = api.call(method, path, &[], "").await;
        assert_eq!(response.problem(), (405, "method_not_allowed".into()));
        assert_eq!(response.field("allow"), Some(allow), "{path}");
    }
}

/// The message names the place and what was expected there.
#[tokio::test]
async fn bad_json_is_explained() {
    let api = Api::start(None).await;
    for (body, words) in [
        ("", "EOF while parsing"),
        ("{\"action\": ", "line 1 column 11"),
        ("[]", "expected"),
        (
            r#"{"action": "dran"}"#,
            "unknown variant `dran`, expected one of `drain`, `ready`",
        ),
        (
            r#"{"action": "drain", "fro": "10m"}"#,
            "unknown field `fro`, expected one of `action`",
        ),
        (r#"{"weight": 5}"#, "missing field `action`"),
        (
            r#"{"action": "weight", "weight": -1}"#,
            "weight: invalid value: integer `-1`",
        ),
        (
            r#"{"action": "weight", "weight": "5"}"#,
            "weight: invalid type: string",
        ),
    ] {
        let response = api.order(body).await;
        assert_eq!(response.problem(), (400, "bad_json".into()), "{body}");
        assert!(response.detail().contains(words), "{body}: {}", response.detail());
    }
    let response = api
        .post(
            "/api/v1/explain",
            r#"{"listener": "shop", "method": "GET", "target": "/", "header": []}"#,
        )
        .await;
    assert_eq!(response.problem(), (400, "bad_json".into()));
    assert!(response.detail().contains("unknown field `header`"));
}

#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let api = Api::start(None).await;
    let body = r#"{"action": "drain"}"#;
    for fields in [&[][..], &["Content-Type: text/plain"]] {
        let response = api.call("POST", ORDER, fields, body).await;
        assert_eq!(response.problem(), (415, "unsupported_media_type".into()));
    }
}

#[tokio::test]
async fn an_order_that_makes_no_sense_is_explained() {
    let api = Api::start(None).await;
    let long = format!(r#"{{"action": "drain", "by": "{}"}}"#, "x".repeat(65));
    for (body, words) in [
        (r#"{"action": "weight"}"#, "needs a `weight`"),
        (
            r#"{"action": "weight", "weight": 1001}"#,
            "over the greatest, 1000",
        ),
        (r#"{"action": "drain", "weight": 1}"#, "with action `weight` only"),
        (
            r#"{"action": "drain", "for": "soon"}"#,
            "`soon` is not a duration",
        ),
        (r#"{"action": "drain", "for": "0s"}"#, "1ms to 10000h"),
        (r#"{"action": "drain", "for": "10001h"}"#, "1ms to 10000h"),
        (r#"{"action": "ready", "for": "1h"}"#, "leave `for` out"),
        (r#"{"action": "drain", "by": ""}"#, "1 to 64 characters"),
        (
            r#"{"action": "drain", "by": "a\nb"}"#,
            "without control characters",
        ),
        (&long, "1 to 64 characters"),
    ] {
        let response = api.order(body).await;
        assert_eq!(response.problem(), (422, "bad_order".into()), "{body}");
        assert!(response.detail().contains(words), "{body}: {}", response.detail());
    }
}

/// What does not exist is answered with what does, in a bounded list.
#[tokio::test]
async fn unknown_names_are_answered_with_the_known() {
    let api = Api::start(None).await;
    let drain = r#"{"action": "drain"}"#;
    let response = api.post(&ORDER.replace("shop", "shp"), drain).await;
    assert_eq!(response.problem(), (404, "unknown_load_balancer".into()));
    assert_eq!(
        response.detail(),
        "there is no load balancer `shp`; known: `shop`"
    );

    let response = api.post(&ORDER.replace("9001", "9002"), drain).await;
    assert_eq!(response.problem(), (404, "unknown_backend".into()));
    let detail = response.detail();
    assert!(
        detail.starts_with("load balancer `shop` has no backend `10.0.0.1:9002`; known: `10.0.0.0:9001`")
    );
    assert!(detail.ends_with("`10.0.0.19:9001` and 5 more"), "{detail}");

    let response = api.post(&ORDER.replace("shop", "no%20name"), drain).await;
    assert_eq!(response.problem(), (404, "unknown_load_balancer".into()));
    let response = api.post(&ORDER.replace("10.0.0.1:9001", "web-1"), drain).await;
    assert_eq!(response.problem(), (400, "bad_address".into()));
    assert!(response.detail().contains("`web-1`"));
}

#[tokio::test]
async fn an_order_that_cannot_be_kept_is_not_in_force() {
    let response = Api::start(None)
        .await
        .order(r#"{"action": "drain", "by": "full disk"}"#)
        .await;
    assert_eq!(response.problem(), (500, "store_failed".into()));
    assert!(
        response
            .detail()
            .contains("not in force: no space left on device")
    );
}

#[tokio::test]
async fn an_order_without_the_store_is_not_in_force() {
    let response = Api::start(None)
        .await
        .order(r#"{"action": "drain", "by": "no store"}"#)
        .await;
    assert_eq!(response.problem(), (503, "store_unavailable".into()));
    assert!(
        response.detail().contains("not in force"),
        "{}",
        response.detail()
    );
}

#[tokio::test]
async fn a_question_that_cannot_be_explained_says_why() {
    let response = Api::start(None)
        .await
        .post(
            "/api/v1/explain",
            r#"{"listener": "blog", "method": "GET", "target": "/"}"#,
        )
        .await;
    assert_eq!(response.problem(), (422, "bad_query".into()));
    assert_eq!(response.detail(), "no listener `blog`");
}

/// The task that owns the state has gone, or never answers: the client is not left waiting.
#[tokio::test]
async fn an_owner_that_does_not_answer_is_no_hang() {
    let (orders, gone) = mpsc::channel(1);
    drop(gone);
    let (reloads, mut silent) = mpsc::channel(1);
    let api = Api::start_with(None, orders, reloads).await;
    let response = api.order(r#"{"action": "drain"}"#).await;
    assert_eq!(response.problem(), (503, "no_answer".into()));
    assert_eq!(response.detail(), "the process is shutting down");

    let asked = tokio::spawn(async move { api.call("POST", "/api/v1/reload", &[], "").await });
    let _unanswered = silent.recv().await.unwrap();
    tokio::time::pause();
    let response = asked.await.unwrap();
    assert_eq!(response.problem(), (503, "no_answer".into()));
    assert!(
        response.detail().starts_with("no answer within 10s"),
        "{response:?}"
    );
}
