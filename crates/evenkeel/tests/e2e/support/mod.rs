//! The bench: the program as a child process, scripted backends that record what they get, a raw client, a load
//! that runs beside a change, and servers that were not written here.

mod address;
mod backend;
mod client;
mod evenkeel;
pub(crate) mod frames;
pub(crate) mod frames_server;
mod gate;
mod load;
mod message;
mod metrics;
mod mmdb;
mod peers;
mod tls;

use std::time::{Duration, Instant};

pub(crate) use self::address::{free_address, free_ip};
pub(crate) use self::backend::{Backend, Conversation};
pub(crate) use self::client::Client;
pub(crate) use self::evenkeel::{Evenkeel, Place, program, shop, shop_on, shop_with_listener};
pub(crate) use self::frames_server::FramesServer;
pub(crate) use self::gate::Gate;
pub(crate) use self::load::Load;
pub(crate) use self::message::{Broken, Message};
pub(crate) use self::metrics::Metrics;
pub(crate) use self::mmdb::database;
pub(crate) use self::peers::{
    Nginx, Python, PythonPeer, WEBSOCKETS, WEBSOCKETS_TALK, curl, h2load, http2_client, http2_server,
    openssl, python,
};
pub(crate) use self::tls::{Authority, TlsClient, TlsLoad, Wish};

/// How long anything may take before the test fails: generous, because the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Neither checks nor ejections nor ramps: only what the test itself does happens.
pub(crate) const QUIET: &str = "health = false\npassive = false\nslow_start = 0\n";

/// Asks again and again until `look` finds something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < DEADLINE, "waited in vain until {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Asks again and again until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// Waits until a figure has begun to grow and grows no more.
pub(crate) fn wait_until_still(what: &str, mut look: impl FnMut() -> u64) -> u64 {
    let (mut last, mut same) = (0, 0);
    wait_for(what, || {
        let now = look();
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        (same > 40).then_some(now)
    })
}

/// Bytes that differ from place to place, so that a lost, doubled or swapped piece is noticed.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
