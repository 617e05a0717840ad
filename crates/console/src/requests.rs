//! Remembered requests: one by its id, or the last ones.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use model::record::{MAX_RECORDS, RecordQuery, Records};

use crate::Console;
use crate::limits::ANSWER_TIMEOUT;
use crate::problem::{Kind, Problem};

/// Requests told of where no number is asked for.
const DEFAULT_LAST: usize = 20;

pub(crate) async fn last(State(console): State<Arc<Console>>, uri: Uri) -> Result<Json<Records>, Problem> {
    let query =
        last_of(uri.query().unwrap_or_default()).map_err(|detail| Problem::new(Kind::BadQuery, detail))?;
    ask(&console, query).await.map(Json)
}

/// What stands behind `?`: `last=COUNT`, `all=true`.
fn last_of(query: &str) -> Result<RecordQuery, String> {
    let (mut count, mut all) = (DEFAULT_LAST, false);
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("last", value)) => {
                let number = value.parse().ok().filter(|n| (1..=MAX_RECORDS).contains(n));
                count = number.ok_or_else(|| format!("`last` is a number from 1 to {MAX_RECORDS}"))?;
            }
            Some(("all", value)) => {
                all = value
                    .parse()
                    .map_err(|_| "`all` is `true` or `false`".to_owned())?;
            }
            _ => return Err("the parameters are `last` and `all`".to_owned()),
        }
    }
    Ok(RecordQuery::Last { count, all })
}

pub(crate) async fn by_id(
    State(console): State<Arc<Console>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Records>, Problem> {
    let Path(id) = path.map_err(|e| Problem::new(Kind::NotFound, e.body_text()))?;
    let records = ask(&console, RecordQuery::Id(id.clone())).await?;
    if records.requests.is_empty() {
        let detail = format!(
            "`{id}` is not remembered: failures are kept until newer ones take their place, and only a sample of the successes is kept (see [recorder] in the config)"
        );
        return Err(Problem::new(Kind::UnknownRequest, detail));
    }
    Ok(Json(records))
}

async fn ask(console: &Console, query: RecordQuery) -> Result<Records, Problem> {
    match tokio::time::timeout(ANSWER_TIMEOUT, (console.recall)(query)).await {
        Ok(requests) => Ok(Records { requests }),
        Err(_) => {
            let detail = format!("no answer within {ANSWER_TIMEOUT:?}");
            Err(Problem::new(Kind::NoAnswer, detail))
        }
    }
}
