//! What members say of themselves: that they are there, that they go, that they live. Their token opens this for one
//! pool, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::routing::{MethodRouter, delete, post, put};
use axum::{Extension, Json};
use model::config::{Config, MAX_WEIGHT, Membership, Name, TokenHash};
use model::state::{BackendId, Listed, MemberAction};
use model::units::{format_duration, parse_duration};
use serde::{Deserialize, Serialize};

use crate::access::Need;
use crate::audit::Note;
use crate::limits::MAX_BODY_BYTES;
use crate::problem::{Kind, Problem};
use crate::routes::ask;
use crate::{Console, MemberAnswer, MemberError, MemberNews, MemberRequest};

/// Where a member registers, and leaves.
const MEMBER: &str = "/api/v1/load-balancers/{lb}/pools/{pool}/members/{address}";
/// Where a member says that it lives.
const HEARTBEAT: &str = "/api/v1/load-balancers/{lb}/pools/{pool}/heartbeats/{address}";

/// The routes, as `routes::table` has them.
pub(crate) fn table() -> [(Method, &'static str, Need, MethodRouter<Arc<Console>>); 3] {
    [
        (Method::PUT, MEMBER, Need::PoolToken, put(register)),
        (Method::DELETE, MEMBER, Need::PoolToken, delete(leave)),
        (Method::POST, HEARTBEAT, Need::PoolToken, post(beat)),
    ]
}

/// Shortest and longest time that a member may ask for.
const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// The pool that a path is about, and what for.
pub(crate) struct PoolPath {
    load_balancer: Option<Name>,
    pool: Option<Name>,
    heartbeat: bool,
}

impl PoolPath {
    /// `None` for paths that no member asks.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/api/v1/load-balancers/")?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [lb, "pools", pool, what @ ("members" | "heartbeats"), _] = parts.as_slice() else {
            return None;
        };
        Some(Self {
            load_balancer: Name::parse(lb).ok(),
            pool: Name::parse(pool).ok(),
            heartbeat: *what == "heartbeats",
        })
    }

    /// The hash of the token that opens it, where there is one.
    pub(crate) fn token(&self, config: &Config) -> Option<TokenHash> {
        let membership = membership(config, self.load_balancer.as_ref()?, self.pool.as_ref()?)?;
        match self.heartbeat {
            true => membership.heartbeat.as_ref().map(|heartbeat| heartbeat.token),
            false => membership
                .registration
                .as_ref()
                .map(|registration| registration.token),
        }
    }
}

fn membership<'c>(config: &'c Config, lb: &Name, pool: &Name) -> Option<&'c Membership> {
    let pool = config.load_balancers.get(lb)?.pools.get(pool)?;
    Some(&pool.membership)
}

/// What a member says of itself; all of it may be left out, and the body with it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberBody {
    weight: Option<u32>,
    zone: Option<Name>,
    #[serde(default)]
    draining: bool,
    load: Option<u8>,
    ttl: Option<String>,
}

impl MemberBody {
    fn read(bytes: &Bytes) -> Result<Self, Problem> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        serde_json::from_slice(bytes).map_err(|error| Problem::new(Kind::BadJson, error.to_string()))
    }

    fn into_action(self) -> Result<MemberAction, Problem> {
        let refuse = |detail: String| Problem::new(Kind::BadMember, detail);
        let weight = self.weight.unwrap_or(1);
        if weight > MAX_WEIGHT {
            return Err(refuse(format!(
                "weight {weight} is over the greatest, {MAX_WEIGHT}"
            )));
        }
        if let Some(load) = self.load.filter(|load| *load > 100) {
            return Err(refuse(format!("load {load} is over 100: it is in percent")));
        }
        let ttl = match self.ttl.as_deref() {
            None => None,
            Some(text) => {
                let ttl = parse_duration(text).ok().filter(|ttl| TTL.contains(ttl));
                let wrong = || refuse(format!("ttl `{text}` is no time from 1s to 1h"));
                Some(ttl.ok_or_else(wrong)?)
            }
        };
        let listed = Listed {
            weight,
            zone: self.zone,
            draining: self.draining,
            load: self.load,
            life: 0,
        };
        Ok(MemberAction::Register(listed, ttl))
    }
}

/// What holds after a registration.
#[derive(Serialize)]
struct Registered {
    #[serde(flatten)]
    backend: BackendId,
    /// Renew within this time, or be gone.
    ttl: String,
}

type Place = Result<Path<(String, String, String)>, PathRejection>;

async fn register(
    State(console): State<Arc<Console>>,
    Extension(note): Extension<Note>,
    path: Place,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Registered>, Problem> {
    let backend = backend(path)?;
    let body = body.map_err(|error| {
        let detail = format!("{}: at most {MAX_BODY_BYTES} bytes", error.body_text());
        Problem::new(Kind::BodyTooLarge, detail)
    })?;
    let action = MemberBody::read(&body)?.into_action()?;
    let said = in_words(&action);
    let answer = send(&console, backend.clone(), action).await?;
    match answer.news {
        Some(MemberNews::Changed) => note.say(&format!("changed: {said}")),
        Some(_) => note.say(&format!("registered: {said}")),
        None => {}
    }
    Ok(Json(Registered {
        backend,
        ttl: format_duration(answer.ttl.unwrap_or_default()),
    }))
}

/// What a registration says, for the record.
fn in_words(action: &MemberAction) -> String {
    let MemberAction::Register(listed, _) = action else {
        return String::new();
    };
    let zone = listed.zone.as_ref().map(|zone| format!(", zone {zone}"));
    let draining = if listed.draining { ", draining" } else { "" };
    format!("weight {}{}{draining}", listed.weight, zone.unwrap_or_default())
}

async fn leave(
    State(console): State<Arc<Console>>,
    Extension(note): Extension<Note>,
    path: Place,
) -> Result<StatusCode, Problem> {
    if send(&console, backend(path)?, MemberAction::Leave)
        .await?
        .news
        .is_some()
    {
        note.say("left");
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn beat(State(console): State<Arc<Console>>, path: Place) -> Result<StatusCode, Problem> {
    send(&console, backend(path)?, MemberAction::Beat).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn backend(path: Place) -> Result<BackendId, Problem> {
    let Path((lb, pool, address)) = path.map_err(|e| Problem::new(Kind::NotFound, e.body_text()))?;
    let address: SocketAddr = address.parse().map_err(|_| {
        let shown: String = address.chars().take(64).collect();
        let detail = format!("`{shown}` is not an IP address and port like `10.0.0.1:9001` or `[::1]:9001`");
        Problem::new(Kind::BadAddress, detail)
    })?;
    Ok(BackendId {
        load_balancer: Name::parse(&lb)
            .map_err(|e| Problem::new(Kind::UnknownLoadBalancer, e.to_string()))?,
        pool: Name::parse(&pool).map_err(|e| Problem::new(Kind::UnknownPool, e.to_string()))?,
        address,
    })
}

async fn send(console: &Console, backend: BackendId, action: MemberAction) -> Result<MemberAnswer, Problem> {
    let answer = ask(&console.members, |reply| MemberRequest {
        backend,
        action,
        reply,
    })
    .await?;
    answer.map_err(|error| {
        let kind = match error {
            MemberError::NotAsked => Kind::UnknownPool,
            MemberError::UnknownMember(_) => Kind::UnknownMember,
            MemberError::NotAllowed(..) => Kind::BadMember,
            MemberError::TooMany(_) => Kind::TooManyMembers,
        };
        let problem = Problem::new(kind, error.to_string());
        match kind {
            Kind::TooManyMembers => problem.retry_after(RETRY_AFTER_S),
            _ => problem,
        }
    })
}

/// When a member for which there was no room may ask again, in seconds.
const RETRY_AFTER_S: u64 = 5;
