//! A scripted backend on a free port, and a runner of checks to point at it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel_orchestrator::{Gate, Target};
use model::config::{CheckKind, HealthCheck, HttpCheck, Name};
use model::state::{BackendId, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// Longest that anything here is waited for: far beyond what any machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a backend does with a connection.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Reads the request, writes these parts one after the other, closes.
    Answer(Vec<Vec<u8>>),
    /// Reads the request, writes this and then waits for the other side to close.
    Half(Vec<u8>),
    /// Reads the request and answers when the gate is opened.
    Gate(watch::Receiver<bool>, Vec<u8>),
    /// Closes without reading.
    Close,
}

impl Script {
    pub(crate) fn answer(text: &str) -> Self {
        Self::Answer(vec![text.as_bytes().to_vec()])
    }

    /// Reads the request and answers nothing.
    pub(crate) fn silence() -> Self {
        Self::Half(Vec::new())
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::answer(&format!(
            "HTTP/1.1 {status} Whatever\r\nContent-Length: 2\r\n\r\nok"
        ))
    }

    pub(crate) fn body(body: &str) -> Self {
        Self::answer(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}

/// What a backend saw.
#[derive(Default)]
pub(crate) struct Seen {
    /// When each connection came.
    pub(crate) arrivals: Vec<Instant>,
    /// The head of each request.
    pub(crate) requests: Vec<String>,
    /// Connections that wait for the end of an answer now, and the most there ever were.
    pub(crate) busy: usize,
    pub(crate) most_busy: usize,
    /// Connections that the other side closed.
    pub(crate) left: usize,
}

pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) script: Arc<Mutex<Script>>,
    pub(crate) seen: Arc<Mutex<Seen>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Backend {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(script));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (task_script, task_seen) = (script.clone(), seen.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Before it is counted: what does as it is told from now on is not among those counted until now.
                let script = task_script.lock().unwrap().clone();
                {
                    let mut seen = task_seen.lock().unwrap();
                    seen.arrivals.push(Instant::now());
                    seen.busy += 1;
                    seen.most_busy = seen.most_busy.max(seen.busy);
                }
                tokio::spawn(serve(stream, script, task_seen.clone()));
            }
        });
        Self {
            address,
            script,
            seen,
            accepting,
        }
    }

    pub(crate) fn now_does(&self, script: Script) {
        *self.script.lock().unwrap() = script;
    }

    /// Closes the port.
    pub(crate) async fn stop(self) {
        self.accepting.abort();
        let _ = self.accepting.await;
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().arrivals.len()
    }

    /// Waits until what was seen satisfies `condition`.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        let started = Instant::now();
        while !condition(&self.seen.lock().unwrap()) {
            assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn serve(mut stream: TcpStream, script: Script, seen: Arc<Mutex<Seen>>) {
    if !matches!(script, Script::Close) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
        if request.ends_with(b"\r\n\r\n") {
            seen.lock()
                .unwrap()
                .requests
                .push(String::from_utf8_lossy(&request).into_owned());
        }
    }
    // No longer busy before the last byte goes: whoever has the whole answer may already be back.
    let done = || seen.lock().unwrap().busy -= 1;
    match script {
        Script::Answer(parts) => {
            let (last, others) = parts.split_last().unwrap();
            for part in others {
                let _ = stream.write_all(part).await;
                tokio::task::yield_now().await;
            }
            done();
            let _ = stream.write_all(last).await;
        }
        Script::Gate(mut open, answer) => {
            let _ = open.wait_for(|open| *open).await;
            done();
            let _ = stream.write_all(&answer).await;
        }
        Script::Half(part) => {
            let _ = stream.write_all(&part).await;
            wait_for_close(&mut stream).await;
            done();
            seen.lock().unwrap().left += 1;
        }
        Script::Close => done(),
    }
}

async fn wait_for_close(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    while stream.read_buf(&mut rest).await.unwrap_or(0) > 0 {}
}

/// The orchestrator under test with its two channels.
pub(crate) struct Runner {
    pub(crate) targets: watch::Sender<Vec<Target>>,
    pub(crate) verdicts: mpsc::Receiver<Verdict>,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

impl Runner {
    pub(crate) fn start(targets: Vec<Target>) -> Self {
        Self::behind(Gate::open(), targets)
    }

    pub(crate) fn behind(gate: Arc<Gate>, targets: Vec<Target>) -> Self {
        let (targets, list) = watch::channel(targets);
        let (sender, verdicts) = mpsc::channel(64);
        let task = tokio::spawn(evenkeel_orchestrator::run(list, gate, sender));
        Self {
            targets,
            verdicts,
            task,
        }
    }

    pub(crate) async fn next(&mut self) -> Verdict {
        tokio::time::timeout(PATIENCE, self.verdicts.recv())
            .await
            .expect("no verdict came")
            .unwrap()
    }
}

/// The first and only verdict that `check` comes to about `backend`.
pub(crate) async fn verdict(backend: &Backend, check: HealthCheck) -> Verdict {
    Runner::start(vec![target(backend.address, check)]).next().await
}

pub(crate) fn target(address: SocketAddr, check: HealthCheck) -> Target {
    let backend = BackendId {
        load_balancer: Name::parse("shop").unwrap(),
        pool: Name::parse("default").unwrap(),
        address,
    };
    Target::new(backend, check.into())
}

/// A check that is made once and has all the time in the world.
pub(crate) fn once(kind: CheckKind) -> HealthCheck {
    HealthCheck {
        kind,
        port: None,
        interval: Duration::from_secs(24 * 3600),
        fast_interval: Duration::from_secs(24 * 3600),
        timeout: 10 * PATIENCE,
        rise: 2,
        fall: 3,
        jitter: 10,
        tls: None,
    }
}

/// The same every few milliseconds.
pub(crate) fn often(kind: CheckKind) -> HealthCheck {
    HealthCheck {
        interval: Duration::from_millis(20),
        fast_interval: Duration::from_millis(5),
        ..once(kind)
    }
}

pub(crate) fn http() -> HttpCheck {
    HttpCheck {
        http2: false,
        path: "/health".into(),
        method: "GET".into(),
        host: None,
        headers: Vec::new(),
        expected_status: vec![(200, 299)],
        body_contains: None,
    }
}
