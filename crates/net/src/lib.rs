//! Sockets beyond what std and tokio offer: listeners that several shards share, splicing, giving up root.
//!
//! An edge crate: it knows nothing of load balancers. It is the only room (with `xdp`, once there is one) where
//! `unsafe` is allowed; so far the safe wrappers of `socket2` and `nix` were enough and there is none.

pub mod listen;
pub mod privileges;
pub mod splice;

use nix::errno::Errno;

/// Whether `error` says that the process or the system has no file descriptor or socket buffer left.
pub fn is_out_of_descriptors(error: &std::io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw);
    matches!(code, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS))
}
