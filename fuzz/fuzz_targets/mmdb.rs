//! Any bytes as a database of countries: refused or read, and an address looked up in it, without a panic.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use maxminddb::{Reader, path};

fuzz_target!(|input: ([u8; 4], &[u8])| {
    let (address, bytes) = input;
    let Ok(reader) = Reader::from_source(bytes) else {
        return;
    };
    if let Ok(found) = reader.lookup(IpAddr::from(address)) {
        let country: Option<&str> = found.decode_path(&path!["country", "iso_code"]).ok().flatten();
        assert!(country.is_none_or(|code| code.len() <= bytes.len()));
    }
});
