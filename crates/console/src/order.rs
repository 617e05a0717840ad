//! An operator's order: from JSON to a valid [`Order`].

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use model::config::{MAX_WEIGHT, Name};
use model::state::{Mode, Order, OrderAction, OverrideKey, RouteKey, RouteWeights};
use model::units::{format_duration, parse_duration};
use serde::Deserialize;

use crate::limits::{MAX_BY_CHARS, MAX_LASTS};
use crate::login::Login;
use crate::problem::{Kind, Problem};

/// Who gave an order that does not say.
const DEFAULT_BY: &str = "api";

/// Between who gave an order and the login by which it came.
const VIA: &str = " via ";

/// The body of an order.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderBody {
    action: Action,
    weight: Option<u32>,
    #[serde(rename = "for")]
    lasts: Option<String>,
    by: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Drain,
    Ready,
    Maintenance,
    Weight,
}

impl OrderBody {
    /// The order meant, for the backend `key`.
    pub(crate) fn into_order(self, key: OverrideKey, login: &Login) -> Result<Order, Problem> {
        let refuse = |detail: String| Problem::new(Kind::BadOrder, detail);
        let action = match (self.action, self.weight) {
            (Action::Weight, Some(weight)) if weight <= MAX_WEIGHT => OrderAction::Weight(weight),
            (Action::Weight, Some(weight)) => {
                return Err(refuse(format!(
                    "weight {weight} is over the greatest, {MAX_WEIGHT}"
                )));
            }
            (Action::Weight, None) => return Err(refuse("action `weight` needs a `weight`".to_owned())),
            (_, Some(_)) => {
                return Err(refuse("`weight` goes with action `weight` only".to_owned()));
            }
            (Action::Drain, None) => OrderAction::Mode(Mode::Drain),
            (Action::Ready, None) => OrderAction::Mode(Mode::Ready),
            (Action::Maintenance, None) => OrderAction::Mode(Mode::Maintenance),
        };
        let by = signed_by(self.by, login)?;
        if self.lasts.is_some() && self.action == Action::Ready {
            return Err(refuse(
                "`ready` ends an order and cannot itself lapse: leave `for` out".to_owned(),
            ));
        }
        let lasts = self.lasts.as_deref().map(lasting).transpose().map_err(refuse)?;
        Ok(Order {
            key,
            action,
            lasts,
            by,
        })
    }
}

/// The body of an order for a route.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WeightsBody {
    /// Null: as configured again.
    weights: Option<BTreeMap<Name, u32>>,
    #[serde(rename = "for")]
    lasts: Option<String>,
    by: Option<String>,
}

impl WeightsBody {
    /// The order meant, for the route `key`.
    pub(crate) fn into_order(self, key: RouteKey, login: &Login) -> Result<RouteWeights, Problem> {
        let refuse = |detail: String| Problem::new(Kind::BadOrder, detail);
        if self.lasts.is_some() && self.weights.is_none() {
            return Err(refuse(
                "weights as configured cannot lapse: leave `for` out".to_owned(),
            ));
        }
        Ok(RouteWeights {
            key,
            weights: self.weights,
            lasts: self.lasts.as_deref().map(lasting).transpose().map_err(refuse)?,
            by: signed_by(self.by, login)?,
        })
    }
}

/// Who gives an order: who the request says, and by which login that came. The second cannot be chosen by whoever
/// sends the request, so the first may not look like it.
pub(crate) fn signed_by(by: Option<String>, login: &Login) -> Result<String, Problem> {
    let by = by.map(valid_by).transpose()?;
    Ok(match (login, by) {
        (Login::Local, by) => by.unwrap_or_else(|| DEFAULT_BY.to_owned()),
        (login, Some(by)) if by != login.name() => format!("{by}{VIA}{}", login.name()),
        (login, _) => login.name(),
    })
}

fn valid_by(by: String) -> Result<String, Problem> {
    if by.contains(VIA) {
        let detail = format!("`by` names somebody; how he came is told by his login: leave `{VIA}` out");
        return Err(Problem::new(Kind::BadOrder, detail));
    }
    if by.is_empty() || by.chars().count() > MAX_BY_CHARS || by.chars().any(char::is_control) {
        let detail = format!("`by` is 1 to {MAX_BY_CHARS} characters without control characters");
        return Err(Problem::new(Kind::BadOrder, detail));
    }
    Ok(by)
}

/// Why a body is not JSON of the form expected.
pub(crate) fn json_problem(rejection: &JsonRejection, most: usize) -> Problem {
    match rejection.status() {
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(
            Kind::UnsupportedMediaType,
            "send the body with `Content-Type: application/json`",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(Kind::BodyTooLarge, format!("a body may have {most} bytes"))
        }
        _ => Problem::new(Kind::BadJson, rejection.body_text()),
    }
}

/// How long an order lasts, as durations are written in the config: `90s`, `10m`, `1h30m`.
fn lasting(text: &str) -> Result<Duration, String> {
    let lasts = parse_duration(text).map_err(|error| error.to_string())?;
    if lasts.is_zero() || lasts > MAX_LASTS {
        return Err(format!("`for` is 1ms to {}", format_duration(MAX_LASTS)));
    }
    Ok(lasts)
}
