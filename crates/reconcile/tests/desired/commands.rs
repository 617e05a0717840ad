//! What commands write, and what they refuse with which words.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_reconcile::desired::commands::{
    self, Change, Current, Object, Outcome, Refusal, Site, Terms, apply, confirm, delete, revert, roll_back,
};
use evenkeel_reconcile::desired::records::{Pending, State};
use model::config::Name;
use model::parse::check_declared;
use model::plan::Format;
use model::state::Timestamp;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn text(lbs: &[(&str, u16)]) -> BTreeMap<Name, Object> {
    let each = lbs.iter().map(|(lb, port)| {
        format!("[load_balancers.{lb}]\nlisten = \"127.0.0.1:{port}\"\nbackend_servers = [\"10.0.0.1:80\"]\n")
    });
    let read = check_declared(&each.collect::<String>(), Format::Toml, "lbs.toml", |_| None).unwrap();
    let objects = read.load_balancers.into_iter();
    objects
        .map(|(name, declared)| (name, Object::of(&declared)))
        .collect()
}

fn terms() -> Terms {
    Terms {
        author: "alice".into(),
        message: "more room".into(),
        at: Timestamp(1_000),
        token: "t1".into(),
        expect: None,
        confirm_ms: None,
    }
}

/// A node that declares `own` itself and takes everything.
fn at(own: &BTreeSet<Name>) -> Site<'_> {
    Site {
        own,
        whole: &|_| Ok(()),
    }
}

fn changed(outcome: Result<Outcome, Refusal>) -> Change {
    match outcome {
        Ok(Outcome::Changed(change)) => *change,
        other => panic!("{other:?}"),
    }
}

/// What is in force after a change.
fn then(change: &Change) -> Current {
    let objects = change
        .after
        .iter()
        .map(|(name, object)| (name.clone(), object.digest));
    Current {
        state: State {
            revision: change.head.revision,
            objects: objects.collect(),
        },
        objects: change.after.clone(),
        last: Some(change.record.clone()),
        pending: change.pending.clone(),
    }
}

#[test]
fn apply_sets_what_it_names_and_leaves_the_others() {
    let own = BTreeSet::new();
    let one = changed(apply(
        &Current::default(),
        text(&[("shop", 1), ("blog", 2)]),
        &terms(),
        &at(&own),
    ));
    assert_eq!((one.record.parent, one.record.revision), (0, 1));
    assert!(one.record.all.is_some());
    let two = changed(apply(&then(&one), text(&[("blog", 3)]), &terms(), &at(&own)));
    assert_eq!(
        two.after.keys().map(Name::as_str).collect::<Vec<_>>(),
        ["blog", "shop"]
    );
    assert_eq!(
        two.record.changed.keys().map(Name::as_str).collect::<Vec<_>>(),
        ["blog"]
    );
    assert_eq!((two.put.len(), two.record.all.is_none()), (1, true));
    assert_eq!(
        apply(&then(&two), text(&[("blog", 3)]), &terms(), &at(&own)),
        Ok(Outcome::Unchanged)
    );
    assert_eq!(
        commands::told(&two.record),
        "alice: apply (`blog`), \"more room\""
    );
}

#[test]
fn what_somebody_else_changed_meanwhile_is_told() {
    let own = BTreeSet::new();
    let one = changed(apply(
        &Current::default(),
        text(&[("shop", 1)]),
        &terms(),
        &at(&own),
    ));
    let late = Terms {
        expect: Some(0),
        ..terms()
    };
    let refused = apply(&then(&one), text(&[("shop", 2)]), &late, &at(&own)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "revision 0 was expected, but 1 is in force, made by alice: apply (`shop`), \"more room\""
    );
    assert!(delete(&then(&one), &BTreeSet::from([name("shop")]), &late, &own).is_err());
}

#[test]
fn delete_refuses_a_name_that_is_not_there_and_removes_none() {
    let own = BTreeSet::from([name("local")]);
    let one = changed(apply(
        &Current::default(),
        text(&[("shop", 1), ("blog", 2)]),
        &terms(),
        &at(&own),
    ));
    let asked = |names: &[&str]| {
        delete(
            &then(&one),
            &names.iter().map(|n| name(n)).collect(),
            &terms(),
            &own,
        )
    };
    let refused = asked(&["shop", "blgo"]).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the store has no load balancer `blgo`; did you mean `blog`?"
    );
    let refused = asked(&["local"]).unwrap_err().to_string();
    assert!(
        refused.contains("declared in this node's own file: remove it there"),
        "{refused}"
    );
    let two = changed(asked(&["shop"]));
    assert_eq!(two.record.changed, BTreeMap::from([(name("shop"), None)]));
    assert!(two.put.is_empty());
}

#[test]
fn the_nodes_own_file_stands_above_the_store() {
    let own = BTreeSet::from([name("shop")]);
    let refused = apply(&Current::default(), text(&[("shop", 1)]), &terms(), &at(&own)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "`shop` is declared in this node's own file, which stands above the store: \
         change it there, or remove it from the file first"
    );
}

/// All that is in force afterwards is judged, not the text alone; all errors come back.
#[test]
fn a_whole_that_is_not_valid_is_refused() {
    let own = BTreeSet::new();
    let one = changed(apply(
        &Current::default(),
        text(&[("shop", 1)]),
        &terms(),
        &at(&own),
    ));
    let clash = Site {
        own: &own,
        whole: &|all| match all.len() {
            2 => Err(vec!["0.0.0.0:1 is listened on twice".into(), "and more".into()]),
            _ => Ok(()),
        },
    };
    let refused = apply(&then(&one), text(&[("blog", 1)]), &terms(), &clash).unwrap_err();
    assert!(matches!(refused, Refusal::Invalid(errors) if errors.len() == 2));
    let mut unreadable = then(&one);
    let object = Object::read(&name("shop"), one.put[0].digest, &one.put[0].json).unwrap();
    assert!(object.meaning.is_ok());
    let broken = r#"{"new_key_of_a_later_version":1}"#;
    let digest = evenkeel_reconcile::desired::records::Digest::of(broken);
    let broken = Object::read(&name("shop"), digest, broken).unwrap();
    unreadable.objects.insert(name("shop"), broken);
    let refused = apply(&unreadable, text(&[("blog", 1)]), &terms(), &at(&own)).unwrap_err();
    let Refusal::Invalid(errors) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        errors[0].contains("`shop` of the store cannot be read by this version"),
        "{errors:?}"
    );
    // What cannot be read can be replaced, and deleted.
    assert!(apply(&unreadable, text(&[("shop", 1)]), &terms(), &at(&own)).is_ok());
    assert!(delete(&unreadable, &BTreeSet::from([name("shop")]), &terms(), &own).is_ok());
}

#[test]
fn a_rollback_is_a_new_revision_with_the_old_state() {
    let own = BTreeSet::new();
    let one = changed(apply(
        &Current::default(),
        text(&[("shop", 1)]),
        &terms(),
        &at(&own),
    ));
    let two = changed(apply(
        &then(&one),
        text(&[("shop", 2), ("blog", 3)]),
        &terms(),
        &at(&own),
    ));
    let back = changed(roll_back(
        &then(&two),
        (1, one.after.clone()),
        &terms(),
        &at(&own),
    ));
    assert_eq!(
        (back.record.revision, back.record.what.as_str()),
        (3, "rollback to 1")
    );
    assert_eq!(back.after, one.after);
    assert_eq!(
        roll_back(&then(&back), (1, one.after.clone()), &terms(), &at(&own)),
        Ok(Outcome::Unchanged)
    );
}

/// Scenario: a change awaits confirmation. Confirmed or followed by another, it is not taken back any more; else once.
#[test]
fn a_pending_change_is_confirmed_or_taken_back_once() {
    let own = BTreeSet::new();
    let one = changed(apply(
        &Current::default(),
        text(&[("shop", 1)]),
        &terms(),
        &at(&own),
    ));
    let try_it = Terms {
        confirm_ms: Some(120_000),
        ..terms()
    };
    let two = changed(apply(&then(&one), text(&[("shop", 2)]), &try_it, &at(&own)));
    let pending = two.pending.clone().unwrap();
    let expected = Pending {
        revision: 2,
        back_to: 1,
        lasts_ms: 120_000,
        until: Timestamp(121_000),
    };
    assert_eq!(pending, expected);
    assert_eq!(confirm(&then(&two), None), Ok(&pending));
    assert_eq!(confirm(&then(&two), Some(2)), Ok(&pending));
    assert!(matches!(
        confirm(&then(&two), Some(1)),
        Err(Refusal::Conflict { .. })
    ));
    let back = changed(revert(&then(&two), &pending, one.after.clone(), &terms()));
    assert_eq!((back.after == one.after, back.pending.is_none()), (true, true));
    let over = Err(Refusal::NothingPending { revision: 3 });
    assert_eq!(revert(&then(&back), &pending, one.after.clone(), &terms()), over);
    let confirmed = Current {
        pending: None,
        ..then(&two)
    };
    assert!(revert(&confirmed, &pending, one.after.clone(), &terms()).is_err());
    assert_eq!(
        confirm(&confirmed, None),
        Err(Refusal::NothingPending { revision: 2 })
    );
    let three = changed(apply(&then(&two), text(&[("blog", 2)]), &terms(), &at(&own)));
    assert!(revert(&then(&three), &pending, one.after.clone(), &terms()).is_err());
}

#[test]
fn bounds_are_told() {
    let own = BTreeSet::new();
    let mut large = text(&[("shop", 1)]);
    let object = large.get_mut(&name("shop")).unwrap();
    object.json = " ".repeat(commands::MAX_OBJECT_BYTES + 1).into();
    let refused = apply(&Current::default(), large, &terms(), &at(&own))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("`shop` has 1048577 bytes"), "{refused}");
    let gone = Refusal::Gone {
        wanted: 3,
        oldest: 65,
        newest: 1200,
    };
    assert_eq!(gone.to_string(), "there is no revision 3: 65 to 1200 are kept");
}
