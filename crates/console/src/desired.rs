//! The load balancers of the store: shown, compared, changed.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json};
use model::config::{AdminRole, Name};
use model::desired::{
    Change, ChangeQuery, ConfirmQuery, DesiredAnswer, DesiredFault, DesiredProblem, DesiredQuery, MAX_HISTORY,
};

use crate::Console;
use crate::access::{Need, require};
use crate::audit::Note;
use crate::large::{self, Of, Text};
use crate::limits::{ANSWER_TIMEOUT, MAX_BODY_BYTES, MAX_CONFIG_BODY_BYTES};
use crate::login::Caller;
use crate::order::{json_problem, signed_by};
use crate::problem::{Kind, Problem};
use crate::turns::turn;

/// Changes told of where no number is asked for.
const DEFAULT_LAST: usize = 20;

type Shared = State<Arc<Console>>;
type Answer = Result<Response, Problem>;

/// The routes, as `routes::table` has them.
pub(crate) fn table() -> [(Method, &'static str, Need, MethodRouter<Arc<Console>>); 6] {
    let viewer = Need::Role(AdminRole::Viewer);
    let admin = Need::Role(AdminRole::Admin);
    [
        (Method::GET, "/api/v1/desired", viewer, get(state)),
        (Method::GET, "/api/v1/desired/history", viewer, get(history)),
        (
            Method::GET,
            "/api/v1/desired/history/{revision}",
            viewer,
            get(revision),
        ),
        (Method::GET, "/api/v1/desired/diff", viewer, get(diff)),
        (
            Method::POST,
            "/api/v1/desired/changes",
            Need::UnlessDry(AdminRole::Admin),
            post(change).layer(DefaultBodyLimit::max(MAX_CONFIG_BODY_BYTES)),
        ),
        (Method::POST, "/api/v1/desired/confirm", admin, post(confirm)),
    ]
}

async fn state(State(console): Shared, Extension(caller): Extension<Caller>, uri: Uri) -> Answer {
    let [revision] = numbers(&uri, ["revision"])?;
    show(&console, &caller, DesiredQuery::State(revision)).await
}

async fn history(State(console): Shared, Extension(caller): Extension<Caller>, uri: Uri) -> Answer {
    let [last] = numbers(&uri, ["last"])?;
    let last = last.map_or(Some(DEFAULT_LAST), |last| usize::try_from(last).ok());
    let last = last.filter(|last| (1..=MAX_HISTORY).contains(last));
    let last = last.ok_or_else(|| bad_query(format!("`last` is a number from 1 to {MAX_HISTORY}")))?;
    show(&console, &caller, DesiredQuery::History { last }).await
}

async fn revision(
    State(console): Shared,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
) -> Answer {
    let Path(text) = path.map_err(|e| Problem::new(Kind::NotFound, e.body_text()))?;
    let revision = text
        .parse()
        .map_err(|_| bad_query(format!("`{text}` is not the number of a revision")))?;
    show(&console, &caller, DesiredQuery::Revision(revision)).await
}

async fn diff(State(console): Shared, Extension(caller): Extension<Caller>, uri: Uri) -> Answer {
    let [from, to] = numbers(&uri, ["from", "to"])?;
    let from = from.ok_or_else(|| bad_query("say `from` which revision".to_owned()))?;
    show(&console, &caller, DesiredQuery::Diff { from, to }).await
}

async fn change(
    State(console): Shared,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    request: Request,
) -> Answer {
    // Before the body is read: it is what takes the memory.
    let _turn = turn(caller.role).await;
    let mut query: ChangeQuery = large::body(request).await?;
    let by = signed_by(query.by.take(), &caller.login)?;
    note.say(&wish(&query, &by));
    match query.dry_run {
        true => note.dry_run(),
        false => require(&console, &caller, AdminRole::Admin)?,
    }
    query.by = Some(by);
    if query.dry_run {
        return show(&console, &caller, DesiredQuery::Change(query)).await;
    }
    let answer = ask(&console, DesiredQuery::Change(query)).await?;
    if let DesiredAnswer::Changed(made) = &answer
        && made.changed
    {
        note.say(&format!("revision {}", made.revision));
    }
    told(answer).await
}

async fn confirm(
    State(console): Shared,
    Extension(caller): Extension<Caller>,
    Extension(note): Extension<Note>,
    body: Result<Json<ConfirmQuery>, JsonRejection>,
) -> Answer {
    let Json(mut query) = body.map_err(|rejection| json_problem(&rejection, MAX_BODY_BYTES))?;
    let by = signed_by(query.by.take(), &caller.login)?;
    let which = query
        .revision
        .map_or_else(|| "what awaits it".to_owned(), |revision| revision.to_string());
    note.say(&format!("confirm {which}, by {by}"));
    query.by = Some(by);
    told(ask(&console, DesiredQuery::Confirm(query)).await?).await
}

/// What is wanted, for the audit log: never a text, which may hold secrets.
fn wish(query: &ChangeQuery, by: &str) -> String {
    let wish = match &query.change {
        Change::Apply(text) => format!("apply {}", text.name.as_deref().unwrap_or("a text")),
        Change::Delete(names) => {
            let names: Vec<&str> = names.iter().map(Name::as_str).collect();
            format!("delete {}", names.join(", "))
        }
        Change::Rollback(revision) => format!("rollback to {revision}"),
    };
    format!("{wish}, by {by}")
}

/// The numbers behind `?`, of these names and no others.
fn numbers<const N: usize>(uri: &Uri, names: [&str; N]) -> Result<[Option<u64>; N], Problem> {
    let mut found = [None; N];
    let query = uri.query().unwrap_or_default();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let place = names
            .iter()
            .zip(&mut found)
            .find(|(known, _)| **known == name)
            .map(|(_, place)| place);
        let place = place.ok_or_else(|| bad_query(format!("the parameters are: {}", names.join(", "))))?;
        let number = value
            .parse()
            .map_err(|_| bad_query(format!("`{name}` is a whole number")))?;
        *place = Some(number);
    }
    Ok(found)
}

/// Answers who changes nothing.
async fn show(console: &Console, caller: &Caller, query: DesiredQuery) -> Answer {
    // Before the store is asked: an answer is in memory from then on.
    let turn = large::turn(Of::Store, caller.role, &console.counters).await?;
    let answer = ask(console, query).await?;
    turn.answer(move || Text::json(&answer)).await
}

/// Tells what was changed. Nobody is refused the answer to what is done already.
async fn told(answer: DesiredAnswer) -> Answer {
    large::apart(move || Json(answer).into_response()).await
}

async fn ask(console: &Console, query: DesiredQuery) -> Result<DesiredAnswer, Problem> {
    let changes = matches!(&query, DesiredQuery::Change(query) if !query.dry_run)
        || matches!(query, DesiredQuery::Confirm(_));
    match tokio::time::timeout(ANSWER_TIMEOUT, (console.desired)(query)).await {
        Ok(answer) => answer.map_err(problem),
        Err(_) => {
            let detail = format!("the store gave no answer within {ANSWER_TIMEOUT:?}");
            Err(match changes {
                true => Problem::new(Kind::OutcomeUnknown, format!("{detail}: see the history")),
                false => Problem::new(Kind::StoreUnavailable, detail),
            })
        }
    }
}

fn problem(of: DesiredProblem) -> Problem {
    let kind = match of.fault {
        DesiredFault::Conflict => Kind::Conflict,
        DesiredFault::UnknownLoadBalancer => Kind::UnknownLoadBalancer,
        DesiredFault::UnknownRevision => Kind::UnknownRevision,
        DesiredFault::DeclaredInFile => Kind::DeclaredInFile,
        DesiredFault::BadConfig => Kind::BadConfig,
        DesiredFault::NothingPending => Kind::NothingPending,
        DesiredFault::BadQuery => Kind::BadQuery,
        DesiredFault::StoreUnavailable => Kind::StoreUnavailable,
        DesiredFault::OutcomeUnknown => Kind::OutcomeUnknown,
        DesiredFault::StoreDamaged => Kind::StoreDamaged,
    };
    Problem::new(kind, of.detail).with_errors(of.errors)
}

fn bad_query(detail: String) -> Problem {
    Problem::new(Kind::BadQuery, detail)
}
