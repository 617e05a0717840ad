//! Changes whose answer is lost on the way back from etcd: whoever made one is never told that nothing was changed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use evenkeel_cluster::desired::Ledger;
use evenkeel_cluster::{Space, Store};
use model::desired::{Change, ChangeQuery, Text};
use model::parse::parse_toml;
use model::plan::Format;
use model::state::Timestamp;
use peers::Etcd;
use reconcile::desired::records::keys;
use store::EtcdSettings;

/// Carries connections to etcd, and swallows answers to transactions that write a key.
#[derive(Clone)]
struct Thief {
    address: SocketAddr,
    /// The key of which it watches the writes.
    of: Arc<Mutex<String>>,
    /// Answers that it will swallow.
    swallows: Arc<AtomicU32>,
    /// Lets nobody through any more.
    shut: Arc<AtomicBool>,
}

impl Thief {
    fn start(etcd: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let thief = Self {
            address: listener.local_addr().unwrap(),
            of: Arc::default(),
            swallows: Arc::default(),
            shut: Arc::default(),
        };
        let (working, etcd) = (thief.clone(), etcd.trim_start_matches("http://").to_owned());
        // They end with the process of the test.
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if working.shut.load(SeqCst) {
                    continue;
                }
                let (thief, server) = (working.clone(), TcpStream::connect(&etcd).unwrap());
                thread::spawn(move || thief.carry(&client, &server));
            }
        });
        thief
    }

    fn swallow(&self, times: u32, key: String) {
        *self.of.lock().unwrap() = key;
        self.swallows.store(times, SeqCst);
    }

    fn carry(&self, client: &TcpStream, server: &TcpStream) {
        let caught = Arc::new(AtomicU32::new(0));
        let (thief, seen) = (self.clone(), caught.clone());
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                if thief.is_caught(&bytes[..count]) {
                    seen.store(1, SeqCst);
                }
                if to.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            drop(to.shutdown(Shutdown::Both));
        });
        let (mut from, mut to) = (server, client);
        let mut bytes = [0; 65536];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            // An answer to something else may be among it: that is lost too, and asked for again.
            let is_answer = count > 30;
            if caught.load(SeqCst) > 0 && is_answer || to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        drop((client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both)));
    }

    /// Whether this writes the key: a transaction names it where it compares and where it writes.
    fn is_caught(&self, bytes: &[u8]) -> bool {
        let of = self.of.lock().unwrap();
        let named = bytes
            .windows(of.len().max(1))
            .filter(|w| *w == of.as_bytes())
            .count();
        named >= 2
            && self
                .swallows
                .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
                .is_ok()
    }
}

fn set(backend: u16) -> ChangeQuery {
    let text = format!(
        "[load_balancers.shop]\nlisten = \"127.0.0.1:80\"\nbackend_servers = [\"10.0.0.1:{backend}\"]\n"
    );
    ChangeQuery {
        change: Change::Apply(Text {
            text,
            format: Format::Toml,
            name: None,
        }),
        dry_run: false,
        expect: None,
        confirm: Some("2m".to_owned()),
        message: None,
        by: Some("alice".to_owned()),
    }
}

/// Scenario: the connection to etcd ends after each transaction, before its answer. What was applied is told as applied,
/// what was confirmed as confirmed; and what nobody can find out is told as unknown, not as unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_is_found_out() {
    let etcd = Etcd::start(1);
    let thief = Thief::start(&etcd.endpoints()[0]);
    let mut settings = EtcdSettings::new(vec![format!("http://{}", thief.address)]);
    // What nobody can find out takes this long; whatever can be found out has the time for it.
    settings.call_timeout = Duration::from_secs(8);
    let store = Store::etcd(settings).unwrap();
    let space = Space::new(store, "/evenkeel/");
    let ledger = Ledger::new(space.clone());
    let file = parse_toml(
        "[load_balancers.own]\nbackend_servers = [\"10.0.0.1:1\"]\n",
        "node.toml",
    )
    .unwrap();
    let now = Timestamp(1_790_000_000_000);
    for backend in 1..=5 {
        thief.swallow(1, space.key(keys::HEAD));
        let done = ledger.change(&set(backend), &file, now).await.unwrap();
        assert_eq!(done.change.unwrap().record.revision, u64::from(backend));
        assert_eq!(thief.swallows.load(SeqCst), 0);
        thief.swallow(1, space.key(keys::PENDING));
        assert_eq!(ledger.confirm(None).await.unwrap().revision, u64::from(backend));
        assert_eq!(thief.swallows.load(SeqCst), 0);
        let nothing = ledger.confirm(None).await.unwrap_err().to_string();
        assert!(nothing.starts_with("nothing awaits confirmation"), "{nothing}");
    }
    ledger.change(&set(8), &file, now).await.unwrap();
    let shut_after = |key| {
        thief.swallow(1, space.key(key));
        thief.shut.store(true, SeqCst);
    };
    shut_after(keys::PENDING);
    let unknown = ledger.confirm(None).await.unwrap_err().to_string();
    assert!(unknown.contains("whether revision 6 still awaits"), "{unknown}");
    thief.shut.store(false, SeqCst);
    assert_eq!(ledger.current().await.unwrap().pending, None);
    shut_after(keys::HEAD);
    let unknown = ledger.change(&set(9), &file, now).await.unwrap_err().to_string();
    assert!(unknown.contains("whether revision 7 is yours"), "{unknown}");
}
