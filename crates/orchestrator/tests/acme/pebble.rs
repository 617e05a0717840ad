//! A Pebble of one's own, with a name server that says one address to everything.

use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

pub(crate) struct Pebble {
    directory: tempfile::TempDir,
    port: u16,
    management: u16,
    programs: Vec<Child>,
}

impl Pebble {
    /// Starts an authority that looks for answers at this address, on these ports.
    pub(crate) fn start(answers: IpAddr, http_port: u16, tls_port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name).display().to_string();
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        std::fs::write(file("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(file("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let [port, management, names, names_api] = free_ports();
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "127.0.0.1:{port}", "managementListenAddress": "127.0.0.1:{management}",
            "certificate": "{}", "privateKey": "{}", "httpPort": {http_port}, "tlsPort": {tls_port}}}}}"#,
            file("cert.pem"),
            file("key.pem"),
        );
        std::fs::write(file("pebble.json"), config).unwrap();
        let names_address = format!("127.0.0.1:{names}");
        let name_server = start(Command::new("pebble-challtestsrv").args([
            "-dns01",
            &names_address,
            "-defaultIPv4",
            &answers.to_string(),
            "-defaultIPv6",
            "",
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-management",
            &format!("127.0.0.1:{names_api}"),
        ]));
        let authority = start(
            Command::new("pebble")
                .args([
                    "-config",
                    &file("pebble.json"),
                    "-dnsserver",
                    &names_address,
                    "-strict",
                    "true",
                ])
                // Of a hundred nonces one is refused. Of five, as is usual, three in a row are now and then, and the
                // order has failed.
                .env("PEBBLE_WFE_NONCEREJECT", "1")
                .env("PEBBLE_VA_NOSLEEP", "1")
                .env("PEBBLE_AUTHZREUSE", "0"),
        );
        let pebble = Self {
            directory,
            port,
            management,
            programs: vec![name_server, authority],
        };
        wait_for(port);
        wait_for(management);
        wait_for(names_api);
        wait_for_names(names);
        pebble
    }

    /// URL of its directory.
    pub(crate) fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// URL of the root of what it issues, PEM.
    pub(crate) fn root(&self) -> String {
        format!("https://localhost:{}/roots/0", self.management)
    }

    /// The certificate to trust it by.
    pub(crate) fn ca(&self) -> PathBuf {
        self.directory.path().join("cert.pem")
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

fn start(command: &mut Command) -> Child {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.spawn().expect("Debian's package pebble is installed")
}

/// Ports that nobody has just now. They lie below the range from which Linux gives out ports, so that nobody else gets
/// one before it is used, and each process begins elsewhere.
fn free_ports() -> [u16; 4] {
    const PORTS: std::ops::Range<u16> = 18_000..24_000;
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let next = |_| {
        let turn = std::process::id()
            .wrapping_mul(61)
            .wrapping_add(GIVEN.fetch_add(1, Relaxed));
        PORTS.start + (turn % u32::from(PORTS.end - PORTS.start)) as u16
    };
    let free = PORTS
        .map(next)
        .filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let held: Vec<TcpListener> = free.take(4).collect();
    let ports: Vec<u16> = held
        .iter()
        .map(|port| port.local_addr().unwrap().port())
        .collect();
    ports.try_into().expect("four ports are free")
}

fn wait_for(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nobody listens on port {port}");
        // condition poll
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits for an answer to a question for the address of `test.`.
fn wait_for_names(port: u16) {
    const QUESTION: &[u8] = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x04test\0\0\x01\0\x01";
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let ask = || socket.send(QUESTION).and_then(|_| socket.recv(&mut [0; 512]));
    while ask().is_err() {
        assert!(Instant::now() < deadline, "no names are told on port {port}");
        // condition poll
        std::thread::sleep(Duration::from_millis(20));
    }
}
