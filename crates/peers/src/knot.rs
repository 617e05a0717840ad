//! A name server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::{Process, free_ports, wait_until};

/// A Knot DNS with the zone `test.`, whose records change while it runs.
#[derive(Debug)]
pub struct Knot {
    /// Where it answers, over UDP and TCP.
    pub address: SocketAddr,
    /// Its port.
    pub port: u16,
    process: Process,
    zone: PathBuf,
    serial: u32,
    /// Config, zone and log; goes with it.
    _folder: TempDir,
}

impl Knot {
    /// Starts one with these records, one a line as `NAME TTL TYPE DATA`, where `NAME` ends before `.test`; waits until
    /// it serves them.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(records: &str) -> Self {
        Self::start_at(records, || (Ipv4Addr::LOCALHOST, free_ports(1)[0]).into())
    }

    /// The same on the port of the DNS at this address, which takes root: where `/etc/resolv.conf` can name it.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_as_system(ip: Ipv4Addr, records: &str) -> Self {
        Self::start_at(records, || (ip, 53).into())
    }

    fn start_at(records: &str, address: impl Fn() -> SocketAddr) -> Self {
        for _ in 0..5 {
            let mut started = Self::launch(records, address());
            let up = wait_until("a Knot", || match started.process.has_ended() {
                true => Some(false),
                false => started.serves().then_some(true),
            });
            if up {
                return started;
            }
        }
        panic!("knotd does not start");
    }

    /// Serves these records from now on, and no others.
    pub fn set(&mut self, records: &str) {
        self.serial += 1;
        write(&self.zone, self.serial, records);
        self.process.signal(Signal::SIGHUP);
        wait_until("the new zone", || self.serves().then_some(()));
    }

    /// Ends it as a crash would.
    pub fn crash(&mut self) {
        self.process.crash();
    }

    /// Starts it again after a crash, with these records.
    pub fn start_again(&mut self, records: &str) {
        self.serial += 1;
        write(&self.zone, self.serial, records);
        self.process.start_again();
        wait_until("the zone", || self.serves().then_some(()));
    }

    fn serves(&self) -> bool {
        self.process.says(&format!("serial {}", self.serial))
            || self.process.says(&format!("-> {}", self.serial))
    }

    fn launch(records: &str, address: SocketAddr) -> Self {
        let folder = TempDir::new().unwrap();
        let (ip, port) = (address.ip(), address.port());
        let (path, zone) = (folder.path().display(), folder.path().join("test.zone"));
        let config = folder.path().join("knot.conf");
        let text = format!(
            "server:\n  rundir: \"{path}\"\n  listen: {ip}@{port}\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n\
             log:\n- target: stderr\n  any: info\n\
             database:\n  storage: \"{path}/db\"\n\
             zone:\n- domain: test\n  storage: \"{path}\"\n  file: test.zone\n  zonefile-sync: -1\n  journal-content: none\n  semantic-checks: off\n"
        );
        std::fs::write(&config, text).unwrap();
        write(&zone, 1, records);
        let options = vec!["-c".to_owned(), config.display().to_string()];
        let process = Process::start("knotd", options, &folder.path().join("log"));
        Self {
            address,
            port,
            process,
            zone,
            serial: 1,
            _folder: folder,
        }
    }
}

/// Writes the zone; what does not exist holds for a second.
fn write(zone: &PathBuf, serial: u32, records: &str) {
    let text = format!(
        "$ORIGIN test.\n$TTL 1\n@ 1 SOA ns hostmaster {serial} 3600 600 86400 1\n@ 1 NS ns\nns 1 A 127.0.0.1\n{records}\n"
    );
    std::fs::write(zone, text).unwrap();
}
