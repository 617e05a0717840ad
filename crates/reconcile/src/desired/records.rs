//! What stands in the store: objects, the log of changes, the head; and the state that follows from them.
//!
//! All values are JSON. Fields that this version does not know are passed over, so that nodes of two versions can
//! share a store; objects and the digests over them are in one canonical form ([`canonical`]), so that equal content
//! has one name. The log is cut into blocks of [`BLOCK`] revisions: the first record of a block has the whole state,
//! so no state is further away than one block is long.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use model::config::Name;
use model::state::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Revisions of a block. The first one's record has the whole state after it.
pub const BLOCK: u64 = 64;

/// Load balancers in a store: so many that a record with all of them, each changed, is still one value of the store.
pub const MAX_LOAD_BALANCERS: usize = 4_000;

/// Keys, below the prefix of the store.
pub mod keys {
    use super::{BLOCK, Digest};

    /// The [`Head`](super::Head).
    pub const HEAD: &str = "config/head";
    /// All [`LogRecord`](super::LogRecord)s.
    pub const LOG: &str = "config/log/";
    /// All objects.
    pub const OBJECTS: &str = "config/objects/";
    /// A number that changes with each collection of garbage: whoever refers to objects compares it, so that what
    /// it has just put is not collected in between.
    pub const GARBAGE: &str = "config/garbage";
    /// The oldest revision whose content is kept, once the bytes of the history have made it another than follows
    /// from the head: see [`garbage`](super::super::garbage).
    pub const OLDEST: &str = "config/oldest";
    /// The [`Pending`](super::Pending) change, while there is one.
    pub const PENDING: &str = "config/pending";

    /// The block that a revision is in; revisions count from 1.
    pub fn block_of(revision: u64) -> u64 {
        revision.saturating_sub(1) / BLOCK
    }

    /// Whether a revision is the first of its block.
    pub fn begins_block(revision: u64) -> bool {
        revision % BLOCK == 1
    }

    /// What all records of a block begin with.
    pub fn block(block: u64) -> String {
        format!("{LOG}{block:08}/")
    }

    /// The record of a revision.
    pub fn log(revision: u64) -> String {
        format!("{}{revision:010}", block(block_of(revision)))
    }

    /// The object of this content.
    pub fn object(digest: Digest) -> String {
        format!("{OBJECTS}{digest}")
    }
}

/// The name of a content: the first 160 bits of its SHA-256, written as 40 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 20]);

impl Digest {
    /// The digest of a text, byte by byte. Of JSON: of its [`canonical`] form.
    pub fn of(text: &str) -> Self {
        let whole = Sha256::digest(text.as_bytes());
        let mut first = [0; 20];
        first.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
        Self(first)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a digest: that is 40 hexadecimal digits");
        let digits = text
            .chars()
            .map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok()));
        let digits: Vec<u8> = digits.collect::<Option<_>>().ok_or_else(wrong)?;
        let bytes: Vec<u8> = digits
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[high, low]| high << 4 | low)
            .collect();
        match <[u8; 20]>::try_from(bytes) {
            Ok(bytes) if digits.len() == 40 => Ok(Self(bytes)),
            _ => Err(wrong()),
        }
    }
}

/// JSON in one form: keys sorted, no blanks, nothing escaped that need not be.
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(&mut text, value);
    text
}

fn write_canonical(text: &mut String, value: &Value) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write_canonical(text, item);
            }
            text.push(']');
        }
        Value::Object(entries) => {
            // Whatever order this build of serde_json keeps them in.
            let sorted: BTreeMap<&String, &Value> = entries.iter().collect();
            text.push('{');
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(text, value);
            }
            text.push('}');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

/// Which revision is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Counts from 1; without a head it is 0, and there is no load balancer.
    pub revision: u64,
    /// Digest of the whole map from names to digests: [`State::digest`].
    pub state: Digest,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRecord {
    /// What it made.
    pub revision: u64,
    /// What it was made from: the revision before.
    pub parent: u64,
    /// Who.
    pub author: String,
    /// When, by the clock of who wrote it: for people.
    pub at: Timestamp,
    /// What was done, for people: `apply`, `delete`, `rollback to 7`.
    #[serde(default)]
    pub what: String,
    /// Why, as the author says; may be empty.
    #[serde(default)]
    pub message: String,
    /// Random: a writer whose answer was lost knows its own record by it.
    #[serde(default)]
    pub token: String,
    /// What it changed: the new object, or none for a load balancer that is no more.
    pub changed: BTreeMap<Name, Option<Digest>>,
    /// The whole state after it: the first record of a block has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<BTreeMap<Name, Digest>>,
}

/// A change that is taken back unless somebody confirms it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The change. When the head is another, this is over.
    pub revision: u64,
    /// The revision whose state comes back.
    pub back_to: u64,
    /// How long it waits, in milliseconds, counted from when it was *seen*, by the clock of who sees it.
    pub lasts_ms: u64,
    /// Until when, by the clock of who made it: for people, and for who was not running when it was made.
    pub until: Timestamp,
}

/// The load balancers of a revision, by the digests of their objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Which revision; 0 before the first.
    pub revision: u64,
    /// The object of each.
    pub objects: BTreeMap<Name, Digest>,
}

/// Why a state does not follow from records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenLog {
    /// The record is not of the revision after this one.
    #[error("the change {found} does not follow revision {after}")]
    Gap {
        /// The revision reached.
        after: u64,
        /// Whose record came.
        found: u64,
    },
    /// The first record of the block is not there, or has no state.
    #[error("the whole state that revision {0} is counted from is not there")]
    NoBeginning(u64),
    /// The records end before the revision.
    #[error("the log ends before revision {0}")]
    Ends(u64),
}

impl State {
    /// The state after a change, when it is the next one.
    ///
    /// # Errors
    /// [`BrokenLog::Gap`]; the state is as it was.
    pub fn step(&mut self, record: &LogRecord) -> Result<(), BrokenLog> {
        if record.parent != self.revision || record.revision <= record.parent {
            return Err(BrokenLog::Gap {
                after: self.revision,
                found: record.revision,
            });
        }
        match &record.all {
            Some(all) => self.objects.clone_from(all),
            None => {
                for (name, digest) in &record.changed {
                    match digest {
                        Some(digest) => self.objects.insert(name.clone(), *digest),
                        None => self.objects.remove(name),
                    };
                }
            }
        }
        self.revision = record.revision;
        Ok(())
    }

    /// The state at a revision, from the records of its block in their order.
    ///
    /// # Errors
    /// When records are missing between the block's first and the revision's own.
    pub fn of_block(records: &[LogRecord], revision: u64) -> Result<Self, BrokenLog> {
        if revision == 0 {
            return Ok(Self::default());
        }
        let (first, rest) = records.split_first().ok_or(BrokenLog::NoBeginning(revision))?;
        let all = first.all.as_ref().ok_or(BrokenLog::NoBeginning(revision))?;
        let mut state = Self {
            revision: first.revision,
            objects: all.clone(),
        };
        let wanted = rest.iter().take_while(|record| record.revision <= revision);
        wanted.into_iter().try_for_each(|record| state.step(record))?;
        match state.revision == revision {
            true => Ok(state),
            false if state.revision > revision => Err(BrokenLog::NoBeginning(revision)),
            false => Err(BrokenLog::Ends(revision)),
        }
    }

    /// Digest of the map, for [`Head::state`]: of its [`canonical`] form.
    pub fn digest(&self) -> Digest {
        // Written as it is, for this is done over all of them with each change: names are sorted and need no escape.
        let mut text = String::with_capacity(2 + self.objects.len() * 64);
        text.push('{');
        for (at, (name, digest)) in self.objects.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // A string takes whatever is written.
            let _ = write!(text, "{comma}\"{name}\":\"{digest}\"");
        }
        text.push('}');
        Digest::of(&text)
    }

    /// What the head says of this state.
    pub fn head(&self) -> Head {
        Head {
            revision: self.revision,
            state: self.digest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    /// A record that makes `revision` by one change.
    fn record(revision: u64, changed: &[(&str, Option<&str>)], all: Option<&State>) -> LogRecord {
        LogRecord {
            revision,
            parent: revision - 1,
            author: "eva".into(),
            at: Timestamp(5),
            what: "apply".into(),
            message: String::new(),
            token: String::new(),
            changed: changed
                .iter()
                .map(|(lb, content)| (name(lb), content.map(Digest::of)))
                .collect(),
            all: all.map(|state| state.objects.clone()),
        }
    }

    /// The digest is that of `printf '{"a":1}' | sha256sum`, cut after 40 digits.
    #[test]
    fn a_digest_is_the_beginning_of_the_sha_256_and_reads_back() {
        let digest = Digest::of(r#"{"a":1}"#);
        assert_eq!(digest.to_string(), "015abd7f5cc57a2dd94b7590f04ad8084273905e");
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        for wrong in [
            "",
            "015abd",
            &format!("{digest}0"),
            &format!("{digest}00"),
            &"ü".repeat(20),
        ] {
            assert!(Digest::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn equal_content_has_one_form() {
        let one: Value =
            serde_json::from_str(r#" {"b": [1, {"z": null, "y": "\u00fc/"}], "a": true} "#).unwrap();
        assert_eq!(canonical(&one), r#"{"a":true,"b":[1,{"y":"ü/","z":null}]}"#);
        assert_eq!(canonical(&json!({})), "{}");
    }

    #[test]
    fn a_state_follows_from_its_block() {
        let mut state = State::default();
        let mut records = Vec::new();
        let changes: [&[(&str, Option<&str>)]; 4] = [
            &[("shop", Some("1")), ("blog", Some("1"))],
            &[("shop", Some("2"))],
            &[("blog", None)],
            &[("blog", Some("3"))],
        ];
        let mut states = vec![state.clone()];
        for (revision, changed) in (1..).zip(changes) {
            let mut made = record(revision, changed, None);
            state.step(&made).unwrap();
            made.all = keys::begins_block(revision).then(|| state.objects.clone());
            records.push(made);
            states.push(state.clone());
        }
        for then in &states {
            assert_eq!(State::of_block(&records, then.revision).as_ref(), Ok(then));
        }
        assert_eq!(State::of_block(&records, 5), Err(BrokenLog::Ends(5)));
        assert_eq!(State::of_block(&records[1..], 3), Err(BrokenLog::NoBeginning(3)));
        records.remove(2);
        let gap = BrokenLog::Gap { after: 2, found: 4 };
        assert_eq!(State::of_block(&records, 4), Err(gap));
    }

    #[test]
    fn blocks_follow_each_other_without_a_hole() {
        assert_eq!(keys::log(1), "config/log/00000000/0000000001");
        assert_eq!(keys::log(64), "config/log/00000000/0000000064");
        assert_eq!(keys::log(65), "config/log/00000001/0000000065");
        for revision in 1..300 {
            let new = revision == 1 || keys::block_of(revision) != keys::block_of(revision - 1);
            assert_eq!(keys::begins_block(revision), new, "{revision}");
        }
    }

    /// The digest of a state is that of the JSON that anybody would write of it.
    #[test]
    fn a_state_is_digested_in_canonical_form() {
        let contents = ["b-2", "a", "b", "z.z_9", "0"];
        let objects: BTreeMap<Name, Digest> = contents.map(|text| (name(text), Digest::of(text))).into();
        for count in 0..=contents.len() {
            let objects: BTreeMap<Name, Digest> = objects.clone().into_iter().take(count).collect();
            let json = serde_json::to_value(&objects).unwrap();
            let state = State { revision: 1, objects };
            assert_eq!(state.digest(), Digest::of(&canonical(&json)));
        }
    }

    /// A newer version may say more; an older one may have said less.
    #[test]
    fn fields_that_are_not_known_are_passed_over() {
        let text = r#"{"revision":2,"parent":1,"author":"eva","at":5,"changed":{"shop":null},"new":[1]}"#;
        let record: LogRecord = serde_json::from_str(text).unwrap();
        assert_eq!((record.revision, record.all), (2, None));
        let head = format!(r#"{{"revision":1,"state":"{}","more":0}}"#, Digest::of("x"));
        assert_eq!(serde_json::from_str::<Head>(&head).unwrap().revision, 1);
    }

    /// The largest record of the largest state fits into one value of the store, which is 1 MiB.
    #[test]
    fn the_largest_record_fits_into_the_store() {
        let digest = Digest::of("x");
        let names = (0..MAX_LOAD_BALANCERS).map(|i| name(&format!("{i:063}")));
        let all: BTreeMap<Name, Digest> = names.map(|name| (name, digest)).collect();
        let mut record = record(1, &[], None);
        record.changed = all.keys().map(|name| (name.clone(), Some(digest))).collect();
        record.all = Some(all);
        record.message = "x".repeat(4096);
        assert!(serde_json::to_vec(&record).unwrap().len() < 1024 * 1024);
    }
}
