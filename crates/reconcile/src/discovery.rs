//! What sources outside say of the members of a pool.
//!
//! [`mod@file`] reads a list of members, [`dns`] looks after names.

pub mod dns;
pub mod file;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use model::state::Listed;

/// All that a source names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// By address.
    pub members: BTreeMap<SocketAddr, Listed>,
    /// Beyond what is taken; the first ones are.
    pub left_out: usize,
}

/// An address that requests can be sent to.
///
/// # Errors
/// What is wrong with it.
pub fn usable(address: SocketAddr) -> Result<SocketAddr, &'static str> {
    let ip = address.ip().to_canonical();
    let scope = match address {
        SocketAddr::V6(v6) => v6.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    match ip {
        _ if address.port() == 0 => Err("nothing can be reached on port 0"),
        _ if ip.is_unspecified() => Err("it is no address of a server"),
        _ if ip.is_multicast() => Err("it is an address of a group"),
        std::net::IpAddr::V4(v4) if v4.is_broadcast() => Err("it is an address of everyone"),
        std::net::IpAddr::V6(v6) if scope != 0 => {
            Ok(std::net::SocketAddrV6::new(v6, address.port(), 0, scope).into())
        }
        _ => Ok(SocketAddr::new(ip, address.port())),
    }
}
