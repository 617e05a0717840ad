//! What is recorded of who did what.

use model::config::AdminRole;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::{Api, ORDER, config_with_roles, token_of};

/// Records, the oldest first, without their times and ports.
fn records(api: &Api) -> Vec<Value> {
    let text = std::fs::read_to_string(api.dir.path().join("audit.log")).unwrap();
    let read = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        assert!(record["at"].as_u64().unwrap() > 1_767_225_600_000);
        assert!(record["from"].as_str().unwrap().starts_with("127.0.0.1:"));
        let fields = record.as_object_mut().unwrap();
        fields.remove("at");
        fields.remove("from");
        record
    };
    text.lines().map(read).collect()
}

/// Each change is there when its answer is, with who, what and what came of it; looking changes nothing and is not.
#[tokio::test]
async fn every_change_is_recorded_before_its_answer() {
    let api = Api::start_as(None, config_with_roles()).await;
    let (operator, admin) = (token_of(AdminRole::Operator), token_of(AdminRole::Admin));
    let send = async |token: &str, method: &str, path: &str, body: &str| {
        let fields = [
            &format!("Authorization: Bearer {token}"),
            "Content-Type: application/json",
        ];
        api.call(method, path, &fields, body).await
    };
    send(&operator, "GET", "/api/v1/status", "").await;
    send(
        &operator,
        "POST",
        "/api/v1/plan",
        r#"{"text": "", "format": "toml"}"#,
    )
    .await;
    send(
        &operator,
        "POST",
        ORDER,
        r#"{"action": "drain", "for": "10m", "by": "alice"}"#,
    )
    .await;
    send(&operator, "POST", ORDER, r#"{"action": "weight", "weight": 5}"#).await;
    send(&operator, "POST", ORDER, r#"{"action": "party"}"#).await;
    send(&admin, "POST", "/api/v1/reload?token=s3cret", "").await;
    let weights = "/api/v1/load-balancers/shop/routes/all/weights";
    send(
        &admin,
        "POST",
        weights,
        r#"{"weights": {"blue": 0, "green": 100}}"#,
    )
    .await;
    let record = |who: &str, path: &str, what: Option<&str>, status: u16, reason: Option<&str>| {
        let mut record = json!({
            "who": format!("the-{who}"), "login": "token", "role": who,
            "method": "POST", "path": path, "status": status
        });
        let fields = record.as_object_mut().unwrap();
        fields.extend(what.map(|what| ("what".to_owned(), what.into())));
        fields.extend(reason.map(|reason| ("reason".to_owned(), reason.into())));
        record
    };
    let alice = "drain for 10m, by alice via the-operator";
    let expected = [
        record("operator", ORDER, Some(alice), 200, None),
        record("operator", ORDER, Some("weight 5, by the-operator"), 200, None),
        record("operator", ORDER, None, 400, Some("bad_json")),
        record("admin", "/api/v1/reload", None, 200, None),
        record(
            "admin",
            weights,
            Some("weights blue=0 green=100, by the-admin"),
            200,
            None,
        ),
    ];
    assert_eq!(records(&api), expected);
}

/// Scenario: names as long as names may be. The record still says which backend it was, and what became of the change.
#[tokio::test]
async fn a_record_tells_all_of_what_was_changed() {
    let api = Api::start_as(None, config_with_roles()).await;
    let long = "l".repeat(63);
    let fields = [
        &format!("Authorization: Bearer {}", token_of(AdminRole::Admin)),
        "Content-Type: application/json",
    ];
    let path = format!(
        "/api/v1/load-balancers/{long}/backends/[2001:db8:1111:2222:3333:4444:5555:6666]:65535/order"
    );
    api.call("POST", &path, &fields, r#"{"action": "drain"}"#).await;
    let long = "n".repeat(600);
    for name in ["shop.toml", &long] {
        let body = json!({ "change": { "apply": { "text": "", "name": name } } }).to_string();
        api.call("POST", "/api/v1/desired/changes", &fields, &body).await;
    }
    let records = records(&api);
    assert_eq!(records[0]["path"], path);
    let what = |n: usize| records[n]["what"].as_str().unwrap();
    assert_eq!(what(1), "apply shop.toml, by the-admin; revision 8");
    assert!(
        what(2).ends_with("…; revision 8") && what(2).len() <= 512,
        "{}",
        what(2)
    );
}

/// Scenario: what an order was passed to broke. It may have changed something, so it is recorded.
#[tokio::test]
async fn what_ends_in_a_fault_is_recorded() {
    let api = Api::start_as(None, config_with_roles()).await;
    let field = format!("Authorization: Bearer {}", token_of(AdminRole::Admin));
    let body = json!({ "change": { "rollback": 500 } }).to_string();
    let fields = [&field, "Content-Type: application/json"];
    let response = api.call("POST", "/api/v1/desired/changes", &fields, &body).await;
    assert_eq!(response.problem(), (500, "internal".into()));
    let records = records(&api);
    assert_eq!(
        (&records[0]["what"], &records[0]["status"]),
        (&json!("rollback to 500, by the-admin"), &json!(500))
    );
}

/// Who was not let in, or not let do something, is recorded; who said nothing is not.
#[tokio::test]
async fn those_who_were_refused_are_recorded() {
    let api = Api::start_as(None, config_with_roles()).await;
    let with = async |token: &str, method: &str, path: &str| {
        let field = format!("Authorization: Bearer {token}");
        api.call(method, path, &[&field], "").await
    };
    api.get("/api/v1/status").await;
    with("s3cret-guess", "GET", "/api/v1/status?token=s3cret-guess").await;
    with(&token_of(AdminRole::Viewer), "POST", "/api/v1/reload").await;
    with(&token_of(AdminRole::Operator), "GET", "/api/v1/audit").await;
    let of = |who: &str, role: Option<&str>, method: &str, path: &str, status: u16, reason: &str| {
        let login = if role.is_some() { "token" } else { "none" };
        let mut record = json!({
            "who": who, "login": login, "method": method, "path": path, "status": status, "reason": reason
        });
        let fields = record.as_object_mut().unwrap();
        fields.extend(role.map(|role| ("role".to_owned(), role.into())));
        record
    };
    let expected = [
        of("nobody", None, "GET", "/api/v1/status", 401, "unauthorized"),
        of(
            "the-viewer",
            Some("viewer"),
            "POST",
            "/api/v1/reload",
            403,
            "needs_operator",
        ),
        of(
            "the-operator",
            Some("operator"),
            "GET",
            "/api/v1/audit",
            403,
            "needs_admin",
        ),
    ];
    assert_eq!(records(&api), expected);
    let told = with(&token_of(AdminRole::Admin), "GET", "/api/v1/audit?limit=2")
        .await
        .json();
    let reasons: Vec<&str> = told["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["needs_admin", "needs_operator"], "newest first");
    for wrong in ["?limit=0", "?limit=1001", "?limit=x", "?last=1"] {
        let refused = with(
            &token_of(AdminRole::Admin),
            "GET",
            &format!("/api/v1/audit{wrong}"),
        )
        .await;
        assert_eq!(refused.problem(), (422, "bad_query".into()), "{wrong}");
    }
}

/// Scenario: somebody orders and hangs up. The order is carried out, so it is recorded.
#[tokio::test]
async fn hanging_up_leaves_a_record() {
    let api = Api::start(None).await;
    let body = r#"{"action": "drain"}"#;
    let text = format!(
        "POST {ORDER} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = api.connect().await;
    stream.write_all(text.as_bytes()).await.unwrap();
    drop(stream);
    while records(&api).is_empty() {
        // condition poll
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(records(&api)[0]["what"], "drain, by api");
}

/// Scenario: a viewer asks what a change would do, then tries to make it. The first is answered and changes nothing, so
/// nothing is recorded; the second is refused and recorded.
#[tokio::test]
async fn viewers_may_ask_what_a_change_would_do() {
    let api = Api::start_as(None, config_with_roles()).await;
    let send = async |role: AdminRole, dry_run: bool| {
        let body = json!({ "change": { "delete": ["shop"] }, "dry_run": dry_run }).to_string();
        let field = format!("Authorization: Bearer {}", token_of(role));
        let fields = [field.as_str(), "Content-Type: application/json"];
        api.call("POST", "/api/v1/desired/changes", &fields, &body).await
    };
    for role in AdminRole::ALL {
        let told = send(role, true).await;
        assert!(![401, 403].contains(&told.status), "{told:?}");
    }
    assert!(records(&api).is_empty());
    for role in [AdminRole::Viewer, AdminRole::Operator] {
        assert_eq!(send(role, false).await.problem(), (403, "needs_admin".into()));
    }
    assert_ne!(send(AdminRole::Admin, false).await.status, 403);
    let told: Vec<_> = records(&api)
        .iter()
        .map(|record| (record["who"].clone(), record["what"].clone()))
        .collect();
    let expected = ["viewer", "operator", "admin"].map(|role| {
        let who = format!("the-{role}");
        let what = format!("delete shop, by {who}");
        (Value::from(who), Value::from(what))
    });
    assert_eq!(told, expected);
    assert_eq!(api.counters.denied(), [("operator", 0), ("admin", 2)]);
}
