//! The name servers of `/etc/resolv.conf`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};

/// Where name servers answer.
pub const PORT: u16 = 53;
/// Name servers taken of a file; the first ones.
pub const MOST: usize = 8;

/// Reads the lines `nameserver ADDRESS`; where there is none, the server of this machine is meant, as it is by the
/// system's own resolver. Everything else in the file is about names that are not whole.
pub fn servers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    let servers: Vec<SocketAddr> = named.filter_map(server).take(MOST).collect();
    match servers.is_empty() {
        true => vec![(Ipv4Addr::LOCALHOST, PORT).into()],
        false => servers,
    }
}

/// An address; `fe80::1%2` says over which interface.
fn server(text: &str) -> Option<SocketAddr> {
    if let Some((address, scope)) = text.split_once('%') {
        let (address, scope) = (address.parse().ok()?, scope.parse().ok()?);
        return Some(SocketAddrV6::new(address, PORT, 0, scope).into());
    }
    Some((text.parse::<IpAddr>().ok()?, PORT).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read() {
        let text = "# by hand\nsearch example.com\n nameserver 10.0.0.1 \nnameserver ::1 ; one\nnameserver fe80::1%2\nnameserver eth0\noptions ndots:5\n#nameserver 9.9.9.9\n";
        let read: Vec<String> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(read, ["10.0.0.1:53", "[::1]:53", "[fe80::1%2]:53"]);
        assert_eq!(servers("options edns0\n"), ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(servers(&"nameserver 10.0.0.1\n".repeat(20)).len(), MOST);
    }
}
