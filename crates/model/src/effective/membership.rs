//! Members of a pool that are not declared, written out.

use super::Writer;
use crate::config::{Discovery, Membership};

pub(super) fn write(w: &mut Writer, path: &str, membership: &Membership) {
    let Membership { discovery } = membership;
    if let Some(discovery) = discovery {
        w.header(&format!("[{path}.discovery]"));
        match discovery {
            Discovery::File(file) => w.text("file", &file.display().to_string()),
        }
    }
}
