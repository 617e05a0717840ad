//! Small makers of alerts and moments.

use std::borrow::Cow;

use evenkeel_reconcile::alerts::Moment;
use evenkeel_reconcile::alerts::board::Board;
use evenkeel_reconcile::alerts::conditions::Condition;
use model::alert::{About, AlertId, AlertKind};
use model::config::{Alerts, Name};
use model::state::{BackendId, Timestamp};

/// The wall clock at the beginning of every test.
pub(crate) const START: u64 = 1_772_368_496_000;

pub(crate) fn at(ms: u64) -> Moment {
    Moment {
        ms,
        wall: Timestamp(START + ms),
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) fn backend_down(lb: &str, port: u16) -> AlertId {
    AlertId {
        kind: AlertKind::BackendDown,
        about: About::Backend(BackendId {
            load_balancer: name(lb),
            pool: name("default"),
            address: ([10, 0, 0, 1], port).into(),
        }),
    }
}

pub(crate) fn pool_down(lb: &str) -> AlertId {
    AlertId {
        kind: AlertKind::PoolDown,
        about: About::Pool {
            load_balancer: name(lb),
            pool: name("default"),
        },
    }
}

pub(crate) fn config_refused(node: &str) -> AlertId {
    AlertId {
        kind: AlertKind::ConfigRefused,
        about: About::Node(node.into()),
    }
}

pub(crate) fn holds(id: &AlertId) -> Condition<'static> {
    Condition {
        id: id.clone(),
        why: Cow::Borrowed("it is so"),
        since: None,
        own: id.kind.is_of_node(),
    }
}

/// The board after exactly these hold.
pub(crate) fn observe(board: &mut Board, ms: u64, ids: &[AlertId], rules: &Alerts) {
    board.observe(at(ms), &"n".into(), ids.iter().map(holds), rules);
}

pub(crate) fn firing(board: &Board) -> Vec<String> {
    board.firing().map(|alert| alert.id.to_string()).collect()
}
