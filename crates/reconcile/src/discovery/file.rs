//! A file of members: one a line, or a JSON list.
//!
//! ```text
//! # the shop's servers
//! 10.0.0.1:9001
//! 10.0.0.2:9001 weight=2 zone=eu-1
//! ```
//!
//! or `["10.0.0.1:9001", {"address": "10.0.0.2:9001", "weight": 2, "zone": "eu-1"}]`. A file with an error in it is
//! refused as a whole: half of a list would take servers out that nobody wanted out.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use model::config::{MAX_WEIGHT, Name};
use model::state::Listed;
use serde_json::Value;

use super::{Listing, usable};

/// Reads a file of members; takes `most` of them, the first ones.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(text: &[u8], most: usize) -> Result<Listing, String> {
    let text = std::str::from_utf8(text).map_err(|error| {
        let line = text
            .iter()
            .take(error.valid_up_to())
            .filter(|b| **b == b'\n')
            .count();
        format!("line {}: this is not UTF-8", line + 1)
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut list = List {
        most,
        places: BTreeMap::new(),
        listing: Listing::default(),
    };
    match is_json(text) {
        true => json(text, &mut list)?,
        false => lines(text, &mut list)?,
    }
    Ok(list.listing)
}

/// A list of JSON begins with `[` and then no address: `[::1]:80` is a line.
fn is_json(text: &str) -> bool {
    let rest = text.trim_start().strip_prefix('[').map(str::trim_start);
    rest.is_some_and(|rest| rest.starts_with(['"', '{', ']', '[']))
}

/// What was read so far.
struct List {
    most: usize,
    /// Where each address stands.
    places: BTreeMap<SocketAddr, usize>,
    listing: Listing,
}

impl List {
    /// Takes a member that stands at a `place` of these `units`.
    fn add(
        &mut self,
        (unit, place): (&str, usize),
        address: SocketAddr,
        listed: Listed,
    ) -> Result<(), String> {
        if let Some(first) = self.places.get(&address) {
            return Err(format!(
                "{unit} {place}: {address} stands in {unit} {first} already"
            ));
        }
        if self.listing.members.len() == self.most {
            self.listing.left_out += 1;
            return Ok(());
        }
        self.places.insert(address, place);
        self.listing.members.insert(address, listed);
        Ok(())
    }
}

fn lines(text: &str, list: &mut List) -> Result<(), String> {
    for (place, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next() else {
            continue;
        };
        let at = |error: String| format!("line {place}: {error}");
        let address = read_address(address).map_err(at)?;
        let mut listed = Listed::default();
        for word in words {
            match word.split_once('=') {
                Some(("weight", value)) => listed.weight = weight(value.parse().ok(), value).map_err(at)?,
                Some(("zone", value)) => listed.zone = Some(zone(value).map_err(at)?),
                _ => {
                    let error = format!("`{}` is neither `weight=N` nor `zone=NAME`", cut(word));
                    return Err(at(error));
                }
            }
        }
        list.add(("line", place), address, listed)?;
    }
    Ok(())
}

fn json(text: &str, list: &mut List) -> Result<(), String> {
    let entries: Vec<Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    for (place, entry) in (1..).zip(&entries) {
        let (address, listed) = read_entry(entry).map_err(|error| format!("entry {place}: {error}"))?;
        list.add(("entry", place), address, listed)?;
    }
    Ok(())
}

fn read_entry(entry: &Value) -> Result<(SocketAddr, Listed), String> {
    let mut listed = Listed::default();
    let fields = match entry {
        Value::String(text) => return Ok((read_address(text)?, listed)),
        Value::Object(fields) => fields,
        _ => return Err("a member is an address or an object".to_owned()),
    };
    let mut address = None;
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("address", Value::String(text)) => address = Some(read_address(text)?),
            ("weight", value) => listed.weight = weight(value.as_u64(), &value.to_string())?,
            ("zone", Value::String(text)) => listed.zone = Some(zone(text)?),
            ("address" | "zone", _) => return Err(format!("`{key}` is a text")),
            _ => {
                let error = format!(
                    "unknown key `{}`: there are `address`, `weight` and `zone`",
                    cut(key)
                );
                return Err(error);
            }
        }
    }
    Ok((address.ok_or("`address` is missing")?, listed))
}

fn read_address(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().map_err(|_| {
        format!(
            "`{}` is not an IP address and port such as `10.0.0.1:9001`",
            cut(text)
        )
    })?;
    usable(address).map_err(|error| format!("`{}`: {error}", cut(text)))
}

fn weight(number: Option<u64>, text: &str) -> Result<u32, String> {
    let number = number.and_then(|number| u32::try_from(number).ok());
    number
        .filter(|weight| *weight <= MAX_WEIGHT)
        .ok_or_else(|| format!("the weight `{}` is no number from 0 to {MAX_WEIGHT}", cut(text)))
}

fn zone(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|_| {
        format!(
            "the zone `{}` is no name of 1 to 63 letters, digits, `_`, `-` or `.`",
            cut(text)
        )
    })
}

/// The beginning of a text that may be of any length.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, u32, Option<String>)>, String> {
        let listing = parse(text.as_bytes(), 100)?;
        let members = listing.members.into_iter();
        Ok(members
            .map(|(address, m)| (address.to_string(), m.weight, m.zone.map(String::from)))
            .collect())
    }

    /// Lines and JSON say the same.
    #[test]
    fn both_forms_are_read() {
        let lines = "# the shop\n\n10.0.0.1:80 # one\r\n [::1]:81 weight=2 zone=eu-1\n";
        let json = r#" ["10.0.0.1:80", {"address": "[::1]:81", "weight": 2, "zone": "eu-1"}]"#;
        let expected = vec![
            ("10.0.0.1:80".to_owned(), 1, None),
            ("[::1]:81".to_owned(), 2, Some("eu-1".to_owned())),
        ];
        assert_eq!(read(lines).unwrap(), expected);
        assert_eq!(read(json).unwrap(), expected);
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read("[]").unwrap(), []);
        assert_eq!(read("[::1]:80").unwrap().len(), 1);
    }

    #[test]
    fn an_error_names_its_place() {
        for (text, place) in [
            ("10.0.0.1:80\n10.0.0.2", "line 2: `10.0.0.2` is not an IP address"),
            (
                "10.0.0.1:80\n\n10.0.0.1:80",
                "line 3: 10.0.0.1:80 stands in line 1 already",
            ),
            ("10.0.0.1:80 wait=2", "line 1: `wait=2` is neither"),
            (
                "10.0.0.1:80 weight=1001",
                "line 1: the weight `1001` is no number from 0 to 1000",
            ),
            ("10.0.0.1:80 zone=a/b", "line 1: the zone `a/b`"),
            ("0.0.0.0:80", "line 1: `0.0.0.0:80`: it is no address of a server"),
            (
                "10.0.0.1:0",
                "line 1: `10.0.0.1:0`: nothing can be reached on port 0",
            ),
            (
                "224.0.0.1:80",
                "line 1: `224.0.0.1:80`: it is an address of a group",
            ),
            (
                "[\"10.0.0.1:80\", 5]",
                "entry 2: a member is an address or an object",
            ),
            ("[{\"adress\": \"10.0.0.1:80\"}]", "entry 1: unknown key `adress`"),
            ("[{\"weight\": 1}]", "entry 1: `address` is missing"),
            ("[\"10.0.0.1:80\"", "EOF while parsing a list at line 1"),
            (
                "[::ffff:10.0.0.1]:80\n10.0.0.1:80",
                "line 2: 10.0.0.1:80 stands in line 1 already",
            ),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(place), "{text:?}: {error}");
        }
        assert_eq!(
            parse(b"10.0.0.1:80\n\xff", 9).unwrap_err(),
            "line 2: this is not UTF-8"
        );
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let text: String = (1..=12).map(|port| format!("10.0.0.1:{port}\n")).collect();
        let listing = parse(text.as_bytes(), 10).unwrap();
        assert_eq!((listing.members.len(), listing.left_out), (10, 2));
    }
}
