//! What differs between rows in a proxy's config: TLS on the listener, an access log.
//!
//! Each proxy says it in its own words; the words are filled into the files of `bench/peers`.

use std::path::Path;

use anyhow::{Result, bail};

use super::peers::Peer;
use crate::process::{command, output};

/// How a proxy is set up for a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variant {
    /// TLS with a P-256 certificate, HTTP/1.1 and HTTP/2.
    pub(crate) tls: bool,
    /// One JSON line per request into a file.
    pub(crate) access_log: bool,
}

/// The suite of every proxy: Evenkeel's choice, which the others would leave to the client.
const SUITE: &str = "TLS_AES_128_GCM_SHA256";

/// The same facts in every proxy's log.
const NGINX_LOG: &str = r#"log_format facts escape=json '{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method","target":"$request_uri","status":$status,"bytes":$bytes_sent,"upstream":"$upstream_addr","duration":$request_time,"agent":"$http_user_agent"}'; access_log"#;
const HAPROXY_LOG: &str = r#"log global
    log-format '{"time":"%trl","client":"%ci","method":"%HM","target":"%HU","status":%ST,"bytes":%B,"upstream":"%s","duration":%Ta,"agent":"%[capture.req.hdr(0)]"}'
    http-request capture req.hdr(User-Agent) len 128"#;

impl Variant {
    /// Whether a file for this proxy says it.
    pub(crate) fn suits(self, peer: Peer) -> bool {
        self == Self::default() || matches!(peer, Peer::Evenkeel | Peer::Nginx | Peer::Haproxy)
    }

    /// `http` or `https`.
    pub(crate) fn scheme(self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// What to fill into the proxy's file, by name.
    pub(crate) fn words(self, peer: Peer, dir: &Path) -> Vec<(&'static str, String)> {
        let file = |name: &str| dir.join(name).display().to_string();
        let (cert, key, both) = (file("cert.pem"), file("key.pem"), file("both.pem"));
        let log = file(&format!("{}-access.log", peer.name()));
        let when = |on: bool, words: String| if on { words } else { String::new() };
        match peer {
            Peer::Nginx => vec![
                ("tls_listen", when(self.tls, "ssl http2".into())),
                (
                    "tls",
                    when(
                        self.tls,
                        format!(
                            "ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites {SUITE};"
                        ),
                    ),
                ),
                (
                    "access_log",
                    if self.access_log {
                        format!("{NGINX_LOG} {log} facts buffer=64k flush=1s;")
                    } else {
                        "access_log off;".into()
                    },
                ),
            ],
            Peer::Haproxy => vec![
                (
                    "tls_listen",
                    when(
                        self.tls,
                        format!("ssl crt {both} alpn h2,http/1.1 ssl-min-ver TLSv1.3 ciphersuites {SUITE}"),
                    ),
                ),
                ("scheme", self.scheme().into()),
                (
                    "access_log",
                    when(self.access_log, "log stdout format raw local0".into()),
                ),
                ("log_format", when(self.access_log, HAPROXY_LOG.into())),
            ],
            Peer::Evenkeel => vec![
                (
                    "tls",
                    when(
                        self.tls,
                        format!(
                            "protocol = \"https\"\ntls = {{ certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}], min_version = \"1.3\" }}"
                        ),
                    ),
                ),
                (
                    "access_log",
                    when(
                        self.access_log,
                        format!("[access_log]\nto = \"file:{log}\"\nformat = \"json\""),
                    ),
                ),
            ],
            Peer::Envoy | Peer::Caddy => Vec::new(),
        }
    }
}

/// Makes the certificate that all proxies show.
///
/// # Errors
/// When openssl cannot.
pub(crate) fn make_certificate(dir: &Path) -> Result<()> {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let (cert_text, key_text) = (cert.display().to_string(), key.display().to_string());
    let arguments = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "30",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-keyout",
        &key_text,
        "-out",
        &cert_text,
    ];
    output(&mut command("openssl", &arguments))?;
    std::fs::write(
        dir.join("both.pem"),
        [std::fs::read(&cert)?, std::fs::read(&key)?].concat(),
    )?;
    Ok(())
}

/// One request over TLS on a connection of its own: the body.
///
/// # Errors
/// When it does not answer 200.
pub(crate) fn request_over_tls(address: std::net::SocketAddr, path: &str) -> Result<Vec<u8>> {
    let url = format!("https://{address}{path}");
    let arguments = [
        "--silent",
        "--insecure",
        "--fail",
        "--http1.1",
        "--max-time",
        "5",
        "--noproxy",
        "*",
        &url,
    ];
    let body = output(&mut command("curl", &arguments))?;
    if body.is_empty() {
        bail!("{url} answered nothing");
    }
    Ok(body.into_bytes())
}
