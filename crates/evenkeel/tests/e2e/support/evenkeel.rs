//! The program as a child process.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::{Backend, Client, Message, Metrics, free_ip, wait_for, wait_until};

/// Lines of its log shown when a test fails.
const LOG_LINES: usize = 60;

/// The program, with nothing of this process's environment that could change what it does.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    for name in [
        "EVENKEEL_LOG",
        "EVENKEEL_LOG_FORMAT",
        "EVENKEEL_ADMIN",
        "EVENKEEL_TOKEN_FILE",
        "EVENKEEL_CA",
        "EVENKEEL_CLIENT_CERTIFICATE",
        "EVENKEEL_CLIENT_KEY",
    ] {
        command.env_remove(name);
    }
    command
}

/// A config in the short form: the load balancer `shop` on an address of its own in front of `backends`. `more`
/// are further keys.
pub(crate) fn shop(backends: &[&Backend], more: &str) -> String {
    let addresses: Vec<SocketAddr> = backends.iter().map(|b| b.address).collect();
    shop_on(&format!("{}:0", free_ip()), &addresses, more)
}

/// The same on a given address, so that a changed config can keep it.
pub(crate) fn shop_on(listen: &str, backends: &[SocketAddr], more: &str) -> String {
    let backends: Vec<String> = backends.iter().map(|b| format!("\"{b}\"")).collect();
    let backends = backends.join(", ");
    format!("[load_balancers.shop]\nlisten = \"{listen}\"\nbackend_servers = [{backends}]\n{more}")
}

/// A config whose listener has further keys.
pub(crate) fn shop_with_listener(backends: &[&Backend], listener: &str, more: &str) -> String {
    let backends: Vec<String> = backends.iter().map(|b| format!("\"{}\"", b.address)).collect();
    format!(
        "[load_balancers.shop]\nbackend_servers = [{}]\n{more}\n\
         [[load_balancers.shop.listeners]]\naddress = \"{}:0\"\n{listener}\n",
        backends.join(", "),
        free_ip()
    )
}

/// A directory with a config and data, which outlives the process.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new(config: &str) -> Self {
        let place = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        place.write(config);
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("evenkeel.toml")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Replaces the config as a whole, by a rename.
    pub(crate) fn write(&self, config: &str) {
        let beside = self.dir.path().join("evenkeel.toml.new");
        std::fs::write(&beside, config).expect("the config can be written");
        std::fs::rename(&beside, self.config()).expect("the config can be renamed");
    }

    /// `evenkeel run` here, with the admin API on a free port.
    pub(crate) fn command(&self) -> Command {
        let mut command = program();
        command
            .args(["run", "--admin", "127.0.0.1:0", "--config"])
            .arg(self.config());
        command.arg("--data-dir").arg(self.data());
        command
    }

    pub(crate) fn start(&self) -> Evenkeel {
        Evenkeel::spawn(&mut self.command())
    }
}

/// A running process. Killed when dropped.
pub(crate) struct Evenkeel {
    child: Child,
    pub(crate) admin: SocketAddr,
    log: Arc<Mutex<String>>,
    /// Of those that were started without a place of their own.
    place: Option<Place>,
}

impl Evenkeel {
    /// Starts with this config and waits until it is ready.
    pub(crate) fn start(config: &str) -> Self {
        let place = Place::new(config);
        let mut started = place.start();
        started.place = Some(place);
        started
    }

    /// Starts `command` and waits until it is ready.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::spawn_to(command, Stdio::null())
    }

    /// The same, with its standard output to read from.
    pub(crate) fn spawn_reading(command: &mut Command) -> (Self, ChildStdout) {
        let mut started = Self::spawn_to(command, Stdio::piped());
        let stdout = started.child.stdout.take().expect("its standard output");
        (started, stdout)
    }

    fn spawn_to(command: &mut Command, stdout: Stdio) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("its standard error");
        let log = Arc::new(Mutex::new(String::new()));
        let written = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = written.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut started = Self {
            child,
            admin: SocketAddr::from(([0, 0, 0, 0], 0)),
            log,
            place: None,
        };
        started.admin = wait_for("the admin address is in the log", || {
            if let Ok(Some(status)) = started.child.try_wait() {
                panic!("it ended with {status}");
            }
            admin_address(&started.log())
        });
        // Over TLS only a test with the certificates can ask; every listener is open before the address is told.
        if !started.log().contains("the admin API listens on https://") {
            wait_until("it is ready", || started.get("/readyz").status() == 200);
        }
        started
    }

    /// The place that [`Evenkeel::start`] made.
    pub(crate) fn place(&self) -> &Place {
        self.place.as_ref().expect("started with a place of its own")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// GET at the admin API.
    pub(crate) fn get(&self, path: &str) -> Message {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.admin);
        Client::connect(self.admin).ask(&request)
    }

    /// Waits until it knows of a request with this id: what is remembered may come after the response.
    pub(crate) fn until_known(&self, id: &str) {
        let path = format!("/api/v1/requests/{id}");
        wait_until("the request is known", || self.get(&path).status() == 200);
    }

    /// POST of JSON at the admin API.
    pub(crate) fn post(&self, path: &str, body: &str) -> Message {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.admin,
            body.len()
        );
        Client::connect(self.admin).ask(&request)
    }

    pub(crate) fn status(&self) -> Value {
        let answer = self.get("/api/v1/status");
        assert_eq!(answer.status(), 200, "{answer:?}");
        serde_json::from_slice(&answer.body).expect("the status is JSON")
    }

    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::new(self.get("/metrics").text().to_owned())
    }

    /// Sum of a metric over all series with these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().sum(name, labels)
    }

    /// Waits until a metric has this value: what is counted at the end of a request may come after its response.
    pub(crate) fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let what = format!("{name} {labels:?} to be {value}");
        wait_until(&what, || self.metric(name, labels) == value);
    }

    /// Failures counted for a reason.
    pub(crate) fn failures(&self, reason: &str) -> f64 {
        self.metric("evenkeel_request_failures_total", &[("reason", reason)])
    }

    /// Waits until this many failures are counted for a reason, and no more.
    pub(crate) fn wait_for_failures(&self, reason: &str, count: u32) {
        wait_until(reason, || self.failures(reason) >= f64::from(count));
        assert_eq!(self.failures(reason), f64::from(count), "{reason}");
    }

    /// Bound address of the only listener.
    pub(crate) fn address(&self) -> SocketAddr {
        let lbs = self.status()["load_balancers"].clone();
        let all: Vec<&Value> = lbs
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|lb| lb["listeners"].as_array().unwrap())
            .collect();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0]["address"].as_str().unwrap().parse().unwrap()
    }

    /// Bound address of a listener.
    pub(crate) fn listener(&self, load_balancer: &str, name: &str) -> SocketAddr {
        let status = self.status();
        let lbs = status["load_balancers"].as_array().unwrap();
        let lb = lbs
            .iter()
            .find(|lb| lb["name"] == load_balancer)
            .expect("the load balancer");
        let listeners = lb["listeners"].as_array().unwrap();
        let listener = listeners
            .iter()
            .find(|l| l["name"] == name)
            .expect("the listener");
        listener["address"].as_str().unwrap().parse().unwrap()
    }

    /// A connection to the only listener.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// What the status says of a backend (in the first pool that has it).
    pub(crate) fn backend(&self, address: SocketAddr) -> Value {
        let status = self.status();
        find_backend(&status, address).unwrap_or_else(|| panic!("the status has no {address}: {status}"))
    }

    /// Waits until the status says this of a backend's eligibility; it may not be known yet.
    pub(crate) fn wait_for_state(&self, address: SocketAddr, eligibility: &str) {
        wait_until(&format!("{address} is {eligibility}"), || {
            find_backend(&self.status(), address).is_some_and(|b| b["eligibility"] == eligibility)
        });
    }

    /// Events of a kind, as `subject: message`.
    pub(crate) fn events(&self, kind: &str) -> Vec<String> {
        let answer: Value =
            serde_json::from_slice(&self.get("/api/v1/events").body).expect("events are JSON");
        let events = answer
            .as_array()
            .or_else(|| answer["events"].as_array())
            .expect("a list of events");
        events
            .iter()
            .filter(|e| e["kind"] == kind)
            .map(|e| {
                format!(
                    "{}: {}",
                    e["subject"].as_str().unwrap(),
                    e["message"].as_str().unwrap()
                )
            })
            .collect()
    }

    /// Puts another config in force.
    pub(crate) fn reload(&self, config: &str) {
        let answer = self.try_reload(config);
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }

    /// Writes another config and asks for a reload.
    pub(crate) fn try_reload(&self, config: &str) -> Message {
        self.place().write(config);
        self.post("/api/v1/reload", "")
    }

    /// Revision in force.
    pub(crate) fn revision(&self) -> u64 {
        self.status()["config"]["revision"].as_u64().unwrap()
    }

    /// One of the program's other commands, told where this process is.
    pub(crate) fn cli(&self, args: &[&str]) -> Output {
        program()
            .args(args)
            .env("EVENKEEL_ADMIN", format!("http://{}", self.admin))
            .output()
            .expect("the command runs")
    }

    /// The same; it must succeed. What it printed.
    pub(crate) fn cli_ok(&self, args: &[&str]) -> String {
        let output = self.cli(args);
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        signal::kill(pid, signal).expect("the signal is sent");
    }

    /// Waits for its end.
    pub(crate) fn wait_for_end(&mut self) -> ExitStatus {
        wait_for("it ends", || self.child.try_wait().expect("a child"))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(9));
    }

    /// Resident memory in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Greatest resident memory so far, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let line = self.proc_status(name);
        line.trim_end_matches("kB").trim().parse().expect("a number")
    }

    /// A line of `/proc/PID/status`, without its name.
    pub(crate) fn proc_status(&self, name: &str) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = text.lines().find_map(|l| l.strip_prefix(name)).expect("the line");
        line.trim().to_owned()
    }

    /// File descriptors open now.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("its descriptors")
            .count()
    }
}

impl Drop for Evenkeel {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            eprintln!("--- end of the log of evenkeel {}\n{last}\n---", self.child.id());
        }
    }
}

fn admin_address(log: &str) -> Option<SocketAddr> {
    let (_, after) = log.split_once("the admin API listens on http")?;
    let (_, after) = after.split_once("://")?;
    after.split_whitespace().next()?.parse().ok()
}

fn find_backend(status: &Value, address: SocketAddr) -> Option<Value> {
    let lbs = status["load_balancers"].as_array().unwrap().iter();
    let pools = lbs.flat_map(|lb| lb["pools"].as_array().unwrap());
    let mut backends = pools.flat_map(|p| p["backends"].as_array().unwrap());
    backends.find(|b| b["address"] == address.to_string()).cloned()
}
