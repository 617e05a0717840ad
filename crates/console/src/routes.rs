//! The paths and what they answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{Method, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json};
use model::config::{AdminRole, Name};
use model::explain::{ExplainQuery, Explanation};
use model::plan::PlanQuery;
use model::state::{Order, OrderAction, Override, OverrideKey};
use model::status::{Event, ReloadStatus};
use model::units::format_duration;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::access::{Guard, Need};
use crate::audit::Note;
use crate::large::{Of, Text};
use crate::limits::{ANSWER_TIMEOUT, MAX_BODY_BYTES, MAX_CONFIG_BODY_BYTES};
use crate::login::Caller;
use crate::order::{OrderBody, json_problem};
use crate::problem::{Kind, Problem};
use crate::turns::turn;
use crate::{
    Console, OrderError, OrderRequest, ReloadRequest, access, alerts, audit_route, desired, large, members,
    requests, scrape, weights,
};

/// The contract that this module keeps; see `docs/adr/0003-openapi-document.md`.
const OPENAPI: &str = include_str!("../openapi.json");

type Shared = State<Arc<Console>>;

/// Every route: method, path, the least that it needs, handler. `openapi.json` tells the same as `x-role`.
fn table() -> Vec<(Method, &'static str, Need, MethodRouter<Arc<Console>>)> {
    let viewer = Need::Role(AdminRole::Viewer);
    let operator = Need::Role(AdminRole::Operator);
    let backend_order = "/api/v1/load-balancers/{lb}/backends/{address}/order";
    let mut table = vec![
        (Method::GET, "/livez", Need::Open, get(livez)),
        (Method::GET, "/readyz", Need::Open, get(readyz)),
        (Method::GET, "/metrics", viewer, get(scrape::metrics)),
        (Method::GET, "/api/v1/status", viewer, get(status)),
        (Method::GET, "/api/v1/events", viewer, get(events)),
        (Method::GET, "/api/v1/config", viewer, get(config)),
        (Method::GET, "/api/v1/openapi.json", viewer, get(openapi)),
        (Method::POST, "/api/v1/explain", viewer, post(explain)),
        (
            Method::POST,
            "/api/v1/plan",
            viewer,
            post(plan).layer(DefaultBodyLimit::max(MAX_CONFIG_BODY_BYTES)),
        ),
        (Method::GET, "/api/v1/requests", viewer, get(requests::last)),
        (Method::GET, "/api/v1/requests/{id}", viewer, get(requests::by_id)),
        (
            Method::GET,
            "/api/v1/audit",
            Need::Role(AdminRole::Admin),
            get(audit_route::last),
        ),
        (Method::POST, "/api/v1/reload", operator, post(reload)),
        (Method::POST, backend_order, operator, post(order)),
        (Method::GET, "/api/v1/alerts", viewer, get(alerts::show)),
        (Method::POST, "/api/v1/alerts/test", operator, post(alerts::test)),
        (
            Method::POST,
            "/api/v1/load-balancers/{lb}/routes/{route}/weights",
            operator,
            post(weights::order),
        ),
    ];
    table.extend(desired::table());
    table.extend(members::table());
    table
}

/// `on_loopback`: only this machine can reach it.
pub(crate) fn router(console: Arc<Console>, on_loopback: bool) -> Router {
    let guard = Arc::new(Guard::new(console.clone(), on_loopback));
    table()
        .into_iter()
        .fold(Router::new(), |router, (_, path, need, handler)| {
            let state = (guard.clone(), need);
            router.route(
                path,
                handler.route_layer(middleware::from_fn_with_state(state, access::authorise)),
            )
        })
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(guard, access::guard))
        .with_state(console)
}

async fn livez() -> &'static str {
    "alive\n"
}

async fn readyz(State(console): Shared) -> Result<&'static str, Problem> {
    if (console.ready)() {
        Ok("ready\n")
    } else {
        Err(Problem::new(Kind::NotReady, "see `listeners` in /api/v1/status"))
    }
}

async fn status(State(console): Shared, Extension(caller): Extension<Caller>) -> Result<Response, Problem> {
    let turn = large::turn(Of::Node, caller.role, &console.counters).await?;
    turn.answer(move || Text::json(&(console.status)())).await
}

#[derive(Serialize)]
struct Events {
    events: Vec<Event>,
}

async fn events(State(console): Shared, Extension(caller): Extension<Caller>) -> Result<Response, Problem> {
    let turn = large::turn(Of::Node, caller.role, &console.counters).await?;
    let events = move || Events {
        events: (console.status)().events,
    };
    turn.answer(move || Text::json(&events())).await
}

async fn config(State(console): Shared, Extension(caller): Extension<Caller>) -> Result<Response, Problem> {
    let turn = large::turn(Of::Node, caller.role, &console.counters).await?;
    turn.answer(move || Ok(Text::toml((console.effective)()))).await
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

async fn explain(
    State(console): Shared,
    query: Result<Json<ExplainQuery>, JsonRejection>,
) -> Result<Json<Explanation>, Problem> {
    let Json(query) = query.map_err(|rejection| json_problem(&rejection, MAX_BODY_BYTES))?;
    (console.explain)(&query)
        .map(Json)
        .map_err(|detail| Problem::new(Kind::BadQuery, detail))
}

async fn plan(
    State(console): Shared,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    // Before the body is read: it is what takes the memory.
    let turn = turn(caller.role).await;
    let query: PlanQuery = large::body(request).await?;
    let answering = large::turn(Of::Node, caller.role, &console.counters).await?;
    // What has begun goes on when the client leaves, and so does its turn.
    let planned = tokio::spawn(async move {
        let planned = (console.plan)(query, caller.role).await;
        drop(turn);
        planned
    });
    let planned = planned
        .await
        .unwrap_or_else(|error| Err(vec![format!("a fault of Evenkeel: {error}")]));
    match planned {
        Ok(plan) => answering.answer(move || Text::json(&plan)).await,
        Err(errors) => {
            let detail = format!("{}; nothing was changed", count(errors.len(), "error"));
            Err(Problem::new(Kind::BadConfig, detail).with_errors(errors))
        }
    }
}

async fn reload(State(console): Shared) -> Result<Json<ReloadStatus>, Problem> {
    let result = ask(&console.reloads, |reply| ReloadRequest { reply }).await?;
    if result.ok {
        return Ok(Json(result));
    }
    let detail = format!("{} in the new config", count(result.messages.len(), "error"));
    Err(Problem::new(Kind::ReloadRefused, detail).with_errors(result.messages))
}

/// What stands after an order.
#[derive(Serialize)]
struct Ordered {
    #[serde(flatten)]
    key: OverrideKey,
    order: Option<Override>,
}

async fn order(
    State(console): Shared,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Result<Json<OrderBody>, JsonRejection>,
) -> Result<Json<Ordered>, Problem> {
    let Path((name, address)) = path.map_err(|e| Problem::new(Kind::NotFound, e.body_text()))?;
    let load_balancer =
        Name::parse(&name).map_err(|e| Problem::new(Kind::UnknownLoadBalancer, e.to_string()))?;
    let address = address.parse().map_err(|_| {
        let detail =
            format!("`{address}` is not an IP address and port like `10.0.0.1:9001` or `[::1]:9001`");
        Problem::new(Kind::BadAddress, detail)
    })?;
    let key = OverrideKey {
        load_balancer,
        address,
    };
    let Json(body) = body.map_err(|rejection| json_problem(&rejection, MAX_BODY_BYTES))?;
    let order = body.into_order(key.clone(), &caller.login)?;
    note.say(&told(&order));
    let standing = ask(&console.orders, |reply| OrderRequest { order, reply })
        .await?
        .map_err(|error| order_problem(&error))?;
    Ok(Json(Ordered { key, order: standing }))
}

/// An order in words, for the record.
fn told(order: &Order) -> String {
    let action = match order.action {
        OrderAction::Mode(mode) => mode.as_str().to_owned(),
        OrderAction::Weight(weight) => format!("weight {weight}"),
    };
    signed(&action, order.lasts, &order.by)
}

/// What is ordered, for how long, and who the request says orders it.
pub(crate) fn signed(what: &str, lasts: Option<Duration>, by: &str) -> String {
    let lasts = lasts.map_or_else(String::new, |time| format!(" for {}", format_duration(time)));
    format!("{what}{lasts}, by {by}")
}

pub(crate) fn order_problem(error: &OrderError) -> Problem {
    let kind = match error {
        OrderError::UnknownLoadBalancer { .. } => Kind::UnknownLoadBalancer,
        OrderError::UnknownBackend { .. } => Kind::UnknownBackend,
        OrderError::UnknownRoute { .. } => Kind::UnknownRoute,
        OrderError::BadWeight(_)
        | OrderError::BadSplitWeight(_)
        | OrderError::BadWeights { .. }
        | OrderError::NoSplit(_) => Kind::BadOrder,
        OrderError::StoreFailed(_) => Kind::StoreFailed,
        OrderError::StoreUnavailable(_) => Kind::StoreUnavailable,
    };
    Problem::new(kind, error.to_string())
}

/// Sends a question to the owner of the state and waits for its answer.
pub(crate) async fn ask<Question, Answer>(
    owner: &mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<Answer>) -> Question,
) -> Result<Answer, Problem> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        owner.send(question(reply)).await.ok()?;
        answer.await.ok()
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Problem::new(Kind::NoAnswer, "the process is shutting down")),
        Err(_) => {
            let detail =
                format!("no answer within {ANSWER_TIMEOUT:?}; it may still take effect: see the status");
            Err(Problem::new(Kind::NoAnswer, detail))
        }
    }
}

async fn not_found(uri: Uri) -> Problem {
    let detail = format!(
        "there is no `{}`; /api/v1/openapi.json lists what there is",
        uri.path()
    );
    Problem::new(Kind::NotFound, detail)
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(
        Kind::MethodNotAllowed,
        format!("`{}` has no {method}", uri.path()),
    )
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Neither an undocumented route nor a documented one that is not there, and each with the role that it needs.
    #[test]
    fn the_routes_are_those_of_the_openapi_document() {
        let document: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let documented: BTreeSet<(String, String, String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, operations)| {
                operations.as_object().unwrap().iter().map(|(method, operation)| {
                    let role = |key: &str| operation[key].as_str().unwrap_or("none is told").to_owned();
                    let unless_dry = role("x-role-unless-dry-run");
                    (method.to_uppercase(), path.clone(), role("x-role"), unless_dry)
                })
            })
            .collect();
        let routed: BTreeSet<(String, String, String, String)> = table()
            .into_iter()
            .map(|(method, path, need, _)| {
                let role = match need {
                    Need::PoolToken => "pool token",
                    _ => need.to_enter().map_or("none", AdminRole::as_str),
                };
                let unless_dry = match need {
                    Need::UnlessDry(role) => role.as_str(),
                    _ => "none is told",
                };
                (
                    method.to_string(),
                    path.to_owned(),
                    role.to_owned(),
                    unless_dry.to_owned(),
                )
            })
            .collect();
        assert_eq!(routed, documented);
    }
}
