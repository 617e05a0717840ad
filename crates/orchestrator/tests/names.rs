//! Names of the DNS whose settings change while they are looked up.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use evenkeel_orchestrator::discovery::{self, Book, Target};
use model::config::{AddressFamily, Discovery, DnsLookup, DnsRecords, Name};
use model::state::{Members, Report};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

/// A name server that knows 10.1.0.1 and 10.1.0.2 for no time at all, and says only the first when `partial`.
#[derive(Default)]
struct Server {
    partial: AtomicBool,
    /// Answers that were partial.
    partly: AtomicUsize,
}

impl Server {
    async fn run(self: Arc<Self>, socket: UdpSocket) {
        let mut query = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut query).await.unwrap();
            // The header, and the question with the lengths of its labels.
            let labels = query[12..length].iter().position(|byte| *byte == 0).unwrap();
            let mut answer = query[..12 + labels + 5].to_vec();
            let partial = self.partial.load(Ordering::SeqCst);
            let there = if partial { 1 } else { 2 };
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, there, 0, 0, 0, 0]);
            for n in 1..=there {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 10, 1, 0, n]);
            }
            // Before it goes: whoever has it may look at once.
            self.partly.fetch_add(usize::from(partial), Ordering::SeqCst);
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

fn target(lookup: &DnsLookup) -> Target {
    Target {
        load_balancer: Name::parse("shop").unwrap(),
        pool: Name::parse("default").unwrap(),
        discovery: Discovery::Dns(lookup.clone()),
    }
}

/// The next members that are told.
async fn members(reports: &mut mpsc::Receiver<Report>) -> BTreeSet<SocketAddr> {
    loop {
        let report = reports.recv().await.unwrap();
        if let Some(members) = report.members {
            return members.keys().copied().collect();
        }
    }
}

/// Another `min_ttl`, `timeout`, number of attempts, list of resolvers, type or port: who was known leaves with the second
/// answer, as if nothing had changed. Another name is another list.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_lookup_goes_on_with_whom_it_knew() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let lookup = DnsLookup {
        name: "app.internal".to_owned(),
        records: DnsRecords::Addresses(AddressFamily::V4, 80),
        resolvers: vec![socket.local_addr().unwrap()],
        min_ttl: Duration::from_millis(100),
        max_ttl: Duration::from_secs(300),
        timeout: Duration::from_secs(5),
        attempts: 3,
    };
    let server = Arc::<Server>::default();
    let answers = tokio::spawn(server.clone().run(socket));
    let (targets, wanted) = watch::channel(discovery::Wanted::from([(target(&lookup), 1)]));
    let (tell, mut reports) = mpsc::channel(16);
    let names = tokio::spawn(discovery::run(
        wanted,
        tell,
        (Members::default(), Book::default()),
    ));
    assert_eq!(members(&mut reports).await.len(), 2);

    let mut twice = lookup.resolvers.clone();
    twice.extend(lookup.resolvers.clone());
    let changed = [
        DnsLookup {
            min_ttl: Duration::from_millis(200),
            ..lookup.clone()
        },
        DnsLookup {
            timeout: Duration::from_secs(4),
            ..lookup.clone()
        },
        DnsLookup {
            attempts: 5,
            ..lookup.clone()
        },
        DnsLookup {
            resolvers: twice,
            ..lookup.clone()
        },
        DnsLookup {
            records: DnsRecords::Addresses(AddressFamily::Both, 80),
            ..lookup.clone()
        },
        DnsLookup {
            records: DnsRecords::Addresses(AddressFamily::V4, 81),
            attempts: 2,
            ..lookup.clone()
        },
    ];
    for changed in changed {
        let before = server.partly.load(Ordering::SeqCst);
        server.partial.store(true, Ordering::SeqCst);
        targets.send_replace(discovery::Wanted::from([(target(&changed), 1)]));
        // The first answer to the changed lookup is partial.
        let first = members(&mut reports).await;
        assert_eq!(first.len(), 2, "{changed:?}: gone with the first answer");
        // So is the second.
        assert_eq!(members(&mut reports).await.len(), 1, "{changed:?}");
        assert!(server.partly.load(Ordering::SeqCst) >= before + 2);
        server.partial.store(false, Ordering::SeqCst);
        assert_eq!(members(&mut reports).await.len(), 2);
    }
    server.partial.store(true, Ordering::SeqCst);
    targets.send_replace(discovery::Wanted::from([(
        target(&DnsLookup {
            name: "new.internal".to_owned(),
            ..lookup
        }),
        1,
    )]));
    assert_eq!(members(&mut reports).await.len(), 1);
    names.abort();
    answers.abort();
}
