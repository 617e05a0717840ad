//! Loopback addresses of one's own: no two tests ever share one, so a port that a dead server left is not taken by
//! somebody else's before it comes back.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// An address in 127.128.0.0/9 that no other test uses: made of the process id and a count.
pub(crate) fn free_ip() -> Ipv4Addr {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) & 0xfff;
    let id = (std::process::id() & 0x7ff) << 12 | count;
    Ipv4Addr::from(0x7f80_0000 | id)
}

/// An address and port on which nobody listens, and nobody else will.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((free_ip(), 0)).expect("a free port");
    listener.local_addr().expect("its address")
}
