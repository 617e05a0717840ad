//! The demo's visitor: asks the load balancer for a page a few times a second and counts what came of it, so
//! that the live view moves, and so that a killed backend visibly costs nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ureq::Agent;

/// Time between two visits.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for a page.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What came of the visits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Visits {
    /// Answered with success.
    pub(super) ok: u64,
    /// Everything else.
    pub(super) failed: u64,
}

/// A visitor at work.
pub(super) struct Visitor {
    counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    ok: AtomicU64,
    failed: AtomicU64,
    stop: AtomicBool,
}

impl Visitor {
    /// Begins to visit.
    pub(super) fn start(address: SocketAddr) -> Self {
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        let thread = std::thread::spawn(move || visit(address, &shared));
        Self { counts, thread }
    }

    /// What came of it so far.
    pub(super) fn visits(&self) -> Visits {
        Visits {
            ok: self.counts.ok.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
        }
    }

    /// Ends the visits.
    pub(super) fn stop(self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        // A visitor that failed is no reason not to end.
        let _ = self.thread.join();
    }
}

fn visit(address: SocketAddr, counts: &Counts) {
    let config = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .proxy(None)
        .build();
    let agent = Agent::new_with_config(config);
    let url = format!("http://{address}/");
    while !counts.stop.load(Ordering::Relaxed) {
        let page = agent
            .get(&url)
            .call()
            .and_then(|mut response| response.body_mut().read_to_string());
        let counter = if page.is_ok() { &counts.ok } else { &counts.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PAUSE);
    }
}
