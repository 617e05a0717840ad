//! Certificates made on the spot, and a client that keeps asking over TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, PKCS_RSA_SHA256, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::{DEADLINE, openssl, wait_until};

/// An authority with a folder for what it issues.
pub(crate) struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// Certificates issued so far.
    issued: AtomicU64,
}

/// What is asked of an authority.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish {
    pub(crate) rsa: bool,
    /// Its days are over.
    pub(crate) expired: bool,
    /// It ends so many hours from now.
    pub(crate) hours: Option<u64>,
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
            issued: AtomicU64::new(0),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same as text, for configs and command lines.
    pub(crate) fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes `NAME.pem` and `NAME.key` for these hosts; the common name is `name`. Its serial number.
    pub(crate) fn issue_as(&self, name: &str, hosts: &[&str], wish: Wish) -> u64 {
        let key = match wish.rsa {
            true => KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(),
            false => KeyPair::generate().unwrap(),
        };
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let serial = 1 + self.issued.fetch_add(1, Ordering::Relaxed);
        params.serial_number = Some(SerialNumber::from(serial));
        if wish.expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        if let Some(hours) = wish.hours {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            params.not_after = date_time_ymd(1970, 1, 1) + now + Duration::from_secs(hours * 3600);
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        serial
    }

    pub(crate) fn issue(&self, name: &str, hosts: &[&str]) -> u64 {
        self.issue_as(name, hosts, Wish::default())
    }

    /// Writes the list of revoked certificates to `clients.crl`, whole, by a rename.
    pub(crate) fn revoke(&self, serials: &[u64]) {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2096, 1, 1),
            crl_number: SerialNumber::from(1 + serials.len() as u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let pem = list.signed_by(&self.issuer).unwrap().pem().unwrap();
        std::fs::write(self.path("clients.crl.new"), pem).unwrap();
        std::fs::rename(self.path("clients.crl.new"), self.path("clients.crl")).unwrap();
    }

    /// An OCSP response that says `NAME.pem` is good, out of date at `end_s` (seconds since 1970). Nobody but its
    /// reader looks at that end, so it is written into what openssl has signed.
    pub(crate) fn ocsp_response(&self, name: &str, end_s: u64) -> Vec<u8> {
        let (ca, key, cert) = (
            self.file("ca.pem"),
            self.file("ca.key"),
            self.file(&format!("{name}.pem")),
        );
        let serial = openssl(&["x509", "-in", &cert, "-noout", "-serial"]);
        let serial = serial.trim().trim_start_matches("serial=").to_owned();
        let (index, request, response) = (
            self.file("index.txt"),
            self.file("request"),
            self.file("response"),
        );
        std::fs::write(
            &index,
            format!("V\t491231235959Z\t\t{serial}\tunknown\t/CN={name}\n"),
        )
        .unwrap();
        openssl(&["ocsp", "-issuer", &ca, "-cert", &cert, "-reqout", &request]);
        let sign = ["-index", &index, "-CA", &ca, "-rsigner", &ca, "-rkey", &key];
        let answer = ["-reqin", &request, "-respout", &response, "-ndays", "7"];
        let said = openssl(&[&["ocsp"][..], &sign, &answer].concat());
        let mut bytes = std::fs::read(&response).unwrap_or_else(|_| panic!("{said}"));
        // Tag and length of a GeneralizedTime, and its century; the last one is nextUpdate.
        let mut times = (0..bytes.len()).filter(|i| bytes[*i..].starts_with(b"\x18\x0f20"));
        let at = times.next_back().expect("a time") + 2;
        bytes[at..at + 15].copy_from_slice(generalized_time(end_s).as_bytes());
        bytes
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
        let builder = self.client_builder(rustls::crypto::aws_lc_rs::default_provider());
        Arc::new(builder.with_no_client_auth())
    }

    /// The same, which knows this one group to agree on keys in.
    pub(crate) fn client_with_group(&self, group: NamedGroup) -> Arc<ClientConfig> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.kx_groups.retain(|known| known.name() == group);
        Arc::new(self.client_builder(provider).with_no_client_auth())
    }

    /// The same with the certificate `name` of its own.
    pub(crate) fn client_named(&self, name: &str) -> Arc<ClientConfig> {
        let builder = self.client_builder(rustls::crypto::aws_lc_rs::default_provider());
        let read = |ending: &str| std::fs::read(self.path(&format!("{name}.{ending}"))).unwrap();
        let certificate = rustls::pki_types::CertificateDer::from_pem_slice(&read("pem")).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(&read("key")).unwrap();
        Arc::new(builder.with_client_auth_cert(vec![certificate], key).unwrap())
    }

    fn client_builder(
        &self,
        provider: rustls::crypto::CryptoProvider,
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        let der = rustls::pki_types::CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(der).unwrap();
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
    }
}

/// A time as X.690 section 11.7 writes it.
fn generalized_time(unix_s: u64) -> String {
    let time = date_time_ymd(1970, 1, 1) + Duration::from_secs(unix_s);
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}Z")
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
        self.ask(host, "/")
    }

    /// The same of a path.
    pub(crate) fn ask(&mut self, host: &str, path: &str) -> std::io::Result<u16> {
        // In one record: who is refused may be told so, and closed to, between two.
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.0.write_all(request.as_bytes())?;
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

    /// Sends these bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the bytes can be sent");
    }

    /// The next bytes, exactly so many.
    pub(crate) fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).expect("the bytes come");
        bytes
    }

    /// The next bytes, up to and with `end`.
    pub(crate) fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end) {
            bytes.extend(self.exactly(1));
        }
        bytes
    }

    /// Whether a session was resumed. Known once something was read.
    pub(crate) fn is_resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The group that the key was agreed in.
    pub(crate) fn group(&self) -> Option<NamedGroup> {
        self.0
            .conn
            .negotiated_key_exchange_group()
            .map(|group| group.name())
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
