//! Who collects garbage, with as many bytes for the history as chance will have it.

use std::collections::BTreeMap;

use evenkeel_reconcile::desired::garbage;
use evenkeel_reconcile::desired::records::{Digest, LogRecord, Pending, keys};

use super::{Commit, World};

/// Where a collector is.
pub(super) enum Collector {
    Idle,
    Began {
        head: u64,
        garbage: u64,
        revision: u64,
    },
    Knows {
        head: u64,
        garbage: u64,
        revision: u64,
        dead: Vec<String>,
        /// The oldest revision that is to be kept, where the bytes say so.
        cut: Option<u64>,
    },
}

/// What is to be deleted, and where the history is cut.
type Dead = (Vec<String>, Option<u64>);

impl World {
    pub(super) fn collect(&mut self, collector: Collector) -> Result<Collector, String> {
        Ok(match collector {
            Collector::Idle => Collector::Began {
                head: self.store.at(keys::HEAD),
                garbage: self.store.at(keys::GARBAGE),
                revision: self.revision(),
            },
            Collector::Began {
                head,
                garbage,
                revision,
            } => {
                let Some((dead, cut)) = self.dead(revision)? else {
                    return Ok(Collector::Idle);
                };
                Collector::Knows {
                    head,
                    garbage,
                    revision,
                    dead,
                    cut,
                }
            }
            Collector::Knows { dead, .. } if dead.is_empty() => Collector::Idle,
            Collector::Knows {
                head,
                garbage,
                revision,
                dead,
                cut,
            } => {
                let number: u64 = self.store.read(keys::GARBAGE).unwrap_or(0);
                let mut writes: Vec<_> = dead.iter().map(|key| (key.clone(), None)).collect();
                writes.push((keys::GARBAGE.to_owned(), Some((number + 1).to_string())));
                writes.extend(cut.map(|cut| (keys::OLDEST.to_owned(), Some(cut.to_string()))));
                let compares = vec![(keys::HEAD, head), (keys::GARBAGE, garbage)];
                if self.commit(&Commit {
                    compares,
                    writes,
                    confirms: None,
                })? {
                    let objects = dead.iter().filter(|key| key.starts_with(keys::OBJECTS)).count() as u64;
                    self.seen.objects_collected += objects;
                    self.seen.blocks_collected += u64::from(objects < dead.len() as u64);
                    self.seen.cut += u64::from(cut.is_some());
                    self.steps
                        .push(format!("collected {} at {revision}, cut at {cut:?}", dead.len()));
                    if self.truth.len() < 200 {
                        self.history_is_whole()?;
                    }
                }
                Collector::Idle
            }
        })
    }

    /// What nothing needs any more, or the first of it; none when the head has gone on. How many bytes there are for the
    /// history is another number each time, and now and then there is no room at all.
    fn dead(&mut self, revision: u64) -> Result<Option<Dead>, String> {
        let oldest = self.oldest_kept();
        let log = self.store.list(keys::LOG).into_iter();
        let sized = |key: String| {
            (
                self.store.read::<LogRecord>(&key).unwrap(),
                self.store.entries[&key].1.len() as u64,
            )
        };
        let (old, records): (Vec<_>, Vec<_>) = log
            .map(sized)
            .partition(|(record, _)| keys::block_of(record.revision) < keys::block_of(oldest));
        if records.last().map_or(0, |(record, _)| record.revision) != revision {
            return Ok(None);
        }
        let digest = |key: &String| Digest::try_from(key[keys::OBJECTS.len()..].to_owned()).unwrap();
        let objects = self.store.list(keys::OBJECTS);
        let sizes = objects
            .iter()
            .map(|key| (digest(key), self.store.entries[key].1.len() as u64));
        let sizes: BTreeMap<Digest, u64> = sizes.collect();
        let pending: Option<Pending> = self.store.read(keys::PENDING);
        let back_to = pending.filter(|pending| pending.revision == revision);
        let back_to = back_to.map_or(u64::MAX, |pending| pending.back_to);
        let wanted = match self.random.below(4) {
            0 => garbage::Wanted {
                bytes: 0,
                spared: back_to,
            },
            1 => garbage::Wanted {
                bytes: self.random.below(5000),
                spared: back_to.min(revision.saturating_sub(1)),
            },
            _ => garbage::Wanted {
                bytes: garbage::KEEP_BYTES,
                spared: back_to,
            },
        };
        let kept = garbage::kept(&records, &sizes, oldest, wanted).map_err(|broken| broken.to_string())?;
        let records = old.iter().chain(&records).map(|(record, _)| record.revision);
        let records = records.filter(|revision| keys::block_of(*revision) < keys::block_of(kept.oldest));
        let objects = sizes.keys().filter(|digest| !kept.needed.contains(*digest));
        let dead = records
            .map(keys::log)
            .chain(objects.map(|digest| keys::object(*digest)));
        let mut dead: Vec<String> = dead.collect();
        if self.random.chance(300) {
            dead.truncate(1 + dead.len() / 2);
        }
        Ok(Some((dead, (kept.oldest > oldest).then_some(kept.oldest))))
    }
}
