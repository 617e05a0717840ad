//! The admin API, written out. Tokens are left out, and their hashes too: nobody needs them, and they are of use
//! to nobody but who looks for tokens.

use super::{Writer, list, quoted};
use crate::config::{Admin, AdminTls, AuditTo};

pub(super) fn write(w: &mut Writer, admin: &Admin) {
    let Admin {
        listen,
        token,
        token_file,
        tls,
        tokens,
        certificates,
        open_metrics,
        metrics_backends,
        audit_log,
    } = admin;
    w.header("[admin]");
    w.text("listen", &listen.to_string());
    match (token, token_file) {
        (_, Some(path)) => w.text("token_file", &path.display().to_string()),
        (Some(_), None) => w.comment("token: set, and not shown"),
        (None, None) => w.comment("token: none"),
    }
    if tokens.is_empty() {
        w.comment("tokens: none");
    }
    for token in tokens {
        let (name, role) = (&token.name, token.role.as_str());
        w.comment(&format!("tokens: {name} ({role}); its hash is not shown"));
    }
    if !certificates.is_empty() {
        let entries = certificates.iter().map(|certificate| {
            let role = quoted(certificate.role.as_str());
            format!("{{ name = {}, role = {role} }}", quoted(&certificate.name))
        });
        w.raw("certificates", list(entries));
    }
    w.raw("open_metrics", open_metrics);
    w.raw("metrics_backends", metrics_backends);
    match audit_log {
        AuditTo::DataDir => w.raw("audit_log", true),
        AuditTo::Off => w.raw("audit_log", false),
        AuditTo::File(path) => w.text("audit_log", &path.display().to_string()),
    }
    if let Some(AdminTls {
        certificate,
        key,
        client_ca,
    }) = tls
    {
        w.header("[admin.tls]");
        w.text("certificate", &certificate.display().to_string());
        w.text("key", &key.display().to_string());
        let client_ca = client_ca.as_ref().map(|path| path.display().to_string());
        w.optional("client_ca", client_ca.as_deref(), "no client certificates");
    }
}
