//! Members that register themselves in a cluster: one LB server or the API of an orchestrator takes the registration,
//! all know it, orchestrators check it, and it goes everywhere.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peers::Etcd;

use crate::members::{TOKEN, hash};
use crate::support::{Backend, Client, Evenkeel, Load, Place, free_ip, wait_until};

/// Longest wait for anything: far above what is promised.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two beats of an instance.
const BEAT: Duration = Duration::from_millis(300);

struct Node {
    place: Place,
    ip: Ipv4Addr,
}

impl Node {
    fn new(name: &str, roles: &str, etcd: &Etcd) -> Self {
        let ip = free_ip();
        let place = Place::new(&format!(
            "[node]\nname = \"{name}\"\nroles = {roles}\nbind = \"{ip}\"\nplan_b_after = \"60s\"\nthreads = 1\n\
             [store]\nkind = \"etcd\"\nendpoints = {:?}\n",
            etcd.endpoints()
        ));
        Self { place, ip }
    }
}

/// Keys of a pool whose members register for three seconds at a time, and are asked by checks too. Nodes that share a
/// store give them three more.
const LEASES_OF_3S: &str = "health = { interval = \"500ms\", fast_interval = \"100ms\" }\n\
     registration = { token_hash = \"TOKEN_HASH\", allow = \"127.0.0.0/8\", ttl = \"3s\" }";

/// Two LB servers, an orchestrator with the API, and `shop` in their store with these keys.
struct Cluster {
    etcd: Etcd,
    places: [Node; 3],
    port: u16,
}

impl Cluster {
    fn start(keys: &str) -> (Self, [Evenkeel; 3]) {
        Self::of(["edge-1", "edge-2"], keys)
    }

    /// With LB servers of these names.
    fn of(edges: [&str; 2], keys: &str) -> (Self, [Evenkeel; 3]) {
        let etcd = Etcd::start(1);
        let places = [
            Node::new(edges[0], r#"["lb"]"#, &etcd),
            Node::new(edges[1], r#"["lb"]"#, &etcd),
            Node::new("brain", r#"["orchestrator", "console"]"#, &etcd),
        ];
        let nodes = [&places[0], &places[1], &places[2]].map(|node| node.place.start());
        let port = peers::free_ports(1)[0];
        let shop = Place::new(&format!(
            "[load_balancers.shop]\nlisten = \"0.0.0.0:{port}\"\nslow_start = 0\n{}\n",
            keys.replace("TOKEN_HASH", &hash())
        ));
        nodes[2].cli_ok(&["apply", &shop.config().display().to_string()]);
        let cluster = Self { etcd, places, port };
        until("both LB servers have it", || {
            nodes.iter().all(|node| {
                node.status()["load_balancers"]
                    .as_array()
                    .is_some_and(|lbs| lbs.len() == 1)
            })
        });
        (cluster, nodes)
    }

    fn address(&self, lb: usize) -> SocketAddr {
        SocketAddr::from((self.places[lb].ip, self.port))
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(50)); // condition poll
    }
    println!("{what}: after {:?}", began.elapsed());
}

/// What a node's API answers to a member.
fn say(admin: SocketAddr, method: &str, path: &str, body: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let head = format!(
        "{method} /api/v1/load-balancers/shop/pools/default/{path} HTTP/1.1\r\nHost: {admin}\r\n\
         Authorization: Bearer {TOKEN}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

fn register(node: &Evenkeel, backend: &Backend, body: &str) -> u16 {
    say(node.admin, "PUT", &format!("members/{}", backend.address), body).unwrap()
}

/// Whether a node has this member in this state.
fn is(node: &Evenkeel, backend: &Backend, eligibility: &str) -> bool {
    state(node, backend.address).is_some_and(|state| state == eligibility)
}

fn state(node: &Evenkeel, address: SocketAddr) -> Option<String> {
    let status = node.status();
    let backends = status["load_balancers"][0]["pools"][0]["backends"].as_array()?;
    let found = backends
        .iter()
        .find(|backend| backend["address"] == address.to_string().as_str())?;
    found["eligibility"].as_str().map(str::to_owned)
}

/// A process that says every [`BEAT`] that it is there: each time at the next of these APIs, as behind a virtual address,
/// and at the one after it when nobody answers there.
struct Instance {
    stop: Option<Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Instance {
    fn start(kind: &'static str, address: SocketAddr, apis: &Arc<Mutex<Vec<SocketAddr>>>) -> Self {
        let ((stop, stopped), apis) = (channel(), apis.clone());
        let task = std::thread::spawn(move || {
            let mut turn = usize::from(address.port());
            while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                let apis = apis.lock().unwrap().clone();
                let method = if kind == "members" { "PUT" } else { "POST" };
                let path = format!("{kind}/{address}");
                let taken = (0..apis.len())
                    .any(|n| say(apis[(turn + n) % apis.len()], method, &path, "").is_ok_and(|s| s < 300));
                turn += 1;
                if !taken {
                    println!("nobody heard {address}");
                }
            }
        });
        Self {
            stop: Some(stop),
            task: Some(task),
        }
    }

    fn stop(&mut self) {
        self.stop = None;
        if let Some(task) = self.task.take() {
            task.join().unwrap();
        }
    }
}

/// Scenario: an instance registers at one LB server, another at the orchestrator. Both LB servers send them requests
/// after the orchestrator's first check, and each is checked once in its interval, however many know it. What an
/// instance changes and that it leaves is said at yet another node, and holds at all.
#[test]
fn registered_at_one_node_served_by_all() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let (cluster, [edge, other, brain]) = Cluster::start(
        "health = { path = \"/h\", interval = \"500ms\", fast_interval = \"100ms\", jitter = \"0%\" }\n\
         registration = { token_hash = \"TOKEN_HASH\", allow = \"127.0.0.0/8\", ttl = \"1h\" }",
    );
    assert_eq!(register(&edge, &one, ""), 200);
    let began = Instant::now();
    until("both LB servers use it", || {
        is(&edge, &one, "eligible") && is(&other, &one, "eligible")
    });
    println!("served everywhere {:?} after its registration", began.elapsed());
    assert_eq!(register(&brain, &two, r#"{"zone": "eu-1"}"#), 200);
    until("and the other one", || {
        [&edge, &other, &brain]
            .iter()
            .all(|node| is(node, &two, "eligible"))
    });
    let mut client = Client::connect(cluster.address(1));
    let answers: Vec<String> = (0..4).map(|_| client.get("/").text().to_owned()).collect();
    assert!(answers.iter().any(|name| name == "one") && answers.iter().any(|name| name == "two"));
    let probes = || {
        one.requests()
            .iter()
            .filter(|request| request.target() == "/h")
            .count()
    };
    let (since, before) = (Instant::now(), probes());
    wait_until("it was checked six times", || probes() >= before + 6);
    let asked = probes() - before;
    let most = since.elapsed().as_millis() / 500 + 2;
    assert!(asked as u128 <= most, "checked by more than one");
    assert_eq!(register(&other, &one, r#"{"weight": 3}"#), 200);
    until("its weight is known", || edge.backend(one.address)["weight"] == 3);
    assert_eq!(
        say(edge.admin, "DELETE", &format!("members/{}", two.address), "").unwrap(),
        204
    );
    until("it has left everywhere", || {
        [&edge, &other, &brain]
            .iter()
            .all(|node| state(node, two.address).is_none())
    });
    assert_eq!(
        cluster
            .etcd
            .etcdctl(&["get", "--prefix", "--keys-only", "/evenkeel/members/"])
            .trim(),
        format!("/evenkeel/members/shop/default/{}", one.address)
    );
}

/// Scenario: a healthy member deregisters, and a new instance at its address registers that is not ready yet. No LB server
/// sends it anything, though the verdict on the one before it stands in the store: it is up. When the new one is ready it
/// is used, and the verdict says that it is about this membership.
#[test]
fn a_new_instance_is_not_believed_to_be_the_one_before() {
    let ready = Arc::new(AtomicBool::new(true));
    let asked = ready.clone();
    let instance = Backend::answering(move |request| {
        let status = match request.target() == "/h" && !asked.load(Relaxed) {
            true => "503 Service Unavailable",
            false => "200 OK",
        };
        format!("HTTP/1.1 {status}\r\nX-Backend: instance\r\nContent-Length: 0\r\n\r\n").into()
    });
    let steady = Backend::named("steady");
    let (cluster, [edge, other, brain]) = Cluster::start(
        "health = { path = \"/h\", interval = \"1s\", fast_interval = \"1s\", jitter = \"0%\" }\n\
         registration = { token_hash = \"TOKEN_HASH\", allow = \"127.0.0.0/8\", ttl = \"1h\" }",
    );
    let both = |eligibility: Option<&str>| {
        [&edge, &other]
            .iter()
            .all(|node| state(node, instance.address).as_deref() == eligibility)
    };
    assert_eq!(register(&edge, &steady, ""), 200);
    assert_eq!(register(&edge, &instance, ""), 200);
    until("both members are used", || {
        both(Some("eligible")) && is(&edge, &steady, "eligible") && is(&other, &steady, "eligible")
    });
    let loads = [0, 1].map(|lb| Load::start(cluster.address(lb), 2));
    let served = || {
        let requests = instance.requests();
        requests.iter().filter(|request| request.target() != "/h").count()
    };
    until("the instance is sent requests", || served() > 10);
    let path = format!("members/{}", instance.address);
    assert_eq!(say(brain.admin, "DELETE", &path, "").unwrap(), 204);
    until("it has left", || both(None));
    let mut quiet = (served(), Instant::now());
    until("it is sent nothing any more", || {
        if served() != quiet.0 {
            quiet = (served(), Instant::now());
        }
        quiet.1.elapsed() > Duration::from_secs(2)
    });
    let record = |kind: &str| {
        let key = format!("/evenkeel/{kind}/shop/default/{}", instance.address);
        let text = cluster.etcd.etcdctl(&["get", "--print-value-only", &key]);
        serde_json::from_str::<serde_json::Value>(text.trim()).unwrap()
    };
    let before = record("verdicts");
    assert_eq!(before["health"], "up", "of the one before");
    ready.store(false, Relaxed);
    assert_eq!(register(&edge, &instance, ""), 200);
    until("the new one is seen to be down", || {
        [&edge, &other].iter().all(|node| {
            is(node, &instance, "awaits_check") && node.backend(instance.address)["health"] == "down"
        })
    });
    assert_eq!(served(), quiet.0, "it was never seen to work");
    ready.store(true, Relaxed);
    until("it is ready, and used", || {
        both(Some("eligible")) && served() > quiet.0 + 10
    });
    let verdict = record("verdicts");
    assert_eq!(verdict["health"], "up");
    assert_eq!(verdict["life"], record("members")["life"]);
    assert_ne!(verdict["life"], before["life"]);
    for load in loads {
        load.stop().assert_nothing_failed();
    }
}

/// Scenario: five instances beat at both LB servers in turn; one of those is killed, and its share goes to the other.
/// No member goes, no request fails. One instance falls silent: it is out at both LB servers and the orchestrator.
/// Then the store dies, and with it every other instance falls silent: they stay, and serve.
#[test]
fn beats_go_round_and_silence_is_known_to_all() {
    let backends = ["one", "two", "three", "four", "five"].map(Backend::named);
    let (mut cluster, [mut edge, other, brain]) = Cluster::start(LEASES_OF_3S);
    let apis = Arc::new(Mutex::new(vec![edge.admin, other.admin]));
    let mut instances = backends
        .each_ref()
        .map(|backend| Instance::start("members", backend.address, &apis));
    let all_in =
        |node: &Evenkeel, backends: &[Backend]| backends.iter().all(|backend| is(node, backend, "eligible"));
    until("all are members everywhere", || {
        [&edge, &other, &brain].iter().all(|node| all_in(node, &backends))
    });
    let load = Load::start(cluster.address(1), 2);
    let lapsed =
        |node: &Evenkeel| node.metric("evenkeel_pool_member_requests_total", &[("result", "lapsed")]);
    let held = Instant::now();
    until("beats went round for three times their time", || {
        assert_eq!(lapsed(&edge) + lapsed(&other) + lapsed(&brain), 0.0);
        held.elapsed() > Duration::from_secs(9)
    });
    edge.kill();
    let dead = Instant::now();
    until("the dead node's lease and their time are over", || {
        assert!(all_in(&other, &backends) && all_in(&brain, &backends));
        dead.elapsed() > Duration::from_secs(17)
    });
    let edge = cluster.places[0].place.start();
    *apis.lock().unwrap() = vec![edge.admin, other.admin];
    instances[4].stop();
    let silent = Instant::now();
    until("the silent one is out everywhere", || {
        [&edge, &other, &brain]
            .iter()
            .all(|node| state(node, backends[4].address).is_none())
    });
    println!("out everywhere {:?} after it fell silent", silent.elapsed());
    cluster.etcd.members[0].crash();
    instances.iter_mut().for_each(Instance::stop);
    let deaf = Instant::now();
    until("their time is over three times", || {
        assert!(all_in(&edge, &backends[..4]) && all_in(&other, &backends[..4]));
        deaf.elapsed() > Duration::from_secs(10)
    });
    assert!(
        other
            .events("members_stale")
            .join("\n")
            .contains("the store is not heard")
    );
    load.stop().assert_nothing_failed();
    cluster.etcd.members[0].start_again();
    let mut back = Instance::start("members", backends[4].address, &apis);
    until(
        "who registers while the store comes back is a member everywhere",
        || {
            [&edge, &other, &brain]
                .iter()
                .all(|node| is(node, &backends[4], "eligible"))
        },
    );
    back.stop();
}

/// Scenario: declared backends send heartbeats, each at another node every time. Both are up everywhere; one falls
/// silent and is down everywhere, and comes back everywhere with a heartbeat at the orchestrator.
#[test]
fn heartbeats_count_wherever_they_are_sent() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let (_cluster, [edge, other, brain]) = Cluster::start(&format!(
        "backend_servers = [\"{}\", \"{}\"]\nhealth = false\n\
         heartbeat = {{ token_hash = \"TOKEN_HASH\", timeout = \"8s\" }}",
        one.address, two.address
    ));
    let apis = Arc::new(Mutex::new(vec![edge.admin, other.admin, brain.admin]));
    let mut beating = Instance::start("heartbeats", one.address, &apis);
    let nodes = [&edge, &other, &brain];
    until("the silent one is down everywhere", || {
        assert!(nodes.iter().all(|node| is(node, &one, "eligible")));
        nodes.iter().all(|node| is(node, &two, "down"))
    });
    assert_eq!(
        say(brain.admin, "POST", &format!("heartbeats/{}", two.address), "").unwrap(),
        204
    );
    until("it is back everywhere", || {
        nodes.iter().all(|node| is(node, &two, "eligible"))
    });
    beating.stop();
}

/// Scenario: instances beat at both LB servers, with load through both, and somebody deletes everything that Evenkeel has
/// in etcd. No member goes, no request fails; all are in the store again, as the members that they were. One deregisters
/// after that, and is out everywhere at once.
#[test]
fn an_emptied_store_takes_no_member_out() {
    let backends = ["one", "two", "three"].map(Backend::named);
    let (cluster, [edge, other, brain]) = Cluster::start(LEASES_OF_3S);
    let apis = Arc::new(Mutex::new(vec![edge.admin, other.admin]));
    let mut instances = backends
        .each_ref()
        .map(|backend| Instance::start("members", backend.address, &apis));
    let all_in = |node: &Evenkeel| backends.iter().all(|backend| is(node, backend, "eligible"));
    until("all are members everywhere", || {
        [&edge, &other, &brain].into_iter().all(all_in)
    });
    let in_the_store = || {
        let records = cluster
            .etcd
            .etcdctl(&["get", "--prefix", "--print-value-only", "/evenkeel/members/"]);
        let mut lives: Vec<u64> = records
            .lines()
            .filter_map(|record| serde_json::from_str::<serde_json::Value>(record).ok()?["life"].as_u64())
            .collect();
        lives.sort_unstable();
        lives
    };
    let before = in_the_store();
    assert_eq!(before.len(), 3);
    let loads = [0, 1].map(|lb| Load::start(cluster.address(lb), 2));
    cluster.etcd.etcdctl(&["del", "--prefix", "/evenkeel/"]);
    let emptied = Instant::now();
    until("all are in the store again", || in_the_store().len() == 3);
    assert_eq!(in_the_store(), before, "they are the members that they were");
    until("their time is over three times", || {
        assert!([&edge, &other].into_iter().all(all_in));
        emptied.elapsed() > Duration::from_secs(10)
    });
    for load in loads {
        load.wait_for_more(50);
        load.stop().assert_nothing_failed();
    }
    instances[0].stop();
    let path = format!("members/{}", backends[0].address);
    let lapsed = || {
        let lapsed =
            |node: &Evenkeel| node.metric("evenkeel_pool_member_requests_total", &[("result", "lapsed")]);
        [&edge, &other, &brain].into_iter().map(lapsed).sum::<f64>()
    };
    let before = lapsed();
    assert_eq!(say(edge.admin, "DELETE", &path, "").unwrap(), 204);
    until("who deregisters is out everywhere", || {
        [&edge, &other, &brain]
            .iter()
            .all(|node| state(node, backends[0].address).is_none())
    });
    assert_eq!(lapsed(), before, "by silence, not by the farewell");
    instances.iter_mut().for_each(Instance::stop);
}

/// Scenario: a machine was copied, so that two LB servers have one name. Each hears an instance that the other never
/// hears: both are members everywhere, all the while. One of the two is not registered, and says why; it serves. The
/// other one ends, and it takes the name; the instance that went there comes to it, and stays.
#[test]
fn two_nodes_of_one_name_do_no_harm() {
    let backends = ["one", "two"].map(Backend::named);
    let (cluster, [edge, twin, brain]) = Cluster::of(["edge", "edge"], LEASES_OF_3S);
    let is_refused = |node: &Evenkeel| !node.status()["store"]["name_taken"].is_null();
    until("one of them says that its name is taken", || {
        is_refused(&edge) || is_refused(&twin)
    });
    let (mut first, second, lb) = match is_refused(&twin) {
        true => (edge, twin, 1),
        false => (twin, edge, 0),
    };
    assert!(!is_refused(&first));
    until("an event tells it", || {
        let told = second.events("node_name_taken").join("\n");
        told.contains("another process has this node's name") && told.contains("`node.name` of its own")
    });
    assert!(second.cli_ok(&["status"]).contains("NAME TAKEN: another process"));
    assert_eq!(second.metric("evenkeel_node_name_taken", &[]), 1.0);
    assert_eq!(first.metric("evenkeel_node_name_taken", &[]), 0.0);

    let doors = [&first, &second].map(|node| Arc::new(Mutex::new(vec![node.admin])));
    let mut instances = [0, 1].map(|n| Instance::start("members", backends[n].address, &doors[n]));
    let all_in = |node: &Evenkeel| backends.iter().all(|backend| is(node, backend, "eligible"));
    until("both are members everywhere", || {
        [&first, &second, &brain].into_iter().all(all_in)
    });
    let load = Load::start(cluster.address(lb), 2);
    let held = Instant::now();
    until("each was heard by one for three times their time", || {
        assert!([&first, &second, &brain].into_iter().all(all_in));
        held.elapsed() > Duration::from_secs(10)
    });
    let life = |node: &Evenkeel| {
        let status = node.status();
        let edge = status["nodes"]
            .as_array()?
            .iter()
            .find(|node| node["name"] == "edge")?;
        edge["life"].as_u64()
    };
    let before = life(&brain);
    first.kill();
    *doors[0].lock().unwrap() = vec![second.admin];
    until("the second has the name", || !is_refused(&second));
    until("and the others see it", || {
        life(&brain).is_some_and(|life| Some(life) != before)
    });
    until("an event tells it", || second.events("node_name_free").len() == 1);
    assert_eq!(second.metric("evenkeel_node_name_taken", &[]), 0.0);
    let held = Instant::now();
    until("the dead one's lease and their time are over", || {
        assert!([&second, &brain].into_iter().all(all_in));
        held.elapsed() > Duration::from_secs(17)
    });
    load.stop().assert_nothing_failed();
    instances.iter_mut().for_each(Instance::stop);
}
