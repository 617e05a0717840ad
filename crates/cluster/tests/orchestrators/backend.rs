//! A backend that answers health checks and remembers when it was asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::config::{CheckKind, HealthCheck, HttpCheck, Name};
use model::state::BackendId;

/// Between two checks of a backend.
pub(crate) const INTERVAL: Duration = Duration::from_millis(300);
/// How much earlier or later one may come, in percent.
const JITTER: u8 = 10;

pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Instant>>>,
    well: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, well, end): (Arc<Mutex<Vec<Instant>>>, _, _) = (
            Arc::default(),
            Arc::new(AtomicBool::new(true)),
            Arc::<AtomicBool>::default(),
        );
        let (log, is_well, ended) = (asked.clone(), well.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Relaxed) {
                    return;
                }
                // A probe that was cut is none.
                let _ = answer(stream.unwrap(), &log, is_well.load(Relaxed));
            }
        });
        Self {
            address,
            asked,
            well,
            end,
            thread: Some(thread),
        }
    }

    pub(crate) fn many(count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::start()).collect()
    }

    pub(crate) fn is_well(&self, well: bool) {
        self.well.store(well, Relaxed);
    }

    /// When it was asked since then.
    pub(crate) fn asked_since(&self, since: Instant) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        asked.iter().copied().filter(|at| *at >= since).collect()
    }

    pub(crate) fn last_asked(&self) -> Option<Instant> {
        self.asked.lock().unwrap().last().copied()
    }

    pub(crate) fn id(&self, lb: &str) -> BackendId {
        BackendId {
            load_balancer: Name::parse(lb).unwrap(),
            pool: Name::parse("web").unwrap(),
            address: self.address,
        }
    }
}

/// One request after the other, so that two probes at once would wait for one another.
fn answer(mut stream: TcpStream, log: &Mutex<Vec<Instant>>, well: bool) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut some = [0; 512];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut some)? {
            0 => return Ok(()),
            read => request.extend_from_slice(&some[..read]),
        }
    }
    log.lock().unwrap().push(Instant::now());
    let status = if well { "200 OK" } else { "503 Service Unavailable" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.end.store(true, Relaxed);
        // Wakes the thread.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The check that all backends of these tests have.
pub(crate) fn check() -> HealthCheck {
    HealthCheck {
        kind: CheckKind::Http(HttpCheck {
            http2: false,
            path: "/health".into(),
            method: "GET".into(),
            host: None,
            headers: Vec::new(),
            expected_status: vec![(200, 299)],
            body_contains: None,
        }),
        port: None,
        interval: INTERVAL,
        fast_interval: Duration::from_millis(100),
        timeout: Duration::from_secs(5),
        rise: 2,
        fall: 2,
        jitter: JITTER,
        tls: None,
    }
}

/// The least time between two checks of the same backend: a millisecond less, for times that are kept in whole ones.
pub(crate) fn least_interval() -> Duration {
    INTERVAL * u32::from(100 - JITTER) / 100 - Duration::from_millis(1)
}

/// That it was asked at these times by no more than one. Each is noted when the backend had its turn, which may be late:
/// of four the first and the last are looked at, with room for one interval.
pub(crate) fn assert_asked_by_one(times: &[Instant]) {
    for four in times.windows(4) {
        let took = four[3] - four[0];
        assert!(took >= 2 * least_interval(), "four within {took:?}");
    }
}
