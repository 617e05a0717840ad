//! `evenkeel route`: an operator's order for the weights of a split, and what is in force after it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use model::config::Name;
use model::state::{RouteKey, RouteOrder};
use serde::Deserialize;
use serde_json::json;

use crate::cli::{RouteArgs, RouteCommand};
use crate::commands::{backend, status};

/// What the API answers to an order.
#[derive(Debug, Deserialize)]
struct Weighed {
    #[serde(flatten)]
    key: RouteKey,
    order: Option<RouteOrder>,
}

pub(crate) fn run(command: RouteCommand) -> anyhow::Result<ExitCode> {
    let (route, body) = match command {
        RouteCommand::Weight(order) => {
            let weights = by_pool(order.weights)?;
            let mut body = json!({ "weights": weights });
            if let Some(lasts) = order.lasts.time {
                body["for"] = lasts.into();
            }
            (order.route, body)
        }
        RouteCommand::Reset(route) => (route, json!({ "weights": null })),
    };
    let RouteArgs {
        load_balancer,
        route,
        signed,
    } = route;
    let path = format!("/api/v1/load-balancers/{load_balancer}/routes/{route}/weights");
    let weighed: Weighed = backend::give(&path, body, signed)?;
    super::print(&format!("{}\n", in_force(&weighed)))?;
    Ok(ExitCode::SUCCESS)
}

fn by_pool(weights: Vec<(Name, u32)>) -> anyhow::Result<BTreeMap<Name, u32>> {
    let mut by_pool = BTreeMap::new();
    for (pool, weight) in weights {
        if by_pool.insert(pool.clone(), weight).is_some() {
            anyhow::bail!("the pool `{pool}` is given twice");
        }
    }
    Ok(by_pool)
}

fn in_force(weighed: &Weighed) -> String {
    let state = weighed.order.as_ref().map_or_else(
        || "as configured; no order is in force".to_owned(),
        |order| status::route_order(order, crate::now()),
    );
    format!("{}: {state}", weighed.key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn weights_are_read_by_pool_and_a_pool_stands_once() {
        let line = "evenkeel route weight shop all blue=95 green=5 --for 10m";
        let Command::Route(RouteCommand::Weight(order)) = Cli::parse_from(line.split(' ')).command else {
            panic!("{line} is another command");
        };
        let weights = by_pool(order.weights).unwrap();
        assert_eq!(weights.values().copied().collect::<Vec<_>>(), [95, 5]);
        for wrong in ["blue", "blue=", "blue=-1", "blue=10001", "bl/ue=1"] {
            let line = format!("evenkeel route weight shop all {wrong}");
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{wrong}");
        }
        let pool = Name::parse("blue").unwrap();
        assert!(by_pool(vec![(pool.clone(), 1), (pool, 2)]).is_err());
    }
}
