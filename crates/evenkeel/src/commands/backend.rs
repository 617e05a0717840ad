//! `evenkeel backend`: an operator's order for one backend, and what is in force after it.

use std::process::ExitCode;

use anyhow::Context;
use model::state::{Override, OverrideKey};
use net::privileges;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cli::{BackendArgs, BackendCommand, SignedArgs};
use crate::client::Client;
use crate::commands::status;

/// What the API answers to an order.
#[derive(Debug, Deserialize)]
struct Ordered {
    #[serde(flatten)]
    key: OverrideKey,
    order: Option<Override>,
}

pub(crate) fn run(command: BackendCommand) -> anyhow::Result<ExitCode> {
    let (backend, body) = match command {
        BackendCommand::Drain(o) => (o.backend, body("drain", o.lasts.time, None)),
        BackendCommand::Maintenance(o) => (o.backend, body("maintenance", o.lasts.time, None)),
        BackendCommand::Ready(o) => (o.backend, body("ready", None, None)),
        BackendCommand::Weight(o) => (o.backend, body("weight", o.lasts.time, Some(o.weight))),
    };
    let ordered: Ordered = give(&path(&backend), body, backend.signed)?;
    super::print(&format!("{}\n", in_force(&ordered)))?;
    Ok(ExitCode::SUCCESS)
}

/// Sends an order; what is in force after it.
pub(super) fn give<T: DeserializeOwned>(path: &str, body: Value, by: SignedArgs) -> anyhow::Result<T> {
    let answer = Client::new(&by.client)?.post(path, &signed(body, by.by))?;
    serde_json::from_str(&answer)
        .context("the admin API's answer is not understood: are both sides of one version?")
}

fn body(action: &str, lasts: Option<String>, weight: Option<u32>) -> Value {
    let mut body = json!({ "action": action });
    if let Some(lasts) = lasts {
        body["for"] = lasts.into();
    }
    if let Some(weight) = weight {
        body["weight"] = weight.into();
    }
    body
}

/// With the name of who orders it.
fn signed(mut body: Value, by: Option<String>) -> Value {
    body["by"] = signer(by).into();
    body
}

/// Who orders: as given, else the user's name, as the environment or the system knows it.
pub(super) fn signer(by: Option<String>) -> String {
    let variables = ["SUDO_USER", "USER", "LOGNAME"].into_iter();
    let told = by
        .into_iter()
        .chain(variables.filter_map(|name| std::env::var(name).ok()));
    let by = told.into_iter().find(|name| !name.is_empty());
    by.unwrap_or_else(privileges::current_user)
}

fn path(backend: &BackendArgs) -> String {
    // The brackets of an IPv6 address are not for a path (RFC 3986 section 3.3).
    let address = backend
        .address
        .to_string()
        .replace('[', "%5B")
        .replace(']', "%5D");
    format!(
        "/api/v1/load-balancers/{}/backends/{address}/order",
        backend.load_balancer
    )
}

fn in_force(ordered: &Ordered) -> String {
    let OverrideKey {
        load_balancer,
        address,
    } = &ordered.key;
    let state = ordered.order.as_ref().map_or_else(
        || "as configured; no order is in force".to_owned(),
        |order| status::order(order, crate::now()),
    );
    format!("{load_balancer}/{address}: {state}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn drain(line: &str) -> BackendArgs {
        match Cli::parse_from(line.split(' ')).command {
            Command::Backend(BackendCommand::Drain(order)) => order.backend,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_of_either_family_fits_into_the_path() {
        assert_eq!(
            path(&drain("evenkeel backend drain shop [::1]:9001")),
            "/api/v1/load-balancers/shop/backends/%5B::1%5D:9001/order"
        );
        assert_eq!(
            path(&drain("evenkeel backend drain shop 10.0.0.1:9001")),
            "/api/v1/load-balancers/shop/backends/10.0.0.1:9001/order"
        );
    }

    #[test]
    fn an_order_says_what_for_how_long_and_who() {
        let order = signed(body("weight", Some("10m".into()), Some(5)), Some("alice".into()));
        assert_eq!(
            order,
            json!({ "action": "weight", "weight": 5, "for": "10m", "by": "alice" })
        );
    }

    #[test]
    fn the_answer_is_told_in_words() {
        let answer = r#"{"load_balancer":"shop","address":"10.0.0.1:9001","order":null}"#;
        let ordered = serde_json::from_str(answer).unwrap();
        assert_eq!(
            in_force(&ordered),
            "shop/10.0.0.1:9001: as configured; no order is in force"
        );
    }
}
