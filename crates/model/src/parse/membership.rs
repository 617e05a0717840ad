//! Members of a pool that are not declared.

use super::section::{Findings, Section};
use super::text;
use crate::config::{Discovery, Membership};

pub(super) fn membership(f: &mut Findings<'_>, s: &Section<'_>) -> Membership {
    Membership {
        discovery: s.section(f, "discovery").and_then(|s| discovery(f, &s)),
    }
}

fn discovery(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Discovery> {
    let file = s.text(f, "file", text::file)?;
    Some(Discovery::File(file.into()))
}
