//! Alerts: what fires, and a test of who is told.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use model::alert::{AlertsStatus, TestResult};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::Console;
use crate::problem::Problem;
use crate::routes::ask;

/// Whom the API asks about alerts.
#[derive(Clone)]
pub struct Alerting {
    /// All alerts, and those who are told.
    pub status: Arc<dyn Fn() -> AlertsStatus + Send + Sync>,
    /// Where requests for a test go: an alert to each receiver. Each is answered with what came of it.
    pub tests: mpsc::Sender<oneshot::Sender<Vec<TestResult>>>,
}

/// What came of a test.
#[derive(Serialize)]
pub(crate) struct Tested {
    results: Vec<TestResult>,
}

pub(crate) async fn show(State(console): State<Arc<Console>>) -> Json<AlertsStatus> {
    Json((console.alerts.status)())
}

pub(crate) async fn test(State(console): State<Arc<Console>>) -> Result<Json<Tested>, Problem> {
    let results = ask(&console.alerts.tests, |reply| reply).await?;
    Ok(Json(Tested { results }))
}
