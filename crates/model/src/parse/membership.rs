//! Members of a pool that are not declared, and how members tell that they live.

use super::section::{Findings, Section, item_text, narrow};
use super::text;
use crate::config::{
    DEFAULT_MAX_REGISTERED, DEFAULT_SILENCE, Discovery, Heartbeat, Membership, Registration,
};
use crate::schema;

pub(super) fn membership(f: &mut Findings<'_>, s: &Section<'_>) -> Membership {
    Membership {
        discovery: s.section(f, "discovery").and_then(|s| discovery(f, &s)),
        registration: s.section(f, "registration").and_then(|s| registration(f, &s)),
        heartbeat: s.section(f, "heartbeat").and_then(|s| heartbeat(f, &s)),
    }
}

fn discovery(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Discovery> {
    let file = s.text(f, "file", text::file)?;
    Some(Discovery::File(file.into()))
}

fn registration(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Registration> {
    let token = s.text(f, "token_hash", text::token_hash);
    let ttl = s.duration(f, "ttl").unwrap_or(DEFAULT_SILENCE);
    let max = s.integer(f, "max").map_or(DEFAULT_MAX_REGISTERED, narrow);
    let expected = schema::Form::Network.expected();
    let items = match s.entry("allow") {
        Some(_) => s.items(f, "allow").unwrap_or_default(),
        None => Vec::new(),
    };
    let networks = items
        .into_iter()
        .filter_map(|(path, node)| item_text(f, (&path, node), expected, text::network));
    let allow = networks.collect();
    Some(Registration {
        token: token?,
        ttl,
        max,
        allow,
    })
}

fn heartbeat(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Heartbeat> {
    let token = s.text(f, "token_hash", text::token_hash);
    let timeout = s.duration(f, "timeout").unwrap_or(DEFAULT_SILENCE);
    Some(Heartbeat {
        token: token?,
        timeout,
    })
}
