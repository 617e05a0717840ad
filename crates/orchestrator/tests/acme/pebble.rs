//! A Pebble of one's own, with a name server that says one address to everything.

use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
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
        let (port, management, names, names_api) = (free_port(), free_port(), free_port(), free_port());
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

/// A port that nobody has just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn wait_for(port: u16) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nobody listens on port {port}");
        // condition poll
        std::thread::sleep(Duration::from_millis(20));
    }
}
