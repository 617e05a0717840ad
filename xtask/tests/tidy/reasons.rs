//! docs/reasons.md lists exactly the reasons of the code. `UPDATE_DOCS=1` writes it anew.

use std::fmt::Write as _;

use model::reason::{Fault, Reason};

use crate::source::root;

#[test]
fn the_documented_reasons_are_those_of_the_code() {
    let path = root().join("docs/reasons.md");
    let wanted = document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &wanted).expect("docs/reasons.md can be written");
    }
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stands == wanted,
        "docs/reasons.md differs from model::reason: run `UPDATE_DOCS=1 cargo test -p xtask --test tidy reasons`"
    );
}

#[test]
fn no_two_reasons_have_one_code() {
    let mut codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), Reason::ALL.len());
}

fn document() -> String {
    let mut text = String::from(
        "# Reason codes\n\n\
         Every failure that a user can meet has exactly one code. It stands in the response (field \
         `X-Evenkeel-Reason` and the body), in the label `reason` of `evenkeel_request_failures_total`, and in \
         `evenkeel explain`; a code never changes its meaning.\n\n\
         *Status* is what the client gets; `–` where no response can be sent any more, or where the response had \
         begun and its connection is closed instead. *Try again* says whether the same request may succeed later.\n\n\
         This page is generated from `crates/model/src/reason.rs` and held to it by a test.\n",
    );
    let faults = [
        (
            Fault::Client,
            "The client's",
            "The request must be refused, or the client went away.",
        ),
        (
            Fault::Backend,
            "The backend's",
            "A backend failed, and no other could take over.",
        ),
        (
            Fault::Operator,
            "The operator's",
            "Configuration or orders leave nowhere to go.",
        ),
        (
            Fault::Proxy,
            "Evenkeel's own",
            "A limit of the load balancer itself is reached, or it is stopping.",
        ),
    ];
    for (fault, title, meaning) in faults {
        write!(
            text,
            "\n## {title}\n\n{meaning}\n\n| code | status | try again | meaning |\n|---|---|---|---|\n"
        )
        .expect("a string takes all");
        for reason in Reason::ALL.iter().filter(|reason| reason.fault() == fault) {
            let status = if reason.status() == 0 {
                "–".into()
            } else {
                reason.status().to_string()
            };
            let again = if reason.retry_helps() { "yes" } else { "no" };
            writeln!(
                text,
                "| `{}` | {status} | {again} | {} |",
                reason.code(),
                reason.text()
            )
            .expect("a string takes all");
        }
    }
    text
}
