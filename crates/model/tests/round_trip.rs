//! Configs made at random: written out in full they read back the same, the schema takes them, and the
//! difference between two of them is empty exactly when they are equal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::{Arc, LazyLock};

use evenkeel_model::config::{Config, Secret};
use evenkeel_model::diff::diff;
use evenkeel_model::effective::to_toml;
use evenkeel_model::parse::{check_json, parse_toml};
use evenkeel_model::schema::json_schema;
use proptest::prelude::*;

fn as_json(toml: &str) -> serde_json::Value {
    serde_json::to_value(toml::from_str::<toml::Table>(toml).unwrap()).unwrap()
}

fn shown(result: Result<Config, Vec<evenkeel_model::diagnostic::Diagnostic>>) -> Result<Config, String> {
    result.map_err(|found| found.iter().map(|d| format!("{d}\n")).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The effective config is the config: in TOML, and as JSON.
    #[test]
    fn what_is_written_reads_back_the_same(config in common::config()) {
        let text = to_toml(&config);
        prop_assert_eq!(shown(parse_toml(&text, "effective.toml")), Ok(config.clone()), "{}", text);
        let json = as_json(&text).to_string();
        prop_assert_eq!(shown(check_json(&json, "effective.json").map(|checked| checked.config)), Ok(config));
    }

    /// Nothing changes from a config to itself; from one to another something does, and each change has a line.
    #[test]
    fn a_difference_is_empty_exactly_between_equals(old in common::config(), new in common::config()) {
        prop_assert_eq!(diff(&old, &old.clone()), vec![]);
        prop_assert!(!diff(&old, &new).is_empty());
        for change in diff(&old, &new) {
            prop_assert!(!change.to_string().contains('\n'));
        }
    }

    /// A change of one field is one difference at least: one pool's and one listener's settings are exchanged
    /// for another's, the names kept.
    #[test]
    fn a_change_of_settings_is_seen(old in common::config(), other in common::config()) {
        let mut new = old.clone();
        let theirs = other.load_balancers.values().next().unwrap();
        for balancer in new.load_balancers.values_mut() {
            let balancer = Arc::make_mut(balancer);
            for pool in balancer.pools.values_mut() {
                let theirs = theirs.pools.values().next().unwrap();
                *pool = Arc::new(evenkeel_model::config::Pool { name: pool.name.clone(), ..(**theirs).clone() });
            }
        }
        prop_assert_eq!(diff(&old, &new).is_empty(), old == new);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// What the parser takes, the schema takes.
    #[test]
    fn the_schema_takes_every_config(config in common::config()) {
        static SCHEMA: LazyLock<jsonschema::Validator> =
            LazyLock::new(|| jsonschema::validator_for(&json_schema()).unwrap());
        let document = as_json(&to_toml(&config));
        let errors: Vec<String> = SCHEMA.iter_errors(&document).map(|e| e.to_string()).collect();
        prop_assert!(errors.is_empty(), "{errors:?}");
    }
}

/// The token is not in the text, and that it is left out is said.
#[test]
fn an_inline_token_is_not_written() {
    let text = "[admin]\ntoken = \"hunter2\"\n[load_balancers.x]\nbackend_servers = []\n";
    let mut config = parse_toml(text, "a.toml").unwrap();
    assert_eq!(config.admin.token, Some(Secret::new("hunter2".into())));
    let shown = to_toml(&config);
    assert!(!shown.contains("hunter2"));
    assert!(shown.contains("# token: set, and not shown"));
    config.admin.token = None;
    assert_eq!(parse_toml(&shown, "effective.toml").unwrap(), config);
}
