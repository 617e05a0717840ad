//! What a command makes of the store: the change to be written, or why there is none.
//!
//! The shell reads what is in force ([`Current`]), asks one of the functions here, puts the objects of the
//! [`Change`] and then commits the rest of it in one transaction that holds only while the head and the number of
//! the garbage are as they were read. [`resolve`] says what came of that, also when no answer came.
//!
//! Nothing is merged within a load balancer: the last text of it that was applied is what holds, whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use model::config::{LoadBalancer, Name};
use model::parse::{Declared, parse_balancer};
use model::state::Timestamp;

use super::records::{Digest, Head, LogRecord, MAX_LOAD_BALANCERS, Pending, State, canonical, keys};

/// Bytes of one load balancer in canonical JSON: one value of the store.
pub const MAX_OBJECT_BYTES: usize = 1024 * 1024;

/// Names that an error lists.
const NAMES_SHOWN: usize = 10;

/// A load balancer of the store: what stands there, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The name of its content.
    pub digest: Digest,
    /// Its content: canonical JSON, secrets and all.
    pub json: Arc<str>,
    /// What it means; or every error, when this version cannot read what another one wrote.
    pub meaning: Result<Arc<LoadBalancer>, Vec<String>>,
}

impl Object {
    /// What is to be put into the store.
    pub fn of(declared: &Declared) -> Self {
        let json = canonical(&declared.json);
        Self {
            digest: Digest::of(&json),
            json: json.into(),
            meaning: Ok(declared.balancer.clone()),
        }
    }

    /// What was found in the store under a digest; `None` when it is other content than that digest names.
    pub fn read(name: &Name, digest: Digest, json: &str) -> Option<Self> {
        let told = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect();
        (Digest::of(json) == digest).then(|| Self {
            digest,
            json: json.into(),
            meaning: parse_balancer(name, json, &format!("{name} of the store"))
                .map(Arc::new)
                .map_err(told),
        })
    }
}

/// What is in force, as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Current {
    /// Revision and digests.
    pub state: State,
    /// The objects of exactly the state's load balancers.
    pub objects: BTreeMap<Name, Object>,
    /// The change that made this revision.
    pub last: Option<LogRecord>,
    /// The change that awaits confirmation, when it is this revision.
    pub pending: Option<Pending>,
}

/// Who changes, and under which terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Who.
    pub author: String,
    /// Why; may be empty.
    pub message: String,
    /// When, by the clock of this node.
    pub at: Timestamp,
    /// Random, and new for each change.
    pub token: String,
    /// The revision that the author has seen: when another is in force, nothing is changed.
    pub expect: Option<u64>,
    /// Take the change back after this time, in milliseconds, unless it is confirmed.
    pub confirm_ms: Option<u64>,
}

/// Judges the load balancers of the store together with a node's own file.
pub type Whole<'a> = dyn Fn(&BTreeMap<Name, Arc<LoadBalancer>>) -> Result<(), Vec<String>> + Send + Sync + 'a;

/// The node at which a command is given.
pub struct Site<'a> {
    /// Load balancers that are declared in its own file.
    pub own: &'a BTreeSet<Name>,
    /// Whether its file and these load balancers together make a config, or every error.
    pub whole: &'a Whole<'a>,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Objects, to be put before anything refers to them.
    pub put: Vec<Object>,
    /// The record, under [`keys::log`] of its revision.
    pub record: LogRecord,
    /// The new head.
    pub head: Head,
    /// What awaits confirmation from then on; none: nothing does any more.
    pub pending: Option<Pending>,
    /// All load balancers afterwards.
    pub after: BTreeMap<Name, Object>,
}

/// What a command comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is all as wanted already; there is no new revision.
    Unchanged,
    /// This is to be written.
    Changed(Box<Change>),
}

/// Why a command is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody else was faster, or has changed what the author looked at.
    #[error("{}", conflict(*.expected, *.revision, .last.as_deref()))]
    Conflict {
        /// The revision that was expected.
        expected: u64,
        /// The one in force.
        revision: u64,
        /// The change that made it.
        last: Option<Box<LogRecord>>,
    },
    /// The store has no such load balancer.
    #[error("the store has no load balancer {}", unknown(.names, .known, .own))]
    Unknown {
        /// Those asked for that are not there.
        names: Vec<Name>,
        /// Those that are.
        known: Vec<Name>,
        /// Which of those asked for this node's own file declares.
        own: BTreeSet<Name>,
    },
    /// This node's own file declares a load balancer of that name.
    #[error(
        "{} declared in this node's own file, which stands above the store: change {} there, or remove {} from the file first",
        are(.0), them(.0), them(.0)
    )]
    OfFile(Vec<Name>),
    /// What would be in force is no valid config.
    #[error("what would be in force is not valid")]
    Invalid(Vec<String>),
    /// The load balancer is too large for one value of the store.
    #[error("load balancer `{name}` has {bytes} bytes; the store takes {MAX_OBJECT_BYTES} of each")]
    TooLarge {
        /// Which.
        name: Name,
        /// Its size.
        bytes: usize,
    },
    /// More than [`MAX_LOAD_BALANCERS`].
    #[error("there would be {0} load balancers in the store; it takes {MAX_LOAD_BALANCERS}")]
    TooMany(usize),
    /// The revision is not there any more, or not yet.
    #[error("{}", gone(*.wanted, *.oldest, *.newest))]
    Gone {
        /// The revision asked for.
        wanted: u64,
        /// The oldest that is kept.
        oldest: u64,
        /// The one in force.
        newest: u64,
    },
    /// Nothing awaits confirmation.
    #[error("nothing awaits confirmation: revision {revision} holds")]
    NothingPending {
        /// The revision in force.
        revision: u64,
    },
}

/// Sets the load balancers of a text; others stay as they are.
///
/// # Errors
/// [`Refusal`].
pub fn apply(
    current: &Current,
    text: BTreeMap<Name, Object>,
    terms: &Terms,
    site: &Site<'_>,
) -> Result<Outcome, Refusal> {
    expected(current, terms)?;
    let of_file: Vec<Name> = text
        .keys()
        .filter(|name| site.own.contains(name))
        .cloned()
        .collect();
    if !of_file.is_empty() {
        return Err(Refusal::OfFile(of_file));
    }
    let large = text
        .iter()
        .find(|(_, object)| object.json.len() > MAX_OBJECT_BYTES);
    if let Some((name, object)) = large {
        return Err(Refusal::TooLarge {
            name: name.clone(),
            bytes: object.json.len(),
        });
    }
    let mut after = current.objects.clone();
    after.extend(text);
    check_whole(&after, site)?;
    Ok(change(current, after, "apply".to_owned(), terms))
}

/// Removes load balancers.
///
/// # Errors
/// [`Refusal`]: also when one of them is not there, and then none is removed.
pub fn delete(
    current: &Current,
    names: &BTreeSet<Name>,
    terms: &Terms,
    own: &BTreeSet<Name>,
) -> Result<Outcome, Refusal> {
    expected(current, terms)?;
    let mut after = current.objects.clone();
    let missing: Vec<Name> = names
        .iter()
        .filter(|name| after.remove(name).is_none())
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Err(Refusal::Unknown {
            own: missing
                .iter()
                .filter(|name| own.contains(name))
                .cloned()
                .collect(),
            names: missing,
            known: current.objects.keys().cloned().collect(),
        });
    }
    Ok(change(current, after, "delete".to_owned(), terms))
}

/// Brings back the load balancers of an older revision, as a new one.
///
/// # Errors
/// [`Refusal`].
pub fn roll_back(
    current: &Current,
    to: (u64, BTreeMap<Name, Object>),
    terms: &Terms,
    site: &Site<'_>,
) -> Result<Outcome, Refusal> {
    expected(current, terms)?;
    let (revision, after) = to;
    let of_file = |name: &&Name| site.own.contains(name) && !current.objects.contains_key(name);
    let of_file: Vec<Name> = after.keys().filter(of_file).cloned().collect();
    if !of_file.is_empty() {
        return Err(Refusal::OfFile(of_file));
    }
    check_whole(&after, site)?;
    Ok(change(current, after, format!("rollback to {revision}"), terms))
}

/// Takes back the change that awaits confirmation. Whether the result is valid was found out when it was in force.
///
/// # Errors
/// [`Refusal::NothingPending`], when it is over already: somebody else did it, confirmed it, or changed more.
pub fn revert(
    current: &Current,
    pending: &Pending,
    before: BTreeMap<Name, Object>,
    terms: &Terms,
) -> Result<Outcome, Refusal> {
    let still = current
        .pending
        .as_ref()
        .is_some_and(|now| now.revision == pending.revision);
    match still && current.state.revision == pending.revision {
        true => {
            let what = format!("revert of {}", pending.revision);
            Ok(change(current, before, what, terms))
        }
        false => Err(Refusal::NothingPending {
            revision: current.state.revision,
        }),
    }
}

/// Whether the change that awaits confirmation can be confirmed; `revision`, when the author says which.
///
/// # Errors
/// [`Refusal::NothingPending`] and [`Refusal::Conflict`].
pub fn confirm(current: &Current, revision: Option<u64>) -> Result<&Pending, Refusal> {
    let now = current.state.revision;
    if let Some(expected) = revision.filter(|expected| *expected != now) {
        return Err(lost(current, expected));
    }
    let nothing = Refusal::NothingPending { revision: now };
    current
        .pending
        .as_ref()
        .filter(|pending| pending.revision == now)
        .ok_or(nothing)
}

/// What came of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was made.
    Done,
    /// A comparison did not hold.
    Conflict,
    /// The answer was lost: it may have been made, or may be made yet.
    Unknown,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The change is made.
    Made,
    /// Another change was made instead: tell who made it.
    Lost,
    /// The head is as it was: make the same commit once more. Its comparisons see to it that it is made once.
    CommitAgain,
    /// Only garbage was collected in between: begin anew, with all objects.
    BeginAgain,
}

/// What follows from the answer to a commit, and from what was read after it: first the revision of the head, then the
/// record that stands under the change's revision. (In the other order, a commit that is made between the two reads
/// would be taken for lost.)
pub fn resolve(record: &LogRecord, answer: Answer, found: Option<&LogRecord>, head: u64) -> Next {
    let ours = found.is_some_and(|found| found.token == record.token && found.author == record.author);
    match answer {
        Answer::Done => Next::Made,
        _ if ours => Next::Made,
        _ if head != record.parent => Next::Lost,
        Answer::Unknown => Next::CommitAgain,
        Answer::Conflict => Next::BeginAgain,
    }
}

/// The refusal of who expected another revision than the one in force.
pub fn lost(current: &Current, expected: u64) -> Refusal {
    Refusal::Conflict {
        expected,
        revision: current.state.revision,
        last: current.last.clone().map(Box::new),
    }
}

fn expected(current: &Current, terms: &Terms) -> Result<(), Refusal> {
    match terms.expect {
        Some(expected) if expected != current.state.revision => Err(lost(current, expected)),
        _ => Ok(()),
    }
}

fn check_whole(after: &BTreeMap<Name, Object>, site: &Site<'_>) -> Result<(), Refusal> {
    if after.len() > MAX_LOAD_BALANCERS {
        return Err(Refusal::TooMany(after.len()));
    }
    let mut balancers = BTreeMap::new();
    let mut errors = Vec::new();
    for (name, object) in after {
        match &object.meaning {
            Ok(balancer) => _ = balancers.insert(name.clone(), balancer.clone()),
            Err(of_it) => errors.extend(of_it.iter().map(|error| {
                format!("load balancer `{name}` of the store cannot be read by this version: {error}")
            })),
        }
    }
    match errors.is_empty() {
        // What the node's own file declares stands above the store.
        true => {
            balancers.retain(|name, _| !site.own.contains(name));
            (site.whole)(&balancers).map_err(Refusal::Invalid)
        }
        false => Err(Refusal::Invalid(errors)),
    }
}

/// The change from what is in force to `after`.
fn change(current: &Current, after: BTreeMap<Name, Object>, what: String, terms: &Terms) -> Outcome {
    let before = &current.state.objects;
    let state = State {
        revision: current.state.revision + 1,
        objects: after
            .iter()
            .map(|(name, object)| (name.clone(), object.digest))
            .collect(),
    };
    let gone = before.keys().filter(|name| !after.contains_key(name));
    let mut changed: BTreeMap<Name, Option<Digest>> = gone.map(|name| (name.clone(), None)).collect();
    let new = state
        .objects
        .iter()
        .filter(|(name, digest)| before.get(name) != Some(digest));
    changed.extend(new.map(|(name, digest)| (name.clone(), Some(*digest))));
    if changed.is_empty() {
        return Outcome::Unchanged;
    }
    let put = changed
        .iter()
        .filter(|(_, digest)| digest.is_some())
        .filter_map(|(name, _)| after.get(name).cloned());
    let pending = terms.confirm_ms.map(|lasts_ms| Pending {
        revision: state.revision,
        back_to: current.state.revision,
        lasts_ms,
        until: Timestamp(terms.at.0.saturating_add(lasts_ms)),
    });
    Outcome::Changed(Box::new(Change {
        put: put.collect(),
        record: LogRecord {
            revision: state.revision,
            parent: current.state.revision,
            author: terms.author.clone(),
            at: terms.at,
            what,
            message: terms.message.clone(),
            token: terms.token.clone(),
            changed,
            all: keys::begins_block(state.revision).then(|| state.objects.clone()),
        },
        head: state.head(),
        pending,
        after,
    }))
}

// ---- words ----

/// What changed a revision, by whom and why: `alice applied shop: "more room"`.
pub fn told(record: &LogRecord) -> String {
    let mut text = format!("{}: {}", record.author, record.what);
    if !record.changed.is_empty() {
        let _ = write!(text, " ({})", listed(record.changed.keys()));
    }
    if !record.message.is_empty() {
        let _ = write!(text, ", \"{}\"", record.message);
    }
    text
}

fn conflict(expected: u64, revision: u64, last: Option<&LogRecord>) -> String {
    let by = last.map_or_else(String::new, |last| format!(", made by {}", told(last)));
    format!("revision {expected} was expected, but {revision} is in force{by}")
}

fn unknown(names: &[Name], known: &[Name], own: &BTreeSet<Name>) -> String {
    let mut text = listed(names.iter());
    if let Some(name) = own.first() {
        let _ = write!(
            text,
            "; `{name}` is declared in this node's own file: remove it there"
        );
    }
    let close = names.iter().find_map(|name| {
        let scored = known
            .iter()
            .map(|known| (strsim::jaro_winkler(name.as_str(), known.as_str()), known));
        scored
            .filter(|(score, _)| *score > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0))
    });
    let _ = match close {
        Some((_, close)) => write!(text, "; did you mean `{close}`?"),
        None if known.is_empty() => write!(text, "; it has none at all"),
        None => write!(text, "; it has {}", listed(known.iter())),
    };
    text
}

fn gone(wanted: u64, oldest: u64, newest: u64) -> String {
    match newest {
        0 => format!("there is no revision {wanted}: nothing was applied yet"),
        _ => format!("there is no revision {wanted}: {oldest} to {newest} are kept"),
    }
}

fn are(names: &[Name]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", listed(names.iter()))
}

fn them(names: &[Name]) -> &'static str {
    match names.len() {
        1 => "it",
        _ => "them",
    }
}

fn listed<'n>(names: impl ExactSizeIterator<Item = &'n Name>) -> String {
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let shown: Vec<String> = names.take(NAMES_SHOWN).map(|name| format!("`{name}`")).collect();
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}
