//! Who may do what: every request passes here before its route.
//!
//! Where a login is configured, every request needs one. Without one the API listens on loopback only, where the
//! danger is the operator's own browser: any web page can make it send requests to `127.0.0.1`. Two checks stop that.
//! The `Host` must be an IP address or `localhost`, so that a foreign name that resolves to loopback (DNS rebinding)
//! is refused; and a request with an `Origin` must come from the API's own origin.
//!
//! What somebody may do is his role's, and each route says which is the least that it needs (`routes::table`).

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use model::config::{Admin, AdminRole, TokenHash};

use crate::Console;
use crate::audit::{AuditRecord, Draft, Note};
use crate::failed_logins::FailedLogins;
use crate::limits::REQUEST_TIMEOUT;
use crate::login::{self, Caller, Failure, Peer};
use crate::members::PoolPath;
use crate::problem::{Kind, Problem};

/// Paths that anyone may ask, for the probes of whatever supervises the process. They tell one bit.
const OPEN_PATHS: [&str; 2] = ["/livez", "/readyz"];

/// The metrics' path, which may be open too.
const METRICS: &str = "/metrics";

/// The least that a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Open,
    /// The token of the pool that the path names ([`PoolPath`]), and of no use anywhere else.
    PoolToken,
    /// This role, or one above it.
    Role(AdminRole),
    /// To be told what it would do, the role of a viewer; to have it done, this one, which the route itself asks for
    /// ([`require`]) once it knows which is wanted.
    UnlessDry(AdminRole),
}

impl Need {
    /// The least role that gets to the route.
    pub(crate) fn to_enter(self) -> Option<AdminRole> {
        match self {
            Self::Open | Self::PoolToken => None,
            Self::Role(role) => Some(role),
            Self::UnlessDry(_) => Some(AdminRole::Viewer),
        }
    }

    /// The least role that changes something there; `None` where nothing can be changed.
    pub(crate) fn to_change(self) -> Option<AdminRole> {
        match self {
            Self::UnlessDry(role) => Some(role),
            Self::Role(role) => Some(role).filter(|role| *role > AdminRole::Viewer),
            Self::Open | Self::PoolToken => None,
        }
    }
}

/// Whether the caller's role is enough, where the route alone can tell.
pub(crate) fn require(console: &Console, caller: &Caller, least: AdminRole) -> Result<(), Problem> {
    if caller.role >= least {
        return Ok(());
    }
    console.counters.deny(least);
    Err(denied(least, Some(caller)))
}

/// What stands before the routes.
pub(crate) struct Guard {
    pub(crate) console: Arc<Console>,
    /// Whether only this machine can reach it.
    on_loopback: bool,
    failed: Mutex<FailedLogins>,
    /// What the times of `failed` count from.
    started: Instant,
}

/// Stands before everything: who asks, and the fields that every response carries.
pub(crate) async fn guard(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let mut response = match guard.admit(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(Refused { problem, is_recorded }) => {
            let response = problem.into_response();
            if is_recorded {
                let record = Draft::of(&request, None).finish(None, &response);
                guard.record_refusal(record).await;
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Stands before a route: whether the caller's role is enough, the time limit, and the record of what was done.
pub(crate) async fn authorise(
    State((guard, need)): State<(Arc<Guard>, Need)>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    let role = caller.as_ref().map(|caller| caller.role);
    if let Some(least) = need.to_enter()
        && role.is_none_or(|role| role < least)
    {
        guard.console.counters.deny(least);
        let record = Draft::of(&request, caller.as_ref());
        let response = denied(least, caller.as_ref()).into_response();
        guard.record_refusal(record.finish(None, &response)).await;
        return response;
    }
    if need == Need::PoolToken {
        return with_record_of_member(guard, request, next, caller.as_ref()).await;
    }
    let least = match need.to_change() {
        Some(least) if !request.method().is_safe() => least,
        _ => return within_time(request, next).await,
    };
    // Whoever cannot change anything can send as much as he likes: he has the allowance of strangers.
    let may_change = role.is_some_and(|role| role >= least);
    let (record, note) = (Draft::of(&request, caller.as_ref()), Note::default());
    request.extensions_mut().insert(note.clone());
    // A task of its own: what has begun goes on when the client leaves, and must be recorded then too. And one within
    // it: what ends in a fault may have changed something before.
    let done = tokio::spawn(async move {
        let answered = tokio::spawn(within_time(request, next)).await;
        let response = answered.unwrap_or_else(fault);
        let record = record.finish(note.text(), &response);
        match may_change {
            _ if note.is_of_dry_run() => {}
            true => guard.record(record).await,
            false => guard.record_refusal(record).await,
        }
        response
    });
    done.await.unwrap_or_else(fault)
}

fn fault(error: tokio::task::JoinError) -> Response {
    Problem::new(Kind::Internal, format!("a fault of Evenkeel: {error}")).into_response()
}

/// What a member says is recorded where the route has noted that it is news: not each sign of life.
async fn with_record_of_member(
    guard: Arc<Guard>,
    mut request: Request,
    next: Next,
    caller: Option<&Caller>,
) -> Response {
    let (record, note) = (Draft::of(&request, caller), Note::default());
    request.extensions_mut().insert(note.clone());
    let response = within_time(request, next).await;
    if let Some(what) = note.text() {
        guard.record_member(record.finish(Some(what), &response)).await;
    }
    response
}

async fn within_time(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    answer.unwrap_or_else(|_| {
        let detail = format!("not complete within {REQUEST_TIMEOUT:?}");
        Problem::new(Kind::RequestTimeout, detail).into_response()
    })
}

fn denied(least: AdminRole, caller: Option<&Caller>) -> Problem {
    let kind = match least {
        AdminRole::Admin => Kind::NeedsAdmin,
        _ => Kind::NeedsOperator,
    };
    let detail = match caller {
        Some(caller) => format!(
            "this needs the role `{}`; `{}` has the role `{}`",
            least.as_str(),
            caller.login.name(),
            caller.role.as_str()
        ),
        None => format!("this needs the role `{}`", least.as_str()),
    };
    Problem::new(kind, detail)
}

impl Guard {
    /// `on_loopback`: only this machine can reach the API.
    pub(crate) fn new(console: Arc<Console>, on_loopback: bool) -> Self {
        Self {
            console,
            on_loopback,
            failed: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Who sends the request, or why he is not let in.
    fn admit(&self, request: &Request) -> Result<Caller, Refused> {
        let config = (self.console.config)();
        let admin = &config.admin;
        let path = request.uri().path();
        if OPEN_PATHS.contains(&path) || (path == METRICS && admin.open_metrics) {
            return Ok(Caller::anybody());
        }
        if let Some(pool) = PoolPath::of(path) {
            return self.admit_member(request, admin, &pool.token(&config));
        }
        let wants_login = self.console.token.is_some() || admin.wants_credentials();
        if !wants_login && self.on_loopback {
            let own = if self.console.tls.is_some() {
                "https"
            } else {
                "http"
            };
            return match local_refusal(request.headers(), own) {
                None => Ok(Caller::local()),
                Some(problem) => Err(Refused::unrecorded(problem)),
            };
        }
        self.log_in(request, admin)
    }

    /// A member shows the token of its pool; what an administrator shows opens nothing here.
    fn admit_member(
        &self,
        request: &Request,
        admin: &Admin,
        expected: &Option<TokenHash>,
    ) -> Result<Caller, Refused> {
        let failure = match login::shows(request.headers(), expected.as_ref()) {
            Ok(()) => return Ok(Caller::member()),
            Err(failure) => failure,
        };
        self.console.counters.fail(failure);
        Err(Refused::unrecorded(refused(failure, admin)))
    }

    fn log_in(&self, request: &Request, admin: &Admin) -> Result<Caller, Refused> {
        let (headers, peer) = (request.headers(), request.extensions().get::<Peer>());
        let now = self.started.elapsed();
        let wait = peer.and_then(|peer| self.failed().wait(peer.address.ip(), now));
        let counters = &self.console.counters;
        if let Some(wait) = wait
            && login::could_be_guessed(headers)
        {
            counters.limit();
            return Err(Refused::recorded(too_many(wait)));
        }
        let certificate = peer.and_then(|peer| peer.certificate.as_deref());
        let failure = match login::identify(self.console.token.as_ref(), admin, headers, certificate) {
            Ok(caller) => return Ok(caller),
            Err(failure) => failure,
        };
        // Saying nothing is no attempt to guess.
        if failure == Failure::NoCredential {
            counters.fail(failure);
            return Err(Refused::unrecorded(refused(failure, admin)));
        }
        if let Some(wait) = wait {
            counters.limit();
            return Err(Refused::recorded(too_many(wait)));
        }
        counters.fail(failure);
        if let Some(peer) = peer {
            self.failed().fail(peer.address.ip(), now);
        }
        Err(Refused::recorded(refused(failure, admin)))
    }

    async fn record(&self, record: AuditRecord) {
        if let Some(log) = self.console.audit.clone() {
            written(tokio::task::spawn_blocking(move || log.record(record))).await;
        }
    }

    async fn record_member(&self, record: AuditRecord) {
        if let Some(log) = self.console.audit.clone() {
            let now = self.started.elapsed();
            written(tokio::task::spawn_blocking(move || {
                log.record_member(record, now)
            }))
            .await;
        }
    }

    async fn record_refusal(&self, record: AuditRecord) {
        if let Some(log) = self.console.audit.clone() {
            let now = self.started.elapsed();
            written(tokio::task::spawn_blocking(move || {
                log.record_refusal(record, now)
            }))
            .await;
        }
    }

    fn failed(&self) -> MutexGuard<'_, FailedLogins> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer waits until the record is written.
async fn written(writing: tokio::task::JoinHandle<()>) {
    if let Err(error) = writing.await {
        tracing::error!("a record of the audit log was lost: {error}");
    }
}

/// Somebody who is not let in.
struct Refused {
    problem: Problem,
    /// Whether it was an attempt, which the audit log tells of.
    is_recorded: bool,
}

impl Refused {
    fn recorded(problem: Problem) -> Self {
        Self {
            problem,
            is_recorded: true,
        }
    }

    fn unrecorded(problem: Problem) -> Self {
        Self {
            problem,
            is_recorded: false,
        }
    }
}

fn too_many(wait: Duration) -> Problem {
    let seconds = wait.as_secs().saturating_add(1);
    let detail = format!(
        "logins from this address have failed too often: the next is looked at in {seconds} s; tokens made by `evenkeel token create` and client certificates are taken all the while"
    );
    Problem::new(Kind::TooManyFailures, detail).retry_after(seconds)
}

fn refused(failure: Failure, admin: &Admin) -> Problem {
    let detail = match failure {
        Failure::WrongToken => "the token is wrong",
        Failure::UnknownCertificate => {
            "the certificate is valid, but `[[admin.certificates]]` does not list it"
        }
        Failure::NoCredential if admin.certificates.is_empty() => "send `Authorization: Bearer TOKEN`",
        Failure::NoCredential => "send `Authorization: Bearer TOKEN`, or show a client certificate",
    };
    Problem::new(Kind::Unauthorized, detail)
}

fn local_refusal(headers: &HeaderMap, scheme: &str) -> Option<Problem> {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    if host.is_some_and(|host| !is_local(host)) {
        let detail = "without a token use an IP address or `localhost` as the host, or configure a token";
        return Some(Problem::new(Kind::HostNotAllowed, detail));
    }
    let origin = headers.get(header::ORIGIN)?.as_bytes();
    let after_scheme = origin.strip_prefix(scheme.as_bytes());
    let own = host.is_some_and(|host| after_scheme.and_then(|rest| rest.strip_prefix(b"://")) == Some(host));
    (!own).then(|| {
        let detail = "the request comes from another web page; configure a token to allow such clients";
        Problem::new(Kind::CrossOrigin, detail)
    })
}

/// Whether a `Host` value names this machine without asking DNS.
fn is_local(host: &[u8]) -> bool {
    let Ok(host) = str::from_utf8(host) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    }
    .unwrap_or_default();
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names_need_no_resolver() {
        for local in [
            "127.0.0.1:7700",
            "localhost",
            "LOCALHOST:7700",
            "[::1]:7700",
            "10.0.0.1",
        ] {
            assert!(is_local(local.as_bytes()), "{local}");
        }
        for foreign in [
            "evil.example:7700",
            "127.0.0.1.evil.example",
            "localhost.evil",
            "",
            "::1",
        ] {
            assert!(!is_local(foreign.as_bytes()), "{foreign}");
        }
    }
}
