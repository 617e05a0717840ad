//! What can happen to a file: crashes at any point, a full disk, a second process, foreign bytes.
//!
//! What must happen to a process happens to this very program, started again as a child that runs one test alone
//! and finds its folder in the environment.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use evenkeel_store::{Committed, ErrorKind, Fault, Happened, Standing, Store, Transaction};
use tempfile::TempDir;

use crate::alike::Dice;
use crate::engines::{run, until};
use crate::transactions::{done, put};

/// Names the folder to a child.
const FOLDER: &str = "EVENKEEL_STORE_TEST_FOLDER";
/// Crashes of the test below.
const CRASHES: u32 = 60;
/// Tasks of the child that write at once, each to a key of its own.
const WRITERS: u64 = 4;

/// This test again, as a child, with `before` put in front of its command.
fn child(test: &str, folder: &Path, before: &[&str]) -> Child {
    let me = std::env::current_exe().unwrap();
    let mut command = match before {
        [] => Command::new(&me),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&me);
            command
        }
    };
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn folder_of_child() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// A process that writes is killed at random points, again and again. Whatever it had acknowledged is there, in
/// full; a transaction is there whole or not at all; and the next process goes on from there.
#[test]
fn nothing_that_was_acknowledged_is_lost_in_a_crash() {
    if let Some(folder) = folder_of_child() {
        return run(write_until_killed(folder));
    }
    let folder = TempDir::new().unwrap();
    let mut dice = Dice(0xdead);
    let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
    for crash in 0..CRASHES {
        let mut child = child(
            "embedded::nothing_that_was_acknowledged_is_lost_in_a_crash",
            folder.path(),
            &[],
        );
        // The lines that came before the crash count, all of them: also those read after it.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let patience = dice.below(40);
        let mut seen = 0;
        while seen < patience {
            let line = lines
                .next()
                .expect("the child writes until it is killed")
                .unwrap();
            seen += u64::from(note(&line, &mut acknowledged));
        }
        // Not right after a line, where nothing may be under way, but anywhere.
        for _ in 0..dice.below(2000) {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            note(&line, &mut acknowledged);
        }
        run(verify(folder.path(), &mut acknowledged, crash));
    }
    assert!(
        acknowledged.values().sum::<u64>() > u64::from(CRASHES),
        "{acknowledged:?}"
    );
}

/// Takes in a line of the child: `ack WRITER NUMBER`. A line that the crash cut off is none.
fn note(line: &str, acknowledged: &mut BTreeMap<u64, u64>) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let ["ack", writer, number, "."] = words[..] else {
        return false;
    };
    acknowledged.insert(writer.parse().unwrap(), number.parse().unwrap());
    true
}

/// Holds what is there to what was acknowledged; what is there now must be there after the next crash too.
async fn verify(folder: &Path, acknowledged: &mut BTreeMap<u64, u64>, crash: u32) {
    let store = Store::embedded(folder).unwrap();
    for writer in 0..WRITERS {
        let number = acknowledged.get(&writer).copied().unwrap_or_default();
        let (a, b) = (value(&store, writer, "a").await, value(&store, writer, "b").await);
        assert!(
            a >= number,
            "crash {crash}: writer {writer} is back at {a}, {number} was acknowledged"
        );
        assert!(
            a <= number + 1,
            "crash {crash}: writer {writer} at {a}, but asked for {number} and one more"
        );
        assert_eq!(a, b, "crash {crash}: half a transaction");
        acknowledged.insert(writer, a);
    }
}

/// The number that a key holds; 0 when it is not there.
async fn value(store: &Store, writer: u64, part: &str) -> u64 {
    let entry = store.get(&format!("/crash/{writer}/{part}")).await.unwrap();
    entry.map_or(0, |entry| {
        String::from_utf8_lossy(&entry.value)
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    })
}

/// The child: each task counts up, in two keys at once, and says so after each.
async fn write_until_killed(folder: PathBuf) {
    let store = Store::embedded(&folder).unwrap();
    // The test's name stands on this line already.
    println!();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(count_up(store.clone(), writer));
    }
    // None of them ends but by failing.
    panic!("{:?}", writers.join_next().await);
}

async fn count_up(store: Store, writer: u64) {
    let key = |part: &str| format!("/crash/{writer}/{part}");
    let entry = store.get(&key("a")).await.unwrap();
    let text = entry.map_or_else(|| "0".into(), |entry| entry.value);
    let first: u64 = String::from_utf8_lossy(&text)
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    for number in first + 1.. {
        // Values of different sizes move pages of the file.
        let value = format!(
            "{number} {}",
            "x".repeat(usize::try_from(number % 50 * 100).unwrap())
        );
        let both = Transaction::new()
            .put(key("a"), value.clone())
            .put(key("b"), value);
        assert!(matches!(store.commit(both).await.unwrap(), Committed::Done(_)));
        let mut out = std::io::stdout().lock();
        writeln!(out, "ack {writer} {number} .").unwrap();
        out.flush().unwrap();
    }
}

/// The disk is full: a write fails, says so and did not happen; reads and watches go on; once there is room, writes
/// work again, and all that was acknowledged is there, also for the next process.
///
/// As root on a file system of its own in memory; else by a bound on the size of files.
#[test]
fn a_full_disk_stops_writes_and_nothing_else() {
    if let Some(folder) = folder_of_child() {
        return run(fill_the_disk(folder));
    }
    let test = "embedded::a_full_disk_stops_writes_and_nothing_else";
    let folder = TempDir::new().unwrap();
    let tiny = format!(
        "mount -t tmpfs -o size=8m none '{}' && exec \"$@\"",
        folder.path().display()
    );
    let mounts = Command::new("unshare")
        .args(["--mount", "sh", "-c", &tiny, "sh", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    // Blocks of 512 bytes; the signal that would end the child is ignored, so that the write fails instead.
    let bounded = "trap '' XFSZ; ulimit -S -f 8192; exec \"$@\"";
    let before = match mounts {
        true => vec!["unshare", "--mount", "sh", "-c", &tiny, "sh"],
        false => vec!["sh", "-c", bounded, "sh"],
    };
    let mut child = child(test, folder.path(), &before);
    let mut talk = Talk {
        lines: BufReader::new(child.stdout.take().unwrap()),
        input: child.stdin.take().unwrap(),
    };
    talk.wait_for("full");
    if mounts {
        talk.say("remove the ballast");
    } else {
        let pid = child.id().to_string();
        let raised = Command::new("prlimit")
            .args(["--pid", &pid, "--fsize=unlimited"])
            .status()
            .unwrap();
        assert!(raised.success());
        talk.say("there is room");
    }
    talk.wait_for("done");
    assert!(child.wait().unwrap().success());
}

/// Both ends of a conversation with a child.
struct Talk {
    lines: BufReader<ChildStdout>,
    input: ChildStdin,
}

impl Talk {
    fn wait_for(&mut self, wanted: &str) {
        let mut line = String::new();
        while line.trim() != wanted {
            line.clear();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "the child ended before it was {wanted}"
            );
        }
    }

    fn say(&mut self, words: &str) {
        writeln!(self.input, "{words}").unwrap();
        self.input.flush().unwrap();
    }
}

async fn fill_the_disk(folder: PathBuf) {
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![1; 3 * 1024 * 1024]).unwrap();
    let store = Store::embedded(&folder.join("store")).unwrap();
    let mut follow = store.follow("/d/").unwrap();
    let mut picture = crate::watches::Picture::default();
    picture.look(&mut follow).await;
    let mut written = 0;
    let error = loop {
        let value = vec![u8::try_from(written % 251).unwrap(); 50_000];
        let key = format!("/d/{written:04}");
        match store
            .commit(Transaction::new().absent(key.clone()).put(key, value))
            .await
        {
            Ok(outcome) => assert!(matches!(outcome, Committed::Done(_))),
            Err(error) => break error,
        }
        written += 1;
        assert!(written < 1000, "the disk does not get full");
    };
    assert_eq!(
        (error.kind(), error.happened()),
        (ErrorKind::Full, Happened::No),
        "{error}"
    );
    assert_eq!((error.fault(), error.retry_helps()), (Fault::Operator, false));
    assert!(error.detail().contains("store.redb"), "{error}");
    let refused = store
        .commit(Transaction::new().put("/d/large", vec![0; 1_000_000]))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.kind(), refused.happened()),
        (ErrorKind::Full, Happened::No),
        "{refused}"
    );
    all_there(&store, written).await;
    while picture.entries.len() < written {
        picture.look(&mut follow).await;
    }
    assert_eq!(store.status().await.unwrap().trouble.len(), 1);

    println!("\nfull");
    std::io::stdout().flush().unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    if line.contains("ballast") {
        std::fs::remove_file(&ballast).unwrap();
    }
    let last = put(&store, "/d/last", "room").await;
    assert_eq!(store.status().await.unwrap().trouble, Vec::<String>::new());
    picture.until_shows(&mut follow, "/d/last", "room").await;
    assert_eq!((picture.revision, picture.lists, picture.cuts), (last, 1, 0));
    drop(follow);
    drop(store);
    let store = until("the file to be free", async || {
        Store::embedded(&folder.join("store")).ok()
    })
    .await;
    all_there(&store, written).await;
    assert_eq!(store.get("/d/last").await.unwrap().unwrap().value, "room");
    println!("\ndone");
}

async fn all_there(store: &Store, written: usize) {
    let entries = store.list("/d/0").await.unwrap().entries;
    assert_eq!(entries.len(), written);
    for (n, entry) in entries.iter().enumerate() {
        assert_eq!(
            (entry.value.len(), usize::from(entry.value[0])),
            (50_000, n % 251)
        );
    }
}

/// Everything is there after a restart: entries with their revisions, leases, the revision of the whole.
#[test]
fn a_restart_finds_everything() {
    run(async {
        let folder = TempDir::new().unwrap();
        let store = Store::embedded(folder.path()).unwrap();
        let first = store.grant(600).await.unwrap();
        let lease = first.lease;
        put(&store, "/a", "1").await;
        done(&store, Transaction::new().put_leased("/b", "2", lease)).await;
        put(&store, "/a", "3").await;
        put(&store, "/gone", "4").await;
        let last = done(&store, Transaction::new().delete("/gone")).await;
        let before = store.list("/").await.unwrap();
        assert_eq!(before.revision, last);
        drop(store);

        let store = Store::embedded(folder.path()).unwrap();
        assert_eq!(store.list("/").await.unwrap(), before);
        assert!(store.lease_left(lease).await.unwrap().unwrap().left > Duration::from_secs(300));
        assert_ne!(store.grant(600).await.unwrap().lease, lease);
        // What changed before is no longer kept.
        let mut watch = store.watch("/", last).await.unwrap();
        assert_eq!(watch.next().await.unwrap_err().kind(), ErrorKind::Compacted);
        let mut watch = store.watch("/", last.next()).await.unwrap();
        store.revoke(lease).await.unwrap();
        assert_eq!(watch.next().await.unwrap().revision, last.next());
        assert_eq!(store.get("/b").await.unwrap(), None);
    });
}

/// While the process was away nobody could keep the lease: it has its whole time again, and then ends.
#[test]
fn after_a_restart_a_lease_has_its_whole_time() {
    run(async {
        let folder = TempDir::new().unwrap();
        let store = Store::embedded(folder.path()).unwrap();
        let held = store.hold(6).await.unwrap();
        done(&store, Transaction::new().put_leased("/l", "v", held.lease())).await;
        let lease = held.lease();
        drop(held);
        drop(store);
        let (before, store) = until("the file to be free", async || {
            let before = Instant::now();
            Some((before, Store::embedded(folder.path()).ok()?))
        })
        .await;
        assert!(store.get("/l").await.unwrap().is_some());
        until("the end of the lease", async || {
            match store.get("/l").await.unwrap() {
                None => Some(()),
                Some(_) => None,
            }
        })
        .await;
        let lasted = before.elapsed();
        assert!(lasted >= Duration::from_secs(6), "{lasted:?}");
        assert_eq!(
            store.keep_alive(lease).await.unwrap_err().kind(),
            ErrorKind::LeaseGone
        );
    });
}

/// A holder learns that its lease was ended by somebody else.
#[test]
fn who_holds_a_lease_learns_of_its_end() {
    run(async {
        let folder = TempDir::new().unwrap();
        let store = Store::embedded(folder.path()).unwrap();
        let held = store.hold(1).await.unwrap();
        store.revoke(held.lease()).await.unwrap();
        let mut standing = held.standing();
        assert_eq!(
            *standing
                .wait_for(|standing| *standing == Standing::Gone)
                .await
                .unwrap(),
            Standing::Gone
        );
    });
}

/// One process has the file; the next gets it once that has let go.
#[test]
fn a_second_owner_is_refused() {
    run(async {
        let folder = TempDir::new().unwrap();
        let first = Store::embedded(folder.path()).unwrap();
        let error = Store::embedded(folder.path()).unwrap_err();
        assert_eq!(
            (error.kind(), error.fault()),
            (ErrorKind::InUse, Fault::Operator),
            "{error}"
        );
        put(&first, "/k", "v").await;
        let second_handle = first.clone();
        drop(first);
        assert_eq!(
            Store::embedded(folder.path()).unwrap_err().kind(),
            ErrorKind::InUse
        );
        drop(second_handle);
        let next = Store::embedded(folder.path()).unwrap();
        assert!(next.get("/k").await.unwrap().is_some());
    });
}

/// A file of something else is refused, named, and left as it is.
#[test]
fn a_foreign_file_is_refused_and_left_alone() {
    for bytes in [&b"this is no store"[..], &[0; 8192], b""] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("store.redb");
        std::fs::write(&path, bytes).unwrap();
        match Store::embedded(folder.path()) {
            Ok(_) => assert!(bytes.is_empty(), "an empty file is a new store"),
            Err(error) => {
                assert_eq!(
                    (error.kind(), error.fault()),
                    (ErrorKind::Damaged, Fault::Operator),
                    "{error}"
                );
                assert!(error.detail().contains("store.redb"), "{error}");
                assert_eq!(std::fs::read(&path).unwrap(), bytes);
            }
        }
    }
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let error = Store::embedded(&folder.path().join("file")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk, "{error}");
}

/// A queue that is full is told at once, as something that passes; what was accepted is done.
#[test]
fn more_writes_than_can_wait_are_refused() {
    run(async {
        let folder = TempDir::new().unwrap();
        let store = Store::embedded(folder.path()).unwrap();
        let writes: Vec<_> = (0..20_000)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(
                    async move { store.commit(Transaction::new().put(format!("/n/{n}"), "v")).await },
                )
            })
            .collect();
        let mut accepted = 0;
        for write in writes {
            match write.await.unwrap() {
                Ok(_) => accepted += 1,
                Err(error) => {
                    assert_eq!((error.kind(), error.happened()), (ErrorKind::Busy, Happened::No));
                    assert!(error.retry_helps());
                }
            }
        }
        let listing = store.list("/n/").await.unwrap();
        assert_eq!(listing.entries.len(), accepted);
        assert!(accepted >= 1024, "{accepted}");
    });
}
