//! Members of a pool that are not declared, and heartbeats, written out.

use super::{Writer, list, quoted};
use crate::config::{Discovery, DnsLookup, Heartbeat, Membership, Registration};

pub(super) fn write(w: &mut Writer, path: &str, membership: &Membership) {
    let Membership {
        discovery,
        registration,
        heartbeat,
    } = membership;
    if let Some(discovery) = discovery {
        match discovery {
            Discovery::File(file) => {
                w.header(&format!("[{path}.discovery]"));
                w.text("file", &file.display().to_string());
            }
            Discovery::Dns(lookup) => write_dns(w, path, lookup),
        }
    }
    if let Some(registration) = registration {
        let Registration {
            token,
            ttl,
            max,
            allow,
        } = registration;
        w.header(&format!("[{path}.registration]"));
        w.text("token_hash", &token.to_string());
        w.duration("ttl", *ttl);
        w.raw("max", max);
        match allow.is_empty() {
            true => w.comment("allow: all but loopback and link-local addresses"),
            false => w.raw("allow", list(allow.iter().map(|net| quoted(&net.to_string())))),
        }
    }
    if let Some(Heartbeat { token, timeout }) = heartbeat {
        w.header(&format!("[{path}.heartbeat]"));
        w.text("token_hash", &token.to_string());
        w.duration("timeout", *timeout);
    }
}

fn write_dns(w: &mut Writer, path: &str, lookup: &DnsLookup) {
    let DnsLookup {
        name,
        records: _,
        resolvers,
        min_ttl,
        max_ttl,
        timeout,
        attempts,
    } = lookup;
    w.header(&format!("[{path}.discovery.dns]"));
    w.text("name", name);
    w.text("type", lookup.type_name());
    if let Some(port) = lookup.port() {
        w.raw("port", port);
    }
    match resolvers.is_empty() {
        true => w.comment("resolvers: the name servers of /etc/resolv.conf"),
        false => w.raw(
            "resolvers",
            list(resolvers.iter().map(|server| quoted(&server.to_string()))),
        ),
    }
    w.duration("min_ttl", *min_ttl);
    w.duration("max_ttl", *max_ttl);
    w.duration("timeout", *timeout);
    w.raw("attempts", attempts);
}
