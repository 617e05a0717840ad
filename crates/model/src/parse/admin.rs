//! The admin API: where it listens, TLS, and who may do what.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::section::{Findings, Section, cut, narrow};
use super::text;
use super::tree::Value;
use crate::config::{
    Admin, AdminCertificate, AdminRole, AdminTls, AdminToken, AuditTo, MAX_ADMIN_LOGINS, Secret,
};
use crate::diagnostic::Fault;
use crate::schema;

pub(super) fn admin(f: &mut Findings<'_>, s: &Section<'_>) -> Admin {
    let listen = s.text(f, "listen", text::listen_address);
    let defaults = Admin::default();
    let mut names = BTreeMap::new();
    let admin = Admin {
        listen: listen.unwrap_or(defaults.listen),
        token: s.text(f, "token", text::token).map(Secret::new),
        token_file: s.text(f, "token_file", text::file).map(PathBuf::from),
        tls: s.section(f, "tls").and_then(|s| tls(f, &s)),
        tokens: tokens(f, s, &mut names),
        certificates: certificates(f, s, &mut names),
        open_metrics: s.boolean(f, "open_metrics").unwrap_or(defaults.open_metrics),
        metrics_backends: s
            .integer(f, "metrics_backends")
            .map_or(defaults.metrics_backends, narrow),
        audit_log: audit_log(f, s),
    };
    if let Some((entry, address)) = s.entry("listen").zip(listen) {
        require_protection(f, s, address);
        // With port 0 it takes a free one, whatever the listeners take.
        if address.port() != 0 {
            f.claim(address, &s.path_of("listen"), entry.node.span.clone());
        }
    }
    require_authority(f, s);
    admin
}

/// Off loopback there must be TLS and credentials. What is written counts, right or wrong: wrong is said already.
fn require_protection(f: &mut Findings<'_>, s: &Section<'_>, address: SocketAddr) {
    let written = |key: &'static str| s.entry(key).is_some();
    let tls = written("tls");
    let credentials = ["token", "token_file", "tokens", "certificates"]
        .into_iter()
        .any(written);
    let (lacks, suggestion) = match (tls, credentials) {
        _ if address.ip().to_canonical().is_loopback() => return,
        (true, true) => return,
        (false, true) => (
            "TLS",
            "add `tls = { certificate = \"admin.pem\", key = \"admin.key\" }`; where something beside it ends TLS, listen on loopback: `listen = \"127.0.0.1:7700\"`",
        ),
        (false, false) => (
            "TLS and a token",
            "add `tls = { certificate = \"admin.pem\", key = \"admin.key\" }` and a token that `evenkeel token create` makes, or listen on loopback: `listen = \"127.0.0.1:7700\"`",
        ),
        (true, false) => (
            "a token or client certificates",
            "add a token that `evenkeel token create` makes, or `client_ca` to `tls` and `[[admin.certificates]]`",
        ),
    };
    let Some(entry) = s.entry("listen") else { return };
    let fault = Fault::new(format!(
        "the admin API may not listen on {address} without {lacks}"
    ))
    .suggest(suggestion);
    f.report(entry.node.span.clone(), &s.path_of("listen"), fault);
}

/// Client certificates need who issues them, and the other way round.
fn require_authority(f: &mut Findings<'_>, s: &Section<'_>) {
    let authority = match s.entry("tls").map(|tls| &tls.node.value) {
        Some(Value::Table(entries)) => entries.iter().find(|entry| entry.key == "client_ca"),
        _ => None,
    };
    match (authority, s.entry("certificates")) {
        (None, Some(entry)) => {
            let fault = Fault::new("nobody can show a certificate: `tls` has no `client_ca`")
                .suggest("add the file with the authorities that issue them: `client_ca = \"clients.pem\"`");
            f.report(entry.node.span.clone(), &s.path_of("certificates"), fault);
        }
        (Some(entry), None) => {
            let fault = Fault::new("no certificate opens anything: there is no `[[admin.certificates]]`")
                .suggest("say whose certificates open it, for example `certificates = [{ name = \"alice\", role = \"operator\" }]`, or remove `client_ca`");
            f.report(entry.node.span.clone(), &s.path_of("tls.client_ca"), fault);
        }
        _ => {}
    }
}

/// `true`, `false`, or a path.
fn audit_log(f: &mut Findings<'_>, s: &Section<'_>) -> AuditTo {
    match s.entry("audit_log").map(|entry| &entry.node.value) {
        None | Some(Value::Bool(true)) => AuditTo::DataDir,
        Some(Value::Bool(false)) => AuditTo::Off,
        Some(Value::Text(_)) => {
            let path = s.text(f, "audit_log", text::file);
            path.map_or_else(AuditTo::default, |path| AuditTo::File(path.into()))
        }
        Some(_) => {
            s.report_wrong_type(f, "audit_log");
            AuditTo::default()
        }
    }
}

fn tls(f: &mut Findings<'_>, s: &Section<'_>) -> Option<AdminTls> {
    let certificate = s.text(f, "certificate", text::file);
    let key = s.text(f, "key", text::file);
    let client_ca = s.text(f, "client_ca", text::file).map(PathBuf::from);
    Some(AdminTls {
        certificate: certificate?.into(),
        key: key?.into(),
        client_ca,
    })
}

/// Names taken, with where they stand.
type Names = BTreeMap<String, String>;

fn tokens(f: &mut Findings<'_>, s: &Section<'_>, names: &mut Names) -> Vec<AdminToken> {
    let mut tokens = Vec::new();
    for section in entries(f, s, "tokens", &schema::ADMIN_TOKEN) {
        let name = section.text(f, "name", text::name);
        if let Some(name) = &name {
            claim(f, names, name.as_str(), &section);
        }
        let role = role(f, &section);
        let hash = section.text(f, "hash", text::token_hash);
        if let (Some(name), Some(role), Some(hash)) = (name, role, hash) {
            tokens.push(AdminToken { name, role, hash });
        }
    }
    tokens
}

fn certificates(f: &mut Findings<'_>, s: &Section<'_>, names: &mut Names) -> Vec<AdminCertificate> {
    let mut certificates = Vec::new();
    for section in entries(f, s, "certificates", &schema::ADMIN_CERTIFICATE) {
        let name = section.text(f, "name", text::words);
        if let Some(name) = &name {
            claim(f, names, name, &section);
        }
        let role = role(f, &section);
        if let (Some(name), Some(role)) = (name, role) {
            certificates.push(AdminCertificate { name, role });
        }
    }
    certificates
}

/// The tables of a list that is compared with each request.
fn entries<'t>(
    f: &mut Findings<'_>,
    s: &Section<'t>,
    key: &'static str,
    table: &'static schema::Table,
) -> Vec<Section<'t>> {
    let items = s.items(f, key).unwrap_or_default();
    if items.len() > MAX_ADMIN_LOGINS {
        let cause = format!(
            "`{key}` has {} entries; at most {MAX_ADMIN_LOGINS} are taken",
            items.len()
        );
        if let Some(entry) = s.entry(key) {
            f.report(entry.node.span.clone(), &s.path_of(key), Fault::new(cause));
        }
    }
    let opened = items.into_iter().take(MAX_ADMIN_LOGINS);
    opened
        .filter_map(|(path, node)| Section::open(f, node, path, table))
        .collect()
}

fn role(f: &mut Findings<'_>, s: &Section<'_>) -> Option<AdminRole> {
    s.choice(f, "role").and_then(AdminRole::parse)
}

/// Who did something is told by name: each stands for one login.
fn claim(f: &mut Findings<'_>, names: &mut Names, name: &str, s: &Section<'_>) {
    let path = s.path_of("name");
    let Some(first) = names.insert(name.to_owned(), path.clone()) else {
        return;
    };
    if let Some(entry) = s.entry("name") {
        let fault = Fault::new(format!("`{}` is the name of {first} too", cut(name)))
            .suggest("give each a name of its own: it is what orders and the audit log are signed with");
        f.report(entry.node.span.clone(), &path, fault);
    }
}
