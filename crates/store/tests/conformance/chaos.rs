//! etcd behind a line that is cut over and over, in the middle of whatever is on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use evenkeel_store::{Committed, EtcdSettings, Happened, Store, Transaction};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::alike::Dice;
use crate::engines::{Cluster, run, until_works};
use crate::watches::Picture;

/// Tasks that write at once.
const WRITERS: u32 = 4;
/// Writes of each.
const EACH: u32 = 250;
/// Bytes that a connection carries, at least and at most: the least is about what opening one takes.
const LIFE: (u64, u64) = (700, 6_000);

/// What is said of each call is true: what succeeded is there; what surely did not happen is never there; only of
/// what may have happened nobody knows. And a follower on the same line has the whole picture once the line holds.
#[test]
fn what_is_said_of_a_call_is_true_however_often_the_line_is_cut() {
    run(async {
        let cluster = Cluster::start(1).await;
        let line = bad_line(cluster.members[0].url.trim_start_matches("http://").to_owned()).await;
        let mut settings = EtcdSettings::new(vec![format!("http://{}", line.place)]);
        // Short, so that some calls run out of time while there is no connection.
        settings.call_timeout = Duration::from_millis(150);
        let store = Store::etcd(settings).unwrap();
        let mut follow = store.follow("/log/").unwrap();

        let writers: Vec<_> = (0..WRITERS)
            .map(|w| tokio::spawn(write(store.clone(), w)))
            .collect();
        let mut said = Vec::new();
        for writer in writers {
            said.extend(writer.await.unwrap());
        }
        let straight = cluster.store();
        straight
            .commit(Transaction::new().put("/log/end", "now"))
            .await
            .unwrap();
        let listing = until_works("a list", async || straight.list("/log/").await).await;

        let mut counts = [0; 3];
        for (key, said) in said {
            let there = listing.entries.iter().any(|entry| entry.key == key);
            match said {
                Said::Done => assert!(there, "{key} was written, and is not there"),
                Said::Failed(Happened::No, why) => assert!(!there, "{key} is there in spite of: {why}"),
                Said::Failed(Happened::Unknown, _) => counts[1] += 1,
            }
            counts[usize::from(!there) * 2] += 1;
        }
        let cuts = line.cuts.load(Ordering::Relaxed);
        line.holds.store(true, Ordering::Relaxed);
        println!("{cuts} cuts; there, unknown, not there: {counts:?}");
        assert!(cuts > 10 && counts[0] > 100 && counts[1] > 0, "{cuts} {counts:?}");

        let mut picture = Picture::default();
        picture.until_shows(&mut follow, "/log/end", "now").await;
        assert!(picture.cuts > 0);
        assert!(
            picture
                .entries
                .keys()
                .eq(listing.entries.iter().map(|entry| &entry.key))
        );
    });
}

enum Said {
    Done,
    Failed(Happened, String),
}

/// Writes keys that nobody else writes, and notes what was said of each.
async fn write(store: Store, writer: u32) -> Vec<(String, Said)> {
    let mut all = Vec::new();
    for n in 0..EACH {
        let key = format!("/log/{writer}/{n:04}");
        let said = match store.commit(Transaction::new().put(key.clone(), "v")).await {
            Ok(Committed::Done(_)) => Said::Done,
            Ok(Committed::Conflict) => panic!("nothing was compared"),
            Err(error) => Said::Failed(error.happened(), error.to_string()),
        };
        all.push((key, said));
    }
    all
}

struct Line {
    place: SocketAddr,
    /// Connections that ended.
    cuts: Arc<AtomicU32>,
    /// New connections are not cut any more.
    holds: Arc<AtomicBool>,
}

/// A line to `to` whose connections end without warning, after a number of bytes that is different each time.
async fn bad_line(to: String) -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let line = Line {
        place: listener.local_addr().unwrap(),
        cuts: Arc::default(),
        holds: Arc::default(),
    };
    let (cuts, holds) = (Arc::clone(&line.cuts), Arc::clone(&line.holds));
    tokio::spawn(async move {
        let mut dice = Dice(0xc07);
        loop {
            let (near, _) = listener.accept().await.unwrap();
            let far = TcpStream::connect(&to).await.unwrap();
            let life = match holds.load(Ordering::Relaxed) {
                true => u64::MAX,
                false => LIFE.0 + dice.below(LIFE.1 - LIFE.0),
            };
            let cuts = Arc::clone(&cuts);
            tokio::spawn(async move {
                carry(near, far, usize::try_from(life).unwrap()).await;
                cuts.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    line
}

/// Carries `life` bytes, in both directions together, then drops the line. The last bytes may be half a frame.
async fn carry(mut near: TcpStream, mut far: TcpStream, mut life: usize) {
    let (mut up, mut down) = ([0; 1024], [0; 1024]);
    while life > 0 {
        let carried = tokio::select! {
            read = near.read(&mut up) => pass(read, &up, &mut far, life).await,
            read = far.read(&mut down) => pass(read, &down, &mut near, life).await,
        };
        match carried {
            0 => return,
            bytes => life -= bytes,
        }
    }
}

async fn pass(read: std::io::Result<usize>, bytes: &[u8], to: &mut TcpStream, life: usize) -> usize {
    let count = read.unwrap_or_default().min(life);
    match to.write_all(&bytes[..count]).await {
        Ok(()) => count,
        Err(_) => 0,
    }
}
