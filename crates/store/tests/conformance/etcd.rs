//! What can happen on the way to etcd, and to its members.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evenkeel_store::{
    Committed, ErrorKind, EtcdSettings, Fault, Followed, Happened, Standing, Store, StoreError, Transaction,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::engines::{Cluster, PATIENCE, run, until, until_works};
use crate::stalled::Gate;
use crate::transactions::{done, put};
use crate::watches::Picture;

/// A moment that passes for all that a client can do about a member that fails.
const NOTICED: Duration = Duration::from_secs(45);

/// etcd crashes and starts again while somebody follows: the follower is told, and misses nothing.
#[test]
fn a_follower_outlives_a_restart() {
    run(async {
        let mut cluster = Cluster::start(1).await;
        let store = cluster.store();
        put(&store, "/f/k", "0").await;
        let mut follow = store.follow("/f/").unwrap();
        let mut picture = Picture::default();
        picture.until_shows(&mut follow, "/f/k", "0").await;
        for round in 1..=3 {
            cluster.members[0].crash();
            while !picture.cut_off {
                picture.look(&mut follow).await;
            }
            cluster.members[0].start_again();
            let value = round.to_string();
            let put = || store.commit(Transaction::new().put("/f/k", value.clone()));
            until_works("a write after the restart", async || put().await).await;
            picture.until_shows(&mut follow, "/f/k", &value).await;
            assert_eq!((picture.cuts, picture.lists, picture.cut_off), (round, 1, false));
        }
    });
}

/// Somebody writes keys below our prefix that are no text, beside ours and alone, also as the last of a page of a list:
/// they are passed over and counted, and a watch, a follower and a list go on.
#[test]
fn keys_that_are_no_text_are_passed_over() {
    use std::os::unix::ffi::OsStrExt;
    run(async {
        let cluster = Cluster::start(1).await;
        let store = cluster.store();
        let foreign = |arguments: &[&[u8]]| {
            let mut command = std::process::Command::new("etcdctl");
            command.env("ETCDCTL_API", "3");
            command.arg(format!("--endpoints={}", cluster.endpoints()[0]));
            command.args(
                arguments
                    .iter()
                    .map(|argument| std::ffi::OsStr::from_bytes(argument)),
            );
            assert!(command.output().unwrap().status.success());
        };
        put(&store, "/f/k", "0").await;
        let mut follow = store.follow("/f/").unwrap();
        let mut picture = Picture::default();
        picture.until_shows(&mut follow, "/f/k", "0").await;
        foreign(&[b"put", b"/f/\xff\xfe", b"theirs"]);
        put(&store, "/f/k", "1").await;
        picture.until_shows(&mut follow, "/f/k", "1").await;
        foreign(&[b"del", b"/f/\xff\xfe"]);
        // Ours and theirs are deleted by one revision.
        foreign(&[b"put", b"/f/l\xff", b"theirs"]);
        put(&store, "/f/l", "2").await;
        foreign(&[b"del", b"--prefix", b"/f/l"]);
        put(&store, "/f/m", "3").await;
        picture.until_shows(&mut follow, "/f/m", "3").await;
        assert_eq!((picture.cuts, picture.lists), (0, 1), "the watch goes on");
        assert_eq!(store.skipped_keys(), 4);

        foreign(&[b"put", b"/p/\x80", b"theirs"]);
        for n in 0..evenkeel_store::bounds::LIST_PAGE {
            put(&store, &format!("/p/{n:05}"), "0").await;
        }
        foreign(&[b"del", b"/p/00000"]);
        put(&store, "/p/\u{10ffff}", "0").await;
        let listing = store.list("/p/").await.unwrap();
        assert_eq!(listing.entries.len(), evenkeel_store::bounds::LIST_PAGE);
    });
}

/// While a follower is cut off, another client deletes, writes and compacts: it gets a new list.
#[test]
fn a_follower_that_missed_a_compaction_gets_a_new_list() {
    run(async {
        let cluster = Cluster::start(1).await;
        let store = cluster.store();
        put(&store, "/f/old", "0").await;
        let mut follow = store.follow("/f/").unwrap();
        let mut picture = Picture::default();
        picture.look(&mut follow).await;
        // More than its queue holds, so that it cannot get on, and far more than is on its way.
        let value = "v".repeat(100_000);
        for n in 0..200 {
            put(&store, "/f/large", &format!("{n}{value}")).await;
        }
        cluster.etcdctl(&["del", "/f/old"]);
        let last = put(&store, "/f/new", "1").await;
        cluster.members[0].freeze();
        while !picture.cut_off {
            picture.look(&mut follow).await;
        }
        cluster.members[0].thaw();
        until_works("the store again", async || store.compact(last).await).await;
        picture.until_shows(&mut follow, "/f/new", "1").await;
        assert!(!picture.entries.contains_key("/f/old"));
    });
}

/// While a follower is cut off a key is deleted, by the first revision that it missed, and the store forgets what was
/// before just that one. Older versions of etcd forget the deletion with it; the follower learns of it all the same.
#[test]
fn a_follower_misses_no_deletion_at_the_edge_of_a_compaction() {
    run(async {
        let cluster = Cluster::start(1).await;
        let gate = Gate::to(&cluster).await;
        let settings = EtcdSettings::new(vec![format!("http://{}", gate.place)]);
        let mut follow = Store::etcd(settings).unwrap().follow("/f/").unwrap();
        let straight = cluster.store();
        put(&straight, "/f/old", "0").await;
        let mut picture = Picture::default();
        let last = put(&straight, "/f/k", "0").await;
        picture.until_shows(&mut follow, "/f/k", "0").await;
        gate.shut.send_replace(true);
        let gone = done(&straight, Transaction::new().delete("/f/old")).await;
        assert_eq!(gone, last.next());
        cluster.etcdctl(&["compact", "--physical=true", &gone.0.to_string()]);
        while !picture.cut_off {
            picture.look(&mut follow).await;
        }
        gate.shut.send_replace(false);
        put(&straight, "/f/k", "1").await;
        picture.until_shows(&mut follow, "/f/k", "1").await;
        assert!(!picture.entries.contains_key("/f/old"));
    });
}

/// Whatever happens to the member in use, another takes its place: reads and writes go on, a follower misses
/// nothing, a lease that is held stands.
async fn survives(harm: impl Fn(&mut Cluster, &str), heal: impl Fn(&mut Cluster, &str)) {
    let mut cluster = Cluster::start(3).await;
    let store = cluster.store();
    put(&store, "/f/k", "0").await;
    let mut follow = store.follow("/f/").unwrap();
    let mut picture = Picture::default();
    picture.until_shows(&mut follow, "/f/k", "0").await;
    let held = store.hold(15).await.unwrap();
    let leased = Transaction::new().put_leased("/l/me", "v", held.lease());
    store.commit(leased).await.unwrap();

    for round in 1..=2 {
        let place = store.status().await.unwrap().place;
        harm(&mut cluster, &place);
        let harmed = Instant::now();
        let value = round.to_string();
        let put = || store.commit(Transaction::new().put("/f/k", value.clone()));
        until_works("a write by another member", async || put().await).await;
        assert_eq!(store.get("/f/k").await.unwrap().unwrap().value, value);
        picture.until_shows(&mut follow, "/f/k", &value).await;
        assert!(harmed.elapsed() < NOTICED, "{:?}", harmed.elapsed());
        assert_ne!(store.status().await.unwrap().place, place);
        let mut standing = held.standing();
        let kept =
            standing.wait_for(|s| *s == Standing::Gone || matches!(s, Standing::Since(at) if *at > harmed));
        let kept = *tokio::time::timeout(PATIENCE, kept).await.unwrap().unwrap();
        assert_ne!(kept, Standing::Gone);
        heal(&mut cluster, &place);
    }
    assert!(store.get("/l/me").await.unwrap().is_some());
    assert_eq!(picture.lists, 1);
}

#[test]
fn a_member_that_hangs_is_left() {
    run(survives(
        |cluster, place| cluster.member(place).freeze(),
        |cluster, place| cluster.member(place).thaw(),
    ));
}

#[test]
fn a_member_that_crashes_is_left() {
    run(survives(
        |cluster, place| cluster.member(place).crash(),
        |cluster, place| cluster.member(place).start_again(),
    ));
}

/// Two of three members hang: the third has no majority, so nothing is written and nothing old is read; when one
/// is back, everything works again.
#[test]
fn without_a_majority_nothing_is_said_that_may_be_wrong() {
    run(async {
        let cluster = Cluster::start(3).await;
        let mut settings = cluster.settings();
        settings.call_timeout = Duration::from_secs(3);
        let store = Store::etcd(settings).unwrap();
        put(&store, "/q/k", "before").await;
        cluster.members[0].freeze();
        cluster.members[1].freeze();
        // The first write may still be on its way when the member learns that it is alone.
        let guarded = Transaction::new().absent("/q/never").put("/q/never", "v");
        until("a refusal for want of a leader", async || {
            let error = store.commit(guarded.clone()).await.expect_err("nobody agreed");
            assert!(error.retry_helps() && error.fault() == Fault::Store, "{error}");
            (error.kind() == ErrorKind::Unreachable && error.happened() == Happened::No).then_some(())
        })
        .await;
        let error = store.get("/q/k").await.unwrap_err();
        assert!(error.retry_helps(), "{error}");
        cluster.members[0].thaw();
        until_works("a majority", async || store.get("/q/k").await).await;
        until_works("a write", async || {
            store.commit(Transaction::new().put("/q/k", "after")).await
        })
        .await;
    });
}

/// A write that was sent and not answered: nobody knows. A comparison makes it safe to try again.
#[test]
fn a_lost_answer_is_told_as_such() {
    run(async {
        let cluster = Cluster::start(1).await;
        let store = cluster.store();
        let first = put(&store, "/u/k", "1").await;
        cluster.members[0].freeze();
        let guarded = || store.commit(Transaction::new().unchanged("/u/k", first).put("/u/k", "2"));
        let begun = Instant::now();
        let error = guarded().await.unwrap_err();
        assert!(begun.elapsed() < NOTICED);
        assert_eq!(error.happened(), Happened::Unknown, "{error}");
        assert!(error.to_string().contains("may have been done"), "{error}");
        cluster.members[0].thaw();
        let again = until_works("an answer", async || guarded().await).await;
        let entry = store.get("/u/k").await.unwrap().unwrap();
        assert_eq!(entry.value, "2");
        // Either the first one came through and the second found it, or the second one did it.
        assert!(again == Committed::Conflict || again == Committed::Done(entry.changed));
    });
}

/// Where nobody listens, and nobody else can, for as long as it is held.
fn closed_port() -> tokio::net::TcpSocket {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

/// Nobody listens there: told within the time for a call, and surely not done.
#[test]
fn an_endpoint_where_nobody_listens_is_told_as_unreachable() {
    run(async {
        let closed = closed_port();
        let free = closed.local_addr().unwrap();
        let mut settings = EtcdSettings::new(vec![format!("http://{free}"), format!("http://{free}")]);
        settings.call_timeout = Duration::from_secs(5);
        let store = Store::etcd(settings).unwrap();
        let begun = Instant::now();
        let error = store.commit(Transaction::new().put("/k", "v")).await.unwrap_err();
        assert!(begun.elapsed() < PATIENCE);
        assert_eq!(
            (error.kind(), error.happened()),
            (ErrorKind::Unreachable, Happened::No),
            "{error}"
        );
        assert!(
            error.retry_helps() && error.detail().contains(&free.to_string()),
            "{error}"
        );
    });
}

/// One endpoint of four works: nobody listens at two, and the third takes connections and says nothing.
#[test]
fn an_endpoint_that_fails_is_passed_over() {
    run(async {
        let cluster = Cluster::start(1).await;
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = closed_port();
        let free = closed.local_addr().unwrap();
        let mut settings = cluster.settings();
        settings.call_timeout = PATIENCE;
        settings.endpoints.insert(0, format!("http://{free}"));
        settings.endpoints.insert(0, format!("https://{free}"));
        settings
            .endpoints
            .insert(1, format!("http://{}", silent.local_addr().unwrap()));
        let store = Store::etcd(settings).unwrap();
        put(&store, "/k", "v").await;
        assert!(
            cluster.members[0]
                .url
                .ends_with(&store.status().await.unwrap().place)
        );
    });
}

/// What is no etcd: a server that speaks another protocol, one that closes at once.
#[test]
fn a_server_that_is_no_etcd_is_told_as_unreachable() {
    for answer in ["HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", ""] {
        run(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let place = listener.local_addr().unwrap();
            let server = tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes())
                        .await
                        .unwrap();
                }
            });
            let mut settings = EtcdSettings::new(vec![format!("http://{place}")]);
            settings.call_timeout = Duration::from_millis(500);
            let error = Store::etcd(settings).unwrap().get("/k").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
            server.abort();
        });
    }
}

/// etcd's data is gone, or back from a backup: revisions begin anew, and mean something else. The follower gets a
/// new list, and nothing that it knew before stays.
#[test]
fn a_follower_of_a_store_that_went_back_gets_a_new_list() {
    run(async {
        let mut cluster = Cluster::start(1).await;
        let store = cluster.store();
        for n in 0..50 {
            put(&store, "/f/k", &n.to_string()).await;
        }
        let mut follow = store.follow("/f/").unwrap();
        let mut picture = Picture::default();
        picture.until_shows(&mut follow, "/f/k", "49").await;
        cluster.members[0].crash();
        cluster.members[0].forget();
        cluster.members[0].start_again();
        while picture.lists < 2 {
            picture.look(&mut follow).await;
        }
        assert_eq!(picture.entries.len(), 0);
        put(&store, "/f/new", "1").await;
        picture.until_shows(&mut follow, "/f/new", "1").await;
        assert_eq!(picture.entries.len(), 1);
    });
}

/// A line to one etcd that is laid to another.
struct Line {
    endpoint: String,
    to: Arc<Mutex<String>>,
    task: tokio::task::JoinHandle<()>,
}

impl Line {
    async fn to(endpoint: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let to = Arc::new(Mutex::new(endpoint.to_owned()));
        let target = to.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut here, _) = listener.accept().await.unwrap();
                let target = target.lock().unwrap().trim_start_matches("http://").to_owned();
                tokio::spawn(async move {
                    if let Ok(mut there) = tokio::net::TcpStream::connect(target).await {
                        drop(tokio::io::copy_bidirectional(&mut here, &mut there).await);
                    }
                });
            }
        });
        let endpoint = format!("http://{place}");
        Self { endpoint, to, task }
    }
}

/// While a follower is cut off another etcd takes the place of the first, emptied and written to until it is further:
/// its revisions tell nothing. The follower notices by the identity, and nothing that it knew before stays.
#[test]
fn a_follower_of_a_store_that_was_replaced_and_overtaken_gets_a_new_list() {
    run(async {
        let (mut first, second) = (Cluster::start(1).await, Cluster::start(1).await);
        let line = Line::to(&first.settings().endpoints[0]).await;
        let (old, new) = (first.store(), second.store());
        put(&old, "/identity", "one").await;
        put(&old, "/f/k", "1").await;
        let mut settings = first.settings();
        settings.endpoints = vec![line.endpoint.clone()];
        let follower = Store::etcd(settings).unwrap();
        let mut follow = follower
            .follow_identified("/f/", "/identity", Duration::ZERO)
            .unwrap();
        let mut picture = Picture::default();
        picture.until_shows(&mut follow, "/f/k", "1").await;
        put(&new, "/identity", "two").await;
        put(&new, "/f/new", "1").await;
        while put(&new, "/other", "1").await <= picture.revision {}
        put(&new, "/other", "2").await;
        first.members[0].crash();
        line.to
            .lock()
            .unwrap()
            .clone_from(&second.settings().endpoints[0]);
        let listing = loop {
            match tokio::time::timeout(PATIENCE, follow.next())
                .await
                .unwrap()
                .unwrap()
            {
                Followed::Another(listing) => break listing,
                Followed::CutOff(_) | Followed::Back => {}
                other => panic!("{other:?}"),
            }
        };
        let keys: Vec<&str> = listing.entries.iter().map(|entry| &*entry.key).collect();
        assert_eq!(keys, ["/f/new"]);
        put(&new, "/f/newer", "1").await;
        picture.until_shows(&mut follow, "/f/newer", "1").await;
        line.task.abort();
    });
}

/// etcd's own quota is used up: writes say so and did not happen, reads go on; deletions make no room by
/// themselves, but what etcd asks of its operator does.
#[test]
fn a_full_etcd_says_so() {
    run(async {
        let cluster = Cluster::start_with(1, &["--quota-backend-bytes=4000000".to_owned()]).await;
        let store = cluster.store();
        let value = vec![b'v'; 500_000];
        let mut last = put(&store, "/q/small", "1").await;
        let error = loop {
            match store
                .commit(Transaction::new().put("/q/large", value.clone()))
                .await
            {
                Ok(Committed::Done(revision)) => last = revision,
                Ok(Committed::Conflict) => panic!("nothing was compared"),
                Err(error) if error.happened() == Happened::Unknown => {}
                Err(error) => break error,
            }
            assert!(last.0 < 100, "the quota does not get full");
        };
        assert_eq!(
            (error.kind(), error.happened()),
            (ErrorKind::Full, Happened::No),
            "{error}"
        );
        assert_eq!(store.get("/q/small").await.unwrap().unwrap().value, "1");
        let trouble = store.status().await.unwrap().trouble;
        assert!(trouble.iter().any(|what| what.contains("NOSPACE")), "{trouble:?}");
        store.compact(last).await.unwrap();
        cluster.etcdctl(&["defrag"]);
        cluster.etcdctl(&["alarm", "disarm"]);
        until_works("room", async || {
            store.commit(Transaction::new().put("/q/small", "2")).await
        })
        .await;
        assert_eq!(store.status().await.unwrap().trouble, Vec::<String>::new());
    });
}

fn as_user(cluster: &Cluster, name: &str, password: &str) -> Store {
    let mut settings = cluster.settings();
    settings.user = Some((name.to_owned(), password.to_owned()));
    settings.call_timeout = Duration::from_secs(20);
    Store::etcd(settings).unwrap()
}

fn refused(error: &StoreError) {
    assert_eq!(
        (error.kind(), error.happened()),
        (ErrorKind::Credentials, Happened::No),
        "{error}"
    );
    assert_eq!((error.fault(), error.retry_helps()), (Fault::Operator, false));
}

/// With users: the right password, a wrong one, none; a user who may use one prefix; tokens that have lapsed.
#[test]
fn only_who_may_gets_in() {
    run(async {
        let mut cluster = Cluster::start(1).await;
        // Before users are switched on, a name and a password do no harm.
        let early = as_user(&cluster, "keel", "right");
        put(&early, "/evenkeel/k", "0").await;
        for arguments in [
            &["user", "add", "root:toor"][..],
            &["user", "add", "keel:right"],
            &["role", "add", "keel"],
            &[
                "role",
                "grant-permission",
                "keel",
                "--prefix=true",
                "readwrite",
                "/evenkeel/",
            ],
            &["user", "grant-role", "keel", "keel"],
            &["user", "grant-role", "root", "root"],
            &["auth", "enable"],
        ] {
            cluster.etcdctl(arguments);
        }
        put(&early, "/evenkeel/k", "1").await;

        refused(
            &as_user(&cluster, "keel", "wrong")
                .get("/evenkeel/k")
                .await
                .unwrap_err(),
        );
        refused(
            &as_user(&cluster, "nobody", "right")
                .get("/evenkeel/k")
                .await
                .unwrap_err(),
        );
        refused(&cluster.store().get("/evenkeel/k").await.unwrap_err());
        let store = as_user(&cluster, "keel", "right");
        refused(&store.get("/other").await.unwrap_err());
        refused(
            &store
                .commit(Transaction::new().put("/other", "v"))
                .await
                .unwrap_err(),
        );
        refused(
            &store
                .watch("/other", evenkeel_store::Revision(1))
                .await
                .unwrap_err(),
        );

        let mut follow = store.follow("/evenkeel/").unwrap();
        let mut picture = Picture::default();
        picture.until_shows(&mut follow, "/evenkeel/k", "1").await;
        // A restart forgets all tokens of the simple kind, which etcd uses when nobody says otherwise.
        cluster.members[0].crash();
        cluster.members[0].start_again();
        until_works("a write", async || {
            store.commit(Transaction::new().put("/evenkeel/k", "2")).await
        })
        .await;
        picture.until_shows(&mut follow, "/evenkeel/k", "2").await;
        assert_eq!(picture.lists, 1);
        let held = store.hold(5).await.unwrap();
        store.keep_alive(held.lease()).await.unwrap();
        store.revoke(held.lease()).await.unwrap();
    });
}

/// An authority, and certificates of it, as files for etcd and PEM for us.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate for the address of this machine, and its key.
    fn issue(&self) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "keel".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}

/// TLS with an authority of our own, and certificates on both sides.
#[test]
fn tls_on_both_sides() {
    run(async {
        let (authority, folder) = (Authority::new(), tempfile::TempDir::new().unwrap());
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.display().to_string()
        };
        let (certificate, key) = authority.issue();
        let arguments = [
            format!("--cert-file={}", file("server.pem", &certificate)),
            format!("--key-file={}", file("server.key", &key)),
            format!("--trusted-ca-file={}", file("authority.pem", &authority.pem())),
            "--client-cert-auth".to_owned(),
        ];
        let cluster = Cluster::start_with(1, &arguments).await;
        let with = |authorities: Vec<u8>, identity| {
            let mut settings = cluster.settings();
            settings.tls.authorities = Some(authorities);
            settings.tls.identity = identity;
            settings.call_timeout = Duration::from_secs(5);
            Store::etcd(settings).unwrap()
        };
        let store = with(authority.pem(), Some(authority.issue()));
        until_works("TLS", async || {
            store.commit(Transaction::new().put("/s/k", "v")).await
        })
        .await;
        let mut watch = store.watch("/s/", evenkeel_store::Revision(1)).await.unwrap();
        assert_eq!(watch.next().await.unwrap().events.len(), 1);

        // Another authority's member; ourselves without a certificate, and with another authority's.
        let other = Authority::new();
        for wrong in [
            with(other.pem(), Some(authority.issue())),
            with(authority.pem(), None),
            with(authority.pem(), Some(other.issue())),
        ] {
            let error = wrong.get("/s/k").await.unwrap_err();
            assert_eq!(
                (error.kind(), error.happened()),
                (ErrorKind::Tls, Happened::No),
                "{error}"
            );
        }
    });
}
