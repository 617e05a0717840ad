//! Small databases of countries in MaxMind's format (version 2.0 of its specification), for IPv4.

use std::net::Ipv4Addr;

/// A database that places each network in a country and continent.
pub(crate) fn database(networks: &[(Ipv4Addr, u8, &str, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    // Left and right of each node; `None`: nothing is known there.
    let mut nodes: Vec<[Option<Record>; 2]> = vec![[None; 2]];
    for (address, prefix, country, continent) in networks {
        let at = data.len();
        map(&mut data, 2);
        text(&mut data, "country");
        map(&mut data, 1);
        text(&mut data, "iso_code");
        text(&mut data, country);
        text(&mut data, "continent");
        map(&mut data, 1);
        text(&mut data, "code");
        text(&mut data, continent);
        let bits = u32::from(*address);
        let mut node = 0;
        for depth in 0..*prefix {
            let side = usize::from(bits >> (31 - depth) & 1 == 1);
            if depth + 1 == *prefix {
                nodes[node][side] = Some(Record::Data(at));
                break;
            }
            node = match nodes[node][side] {
                Some(Record::Node(next)) => next,
                _ => {
                    nodes.push([None; 2]);
                    let next = nodes.len() - 1;
                    nodes[node][side] = Some(Record::Node(next));
                    next
                }
            };
        }
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for record in nodes.iter().flatten() {
        let value = match record {
            None => count,
            Some(Record::Node(node)) => *node,
            Some(Record::Data(at)) => count + 16 + at,
        };
        file.extend(&u32::try_from(value).unwrap().to_be_bytes()[1..]);
    }
    file.extend([0; 16]);
    file.extend(data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    metadata(&mut file, u32::try_from(count).unwrap());
    file
}

#[derive(Clone, Copy)]
enum Record {
    Node(usize),
    Data(usize),
}

fn metadata(file: &mut Vec<u8>, nodes: u32) {
    map(file, 9);
    text(file, "node_count");
    number(file, 6, &nodes.to_be_bytes());
    for (name, value) in [
        ("record_size", 24_u16),
        ("ip_version", 4),
        ("binary_format_major_version", 2),
        ("binary_format_minor_version", 0),
    ] {
        text(file, name);
        number(file, 5, &value.to_be_bytes());
    }
    text(file, "build_epoch");
    // Types above 7 stand in a second byte.
    file.extend([8, 2]);
    file.extend(1_767_225_600_u64.to_be_bytes());
    text(file, "database_type");
    text(file, "Test-Country");
    text(file, "languages");
    file.extend([0, 4]);
    text(file, "description");
    map(file, 0);
}

fn map(out: &mut Vec<u8>, entries: u8) {
    out.push(7 << 5 | entries);
}

fn text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 29, "longer ones are written otherwise");
    out.push(2 << 5 | u8::try_from(text.len()).unwrap());
    out.extend(text.bytes());
}

fn number(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind << 5 | u8::try_from(bytes.len()).unwrap());
    out.extend(bytes);
}
