//! TLS of listeners, pools and checks. Files are named, not opened.

use std::path::PathBuf;

use super::section::{Findings, Section, item_text};
use super::text;
use super::tree::Value;
use crate::acme::Challenge;
use crate::config::{
    Acme, BackendTls, Certificate, ClientCertificates, DEFAULT_ACME_DIRECTORY, ListenerTls, Pem, PrivateKey,
    Secret, TlsVersion,
};
use crate::diagnostic::Fault;
use crate::schema;

/// `protocol` and `tls` of a listener.
pub(super) fn listener_tls(f: &mut Findings<'_>, s: &Section<'_>) -> Option<ListenerTls> {
    let https = s.choice(f, "protocol") == Some("https");
    let tls = s.section(f, "tls");
    if let Some(entry) = s.entry("protocol").filter(|_| https && s.entry("tls").is_none()) {
        let fault = Fault::new("`protocol = \"https\"` needs a certificate").suggest(
            "add for example `tls = { certificates = [{ cert = \"shop.pem\", key = \"shop.key\" }] }`",
        );
        f.report(entry.node.span.clone(), &s.path_of("protocol"), fault);
    }
    let s = tls?;
    let certificates = certificates(f, &s);
    let acme = s.section(f, "acme").and_then(|s| acme(f, &s));
    let client_certificates = s
        .section(f, "client_certificates")
        .and_then(|s| client_certificates(f, &s));
    Some(ListenerTls {
        certificates,
        acme,
        min_version: min_version(f, &s),
        client_certificates,
    })
}

fn acme(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Acme> {
    let expected = schema::Form::Domain.expected();
    let items = s.items(f, "domains").unwrap_or_default();
    let domains: Vec<String> = items
        .into_iter()
        .filter_map(|(path, node)| item_text(f, (&path, node), expected, text::domain))
        .collect();
    let challenge = match s.choice(f, "challenge") {
        Some("http-01") => Challenge::Http01,
        _ => Challenge::TlsAlpn01,
    };
    let directory = s.text(f, "directory", text::directory_url);
    Some(Acme {
        email: s.text(f, "email", text::words),
        directory: directory.unwrap_or_else(|| DEFAULT_ACME_DIRECTORY.to_owned()),
        directory_ca: s.text(f, "directory_ca", text::file).map(PathBuf::from),
        challenge,
        domains: Some(domains).filter(|domains| !domains.is_empty())?,
    })
}

fn certificates(f: &mut Findings<'_>, s: &Section<'_>) -> Vec<Certificate> {
    let mut certificates = Vec::new();
    for (path, node) in s.items(f, "certificates").unwrap_or_default() {
        let opened = Section::open(f, node, path, &schema::CERTIFICATE);
        if let Some(section) = opened {
            let ocsp = section.text(f, "ocsp", text::file).map(PathBuf::from);
            certificates.extend(key_pair(f, &section).map(|pair| Certificate { ocsp, ..pair }));
        }
    }
    certificates
}

fn key_pair(f: &mut Findings<'_>, s: &Section<'_>) -> Option<Certificate> {
    let cert = pem(f, s, "cert", "cert_pem");
    let key = s
        .text(f, "key", text::file)
        .map(|path| PrivateKey::File(path.into()));
    let inline = s
        .text(f, "key_pem", text::pem)
        .map(|text| PrivateKey::Inline(Secret::new(text)));
    Some(Certificate {
        cert: cert?,
        key: key.or(inline)?,
        ocsp: None,
    })
}

fn pem(f: &mut Findings<'_>, s: &Section<'_>, file: &str, inline: &str) -> Option<Pem> {
    let file = s.text(f, file, text::file).map(|path| Pem::File(path.into()));
    let inline = s.text(f, inline, text::pem).map(Pem::Inline);
    file.or(inline)
}

fn client_certificates(f: &mut Findings<'_>, s: &Section<'_>) -> Option<ClientCertificates> {
    let required = s.choice(f, "mode") != Some("optional");
    let crl = s.text(f, "crl", text::file).map(PathBuf::from);
    Some(ClientCertificates {
        required,
        ca: pem(f, s, "ca", "ca_pem")?,
        crl,
    })
}

fn min_version(f: &mut Findings<'_>, s: &Section<'_>) -> TlsVersion {
    match s.choice(f, "min_version") {
        Some("1.3") => TlsVersion::V1_3,
        _ => TlsVersion::V1_2,
    }
}

/// `tls` of a pool: `true`, `false` or a table.
pub(super) fn backend_tls(f: &mut Findings<'_>, s: &Section<'_>) -> Option<BackendTls> {
    let entry = s.entry("tls")?;
    match entry.node.value {
        Value::Bool(on) => return on.then(BackendTls::default),
        Value::Table(_) => {}
        _ => {
            s.report_wrong_type(f, "tls");
            return None;
        }
    }
    let s = Section::open(f, &entry.node, s.path_of("tls"), &schema::BACKEND_TLS)?;
    let ca = pem(f, &s, "ca", "ca_pem");
    let insecure = s.boolean(f, "insecure").unwrap_or(false);
    if let Some(ca) = ["ca", "ca_pem"]
        .iter()
        .find_map(|key| s.entry(key))
        .filter(|_| insecure)
    {
        let fault = Fault::new(format!("with `insecure = true`, `{}` verifies nothing", ca.key))
            .suggest(format!("remove `insecure`, or `{}`", ca.key));
        f.report(ca.key_span.clone(), &s.path_of(&ca.key), fault);
    }
    let client_certificate = s.section(f, "client_certificate").and_then(|s| key_pair(f, &s));
    Some(BackendTls {
        ca,
        server_name: s.text(f, "server_name", text::host),
        client_certificate,
        min_version: min_version(f, &s),
        insecure,
    })
}

/// `tls` of a check: whether it speaks TLS as its pool does. Given nothing, it does as the pool.
pub(super) fn check_tls(
    f: &mut Findings<'_>,
    s: &Section<'_>,
    pool: Option<&BackendTls>,
) -> Option<BackendTls> {
    let wanted = s.boolean(f, "tls");
    if let Some(entry) = s.entry("tls").filter(|_| wanted == Some(true) && pool.is_none()) {
        let fault = Fault::new("the check can speak TLS only as its pool does, which does not")
            .suggest("add `tls` to the pool, or remove it here");
        f.report(entry.node.span.clone(), &s.path_of("tls"), fault);
    }
    pool.filter(|_| wanted != Some(false)).cloned()
}
