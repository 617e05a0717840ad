//! The last records of the audit log.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use serde::Serialize;

use crate::limits::MAX_AUDIT_SHOWN;
use crate::problem::{Kind, Problem};
use crate::{AuditRecord, Console};

/// Records told where no number is asked for.
const DEFAULT_LIMIT: usize = 100;

/// Newest first.
#[derive(Serialize)]
pub(crate) struct Records {
    records: Vec<AuditRecord>,
}

pub(crate) async fn last(State(console): State<Arc<Console>>, uri: Uri) -> Result<Json<Records>, Problem> {
    let limit =
        limit_of(uri.query().unwrap_or_default()).map_err(|detail| Problem::new(Kind::BadQuery, detail))?;
    let Some(log) = console.audit.clone() else {
        return Err(Problem::new(Kind::NoAuditLog, "`admin.audit_log` is `false`"));
    };
    // It reads a file.
    let read = tokio::task::spawn_blocking(move || log.last(limit)).await;
    match read {
        Ok(Ok(records)) => Ok(Json(Records { records })),
        Ok(Err(error)) => {
            let detail = format!("the audit log cannot be read: {error}");
            Err(Problem::new(Kind::Internal, detail))
        }
        Err(error) => Err(Problem::new(
            Kind::Internal,
            format!("a fault of Evenkeel: {error}"),
        )),
    }
}

/// What stands behind `?`: `limit=COUNT`.
fn limit_of(query: &str) -> Result<usize, String> {
    let value = match query.split_once('=') {
        None if query.is_empty() => return Ok(DEFAULT_LIMIT),
        Some(("limit", value)) => value,
        _ => return Err("the parameter is `limit`".to_owned()),
    };
    let number = value.parse().ok().filter(|n| (1..=MAX_AUDIT_SHOWN).contains(n));
    number.ok_or_else(|| format!("`limit` is a number from 1 to {MAX_AUDIT_SHOWN}"))
}
