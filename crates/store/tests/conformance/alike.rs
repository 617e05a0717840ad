//! Both engines side by side: the same random transactions, and every answer the same.

use evenkeel_store::{Changes, Listing, Revision, Store, Transaction};
use tempfile::TempDir;

use crate::engines::{Cluster, run};

/// Transactions a run.
const STEPS: u32 = 400;

/// A new store of either kind is at the same revision, so that everything that is told can be compared as it is:
/// results, revisions, lists, and at the end all changes.
#[test]
fn both_engines_answer_alike() {
    run(async {
        let folder = TempDir::new().unwrap();
        let embedded = Store::embedded(folder.path()).unwrap();
        let cluster = Cluster::start(1).await;
        let etcd = cluster.store();
        let start = embedded.revision("/r/").await.unwrap();
        assert_eq!(etcd.revision("/r/").await.unwrap(), start);

        let mut dice = Dice(0x5eed);
        let mut committed = 0;
        for step in 0..STEPS {
            let now = embedded.list("/r/").await.unwrap();
            let transaction = random(&mut dice, &now);
            let ours = embedded.commit(transaction.clone()).await.unwrap();
            let theirs = etcd.commit(transaction.clone()).await.unwrap();
            assert_eq!(ours, theirs, "step {step}: {transaction:?}");
            committed += u32::from(ours != evenkeel_store::Committed::Conflict);
        }
        assert!(
            committed > STEPS / 4 && committed < STEPS,
            "{committed} of {STEPS}"
        );
        let listing = embedded.list("/r/").await.unwrap();
        assert_eq!(etcd.list("/r/").await.unwrap(), listing);
        let from = start.next();
        let ours = changes(&embedded, from, listing.revision).await;
        assert_eq!(changes(&etcd, from, listing.revision).await, ours);
    });
}

async fn changes(store: &Store, from: Revision, to: Revision) -> Vec<Changes> {
    let mut watch = store.watch("/r/", from).await.unwrap();
    let mut all = Vec::new();
    while all.last().is_none_or(|last: &Changes| last.revision < to) {
        all.push(watch.next().await.unwrap());
    }
    all
}

/// Some conditions that may hold, some writes and deletions, over eight keys.
fn random(dice: &mut Dice, now: &Listing) -> Transaction {
    let mut transaction = Transaction::new();
    for _ in 0..dice.below(3) {
        let key = format!("/r/{}", dice.below(8));
        let found = now.entries.iter().find(|entry| entry.key == key);
        transaction = match (dice.below(4), found) {
            (0, _) => transaction.absent(key),
            (1, Some(entry)) => transaction.created(key, entry.created),
            (2, Some(entry)) => transaction.unchanged(key, entry.changed),
            (_, Some(entry)) => transaction.unchanged(key, entry.created),
            (_, None) => transaction.absent(key),
        };
    }
    let first = dice.below(8);
    for n in 0..dice.below(4) {
        let key = format!("/r/{}", (first + n) % 8);
        transaction = match dice.below(3) {
            0 => transaction.delete(key),
            _ => transaction.put(key, dice.below(100).to_string()),
        };
    }
    transaction
}

/// Numbers that are the same in each run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
