//! Sockets beyond what std and tokio offer: listeners that several shards share, splicing, giving up root.
//!
//! An edge crate: it knows nothing of load balancers. It is the only room (with `xdp`, once there is one) where
//! `unsafe` is allowed; so far the safe wrappers of `socket2` and `nix` were enough and there is none.

pub mod listen;
pub mod privileges;
pub mod splice;

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use socket2::SockRef;

/// Whether the kernel holds nothing that has come on this non-blocking socket: neither bytes nor the end. Asks it,
/// whatever a runtime has heard so far.
pub fn is_silent(socket: &impl AsFd) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let peeked = SockRef::from(socket).peek(&mut byte);
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Lets the end of this socket be a reset: whoever reads from it can tell that not all has come. What was not sent yet
/// is lost.
pub fn reset_at_close(socket: &impl AsFd) {
    // Refused only by a socket that is dead already.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Whether `error` says that the process or the system has no file descriptor or socket buffer left.
pub fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS))
}
