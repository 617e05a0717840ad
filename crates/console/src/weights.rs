//! Orders for the weights of a split.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::{Extension, Json};
use model::config::Name;
use model::state::{RouteKey, RouteOrder};
use serde::Serialize;

use crate::audit::Note;
use crate::limits::MAX_BODY_BYTES;
use crate::login::Caller;
use crate::order::{WeightsBody, json_problem};
use crate::problem::{Kind, Problem};
use crate::routes::{ask, order_problem, signed};
use crate::{Console, WeightsRequest};

/// What stands after an order.
#[derive(Serialize)]
pub(crate) struct Weighed {
    #[serde(flatten)]
    key: RouteKey,
    order: Option<RouteOrder>,
}

pub(crate) async fn order(
    State(console): State<Arc<Console>>,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Result<Json<WeightsBody>, JsonRejection>,
) -> Result<Json<Weighed>, Problem> {
    let Path((lb, route)) = path.map_err(|e| Problem::new(Kind::NotFound, e.body_text()))?;
    let key = RouteKey {
        load_balancer: Name::parse(&lb)
            .map_err(|e| Problem::new(Kind::UnknownLoadBalancer, e.to_string()))?,
        route: Name::parse(&route).map_err(|e| Problem::new(Kind::UnknownRoute, e.to_string()))?,
    };
    let Json(body) = body.map_err(|rejection| json_problem(&rejection, MAX_BODY_BYTES))?;
    let order = body.into_order(key.clone(), &caller.login)?;
    let weights = order.weights.as_ref().map(|weights| {
        let each = weights.iter().map(|(pool, weight)| format!("{pool}={weight}"));
        format!("weights {}", each.collect::<Vec<_>>().join(" "))
    });
    let what = weights.unwrap_or_else(|| "weights as configured".to_owned());
    note.say(&signed(&what, order.lasts, &order.by));
    let standing = ask(&console.weights, |reply| WeightsRequest { order, reply })
        .await?
        .map_err(|error| order_problem(&error))?;
    Ok(Json(Weighed { key, order: standing }))
}
