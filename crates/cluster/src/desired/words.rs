//! The same for others: in the words of `model`.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::config::{LoadBalancer, Name};
use model::desired::{Awaiting, DesiredState, Fate, RevisionNote};
use model::diff::diff_load_balancers;
use model::parse::redact;
use reconcile::desired::commands::{Current, Object};
use reconcile::desired::records::{LogRecord, Pending};

/// A change, for people.
pub(super) fn note(record: &LogRecord) -> RevisionNote {
    let fate = |digest: &Option<_>| match digest {
        Some(_) => Fate::Set,
        None => Fate::Deleted,
    };
    let changed = record.changed.iter();
    RevisionNote {
        revision: record.revision,
        author: record.author.clone(),
        at: record.at,
        what: record.what.clone(),
        message: record.message.clone(),
        changed: changed
            .map(|(name, digest)| (name.clone(), fate(digest)))
            .collect(),
    }
}

/// What is declared, secrets redacted.
pub(super) fn state(revision: u64, objects: &BTreeMap<Name, Object>) -> DesiredState {
    let shown = |object: &Object| {
        let mut json = serde_json::from_str(&object.json).unwrap_or_default();
        redact(&mut json);
        json
    };
    DesiredState {
        revision,
        load_balancers: objects
            .iter()
            .map(|(name, object)| (name.clone(), shown(object)))
            .collect(),
        awaiting: None,
    }
}

/// What is in force, secrets redacted.
pub(super) fn in_force(current: &Current) -> DesiredState {
    DesiredState {
        awaiting: current.pending.as_ref().map(awaiting),
        ..state(current.state.revision, &current.objects)
    }
}

pub(super) fn awaiting(pending: &Pending) -> Awaiting {
    Awaiting {
        revision: pending.revision,
        back_to: pending.back_to,
        until: pending.until,
    }
}

/// A line for each thing that is different.
pub(super) fn difference(before: &BTreeMap<Name, Object>, after: &BTreeMap<Name, Object>) -> Vec<String> {
    let changes = diff_load_balancers(&understood(before), &understood(after));
    let mut lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    let unreadable = after.iter().filter(|(name, object)| {
        object.meaning.is_err() && before.get(*name).map(|old| old.digest) != Some(object.digest)
    });
    lines.extend(unreadable.map(|(name, _)| format!("{name}: changed to what this version cannot read")));
    // Written in another way, with the same meaning.
    if lines.is_empty() {
        let other = after
            .iter()
            .filter(|(name, object)| before.get(*name).is_some_and(|old| old.digest != object.digest));
        lines.extend(other.map(|(name, _)| format!("{name}: written in another way, with the same meaning")));
    }
    lines
}

/// The same of a change where what was before is no longer kept.
pub(super) fn no_longer_compared(record: &LogRecord) -> Vec<String> {
    let lines = record.changed.iter().map(|(name, digest)| match digest {
        Some(_) => format!("{name}: set; what it was before is no longer kept"),
        None => format!("{name}: deleted; what it was is no longer kept"),
    });
    lines.collect()
}

/// Those that this version can read.
pub(super) fn understood(objects: &BTreeMap<Name, Object>) -> BTreeMap<Name, Arc<LoadBalancer>> {
    let balancers = objects.iter();
    balancers
        .filter_map(|(name, object)| Some((name.clone(), object.meaning.clone().ok()?)))
        .collect()
}
