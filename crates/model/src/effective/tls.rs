//! TLS, written out.

use super::{Writer, list, quoted};
use crate::config::{Acme, BackendTls, Certificate, ClientCertificates, ListenerTls, Pem, PrivateKey};

/// `path` is that of the listener's `tls`.
pub(super) fn write_listener_tls(w: &mut Writer, path: &str, tls: &ListenerTls) {
    let ListenerTls {
        certificates,
        acme,
        min_version,
        client_certificates,
    } = tls;
    w.header(&format!("[{path}]"));
    w.text("min_version", min_version.as_str());
    for certificate in certificates {
        w.header(&format!("[[{path}.certificates]]"));
        write_certificate(w, certificate);
    }
    if let Some(acme) = acme {
        write_acme(w, &format!("{path}.acme"), acme);
    }
    if let Some(ClientCertificates { required, ca, crl }) = client_certificates {
        w.header(&format!("[{path}.client_certificates]"));
        w.text("mode", if *required { "require" } else { "optional" });
        write_pem(w, "ca", ca);
        let crl = crl.as_ref().map(|path| path.display().to_string());
        w.optional("crl", crl.as_deref(), "none");
    }
}

fn write_acme(w: &mut Writer, path: &str, acme: &Acme) {
    let Acme {
        domains,
        email,
        directory,
        directory_ca,
        challenge,
    } = acme;
    w.header(&format!("[{path}]"));
    w.raw("domains", list(domains.iter().map(|domain| quoted(domain))));
    w.optional("email", email.as_deref(), "none");
    w.text("directory", directory);
    let ca = directory_ca.as_ref().map(|path| path.display().to_string());
    w.optional("directory_ca", ca.as_deref(), "those that the system trusts");
    w.text("challenge", challenge.as_str());
}

/// `path` is that of the pool's `tls`.
pub(super) fn write_backend_tls(w: &mut Writer, path: &str, tls: &BackendTls) {
    let BackendTls {
        ca,
        server_name,
        client_certificate,
        min_version,
        insecure,
    } = tls;
    w.header(&format!("[{path}]"));
    match ca {
        Some(ca) => write_pem(w, "ca", ca),
        None => w.comment("ca: those that the system trusts"),
    }
    w.optional("server_name", server_name.as_deref(), "the backend's IP address");
    w.text("min_version", min_version.as_str());
    w.raw("insecure", insecure);
    if let Some(certificate) = client_certificate {
        w.header(&format!("[{path}.client_certificate]"));
        write_certificate(w, certificate);
    }
}

fn write_certificate(w: &mut Writer, certificate: &Certificate) {
    let Certificate { cert, key, ocsp } = certificate;
    write_pem(w, "cert", cert);
    match key {
        PrivateKey::File(path) => w.text("key", &path.display().to_string()),
        PrivateKey::Inline(_) => w.comment("key_pem: set, and not shown"),
    }
    if let Some(path) = ocsp {
        w.text("ocsp", &path.display().to_string());
    }
}

fn write_pem(w: &mut Writer, key: &str, pem: &Pem) {
    match pem {
        Pem::File(path) => w.text(key, &path.display().to_string()),
        Pem::Inline(text) => w.text(&format!("{key}_pem"), text),
    }
}
