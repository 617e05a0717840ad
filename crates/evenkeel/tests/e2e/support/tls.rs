//! Certificates made on the spot, and a client that keeps asking over TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, date_time_ymd,
};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::{DEADLINE, wait_until};

/// An authority with a folder for what it issues.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What is asked of an authority.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish {
    pub(crate) rsa: bool,
    /// Its days are over.
    pub(crate) expired: bool,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Two authorities of one name would be told apart by their signatures only.
        let name = format!("authority in {}", dir.path().display());
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(dir.path().join("ca.pem"), &pem).unwrap();
        std::fs::write(dir.path().join("ca.key"), key.serialize_pem()).unwrap();
        Self {
            dir,
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text, for configs and command lines.
    pub(crate) fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes `NAME.pem` and `NAME.key` for these hosts; the common name is `name`.
    pub(crate) fn issue_as(&self, name: &str, hosts: &[&str], wish: Wish) {
        let key = match wish.rsa {
            true => KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(),
            false => KeyPair::generate().unwrap(),
        };
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if wish.expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
    }

    pub(crate) fn issue(&self, name: &str, hosts: &[&str]) {
        self.issue_as(name, hosts, Wish::default());
    }

    /// An entry of `certificates`.
    pub(crate) fn entry(&self, name: &str) -> String {
        let file = |ending: &str| self.file(&format!("{name}.{ending}"));
        format!("{{ cert = \"{}\", key = \"{}\" }}", file("pem"), file("key"))
    }

    /// The keys of a listener that shows these, and further keys of its `tls`.
    pub(crate) fn listener(&self, names: &[&str], more: &str) -> String {
        let entries: Vec<String> = names.iter().map(|name| self.entry(name)).collect();
        format!(
            "protocol = \"https\"\ntls = {{ certificates = [{}]{more} }}\n",
            entries.join(", ")
        )
    }

    /// A client that trusts this authority.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let der = rustls::pki_types::CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(der).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// A connection of a client over TLS.
pub(crate) struct TlsClient(StreamOwned<ClientConnection, TcpStream>);

impl TlsClient {
    pub(crate) fn connect(config: Arc<ClientConfig>, address: SocketAddr, name: &str) -> Self {
        let tcp = TcpStream::connect(address).expect("it connects");
        tcp.set_read_timeout(Some(DEADLINE)).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Self(StreamOwned::new(
            ClientConnection::new(config, name).unwrap(),
            tcp,
        ))
    }

    /// Asks for a small answer and reads it to its end; its status.
    pub(crate) fn get(&mut self, host: &str) -> std::io::Result<u16> {
        write!(self.0, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
        let mut bytes = Vec::new();
        let mut part = [0; 4096];
        loop {
            let n = self.0.read(&mut part)?;
            if n == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&part[..n]);
            if let Some(status) = whole(&bytes) {
                return Ok(status);
            }
        }
    }

    /// The certificate that was shown, in DER.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().expect("a certificate")[0].to_vec()
    }
}

/// The status of a response with `Content-Length`, once it has come whole.
fn whole(bytes: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?;
    let length: usize = length.parse().ok()?;
    (body.len() >= length).then(|| head.split(' ').nth(1)?.parse().ok())?
}

/// Clients that ask again and again, each request over a kept connection and every tenth over a new one.
pub(crate) struct TlsLoad {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl TlsLoad {
    pub(crate) fn start(config: &Arc<ClientConfig>, address: SocketAddr, name: &'static str) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = || {
            let (config, stop, done) = (config.clone(), stop.clone(), done.clone());
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let mut client = TlsClient::connect(config.clone(), address, name);
                    for _ in 0..10 {
                        match client.get(name) {
                            Ok(200) => {
                                done.fetch_add(1, Ordering::Relaxed);
                            }
                            Ok(status) => failures.push(format!("status {status}")),
                            Err(error) => {
                                failures.push(error.to_string());
                                break;
                            }
                        }
                    }
                }
                failures
            })
        };
        let threads = (0..2).map(|_| thread()).collect();
        Self { stop, done, threads }
    }

    /// Waits for so many further requests.
    pub(crate) fn wait_for_more(&self, requests: u64) {
        let until = self.done.load(Ordering::Relaxed) + requests;
        wait_until("requests were served", || {
            self.done.load(Ordering::Relaxed) >= until
        });
    }

    /// Ends it; every failure.
    pub(crate) fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.threads.into_iter().flat_map(|t| t.join().expect("a client"));
        failures.collect()
    }
}
