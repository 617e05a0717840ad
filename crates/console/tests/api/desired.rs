//! The load balancers of the store: what is asked reaches whoever knows, what he says comes back.

use std::collections::BTreeMap;

use model::config::Name;
use model::desired::{
    Awaiting, Change, Changed, Confirmed, DesiredAnswer, DesiredFault, DesiredProblem, DesiredQuery,
    DesiredState, Difference, Fate, History, RevisionNote,
};
use model::state::Timestamp;
use serde_json::json;

use crate::support::Api;

fn note(revision: u64) -> RevisionNote {
    RevisionNote {
        revision,
        author: "alice".to_owned(),
        at: Timestamp(1),
        what: "apply".to_owned(),
        message: String::new(),
        changed: BTreeMap::from([
            (Name::parse("shop").unwrap(), Fate::Set),
            (Name::parse("blog").unwrap(), Fate::Deleted),
        ]),
    }
}

fn awaiting() -> Awaiting {
    Awaiting {
        revision: 7,
        back_to: 6,
        until: Timestamp(5),
    }
}

/// Revision 7 is in force. Who expects another has lost; a text of `bad` has two errors; there is no revision 99.
pub(crate) fn answer(query: DesiredQuery) -> Result<DesiredAnswer, DesiredProblem> {
    let problem = |fault, detail: &str| Err(DesiredProblem::new(fault, detail));
    match query {
        DesiredQuery::State(Some(99)) => problem(DesiredFault::UnknownRevision, "1 to 7 are kept"),
        DesiredQuery::State(revision) => Ok(DesiredAnswer::State(DesiredState {
            revision: revision.unwrap_or(7),
            load_balancers: BTreeMap::from([(Name::parse("shop").unwrap(), json!({"listen": "0.0.0.0:80"}))]),
            awaiting: revision.is_none().then(awaiting),
        })),
        DesiredQuery::History { last } => Ok(DesiredAnswer::History(History {
            revisions: (1..=7).rev().take(last).map(note).collect(),
        })),
        DesiredQuery::Revision(revision) => Ok(DesiredAnswer::Diff(Difference {
            from: revision - 1,
            to: revision,
            changes: vec!["shop added".to_owned()],
            note: Some(note(revision)),
        })),
        DesiredQuery::Diff { from, to } => Ok(DesiredAnswer::Diff(Difference {
            from,
            to: to.unwrap_or(7),
            changes: Vec::new(),
            note: None,
        })),
        DesiredQuery::Confirm(query) => match query.revision {
            Some(7) | None => Ok(DesiredAnswer::Confirmed(Confirmed { revision: 7 })),
            Some(_) => problem(DesiredFault::NothingPending, "revision 7 holds"),
        },
        DesiredQuery::Change(query) => {
            if query.expect.is_some_and(|expected| expected != 7) {
                return problem(DesiredFault::Conflict, "7 is in force, made by bob");
            }
            match query.change {
                Change::Apply(text) if text.text == "bad" => Err(DesiredProblem {
                    errors: vec!["line 1: no".to_owned(), "line 2: no".to_owned()],
                    ..DesiredProblem::new(DesiredFault::BadConfig, "2 errors")
                }),
                Change::Apply(_) => Ok(DesiredAnswer::Changed(Changed {
                    revision: if query.dry_run { 7 } else { 8 },
                    changed: !query.dry_run,
                    // Who is told to have done it.
                    changes: query.by.into_iter().collect(),
                    warnings: vec!["odd".to_owned()],
                    awaiting: query.confirm.is_some().then(awaiting),
                    settled: Some(7),
                    plan: None,
                })),
                Change::Delete(_) => problem(DesiredFault::UnknownLoadBalancer, "it has `shop`"),
                Change::Rollback(1) => problem(DesiredFault::StoreUnavailable, "nobody answers"),
                Change::Rollback(2) => problem(DesiredFault::OutcomeUnknown, "lost"),
                Change::Rollback(3) => problem(DesiredFault::StoreDamaged, "no JSON"),
                Change::Rollback(500) => panic!("what a test wants"),
                Change::Rollback(_) => problem(DesiredFault::DeclaredInFile, "`shop`"),
            }
        }
    }
}

#[tokio::test]
async fn what_the_store_has_and_had_is_shown() {
    let api = Api::start(None).await;
    let now = api.get("/api/v1/desired").await.json();
    assert_eq!(now["revision"], 7);
    assert_eq!(now["load_balancers"]["shop"]["listen"], "0.0.0.0:80");
    assert_eq!(now["awaiting"]["back_to"], 6);
    assert_eq!(api.get("/api/v1/desired?revision=3").await.json()["revision"], 3);
    let gone = api.get("/api/v1/desired?revision=99").await;
    assert_eq!(gone.problem(), (404, "unknown_revision".into()));
    let history = api.get("/api/v1/desired/history?last=2").await.json();
    assert_eq!(history["revisions"].as_array().unwrap().len(), 2);
    assert_eq!(history["revisions"][0]["changed"]["blog"], "deleted");
    assert_eq!(api.get("/api/v1/desired/history/4").await.json()["from"], 3);
    let diff = api.get("/api/v1/desired/diff?from=2&to=5").await.json();
    assert_eq!((&diff["from"], &diff["to"]), (&json!(2), &json!(5)));
    for wrong in [
        "/api/v1/desired?revision=x",
        "/api/v1/desired?revison=1",
        "/api/v1/desired/history?last=0",
        "/api/v1/desired/history?last=1001",
        "/api/v1/desired/history/four",
        "/api/v1/desired/diff",
    ] {
        assert_eq!(
            api.get(wrong).await.problem(),
            (422, "bad_query".into()),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn changes_are_made_once_and_refused_with_a_reason() {
    let api = Api::start(None).await;
    let change = async |body: serde_json::Value| api.post("/api/v1/desired/changes", &body.to_string()).await;
    let apply = |text: &str| json!({"change": {"apply": {"text": text}}, "by": "alice"});
    let made = change(apply("x")).await.json();
    assert_eq!(
        (&made["revision"], &made["changed"], &made["changes"]),
        (&json!(8), &json!(true), &json!(["alice"]))
    );
    let mut dry = apply("x");
    dry["dry_run"] = json!(true);
    dry["confirm"] = json!("2m");
    let dry = change(dry).await.json();
    assert_eq!((&dry["revision"], &dry["changed"]), (&json!(7), &json!(false)));
    let mut late = apply("x");
    late["expect"] = json!(6);
    let late = change(late).await;
    assert_eq!(late.problem(), (409, "conflict".into()));
    assert_eq!(late.detail(), "7 is in force, made by bob");
    let bad = change(apply("bad")).await;
    assert_eq!(bad.problem(), (422, "bad_config".into()));
    assert_eq!(bad.json()["errors"].as_array().unwrap().len(), 2);
    for (body, status, reason) in [
        (
            json!({"change": {"delete": ["blog"]}}),
            404,
            "unknown_load_balancer",
        ),
        (json!({"change": {"rollback": 1}}), 503, "store_unavailable"),
        (json!({"change": {"rollback": 2}}), 503, "outcome_unknown"),
        (json!({"change": {"rollback": 3}}), 500, "store_damaged"),
        (json!({"change": {"rollback": 4}}), 422, "declared_in_file"),
        (json!({"change": {"explode": 4}}), 400, "bad_json"),
        (json!({"change": {"rollback": 4}, "exepct": 4}), 400, "bad_json"),
    ] {
        assert_eq!(
            change(body.clone()).await.problem(),
            (status, reason.into()),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_change_is_confirmed() {
    let api = Api::start(None).await;
    let confirmed = api.post("/api/v1/desired/confirm", r#"{"by": "alice"}"#).await;
    assert_eq!(confirmed.json()["revision"], 7);
    let over = api.post("/api/v1/desired/confirm", r#"{"revision": 5}"#).await;
    assert_eq!(over.problem(), (409, "nothing_pending".into()));
}
