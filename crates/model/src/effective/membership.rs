//! Members of a pool that are not declared, and heartbeats, written out.

use super::{Writer, list, quoted};
use crate::config::{Discovery, Heartbeat, Membership, Registration};

pub(super) fn write(w: &mut Writer, path: &str, membership: &Membership) {
    let Membership {
        discovery,
        registration,
        heartbeat,
    } = membership;
    if let Some(discovery) = discovery {
        w.header(&format!("[{path}.discovery]"));
        match discovery {
            Discovery::File(file) => w.text("file", &file.display().to_string()),
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
