//! What stands in the store of members, and what this node wants to stand there.
//!
//! An instance says everything again with each registration, so a write that loses a race is not fought for: what the
//! other one wrote counts, and the instance's next word is held against that.

use std::collections::BTreeMap;

use model::state::BackendId;

use super::MemberRecord;

/// Least time between two writes of what one member says of itself: whoever changes its mind more often is written
/// with what it said last.
pub const FACTS_EVERY_MS: u64 = 1_000;
/// Pause after a write that failed.
pub const RETRY_MS: u64 = 1_000;

/// A write that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Whose record.
    pub backend: BackendId,
    /// Only while its last change is of this revision; `None`: while there is none.
    pub seen: Option<u64>,
    /// What is to stand there; `None`: nothing.
    pub put: Option<MemberRecord>,
}

/// What became of a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was made, by this revision.
    Done(u64),
    /// Something else stood there.
    Lost,
    /// It may have been made or not: it is tried again.
    Failed,
}

#[derive(Clone, Debug)]
struct Wish {
    put: Option<MemberRecord>,
    since_ms: u64,
    /// Since when anything waits to be written of this member.
    waits_since_ms: u64,
    not_before_ms: u64,
}

/// A write on its way.
#[derive(Clone, Debug)]
struct UnderWay {
    put: Option<MemberRecord>,
    /// Of the last change that was seen since it went.
    seen: Option<u64>,
    /// It went to a store that is not there any more, perhaps: its answer says nothing.
    of_before: bool,
}

/// Records and wishes. There are at most as many wishes as members that were ever heard here and are not settled.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// What stands there, and by which revision; `None`: something that cannot be read.
    records: BTreeMap<BackendId, (u64, Option<MemberRecord>)>,
    wishes: BTreeMap<BackendId, Wish>,
    under_way: BTreeMap<BackendId, UnderWay>,
    /// Own writes that were made and are not seen yet: what is seen of before is old.
    ahead: BTreeMap<BackendId, u64>,
    /// When a record was last written or removed here, within [`FACTS_EVERY_MS`].
    written_ms: BTreeMap<BackendId, u64>,
}

impl Book {
    pub(super) fn record(&self, backend: &BackendId) -> Option<&MemberRecord> {
        self.records.get(backend)?.1.as_ref()
    }

    /// Whether anything stands there, readable or not.
    pub(super) fn stands(&self, backend: &BackendId) -> bool {
        self.records.contains_key(backend)
    }

    /// Whether nothing stands there, and nothing is about to.
    pub(super) fn has_nothing(&self, backend: &BackendId) -> bool {
        !self.stands(backend) && !self.wishes.contains_key(backend) && !self.under_way.contains_key(backend)
    }

    /// Whether the member has gone here, and its record is about to.
    pub(super) fn is_leaving(&self, backend: &BackendId) -> bool {
        self.wishes.get(backend).is_some_and(|wish| wish.put.is_none())
    }

    /// This is to stand in the store.
    pub(super) fn wish(&mut self, now_ms: u64, backend: &BackendId, put: Option<MemberRecord>) {
        let same = match &put {
            Some(put) => self.record(backend) == Some(put),
            None => !self.stands(backend),
        };
        if same && !self.under_way.contains_key(backend) {
            self.wishes.remove(backend);
            return;
        }
        let written = self.written_ms.get(backend);
        let not_before_ms = written.map_or(now_ms, |at| at.saturating_add(FACTS_EVERY_MS));
        let waits = self.wishes.get(backend).map(|wish| wish.waits_since_ms);
        let wish = Wish {
            put,
            since_ms: now_ms,
            waits_since_ms: waits.unwrap_or(now_ms),
            not_before_ms,
        };
        self.wishes.insert(backend.clone(), wish);
    }

    /// It is not to be written after all, unless it goes.
    pub(super) fn unwish(&mut self, backend: &BackendId) {
        if !self.is_leaving(backend) {
            self.wishes.remove(backend);
        }
    }

    /// A member that has gone here was heard elsewhere at that time: when that was later, its record stays, and is told.
    /// Where its farewell is under way already, it is back with its next word.
    pub(super) fn heard(&mut self, backend: &BackendId, at_ms: u64) -> Option<&MemberRecord> {
        let wish = self.wishes.get(backend)?;
        if wish.put.is_some() || wish.since_ms >= at_ms || self.under_way.contains_key(backend) {
            return None;
        }
        self.wishes.remove(backend);
        self.record(backend)
    }

    /// Records that are to go stay until then, and for the time of their members.
    pub(super) fn put_off(&mut self, until_ms: u64) {
        for (backend, wish) in self.wishes.iter_mut().filter(|(_, wish)| wish.put.is_none()) {
            let time_ms = self.records.get(backend).and_then(|(_, record)| record.as_ref());
            let time_ms = time_ms.map_or(0, |record| record.ttl_ms);
            wish.not_before_ms = wish.not_before_ms.max(until_ms.saturating_add(time_ms));
        }
    }

    /// Writes to be made now, at most so many at once with those that are under way: of those who wait longest.
    pub(super) fn take(&mut self, now_ms: u64, most: usize) -> Vec<Write> {
        self.written_ms
            .retain(|_, at| at.saturating_add(FACTS_EVERY_MS) > now_ms);
        self.forget_old(now_ms);
        let room = most.saturating_sub(self.under_way.len());
        if room == 0 {
            return Vec::new();
        }
        let due = self
            .wishes
            .iter()
            .filter(|(backend, wish)| wish.not_before_ms <= now_ms && !self.under_way.contains_key(*backend));
        let mut due: Vec<(&BackendId, &Wish)> = due.collect();
        if due.len() > room {
            due.select_nth_unstable_by_key(room, |(backend, wish)| (wish.waits_since_ms, *backend));
            due.truncate(room);
        }
        let due: Vec<Write> = due
            .into_iter()
            .map(|(backend, wish)| Write {
                backend: backend.clone(),
                seen: self.records.get(backend).map(|(revision, _)| *revision),
                put: wish.put.clone(),
            })
            .collect();
        for write in &due {
            let under_way = UnderWay {
                put: write.put.clone(),
                seen: None,
                of_before: false,
            };
            self.under_way.insert(write.backend.clone(), under_way);
            if let Some(wish) = self.wishes.get_mut(&write.backend) {
                wish.waits_since_ms = now_ms;
            }
        }
        due
    }

    /// Whose time was over before it could be written says everything again when it lives.
    fn forget_old(&mut self, now_ms: u64) {
        self.wishes.retain(|_, wish| {
            let put = wish.put.as_ref();
            put.is_none_or(|put| wish.since_ms.saturating_add(put.ttl_ms) > now_ms)
        });
    }

    /// What became of one; says whether it is known what else stood there when it was lost.
    pub(super) fn made(&mut self, now_ms: u64, backend: &BackendId, outcome: Outcome) -> bool {
        let Some(UnderWay { put, seen, of_before }) = self.under_way.remove(backend) else {
            return false;
        };
        let same = self.wishes.get(backend).is_some_and(|wish| wish.put == put);
        let outcome = if of_before { Outcome::Failed } else { outcome };
        match outcome {
            Outcome::Done(revision) => {
                if same {
                    self.wishes.remove(backend);
                }
                self.written_ms.insert(backend.clone(), now_ms);
                self.delay(backend, now_ms.saturating_add(FACTS_EVERY_MS));
                if seen.is_some_and(|seen| seen >= revision) {
                    return false;
                }
                let changed = match put {
                    Some(record) => {
                        self.records.insert(backend.clone(), (revision, Some(record)));
                        true
                    }
                    None => self.records.remove(backend).is_some(),
                };
                // Where nothing stood, nothing will be seen of it.
                if changed {
                    self.ahead.insert(backend.clone(), revision);
                }
            }
            Outcome::Lost => {
                if same {
                    self.wishes.remove(backend);
                }
                // Until what stands there is seen, the next write would be lost, too.
                self.written_ms.insert(backend.clone(), now_ms);
                self.delay(backend, now_ms.saturating_add(FACTS_EVERY_MS));
            }
            Outcome::Failed => self.delay(backend, now_ms.saturating_add(RETRY_MS)),
        }
        outcome == Outcome::Lost && seen.is_some()
    }

    /// Nothing is written of this member until then.
    fn delay(&mut self, backend: &BackendId, until_ms: u64) {
        if let Some(wish) = self.wishes.get_mut(backend) {
            wish.not_before_ms = wish.not_before_ms.max(until_ms);
        }
    }

    /// What is seen from now on is of another store: its revisions are others, and what is on its way may have gone to
    /// either.
    pub(super) fn begin_anew(&mut self) {
        self.ahead.clear();
        for under_way in self.under_way.values_mut() {
            under_way.of_before = true;
        }
    }

    /// A record was seen in the store, or that there is none any more; whether that is news, and not of this node.
    pub(super) fn see(&mut self, backend: &BackendId, revision: u64, record: Option<MemberRecord>) -> bool {
        if self.is_known(backend, revision) {
            return false;
        }
        let under_way = self.under_way.get_mut(backend);
        let own = under_way.is_some_and(|under_way| {
            under_way.seen = Some(revision);
            under_way.put == record
        });
        match record {
            Some(record) => {
                if !own {
                    self.yield_to(backend, &record);
                }
                self.records.insert(backend.clone(), (revision, Some(record)));
            }
            None => {
                self.records.remove(backend);
                if !own {
                    self.wishes.remove(backend);
                }
            }
        }
        !own
    }

    /// Something stands there that cannot be read. It says nothing, so what is to be written is written all the same, in
    /// its place.
    pub(super) fn unread(&mut self, backend: &BackendId, revision: u64) {
        if self.is_known(backend, revision) {
            return;
        }
        if let Some(under_way) = self.under_way.get_mut(backend) {
            under_way.seen = Some(revision);
        }
        self.records.insert(backend.clone(), (revision, None));
    }

    /// Whether what is seen is an own write, or of before that.
    fn is_known(&mut self, backend: &BackendId, revision: u64) -> bool {
        let Some(ahead) = self.ahead.get(backend).copied() else {
            return false;
        };
        if revision >= ahead {
            self.ahead.remove(backend);
        }
        revision <= ahead
    }

    /// Somebody else has written: what was to be written here is of before, unless the member has gone in that life.
    fn yield_to(&mut self, backend: &BackendId, record: &MemberRecord) {
        let life = self.record(backend).map(|known| known.life);
        if !(self.is_leaving(backend) && life == Some(record.life)) {
            self.wishes.remove(backend);
        }
    }

    /// All that stands in the store at a revision; says whose records are gone.
    pub(super) fn list<'a>(
        &mut self,
        now_ms: u64,
        revision: u64,
        there: impl Fn(&BackendId) -> bool + 'a,
    ) -> Vec<BackendId> {
        self.forget_old(now_ms);
        self.ahead.retain(|_, ahead| *ahead > revision);
        for under_way in self.under_way.values_mut() {
            // Whatever was made up to here is in the list, or has gone again.
            under_way.seen = under_way.seen.max(Some(revision));
        }
        let gone = self
            .records
            .keys()
            .filter(|backend| !there(backend) && !self.ahead.contains_key(*backend));
        let gone: Vec<BackendId> = gone.cloned().collect();
        for backend in &gone {
            self.records.remove(backend);
        }
        gone
    }

    /// How many records stand in the store.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// How many writes wait or are under way.
    pub(super) fn waiting(&self) -> usize {
        self.wishes.len()
    }
}

#[cfg(test)]
mod tests {
    use model::config::Name;
    use model::state::Listed;

    use super::*;

    fn member() -> BackendId {
        BackendId {
            load_balancer: Name::parse("shop").unwrap(),
            pool: Name::parse("default").unwrap(),
            address: ([10, 0, 0, 1], 80).into(),
        }
    }

    fn is_empty(book: &Book) -> bool {
        let known = book.records.is_empty() && book.wishes.is_empty() && book.under_way.is_empty();
        known && book.ahead.is_empty() && book.written_ms.is_empty()
    }

    /// Scenario: a member goes, and that its record is gone is seen before the answer to the write comes: nothing of it
    /// is kept.
    #[test]
    fn nothing_is_kept_of_who_went() {
        let member = member();
        let mut book = Book::default();
        book.wish(0, &member, Some(MemberRecord::of(&Listed::default(), 15_000)));
        assert_eq!(book.take(0, 10).len(), 1);
        book.made(0, &member, Outcome::Done(1));
        book.wish(2_000, &member, None);
        assert_eq!(book.take(2_000, 10).len(), 1);
        assert!(!book.see(&member, 2, None));
        book.made(2_050, &member, Outcome::Done(2));
        assert_eq!(book.take(4_000, 10), []);
        assert!(is_empty(&book));
    }

    /// Scenario: a member comes and goes; the answer to its first write is lost, and that was not made. So its farewell
    /// finds nothing there: nothing of it is kept.
    #[test]
    fn nothing_is_kept_of_who_was_never_there() {
        let (member, mut book) = (member(), Book::default());
        book.wish(0, &member, Some(MemberRecord::of(&Listed::default(), 15_000)));
        assert_eq!(book.take(0, 10).len(), 1);
        book.wish(500, &member, None);
        book.made(4_000, &member, Outcome::Failed);
        let [
            Write {
                seen: None,
                put: None,
                ..
            },
        ] = book.take(5_000, 10)[..]
        else {
            panic!("{book:?}");
        };
        book.made(5_050, &member, Outcome::Done(7));
        assert_eq!(book.take(7_000, 10), []);
        assert!(is_empty(&book), "{book:?}");
    }
}
