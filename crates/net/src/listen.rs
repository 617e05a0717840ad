//! Listening sockets: one per shard on the same address, so that the kernel spreads connections and no lock is
//! shared between shards.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections the kernel completes and keeps before `accept`; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Binds `count` listening sockets with `SO_REUSEPORT` on `address`, not blocking. With port 0 all get the same
/// free port.
///
/// # Errors
/// Whatever `bind` says; `AddrInUse` also when another process listens there with `SO_REUSEPORT`, which the
/// kernel alone would let us share by accident.
///
/// `beside_own`: this process already listens on that port (of another address that may overlap), so the check
/// for others is left out: it would find ourselves.
pub fn bind_shared(address: SocketAddr, count: usize, beside_own: bool) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 && !beside_own {
        // Without SO_REUSEPORT a bind succeeds only where nobody listens.
        bind(address, false)?;
    }
    let first = bind(address, true)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(bind(address, true)?);
    }
    for listener in &listeners {
        Socket::from(listener.try_clone()?).listen(BACKLOG)?;
    }
    Ok(listeners)
}

/// Whether `address` could be opened now: binds it for a moment without listening, so that no client notices.
///
/// # Errors
/// Whatever `bind` says.
pub fn check(address: SocketAddr) -> io::Result<()> {
    bind(address, false).map(drop)
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` means IPv6 only; whoever wants both families says both.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn port_zero_gives_every_shard_the_same_port() {
        let listeners = bind_shared("127.0.0.1:0".parse().unwrap(), 3, false).unwrap();
        let ports: Vec<u16> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 3);
        assert!(ports[0] != 0 && ports.iter().all(|p| *p == ports[0]), "{ports:?}");
    }

    #[test]
    fn an_address_that_overlaps_our_own_is_bound_beside_it() {
        // A port that nobody has on any address: others may have the same one on another.
        let free = bind_shared("0.0.0.0:0".parse().unwrap(), 1, false).unwrap();
        let port = free[0].local_addr().unwrap().port();
        drop(free);
        let _ours = bind_shared(([127, 0, 0, 1], port).into(), 1, false).unwrap();
        let wider = SocketAddr::from(([0, 0, 0, 0], port));
        assert_eq!(
            bind_shared(wider, 1, false).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        assert_eq!(bind_shared(wider, 2, true).unwrap().len(), 2);
    }

    #[test]
    fn an_address_somebody_listens_on_is_refused_even_if_they_share() {
        let theirs = bind_shared("127.0.0.1:0".parse().unwrap(), 1, false).unwrap();
        let error = bind_shared(theirs[0].local_addr().unwrap(), 2, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
