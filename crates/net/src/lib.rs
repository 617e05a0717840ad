//! Sockets beyond what std and tokio offer: listeners that several shards share, splicing, giving up root.
//!
//! An edge crate: it knows nothing of load balancers. It is the only room (with `xdp`, once there is one) where
//! `unsafe` is allowed; so far the safe wrappers of `socket2` and `nix` were enough and there is none.

pub mod listen;
pub mod privileges;
pub mod splice;
