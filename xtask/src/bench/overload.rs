//! Twice what the backends can do, for as long as a measurement takes: how much of their work is still of use to
//! somebody, and how long those wait who get through.
//!
//! The load is open: requests begin at fixed times, whatever became of those before, as users do. Latency counts
//! from that time. The backends take a fixed time for each request and do a fixed number at once, so what they can do
//! is known; they sleep instead of computing, so the machine is no bound.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::peers::{Lab, Peer, Placement};
use super::{PROXY_CORE, Sample, usage};

/// What one backend does at once, and how long each takes: 500 requests a second.
const AT_ONCE: usize = 25;
const SERVICE: Duration = Duration::from_millis(50);
const BACKENDS: usize = 2;
/// Requests a second that the backends can do.
const CAPACITY: f64 = (BACKENDS * AT_ONCE) as f64 * 1000.0 / SERVICE.as_millis() as f64;
/// What is offered, as a multiple of that.
const OFFERED: f64 = 2.0;
/// Most that wait in the proxy's queue: as many as the backends do in the longest wait, a second.
const QUEUE: usize = 1000;
/// Clients: as many as can be at it at once when each waits as long as it may, and some more.
const CLIENTS: usize = 2500;
/// After this a client gives up: no proxy may let it wait so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Stack of a client's thread: it reads into a small buffer and no more.
const STACK: usize = 64 * 1024;

/// Measures one proxy.
///
/// # Errors
/// When it does not start, or answers anything but 200 and 503.
pub(super) fn measure(lab: &Lab, peer: Peer, seconds: u32) -> Result<Sample> {
    let origins = [Origin::start()?, Origin::start()?];
    let [at_once, queue, queue_each] = [AT_ONCE, QUEUE, QUEUE / BACKENDS].map(|number| number.to_string());
    let file = match peer {
        Peer::Evenkeel => "overload.toml",
        _ => "overload.cfg",
    };
    let values = [
        ("at_once", &*at_once),
        ("queue", &*queue),
        ("queue_each", &*queue_each),
    ];
    let place = Placement {
        workers: 1,
        cores: PROXY_CORE,
    };
    let addresses = [origins[0].address, origins[1].address];
    let (server, address) = lab.launch(peer, file, &values, addresses, place)?;
    let family = usage::family(server.pid());
    let seen = offer(address, Duration::from_secs(u64::from(seconds)))?;
    let resident_kib = usage::resident_kib(&family);
    if seen.wrong > 0 {
        bail!(
            "{} requests of {} got neither 200 nor 503",
            seen.wrong,
            seen.offered
        );
    }
    let mut waits = seen.waits_us;
    waits.sort_unstable();
    let at = |share: usize| waits.get(waits.len() * share / 100).copied().unwrap_or(0) as f64;
    let per_cent = |part: f64, whole: f64| part / whole * 100.0;
    Ok(Sample {
        rate: seen.offered as f64 / f64::from(seconds),
        goodput: per_cent(waits.len() as f64 / f64::from(seconds), CAPACITY),
        refused: per_cent(seen.refused as f64, seen.offered as f64),
        p50_us: at(50),
        p99_us: at(99),
        resident_kib,
        ..Sample::default()
    })
}

/// What became of the requests that were offered.
#[derive(Default)]
struct Seen {
    offered: u64,
    /// How long each waited that was answered 200, within the time that was measured.
    waits_us: Vec<u64>,
    refused: u64,
    wrong: u64,
}

/// Offers requests at a fixed rate for this long.
fn offer(address: SocketAddr, lasts: Duration) -> Result<Seen> {
    let (due, jobs) = mpsc::channel::<Instant>();
    let jobs = Arc::new(Mutex::new(jobs));
    let begun = Instant::now() + Duration::from_millis(500);
    let until = begun + lasts;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let jobs = jobs.clone();
            let client = thread::Builder::new().stack_size(STACK);
            client.spawn(move || client_of(address, &jobs, until))
        })
        .collect::<Result<_, _>>()
        .context("cannot start the clients")?;
    let count = (CAPACITY * OFFERED * lasts.as_secs_f64()) as u32;
    for number in 0..count {
        let at = begun + lasts * number / count;
        thread::sleep(at.saturating_duration_since(Instant::now()));
        due.send(at).context("no client is left")?;
    }
    drop(due);
    let mut all = Seen::default();
    for client in clients {
        let Ok(seen) = client.join() else {
            bail!("a client failed");
        };
        all.offered += seen.offered;
        all.refused += seen.refused;
        all.wrong += seen.wrong;
        all.waits_us.extend(seen.waits_us);
    }
    Ok(all)
}

/// One client: takes the next request that is due, on a connection that it keeps.
fn client_of(address: SocketAddr, jobs: &Mutex<mpsc::Receiver<Instant>>, until: Instant) -> Seen {
    let mut seen = Seen::default();
    let mut connection = None;
    loop {
        let Ok(due) = locked(jobs).recv() else {
            return seen;
        };
        seen.offered += 1;
        match ask(&mut connection, address) {
            // What is answered after the end was work of that time, too, but not of the time that counts.
            Ok(200) if Instant::now() > until => {}
            Ok(200) => {
                let waited = due.elapsed().as_micros();
                seen.waits_us.push(u64::try_from(waited).unwrap_or(u64::MAX));
            }
            Ok(503) => seen.refused += 1,
            _ => {
                seen.wrong += 1;
                connection = None;
            }
        }
    }
}

/// Asks once; the status of the answer.
fn ask(kept: &mut Option<TcpStream>, address: SocketAddr) -> Result<u16> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream
        }
    };
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let mut buffer = [0; 4096];
    let mut got = 0;
    loop {
        let room = buffer.get_mut(got..).unwrap_or_default();
        let n = stream.read(room)?;
        let ended = n == 0;
        got += n;
        let text = String::from_utf8_lossy(buffer.get(..got).unwrap_or_default()).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let field = |name| {
                lower
                    .lines()
                    .find_map(|line| line.strip_prefix(name))
                    .map(str::trim)
            };
            let length: usize = field("content-length:").map_or(Ok(usize::MAX), str::parse)?;
            if ended || body.len() >= length {
                let status = head.split(' ').nth(1).context("no status")?.parse()?;
                if !ended && field("connection:") != Some("close") {
                    *kept = Some(stream);
                }
                return Ok(status);
            }
        }
        if ended {
            bail!("{address} closed in the middle of a response");
        }
    }
}

/// A backend: [`AT_ONCE`] requests at a time, [`SERVICE`] each; what is more waits here.
struct Origin {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
}

/// Places for requests at work.
#[derive(Default)]
struct Work {
    busy: Mutex<usize>,
    freed: Condvar,
}

impl Origin {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let (stop, work) = (stopping.clone(), Arc::new(Work::default()));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Relaxed) {
                    return;
                }
                let work = work.clone();
                // Ends with its connection, which ends with the proxy.
                thread::spawn(move || work.serve(stream));
            }
        });
        Ok(Self { address, stopping })
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stopping.store(true, Relaxed);
        // Wakes `accept`, which then sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}

impl Work {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            while !got.ends_with(b"\r\n\r\n") {
                let n = stream.read(&mut buffer).ok().filter(|n| *n > 0)?;
                got.extend_from_slice(buffer.get(..n)?);
            }
            got.clear();
            self.work();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).ok()?;
        }
    }

    fn work(&self) {
        let busy = locked(&self.busy);
        let full = |busy: &mut usize| *busy >= AT_ONCE;
        let mut busy = self
            .freed
            .wait_while(busy, full)
            .unwrap_or_else(PoisonError::into_inner);
        *busy += 1;
        drop(busy);
        thread::sleep(SERVICE);
        *locked(&self.busy) -= 1;
        self.freed.notify_one();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
