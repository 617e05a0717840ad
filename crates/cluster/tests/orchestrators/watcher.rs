//! Looks at all orchestrators all the while: never may two check the same address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use evenkeel_cluster::member::Leave;

/// A watcher of some orchestrators; tells when it is asked to end.
pub(crate) struct Watcher {
    end: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    thread: JoinHandle<Option<SocketAddr>>,
}

impl Watcher {
    pub(crate) fn start(leaves: Vec<Arc<Leave>>, addresses: Vec<SocketAddr>) -> Self {
        let (end, looks) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (ended, looked) = (end.clone(), looks.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Relaxed) {
                for address in &addresses {
                    // Who says yes twice, with others asked in between, said it all the while.
                    let say =
                        || -> Vec<bool> { leaves.iter().map(|leave| leave.may_check(*address)).collect() };
                    let (first, second) = (say(), say());
                    let both = first.iter().zip(&second).filter(|(a, b)| **a && **b).count();
                    if both > 1 {
                        return Some(*address);
                    }
                }
                looked.fetch_add(1, Relaxed);
                // condition poll
                std::thread::sleep(Duration::from_micros(500));
            }
            None
        });
        Self { end, looks, thread }
    }

    /// Ends; panics if two were seen to check the same.
    pub(crate) fn end(self) {
        self.end.store(true, Relaxed);
        let seen = self.thread.join().unwrap();
        assert_eq!(seen, None, "two orchestrators could check it at once");
        println!("{} looks: never two at once", self.looks.load(Relaxed));
    }
}
