//! What `evenkeel status` says of the orchestrators.

use std::fmt::Write;

use model::cluster::{OrchestratorStatus, OrchestratorsStatus, PlanBStatus};
use model::state::Timestamp;

use crate::table::{Paint, Tone};
use crate::text::{counted, duration, whole_seconds};

/// Orchestrators that are named; all are in `--json`.
const NAMED: usize = 20;

/// Lines about them, where the store is shared.
pub(super) fn render(out: &mut String, seen: Option<&OrchestratorsStatus>, now: Timestamp, paint: Paint) {
    let Some(seen) = seen else {
        return;
    };
    let leader = match (&seen.leader, seen.epoch) {
        (Some(leader), Some(epoch)) => format!("{leader} leads (epoch {epoch})"),
        _ => "nobody leads".to_owned(),
    };
    let mut words = format!("orchestrators: {}, {leader}", seen.orchestrators.len());
    if seen.slots_unchecked > 0 {
        let _ = write!(
            words,
            ", {} of {} slots UNCHECKED",
            seen.slots_unchecked, seen.slots
        );
    }
    if !seen.heard {
        words.push_str(", as last seen: the store is NOT HEARD");
    }
    let fine = seen.heard && seen.slots_unchecked == 0 && seen.leader.is_some();
    let tone = if fine { Tone::Plain } else { Tone::Bad };
    let _ = writeln!(out, "{}", paint.text(tone, &words));
    for one in seen.orchestrators.iter().take(NAMED) {
        let _ = writeln!(out, "  {}", paint.text(Tone::Plain, &orchestrator(seen, one)));
    }
    if let Some(plan_b) = seen.plan_b.as_ref().filter(|plan_b| plan_b.phase != "following") {
        let _ = writeln!(out, "{}", paint.text(Tone::Bad, &without(plan_b, now)));
    }
    let alone = seen.plan_b.as_ref().map_or(0, |plan_b| plan_b.alone);
    if alone > 0 {
        let words = format!(
            "{} found by name on which no orchestrator says anything: checked by this node",
            counted(alone, "member")
        );
        let _ = writeln!(out, "{}", paint.text(Tone::Warning, &words));
    }
}

fn orchestrator(seen: &OrchestratorsStatus, one: &OrchestratorStatus) -> String {
    let mut words = format!("{}: {}", one.name, counted(one.slots.into(), "slot"));
    if !one.settled {
        words.push_str(", changing");
    }
    if let Some(own) = seen
        .own
        .as_ref()
        .filter(|own| own.name.as_ref() == Some(&one.name))
    {
        words.push_str(" (this process)");
        if own.frozen {
            words.push_str(", waits for one lease: whoever had the checks before may still be at work");
        }
    }
    words
}

fn without(plan_b: &PlanBStatus, now: Timestamp) -> String {
    let why = match plan_b.why.as_deref() {
        Some("store_unreachable") => ": the store is not heard",
        Some(_) => ": there is no orchestrator",
        None => "",
    };
    let what = match plan_b.phase.as_str() {
        "holding" => "the last verdicts stand",
        "handing_back" => "own checks, until the orchestrators have checked everything",
        _ => "this node checks for itself",
    };
    let since = duration(whole_seconds(now.since(plan_b.since)));
    format!("without orchestrators for {since}{why}; {what}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use model::cluster::OwnPart;
    use model::config::Name;

    fn told(seen: &OrchestratorsStatus) -> String {
        let mut out = String::new();
        render(
            &mut out,
            Some(seen),
            Timestamp(60_000),
            Paint::for_terminal(false),
        );
        out
    }

    #[test]
    fn who_checks_and_who_does_not_is_told() {
        let name = |text| Name::parse(text).unwrap();
        let one = |text, slots, settled| OrchestratorStatus {
            name: name(text),
            slots,
            settled,
        };
        let mut seen = OrchestratorsStatus {
            heard: true,
            leader: Some(name("a-1")),
            epoch: Some(12),
            orchestrators: vec![one("a-1", 512, true), one("b-2", 512, false)],
            slots: 1024,
            slots_unchecked: 512,
            own: Some(OwnPart {
                name: Some(name("b-2")),
                slots: 500,
                leads: false,
                frozen: false,
                verdicts_written: 1,
                verdicts_refused: 0,
                verdicts_failed: 0,
                leases_lost: 0,
            }),
            plan_b: None,
        };
        assert_eq!(
            told(&seen),
            "orchestrators: 2, a-1 leads (epoch 12), 512 of 1024 slots UNCHECKED\n  \
             a-1: 512 slots\n  b-2: 512 slots, changing (this process)\n"
        );
        seen.heard = false;
        seen.leader = None;
        seen.orchestrators.clear();
        seen.slots_unchecked = 0;
        seen.plan_b = Some(PlanBStatus {
            phase: "own_checks".into(),
            since: Timestamp(20_000),
            why: Some("store_unreachable".into()),
            began: 1,
            alone: 0,
            alone_with: Default::default(),
        });
        assert_eq!(
            told(&seen),
            "orchestrators: 0, nobody leads, as last seen: the store is NOT HEARD\n\
             without orchestrators for 40s: the store is not heard; this node checks for itself\n"
        );
    }
}
