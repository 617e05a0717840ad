//! A store, writers and collectors, and the shadow that knows the whole history.

mod collectors;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use evenkeel_reconcile::desired::commands::{
    self, Answer, Change, Current, Next, Object, Outcome, Site, Terms,
};
use evenkeel_reconcile::desired::garbage;
use evenkeel_reconcile::desired::records::{Digest, Head, LogRecord, Pending, State, keys};
use model::config::Name;
use model::state::Timestamp;
use sim::Random;

use collectors::Collector;

const WRITERS: usize = 4;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const CONTENTS: u64 = 12;

pub(crate) type Held = Result<(), String>;

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) made: u64,
    pub(crate) lost: u64,
    pub(crate) again: u64,
    pub(crate) late: u64,
    pub(crate) rolled_back: u64,
    pub(crate) reverted: u64,
    pub(crate) objects_collected: u64,
    pub(crate) blocks_collected: u64,
    pub(crate) cut: u64,
    pub(crate) confirmed: u64,
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.lost += other.lost;
        self.again += other.again;
        self.late += other.late;
        self.rolled_back += other.rolled_back;
        self.reverted += other.reverted;
        self.objects_collected += other.objects_collected;
        self.blocks_collected += other.blocks_collected;
        self.cut += other.cut;
        self.confirmed += other.confirmed;
    }
}

/// Key, and the revision at which it must be: 0 for absent.
type Compare = (&'static str, u64);

#[derive(Clone, Debug)]
struct Commit {
    compares: Vec<Compare>,
    /// None deletes.
    writes: Vec<(String, Option<String>)>,
    /// The revision that it confirms.
    confirms: Option<u64>,
}

/// As the real one: the last revision of each key.
#[derive(Default)]
struct Store {
    revision: u64,
    entries: BTreeMap<String, (u64, String)>,
}

impl Store {
    fn at(&self, key: &str) -> u64 {
        self.entries.get(key).map_or(0, |(revision, _)| *revision)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, key: &str) -> Option<T> {
        let (_, json) = self.entries.get(key)?;
        Some(serde_json::from_str(json).unwrap())
    }

    fn list(&self, prefix: &str) -> Vec<String> {
        let from = self.entries.range(prefix.to_owned()..);
        let keys = from.map(|(key, _)| key.clone());
        keys.take_while(|key| key.starts_with(prefix)).collect()
    }

    fn block(&self, block: u64) -> Vec<LogRecord> {
        let keys = self.list(&keys::block(block));
        keys.iter().filter_map(|key| self.read(key)).collect()
    }
}

/// Where a writer is.
#[derive(Debug)]
enum Writer {
    Idle,
    /// It has read the head, the garbage and what awaits confirmation.
    Began {
        what: What,
        compares: [Compare; 3],
        revision: u64,
    },
    /// It confirms what stood there then.
    Confirms {
        revision: u64,
        doubt: bool,
        pending: u64,
    },
    /// It knows what to write, and puts objects.
    Puts {
        what: What,
        change: Box<Change>,
        compares: [Compare; 3],
        left: Vec<Object>,
    },
    /// The answer was lost; it has not looked yet, or has seen this head.
    Doubts {
        what: What,
        change: Box<Change>,
        compares: [Compare; 3],
        answer: Answer,
        head: Option<u64>,
    },
}

#[derive(Clone, Debug)]
enum What {
    Apply(BTreeMap<Name, Object>, Option<u64>),
    Delete(Name),
    RollBack(u64),
    Revert,
    /// Which revision, once that is known, and whether an answer to it was lost.
    Confirm(Option<(u64, bool)>),
}

pub(crate) struct World {
    random: Random,
    store: Store,
    writers: Vec<Writer>,
    collectors: Vec<Collector>,
    /// Commits whose answers were lost and which are made later.
    late: VecDeque<Commit>,
    /// The state of each revision.
    truth: Vec<BTreeMap<Name, Digest>>,
    /// Whose record made each revision.
    tokens: Vec<String>,
    lost: BTreeSet<String>,
    /// Revisions of which somebody was told that they are confirmed.
    confirmed: BTreeSet<u64>,
    contents: Vec<Object>,
    next_token: u64,
    pub(crate) steps: Vec<String>,
    pub(crate) seen: Seen,
}

impl World {
    pub(crate) fn new(seed: u64, history: u64) -> Self {
        let mut world = Self {
            random: Random(seed),
            store: Store::default(),
            writers: (0..WRITERS).map(|_| Writer::Idle).collect(),
            collectors: vec![Collector::Idle, Collector::Idle],
            late: VecDeque::new(),
            truth: vec![BTreeMap::new()],
            tokens: vec![String::new()],
            lost: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            contents: (0..CONTENTS).map(content).collect(),
            next_token: 0,
            steps: Vec::new(),
            seen: Seen::default(),
        };
        for _ in 0..history {
            world.one_more();
        }
        world
    }

    /// A change that nobody disturbs; each with content of its own, so that there is what can be collected.
    fn one_more(&mut self) {
        let object = content(1000 + self.truth.len() as u64);
        let what = What::Apply(BTreeMap::from([(name(NAMES[0]), object)]), None);
        let current = self.current().unwrap();
        let Some(Ok(Outcome::Changed(change))) = self.decide(&what, &current) else {
            return;
        };
        for object in &change.put {
            self.put(object);
        }
        let compares = self.as_it_is();
        self.commit(&commit_of(&change, &compares)).unwrap();
    }

    pub(crate) fn run(&mut self, steps: u64) -> Held {
        for step in 0..steps {
            match self.random.below(100) {
                0..70 => {
                    let who = usize::try_from(self.random.below(WRITERS as u64)).unwrap();
                    let writer = std::mem::replace(&mut self.writers[who], Writer::Idle);
                    let next = self.write(who, writer)?;
                    // Now and then one dies where it stands.
                    self.writers[who] = if self.random.chance(10) {
                        Writer::Idle
                    } else {
                        next
                    };
                }
                70..95 => {
                    let who = usize::try_from(self.random.below(2)).unwrap();
                    let collector = std::mem::replace(&mut self.collectors[who], Collector::Idle);
                    self.collectors[who] = self.collect(collector)?;
                }
                _ => {
                    if let Some(commit) = self.late.pop_front() {
                        self.seen.late += u64::from(self.commit(&commit)?);
                    }
                }
            }
            if step % 16 == 0 {
                self.head_is_whole()?;
            }
        }
        self.history_is_whole()
    }

    // ---- writers ----

    fn write(&mut self, who: usize, writer: Writer) -> Result<Writer, String> {
        match writer {
            Writer::Idle => {
                let what = self.wish();
                Ok(self.begin(who, what))
            }
            Writer::Began {
                what: What::Confirm(confirms),
                ..
            } => Ok(self.confirm(who, confirms)),
            Writer::Began {
                what,
                compares,
                revision,
            } => Ok(self.think(who, what, compares, revision)),
            Writer::Confirms {
                revision,
                doubt,
                pending,
            } => self.send_confirmation(who, revision, doubt, pending),
            Writer::Puts {
                what,
                change,
                compares,
                mut left,
            } => {
                if let Some(object) = left.pop() {
                    self.put(&object);
                    return Ok(Writer::Puts {
                        what,
                        change,
                        compares,
                        left,
                    });
                }
                self.send(who, what, change, compares)
            }
            Writer::Doubts {
                what,
                change,
                compares,
                answer,
                head: None,
            } => {
                let head = self.revision();
                Ok(Writer::Doubts {
                    what,
                    change,
                    compares,
                    answer,
                    head: Some(head),
                })
            }
            Writer::Doubts {
                what,
                change,
                compares,
                answer,
                head: Some(head),
            } => {
                let found = self.store.read(&keys::log(change.record.revision));
                let next = commands::resolve(&change.record, answer, found.as_ref(), head);
                self.note(who, &format!("after {answer:?}: {next:?}"));
                match next {
                    Next::Made => self.made(&what, &change).map(|()| Writer::Idle),
                    Next::Lost => {
                        if self.tokens.contains(&change.record.token) {
                            return Err("who made a change is told that it lost".to_owned());
                        }
                        self.seen.lost += 1;
                        self.lost.insert(change.record.token.clone());
                        Ok(Writer::Idle)
                    }
                    Next::CommitAgain => {
                        self.seen.again += 1;
                        Ok(Writer::Puts {
                            what,
                            change,
                            compares,
                            left: Vec::new(),
                        })
                    }
                    Next::BeginAgain => Ok(self.begin(who, what)),
                }
            }
        }
    }

    fn wish(&mut self) -> What {
        let revision = self.revision();
        match self.random.below(10) {
            0..5 => {
                let texts = 1 + self.random.below(3);
                let text = (0..texts).map(|_| {
                    let at = usize::try_from(self.random.below(CONTENTS)).unwrap();
                    (self.a_name(), self.contents[at].clone())
                });
                let text = text.collect();
                let confirm = self.random.chance(400).then_some(1000);
                What::Apply(text, confirm)
            }
            5..7 => What::Delete(self.a_name()),
            7 => What::Confirm(None),
            8 => {
                let oldest = self.oldest_kept();
                What::RollBack(oldest + self.random.below(revision - oldest + 1))
            }
            _ => What::Revert,
        }
    }

    fn begin(&mut self, who: usize, what: What) -> Writer {
        self.note(who, &format!("begins {what:?}"));
        Writer::Began {
            what,
            compares: self.as_it_is(),
            revision: self.revision(),
        }
    }

    fn as_it_is(&self) -> [Compare; 3] {
        [keys::HEAD, keys::GARBAGE, keys::PENDING].map(|key| (key, self.store.at(key)))
    }

    /// Reads what else it needs, by now, and decides. What is not there any more as it was makes it give up.
    fn think(&mut self, who: usize, what: What, compares: [Compare; 3], revision: u64) -> Writer {
        let Some(current) = self.current().filter(|now| now.state.revision == revision) else {
            return Writer::Idle;
        };
        match self.decide(&what, &current) {
            Some(Ok(Outcome::Changed(change))) => Writer::Puts {
                what,
                compares,
                left: change.put.clone(),
                change,
            },
            other => {
                self.note(who, &format!("nothing to do: {other:?}"));
                Writer::Idle
            }
        }
    }

    fn decide(&mut self, what: &What, current: &Current) -> Option<Result<Outcome, commands::Refusal>> {
        self.next_token += 1;
        let mut terms = Terms {
            author: "eva".into(),
            message: String::new(),
            at: Timestamp(7),
            token: self.next_token.to_string(),
            expect: None,
            confirm_ms: None,
        };
        let own = BTreeSet::new();
        let site = Site {
            own: &own,
            whole: &|_| Ok(()),
        };
        Some(match what {
            What::Apply(text, confirm) => {
                terms.confirm_ms = *confirm;
                commands::apply(current, text.clone(), &terms, &site)
            }
            What::Delete(name) => commands::delete(current, &BTreeSet::from([name.clone()]), &terms, &own),
            What::RollBack(to) => commands::roll_back(current, (*to, self.objects_at(*to)?), &terms, &site),
            What::Revert => {
                let pending: Pending = self.store.read(keys::PENDING)?;
                let before = self.objects_at(pending.back_to)?;
                commands::revert(current, &pending, before, &terms)
            }
            What::Confirm(_) => return None,
        })
    }

    fn send(
        &mut self,
        who: usize,
        what: What,
        change: Box<Change>,
        compares: [Compare; 3],
    ) -> Result<Writer, String> {
        let commit = commit_of(&change, &compares);
        let answer = match self.random.below(100) {
            0..5 => {
                self.commit(&commit)?;
                Answer::Unknown
            }
            5..10 => Answer::Unknown,
            10..15 => {
                self.late.push_back(commit);
                Answer::Unknown
            }
            _ => match self.commit(&commit)? {
                true => Answer::Done,
                false => Answer::Conflict,
            },
        };
        self.note(who, &format!("commits {}: {answer:?}", change.record.revision));
        match answer {
            Answer::Done => self.made(&what, &change).map(|()| Writer::Idle),
            _ => Ok(Writer::Doubts {
                what,
                change,
                compares,
                answer,
                head: None,
            }),
        }
    }

    /// Somebody is told that the change is made.
    fn made(&mut self, what: &What, change: &Change) -> Held {
        let revision = usize::try_from(change.record.revision).unwrap();
        if self.tokens.get(revision) != Some(&change.record.token) {
            return Err(format!("revision {revision} is told to be made, and is not"));
        }
        self.seen.made += 1;
        let then = &self.truth[revision];
        match what {
            What::RollBack(to) => {
                self.seen.rolled_back += 1;
                if *then != self.truth[usize::try_from(*to).unwrap()] {
                    return Err(format!("a rollback to {to} gave something else"));
                }
            }
            What::Revert => {
                self.seen.reverted += 1;
                if *then != self.truth[revision - 2] {
                    return Err("a revert gave something else".to_owned());
                }
            }
            What::Apply(text, _) => {
                let has = |(name, object): (&Name, &Object)| then.get(name) == Some(&object.digest);
                if !text.iter().all(has) {
                    return Err("what was applied is not there".to_owned());
                }
            }
            What::Delete(name) if then.contains_key(name) => {
                return Err("what was deleted is there".to_owned());
            }
            What::Delete(_) | What::Confirm(_) => {}
        }
        Ok(())
    }

    /// Looks what there is to confirm, or what became of a confirmation whose answer was lost.
    fn confirm(&mut self, who: usize, confirms: Option<(u64, bool)>) -> Writer {
        let Some(current) = self.current() else {
            return Writer::Idle;
        };
        if let Some((revision, true)) = confirms
            && current.pending.is_none()
            && current.state.revision == revision
        {
            self.seen.confirmed += 1;
            self.confirmed.insert(revision);
            return Writer::Idle;
        }
        match commands::confirm(&current, confirms.map(|(revision, _)| revision)) {
            Ok(pending) => Writer::Confirms {
                revision: pending.revision,
                doubt: confirms.is_some_and(|(_, doubt)| doubt),
                pending: self.store.at(keys::PENDING),
            },
            Err(refused) => {
                self.note(who, &format!("cannot confirm: {refused}"));
                Writer::Idle
            }
        }
    }

    fn send_confirmation(
        &mut self,
        who: usize,
        revision: u64,
        doubt: bool,
        pending: u64,
    ) -> Result<Writer, String> {
        let commit = Commit {
            compares: vec![(keys::PENDING, pending)],
            writes: vec![(keys::PENDING.to_owned(), None)],
            confirms: Some(revision),
        };
        let doubt = match self.random.below(100) {
            0..5 => {
                self.commit(&commit)?;
                true
            }
            5..10 => {
                self.late.push_back(commit);
                true
            }
            _ if self.commit(&commit)? => {
                self.note(who, &format!("has confirmed {revision}"));
                self.seen.confirmed += 1;
                self.confirmed.insert(revision);
                return Ok(Writer::Idle);
            }
            _ => doubt,
        };
        Ok(self.begin(who, What::Confirm(Some((revision, doubt)))))
    }

    // ---- the store, under the eyes of the shadow ----

    fn put(&mut self, object: &Object) {
        self.store.revision += 1;
        let value = (self.store.revision, object.json.to_string());
        self.store.entries.insert(keys::object(object.digest), value);
    }

    fn commit(&mut self, commit: &Commit) -> Result<bool, String> {
        let holds = |(key, revision): &Compare| self.store.at(key) == *revision;
        if !commit.compares.iter().all(holds) {
            return Ok(false);
        }
        let on_trial: Option<Pending> = self.store.read(keys::PENDING);
        let trial = on_trial.as_ref().map(|pending| pending.revision);
        if commit.confirms.is_some() && commit.confirms != trial {
            return Err(format!("{:?} was confirmed for {:?}", trial, commit.confirms));
        }
        self.store.revision += 1;
        for (key, value) in &commit.writes {
            match value {
                Some(value) => {
                    let value = (self.store.revision, value.clone());
                    self.store.entries.insert(key.clone(), value);
                }
                None => _ = self.store.entries.remove(key),
            }
        }
        if commit.writes.iter().any(|(key, _)| key == keys::HEAD) {
            self.judge_head(on_trial.as_ref())?;
        }
        Ok(true)
    }

    /// The head has moved: to the next revision, by its record alone.
    fn judge_head(&mut self, on_trial: Option<&Pending>) -> Held {
        let head: Head = self.store.read(keys::HEAD).unwrap();
        let revision = self.truth.len() as u64;
        if head.revision != revision {
            return Err(format!("after {} came {}", revision - 1, head.revision));
        }
        let record: LogRecord = self.store.read(&keys::log(revision)).ok_or("no record")?;
        if self.lost.contains(&record.token) {
            return Err(format!(
                "revision {revision} is of somebody who was told that it lost"
            ));
        }
        if record.what == format!("revert of {}", revision - 1)
            && (self.confirmed.contains(&(revision - 1))
                || on_trial.is_none_or(|t| t.revision != revision - 1))
        {
            return Err(format!("{} is taken back though it holds", revision - 1));
        }
        let mut state = State {
            revision: revision - 1,
            objects: self.truth.last().cloned().unwrap_or_default(),
        };
        let mut by_changes = state.clone();
        state.step(&record).map_err(|broken| broken.to_string())?;
        by_changes
            .step(&LogRecord {
                all: None,
                ..record.clone()
            })
            .map_err(|broken| broken.to_string())?;
        if state != by_changes || state.head() != head {
            return Err(format!(
                "the record of {revision} does not make what the head says"
            ));
        }
        self.truth.push(state.objects);
        self.tokens.push(record.token);
        self.head_is_whole()
    }

    fn head_is_whole(&self) -> Held {
        let objects = self.truth.last().into_iter().flatten();
        let missing = objects
            .map(|(_, digest)| keys::object(*digest))
            .find(|key| !self.store.entries.contains_key(key));
        missing.map_or(Ok(()), |key| Err(format!("{key} is in force and not there")))?;
        let pending: Option<Pending> = self.store.read(keys::PENDING);
        let on_trial = pending.filter(|pending| pending.revision == self.revision());
        match on_trial.filter(|pending| (1..self.oldest_kept()).contains(&pending.back_to)) {
            Some(pending) => Err(format!("{} cannot be taken back to", pending.back_to)),
            None => Ok(()),
        }
    }

    fn history_is_whole(&self) -> Held {
        let newest = self.revision();
        for revision in self.oldest_kept()..=newest {
            let state = State::of_block(&self.store.block(keys::block_of(revision)), revision)
                .map_err(|broken| broken.to_string())?;
            if state.objects != self.truth[usize::try_from(revision).unwrap()] {
                return Err(format!("the log tells {revision} wrong"));
            }
            if self.objects_at(revision).is_none() {
                return Err(format!("an object of {revision} is not there"));
            }
        }
        Ok(())
    }

    // ---- reading ----

    fn revision(&self) -> u64 {
        self.store
            .read::<Head>(keys::HEAD)
            .map_or(0, |head| head.revision)
    }

    fn oldest_kept(&self) -> u64 {
        let cut = self.store.read(keys::OLDEST).unwrap_or_default();
        garbage::oldest_kept(self.revision(), cut)
    }

    fn current(&self) -> Option<Current> {
        let revision = self.revision();
        let records = self.store.block(keys::block_of(revision));
        let state = State::of_block(&records, revision).ok()?;
        Some(Current {
            objects: self.objects(&state)?,
            state,
            last: records.last().cloned(),
            pending: self
                .store
                .read(keys::PENDING)
                .filter(|pending: &Pending| pending.revision == revision),
        })
    }

    fn objects_at(&self, revision: u64) -> Option<BTreeMap<Name, Object>> {
        let state = State::of_block(&self.store.block(keys::block_of(revision)), revision).ok()?;
        self.objects(&state)
    }

    fn objects(&self, state: &State) -> Option<BTreeMap<Name, Object>> {
        let read = state.objects.iter().map(|(name, digest)| {
            let (_, json) = self.store.entries.get(&keys::object(*digest))?;
            // What it means is of no interest here, and takes long.
            let known = self.contents.iter().find(|known| known.digest == *digest);
            let read = || Object {
                digest: *digest,
                json: json.as_str().into(),
                meaning: self.contents[0].meaning.clone(),
            };
            Some((name.clone(), known.cloned().unwrap_or_else(read)))
        });
        read.collect()
    }

    fn a_name(&mut self) -> Name {
        name(NAMES[usize::try_from(self.random.below(NAMES.len() as u64)).unwrap()])
    }

    fn note(&mut self, who: usize, what: &str) {
        self.steps.push(format!("writer {who} {what}"));
    }
}

fn commit_of(change: &Change, compares: &[Compare; 3]) -> Commit {
    let json = |pending: &Pending| serde_json::to_string(pending).unwrap();
    Commit {
        compares: compares.to_vec(),
        writes: vec![
            (
                keys::log(change.record.revision),
                Some(serde_json::to_string(&change.record).unwrap()),
            ),
            (
                keys::HEAD.to_owned(),
                Some(serde_json::to_string(&change.head).unwrap()),
            ),
            (keys::PENDING.to_owned(), change.pending.as_ref().map(json)),
        ],
        confirms: None,
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn content(number: u64) -> Object {
    let json = format!(
        r#"{{"backend_servers":["10.0.0.1:{}"],"listen":"127.0.0.1:1"}}"#,
        1 + number
    );
    Object::read(&name("x"), Digest::of(&json), &json).unwrap()
}
