//! A member of etcd that answers what it knows by heart, and carries nothing out.
//!
//! That is how one looks whose disk stalls: the loop that carries out and that knows of leaders stands still in a
//! write, while `Status` tells of the leader of old, and leases are kept alive out of memory. Here it is a gate in
//! front of a real etcd, which lets only those two through.

use std::time::{Duration, Instant};

use bytes::Bytes;
use evenkeel_store::{EtcdSettings, Store, Transaction};
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http_types::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use crate::engines::{Cluster, PATIENCE, run, until};
use crate::transactions::put;
use crate::watches::Picture;

/// By when such a member is left, with much to spare.
const NOTICED: Duration = Duration::from_secs(45);
/// What a member with a stalled disk still answers.
const BY_HEART: [&str; 2] = [
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Lease/LeaseKeepAlive",
];

/// The disk of the member in use stalls: reads and writes go on by another one, also those of callers who wait for a
/// second only; a follower misses nothing, and what is kept alive all the while keeps nobody there.
#[test]
fn a_member_that_carries_nothing_out_is_left() {
    run(async {
        let cluster = Cluster::start(1).await;
        let (gates, store) = behind_two_gates(&cluster).await;
        put(&store, "/f/k", "0").await;
        let mut follow = store.follow("/f/").unwrap();
        let mut picture = Picture::default();
        picture.until_shows(&mut follow, "/f/k", "0").await;
        let lease = store.grant(60).await.unwrap().lease;
        let keeper = tokio::spawn(keep(store.clone(), lease));

        for impatient in [false, true] {
            let (place, gate) = in_use(&gates, &store).await;
            gate.shut.send_replace(true);
            let shut = Instant::now();
            let value = format!("impatient: {impatient}");
            let patience = if impatient {
                Duration::from_secs(1)
            } else {
                PATIENCE
            };
            until("a write by another member", async || {
                let writing = store.commit(Transaction::new().put("/f/k", value.clone()));
                timeout(patience, writing).await.ok()?.ok()
            })
            .await;
            picture.until_shows(&mut follow, "/f/k", &value).await;
            assert!(shut.elapsed() < NOTICED, "{:?}", shut.elapsed());
            assert_ne!(store.status().await.unwrap().place, place);
            gate.shut.send_replace(false);
        }
        assert_eq!(picture.lists, 1);
        keeper.abort();
    });
}

/// Many followers lose the member that all of them are on: each is back at a moment of its own within the time that it
/// was given, and misses nothing.
#[test]
fn many_who_lose_a_member_come_back_one_by_one() {
    // Long enough that a machine that stalls does not bring them together.
    const WITHIN: Duration = Duration::from_secs(12);
    run(async {
        let cluster = Cluster::start(1).await;
        let (gates, store) = behind_two_gates(&cluster).await;
        put(&store, "/identity", "one").await;
        put(&store, "/f/k", "0").await;
        let mut watching = Vec::new();
        for _ in 0..20 {
            let mut follow = store.follow_identified("/f/", "/identity", WITHIN).unwrap();
            let mut picture = Picture::default();
            picture.until_shows(&mut follow, "/f/k", "0").await;
            watching.push((follow, picture));
        }
        // What is told after the list shows that the watch stands, so that its loss will be told.
        put(&store, "/f/k", "seen").await;
        let mut followers = Vec::new();
        for (mut follow, mut picture) in watching {
            picture.until_shows(&mut follow, "/f/k", "seen").await;
            followers.push(tokio::spawn(async move {
                while !picture.cut_off {
                    picture.look(&mut follow).await;
                }
                while picture.cut_off {
                    picture.look(&mut follow).await;
                }
                let back = Instant::now();
                picture.until_shows(&mut follow, "/f/k", "1").await;
                assert_eq!(picture.lists, 1);
                back
            }));
        }
        let (_, gate) = in_use(&gates, &store).await;
        gate.shut.send_replace(true);
        put(&cluster.store(), "/f/k", "1").await;
        let mut back = Vec::new();
        for follower in followers {
            back.push(follower.await.unwrap());
        }
        back.sort();
        let from_first_to_last = back[back.len() - 1] - back[0];
        println!("{from_first_to_last:?} from the first to the last");
        assert!(from_first_to_last > WITHIN / 3, "{from_first_to_last:?}");
    });
}

/// Two ways to the same etcd, and a store that knows both.
async fn behind_two_gates(cluster: &Cluster) -> ([Gate; 2], Store) {
    let gates = [Gate::to(cluster).await, Gate::to(cluster).await];
    let endpoints = gates.each_ref().map(|gate| format!("http://{}", gate.place));
    let store = Store::etcd(EtcdSettings::new(endpoints.into())).unwrap();
    (gates, store)
}

/// The way that a store goes now.
async fn in_use<'g>(gates: &'g [Gate], store: &Store) -> (String, &'g Gate) {
    let place = store.status().await.unwrap().place;
    let gate = gates.iter().find(|gate| gate.place == place).unwrap();
    (place, gate)
}

/// Keeps a lease alive far more often than anybody does.
async fn keep(store: Store, lease: evenkeel_store::LeaseId) {
    let mut often = interval(Duration::from_millis(100));
    loop {
        often.tick().await;
        drop(store.keep_alive(lease).await);
    }
}

/// A way to etcd that can be shut for all that takes more than memory.
pub(crate) struct Gate {
    pub(crate) place: String,
    pub(crate) shut: watch::Sender<bool>,
}

impl Gate {
    pub(crate) async fn to(cluster: &Cluster) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let to = cluster.members[0].url.trim_start_matches("http://").to_owned();
        let shut = watch::Sender::new(false);
        let seen = shut.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(serve(near, to.clone(), seen.clone()));
            }
        });
        Self { place, shut }
    }
}

/// Serves one connection, call by call, over one of its own.
async fn serve(near: TcpStream, to: String, shut: watch::Receiver<bool>) {
    let far = TcpStream::connect(to).await.unwrap();
    let (etcd, connection) = h2::client::handshake(far).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut near = h2::server::handshake(near).await.unwrap();
    while let Some(Ok((question, answer))) = near.accept().await {
        tokio::spawn(pass(question, answer, etcd.clone(), shut.clone()));
    }
    driver.abort();
}

/// Passes a call on, and what is answered; none of its parts while the gate is shut for it.
async fn pass(
    question: Request<RecvStream>,
    mut answer: SendResponse<Bytes>,
    etcd: SendRequest<Bytes>,
    mut shut: watch::Receiver<bool>,
) -> Option<()> {
    let by_heart = BY_HEART.contains(&question.uri().path());
    let mut opened = async || match by_heart {
        true => Some(()),
        false => shut.wait_for(|shut| !shut).await.ok().map(drop),
    };
    opened().await?;
    let (head, body) = question.into_parts();
    let mut etcd = etcd.ready().await.ok()?;
    let (response, up) = etcd.send_request(Request::from_parts(head, ()), false).ok()?;
    tokio::spawn(carry(body, up));
    let (head, mut body) = response.await.ok()?.into_parts();
    opened().await?;
    let bare = body.is_end_stream();
    let mut down = answer.send_response(Response::from_parts(head, ()), bare).ok()?;
    while let Some(Ok(part)) = body.data().await {
        opened().await?;
        body.flow_control().release_capacity(part.len()).ok()?;
        down.send_data(part, false).ok()?;
    }
    let trailers = body.trailers().await.ok()??;
    down.send_trailers(trailers).ok()
}

/// Carries the question on, to its end where it has one.
async fn carry(mut from: RecvStream, mut to: SendStream<Bytes>) -> Option<()> {
    while let Some(Ok(part)) = from.data().await {
        from.flow_control().release_capacity(part.len()).ok()?;
        to.send_data(part, from.is_end_stream()).ok()?;
    }
    // Held until the call ends: dropping it would end it.
    std::future::poll_fn(|context| to.poll_reset(context))
        .await
        .ok()
        .map(drop)
}
