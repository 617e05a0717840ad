//! The keys of members that are not declared.

use super::Default::{Means, Required};
use super::Kind::Text;
use super::keys::key;
use super::{Form, Key, Kind, Table};

pub(super) static MEMBERSHIP_KEYS: &[Key] = &[key(
    "discovery",
    Kind::Table(&DISCOVERY),
    Means("none"),
    "Where further members are looked up, beside `backend_servers` or instead of them.",
)];

pub(crate) static DISCOVERY: Table = Table {
    id: "discovery",
    heading: "discovery of a pool",
    about: "Members that are looked up; a new one takes requests after its first successful check. See [discovery](discovery.md).",
    keys: &[&[key(
        "file",
        Text(Form::File),
        Required,
        "A file with one member a line, or a JSON list; looked at each second.",
    )]],
    rules: &[],
};
