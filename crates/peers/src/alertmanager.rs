//! An Alertmanager.

use tempfile::TempDir;

use crate::process::{Process, free_ports, wait_until};

/// An Alertmanager that tells nobody; its alerts are asked for over its API.
#[derive(Debug)]
pub struct Alertmanager {
    /// A host and a port.
    pub place: String,
    process: Process,
    /// Config, data and log; goes with it.
    _folder: TempDir,
}

impl Alertmanager {
    /// Starts one and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start() -> Self {
        for _ in 0..5 {
            let mut started = Self::launch();
            let up = wait_until("an Alertmanager", || match started.process.has_ended() {
                true => Some(false),
                false => started.process.says("Listening").then_some(true),
            });
            if up {
                return started;
            }
        }
        panic!("prometheus-alertmanager does not start");
    }

    /// Ends it as a crash would.
    pub fn crash(&mut self) {
        self.process.crash();
    }

    /// Starts it again after a crash.
    pub fn start_again(&mut self) {
        self.process.start_again();
    }

    fn launch() -> Self {
        let folder = TempDir::new().unwrap();
        let config = folder.path().join("alertmanager.yml");
        std::fs::write(
            &config,
            "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n",
        )
        .unwrap();
        let place = format!("127.0.0.1:{}", free_ports(1)[0]);
        let options = vec![
            format!("--config.file={}", config.display()),
            format!("--storage.path={}", folder.path().join("data").display()),
            format!("--web.listen-address={place}"),
            "--cluster.listen-address=".to_owned(),
        ];
        let process = Process::start("prometheus-alertmanager", options, &folder.path().join("log"));
        Self {
            place,
            process,
            _folder: folder,
        }
    }
}
