//! Members that are not declared.

use evenkeel_model::config::{Discovery, Membership};
use proptest::option;
use proptest::prelude::*;

pub(super) fn membership() -> impl Strategy<Value = Membership> {
    let discovery = "/[^\\pC]{0,20}".prop_map(|file| Discovery::File(file.into()));
    option::of(discovery).prop_map(|discovery| Membership { discovery })
}
