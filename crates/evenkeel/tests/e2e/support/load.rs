//! Bounded load on keep-alive connections, beside whatever the test does meanwhile.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::message::{Broken, Message, NoLength, Reader};
use super::{DEADLINE, wait_until};

/// Time from one request of a connection to the next: bounds the load.
const EACH: Duration = Duration::from_millis(10);
/// Failures kept for the report.
const KEPT: usize = 20;
/// An idle connection may be closed after this, by a server that ends: from one request to the next it takes a client so
/// long only when its machine stands still.
const IDLE: Duration = Duration::from_millis(500);

/// Clients at work.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    request: String,
    stop: AtomicBool,
    ok: AtomicU64,
    failed: AtomicU64,
    connections: AtomicU64,
    failures: Mutex<Vec<String>>,
    by_backend: Mutex<BTreeMap<String, u64>>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    /// What the first failures were.
    pub(crate) failures: Vec<String>,
    /// Connections made; as many as clients when each kept its own.
    pub(crate) connections: u64,
    /// Answers by their field `X-Backend`.
    pub(crate) by_backend: BTreeMap<String, u64>,
}

impl Report {
    /// Fails the test unless every request was answered with 200.
    pub(crate) fn assert_nothing_failed(&self) {
        assert_eq!(
            self.failed,
            0,
            "of {} requests failed: {:#?}",
            self.ok + self.failed,
            self.failures
        );
        assert!(self.ok > 0, "nothing was asked");
    }
}

impl Load {
    /// As many clients, each asking again and again on its own connection.
    pub(crate) fn start(address: SocketAddr, clients: usize) -> Self {
        let shared = Arc::new(Shared {
            address,
            request: "GET /load HTTP/1.1\r\nHost: shop.test\r\n\r\n".to_owned(),
            stop: AtomicBool::new(false),
            ok: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            failures: Mutex::default(),
            by_backend: Mutex::default(),
        });
        let threads = (0..clients)
            .map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || shared.run())
            })
            .collect();
        let load = Self { shared, threads };
        load.wait_for_more(clients as u64);
        load
    }

    /// Requests answered or failed so far.
    pub(crate) fn done(&self) -> u64 {
        self.shared.ok.load(Ordering::Acquire) + self.shared.failed.load(Ordering::Acquire)
    }

    /// Waits until this many more requests were made.
    pub(crate) fn wait_for_more(&self, requests: u64) {
        let target = self.done() + requests;
        wait_until("the load goes on", || self.done() >= target);
    }

    /// Ends the load; every request that was begun is waited for.
    pub(crate) fn stop(self) -> Report {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads {
            thread.join().expect("a client of the load ends");
        }
        let shared = &self.shared;
        Report {
            ok: shared.ok.load(Ordering::Acquire),
            failed: shared.failed.load(Ordering::Acquire),
            failures: shared.failures.lock().unwrap().clone(),
            connections: shared.connections.load(Ordering::Acquire),
            by_backend: shared.by_backend.lock().unwrap().clone(),
        }
    }
}

/// A client's connection.
struct Connection {
    reader: Reader,
    asked: Option<Instant>,
}

impl Shared {
    fn run(&self) {
        let mut connection: Option<Connection> = None;
        let mut next = Instant::now();
        while !self.stop.load(Ordering::Acquire) {
            match self.ask(&mut connection) {
                Ok(answer) if answer.status() == 200 => {
                    let backend = answer.field("x-backend").unwrap_or_default().to_owned();
                    *self.by_backend.lock().unwrap().entry(backend).or_default() += 1;
                    self.ok.fetch_add(1, Ordering::AcqRel);
                    if answer.closes() {
                        connection = None;
                    }
                }
                Ok(answer) => {
                    self.fail(format!("{} {}", answer.status(), answer.reason()));
                    connection = None;
                }
                Err(what) => {
                    self.fail(what);
                    connection = None;
                }
            }
            next = (next + EACH).max(Instant::now());
            wait_turn(next);
        }
    }

    /// An error that begins with `idle:` is the end of a connection that was not used for long.
    fn ask(&self, connection: &mut Option<Connection>) -> Result<Message, String> {
        let Connection { reader, asked } = match connection {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect_timeout(&self.address, DEADLINE)
                    .map_err(|e| format!("connect: {e}"))?;
                let _ = stream.set_nodelay(true);
                let _ = stream.set_read_timeout(Some(DEADLINE));
                self.connections.fetch_add(1, Ordering::AcqRel);
                connection.insert(Connection {
                    reader: Reader::new(stream),
                    asked: None,
                })
            }
        };
        let was_idle = asked
            .replace(Instant::now())
            .is_some_and(|before| before.elapsed() >= IDLE);
        let ended = |what: String| if was_idle { format!("idle: {what}") } else { what };
        reader
            .stream
            .write_all(self.request.as_bytes())
            .map_err(|e| ended(format!("send: {e}")))?;
        let broken = |broken: Broken| format!("answer: {broken:?}");
        let mut answer = reader.head().map_err(|end| match end {
            Broken::Closed | Broken::Reset => ended(broken(end)),
            _ => broken(end),
        })?;
        reader.body(&mut answer, NoLength::UntilClose).map_err(broken)?;
        Ok(answer)
    }

    fn fail(&self, what: String) {
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < KEPT {
            failures.push(what);
        }
        self.failed.fetch_add(1, Ordering::AcqRel);
    }
}

/// Paces the load.
fn wait_turn(next: Instant) {
    std::thread::sleep(next.saturating_duration_since(Instant::now()));
}
