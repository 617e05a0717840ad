//! A cluster on one machine: three members of etcd, three orchestrators with the API, two LB servers, three backends,
//! and a load that runs through both LB servers while something dies. No request fails through any of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peers::{Etcd, Redis};
use serde_json::Value;

use crate::support::{Backend, Client, Evenkeel, Load, Place, free_ip};

/// The longest that the cluster may take to come to terms with a failure: far above what ADR 0022 promises.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clients of the load, per LB server.
const CLIENTS: usize = 2;

/// A way in which a process ends.
type End = fn(&mut Node);

pub(crate) struct Cluster {
    pub(crate) etcd: Etcd,
    pub(crate) redis: Redis,
    pub(crate) orchestrators: Vec<Node>,
    pub(crate) lbs: Vec<Node>,
    backends: Vec<Backend>,
    port: u16,
}

/// A process with its place, so that it can die and start again.
pub(crate) struct Node {
    place: Place,
    ip: Ipv4Addr,
    process: Option<Evenkeel>,
}

impl Node {
    fn start(name: &str, roles: &str, etcd: &Etcd, redis: &Redis) -> Self {
        let ip = free_ip();
        let place = Place::new(&format!(
            "[node]\nname = \"{name}\"\nroles = {roles}\nbind = \"{ip}\"\nplan_b_after = \"3s\"\nthreads = 1\n\
             [store]\nkind = \"etcd\"\nendpoints = {:?}\n[notify]\nurl = \"redis://127.0.0.1:{}\"\n",
            etcd.endpoints(),
            redis.port
        ));
        let mut node = Self {
            place,
            ip,
            process: None,
        };
        node.run();
        node
    }

    pub(crate) fn run(&mut self) {
        self.process = Some(self.place.start());
    }

    pub(crate) fn evenkeel(&self) -> &Evenkeel {
        self.process.as_ref().expect("it runs")
    }

    /// Dies as a machine does: nothing is said to anybody.
    pub(crate) fn crash(&mut self) {
        self.signal(Signal::SIGKILL);
        self.process = None;
    }

    /// Stops as an operator stops it, and has ended.
    fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let mut process = self.process.take().expect("it runs");
        let status = process.wait_for_end();
        assert!(status.success(), "{status}");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.evenkeel().pid()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    pub(crate) fn status(&self) -> Value {
        self.evenkeel().status()
    }
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let (etcd, redis) = (Etcd::start(3), Redis::start());
        let orchestrator = |n: usize| {
            Node::start(
                &format!("orch-{n}"),
                r#"["orchestrator", "console"]"#,
                &etcd,
                &redis,
            )
        };
        let orchestrators: Vec<Node> = (1..=3).map(orchestrator).collect();
        let lbs: Vec<Node> = (1..=2)
            .map(|n| Node::start(&format!("lb-{n}"), r#"["lb"]"#, &etcd, &redis))
            .collect();
        let backends: Vec<Backend> = ["one", "two", "three"].map(Backend::named).into();
        let port = peers::free_ports(1)[0];
        let cluster = Self {
            etcd,
            redis,
            orchestrators,
            lbs,
            backends,
            port,
        };
        cluster.apply(0, &cluster.balancer(3));
        cluster.until("both LB servers serve it", |cluster| {
            cluster.lbs.iter().all(|lb| up(&lb.status()) == 3)
        });
        cluster.until_settled();
        cluster
    }

    /// The load balancer with the first `backends` of the backends.
    pub(crate) fn balancer(&self, backends: usize) -> String {
        let addresses: Vec<String> = self.backends[..backends]
            .iter()
            .map(|b| format!("\"{}\"", b.address))
            .collect();
        format!(
            "[load_balancers.shop]\nlisten = \"0.0.0.0:{}\"\nbackend_servers = [{}]\nslow_start = 0\n\
             poll_frequency = \"500ms\"\n",
            self.port,
            addresses.join(", ")
        )
    }

    /// Applies a text through the API of an orchestrator; its new revision.
    fn apply(&self, through: usize, text: &str) -> u64 {
        self.try_apply(through, text).unwrap()
    }

    /// The same, as soon as the store takes it.
    fn applied(&self, through: usize, text: &str) -> u64 {
        peers::wait_until("a change is applied", || self.try_apply(through, text).ok())
    }

    /// The same; what was said instead, when it is refused or cannot be done.
    pub(crate) fn try_apply(&self, through: usize, text: &str) -> Result<u64, String> {
        let node = &self.orchestrators[through];
        let path = node.place.path().join("shop.toml");
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        let output = node.evenkeel().cli(&["apply", "--json", "--by", "eva", &path]);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        Ok(answer["revision"].as_u64().unwrap())
    }

    fn address(&self, lb: usize) -> SocketAddr {
        SocketAddr::from((self.lbs[lb].ip, self.port))
    }

    pub(crate) fn load(&self) -> Vec<Load> {
        (0..self.lbs.len())
            .map(|lb| Load::start(self.address(lb), CLIENTS))
            .collect()
    }

    /// Waits until something holds; the time that it took.
    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) -> Duration {
        let began = Instant::now();
        while !condition(self) {
            assert!(began.elapsed() < PATIENCE, "in vain: {what}\n{}", self.told());
            std::thread::sleep(Duration::from_millis(50)); // condition poll
        }
        println!("{what}: after {:?}", began.elapsed());
        began.elapsed()
    }

    /// Waits until somebody leads and every slot is checked.
    pub(crate) fn until_settled(&self) -> Duration {
        self.until("every backend is checked by somebody", |cluster| {
            let alive = cluster.orchestrators.iter().filter(|node| node.process.is_some());
            alive.map(Node::status).any(|status| {
                let seen = &status["orchestrators"];
                seen["leader"].is_string() && seen["slots_unchecked"] == 0
            })
        })
    }

    /// The orchestrator that leads, as those see it who have been there for a while.
    fn leader(&self) -> usize {
        let leader = peers::wait_until("somebody leads", || {
            let alive = self.orchestrators.iter().filter(|node| node.process.is_some());
            let mut seen = alive.map(|node| node.status()["orchestrators"]["leader"].clone());
            seen.find(Value::is_string)
        });
        let leader = leader.as_str().unwrap();
        (0..3)
            .find(|n| leader.starts_with(&format!("orch-{}-", n + 1)))
            .expect("one of ours")
    }

    /// What the nodes have logged last.
    fn told(&self) -> String {
        let nodes = self
            .orchestrators
            .iter()
            .chain(&self.lbs)
            .filter_map(|node| node.process.as_ref());
        let last = |log: String| {
            log.lines()
                .rev()
                .take(8)
                .map(|line| format!("  {line}\n"))
                .collect::<String>()
        };
        nodes
            .map(|node| format!("{}\n{}", node.pid(), last(node.log())))
            .collect()
    }
}

/// Backends that an LB server takes for up.
pub(crate) fn up(status: &Value) -> usize {
    let lbs = status["load_balancers"].as_array().unwrap();
    let pools = lbs.iter().flat_map(|lb| lb["pools"].as_array().unwrap());
    let backends = pools.flat_map(|pool| pool["backends"].as_array().unwrap());
    backends.filter(|backend| backend["health"] == "up").count()
}

/// The revision of the store that a node serves.
pub(crate) fn served(status: &Value) -> u64 {
    status["store"]["served"].as_u64().unwrap()
}

pub(crate) fn assert_nothing_failed(loads: Vec<Load>) {
    for load in loads {
        load.stop().assert_nothing_failed();
    }
}

/// Scenario: the leader among the orchestrators is killed, another leads; then a worker; then they come back. All the
/// while the backends are checked: one that dies in between is found dead by those who are left.
#[test]
fn orchestrators_die_and_nobody_notices() {
    let mut cluster = Cluster::start();
    let loads = cluster.load();
    let leader = cluster.leader();
    cluster.orchestrators[leader].crash();
    cluster.until("another leads after kill -9 of the leader", |cluster| {
        let seen = cluster.orchestrators.iter().filter(|node| node.process.is_some());
        seen.map(Node::status).all(|status| {
            let leader_now = status["orchestrators"]["leader"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            !leader_now.is_empty() && !leader_now.starts_with(&format!("orch-{}-", leader + 1))
        })
    });
    cluster.until_settled();
    cluster.orchestrators[leader].run();
    let worker = (0..3).find(|n| *n != leader && *n != cluster.leader()).unwrap();
    cluster.orchestrators[worker].crash();
    cluster.until_settled();
    cluster.orchestrators[worker].run();
    for load in &loads {
        load.wait_for_more(50);
    }
    assert_nothing_failed(loads);
}

/// Scenario: the leader hangs (SIGSTOP) for longer than its lease, another takes over, and the first goes on
/// (SIGCONT): what it writes late is refused, it follows the new leader, and no check is lost.
#[test]
fn a_leader_that_hangs_and_wakes_up_is_not_believed() {
    let cluster = Cluster::start();
    let loads = cluster.load();
    let leader = cluster.leader();
    let other = (leader + 1) % 3;
    let epoch = |node: usize| cluster.orchestrators[node].status()["orchestrators"]["epoch"].as_u64();
    let before = epoch(other);
    cluster.orchestrators[leader].signal(Signal::SIGSTOP);
    cluster.until("another leads while the leader hangs", |cluster| {
        let seen = cluster.orchestrators[other].status();
        let now = &seen["orchestrators"];
        now["epoch"].as_u64() > before && now["slots_unchecked"] == 0
    });
    cluster.orchestrators[leader].signal(Signal::SIGCONT);
    let after = epoch(other);
    cluster.until("the first leader sees the second", |cluster| {
        cluster.orchestrators[leader].status()["orchestrators"]["epoch"].as_u64() >= after
    });
    cluster.until_settled();
    assert_nothing_failed(loads);
}

/// Scenario: one member of etcd dies, a change is applied all the same; all of etcd dies, traffic goes on, an LB
/// server starts again from its disk, and a drain that was ordered before still holds; etcd comes back, and what is
/// applied then is served everywhere.
#[test]
fn etcd_dies_and_traffic_goes_on() {
    let mut cluster = Cluster::start();
    let loads = cluster.load();
    cluster.etcd.members[0].crash();
    let revision = cluster.applied(1, &cluster.balancer(2));
    cluster.until("a change is served with one member of etcd down", |cluster| {
        cluster.lbs.iter().all(|lb| served(&lb.status()) == revision)
    });
    let drained = cluster.backends[0].address.to_string();
    let output = cluster.orchestrators[0]
        .evenkeel()
        .cli(&["backend", "drain", "shop", &drained]);
    assert!(output.status.success(), "{output:?}");
    let drains = |node: &Node| node.evenkeel().backend(drained.parse().unwrap())["mode"] == "drain";
    cluster.until("the drain is known to both", |cluster| {
        cluster.lbs.iter().all(&drains)
    });
    cluster
        .etcd
        .members
        .iter_mut()
        .skip(1)
        .for_each(peers::Member::crash);
    cluster.until("the LB servers miss the store", |cluster| {
        cluster
            .lbs
            .iter()
            .all(|lb| lb.status()["store"]["connected"] == false)
    });
    for load in &loads {
        load.wait_for_more(50);
    }
    assert_nothing_failed(loads);

    // A restart cuts the connections that it has: the load begins anew.
    cluster.lbs[1].crash();
    cluster.lbs[1].run();
    let loads = cluster.load();
    assert_eq!(served(&cluster.lbs[1].status()), revision, "from its disk");
    assert!(
        drains(&cluster.lbs[1]),
        "the drain holds over a restart without the store"
    );
    for member in &mut cluster.etcd.members {
        member.start_again();
    }
    let back = cluster.until("the LB servers hear the store again", |cluster| {
        cluster
            .lbs
            .iter()
            .all(|lb| lb.status()["store"]["connected"] == true)
    });
    assert!(back < PATIENCE);
    let revision = cluster.applied(2, &cluster.balancer(3));
    cluster.until("what was applied then is served", |cluster| {
        cluster.lbs.iter().all(|lb| served(&lb.status()) == revision)
    });
    cluster.until_settled();
    assert_nothing_failed(loads);
}

/// Scenario: an LB server is restarted while etcd is there, once in order and once by `kill -9`, and each time a change
/// is applied while it is away. Through the other one nothing fails all the while; through it nothing fails from the
/// moment on at which it answers that it is ready, and it serves what was applied in its absence.
#[test]
fn an_lb_server_is_restarted_and_nothing_fails() {
    let mut cluster = Cluster::start();
    let other = Load::start(cluster.address(0), CLIENTS);
    let in_order: End = Node::stop;
    for (how, end, backends) in [("SIGTERM", in_order, 2), ("kill -9", Node::crash, 3)] {
        let before = Load::start(cluster.address(1), CLIENTS);
        before.wait_for_more(50);
        before.stop().assert_nothing_failed();
        end(&mut cluster.lbs[1]);
        assert!(Client::refused(cluster.address(1)), "it is away after {how}");
        let revision = cluster.apply(0, &cluster.balancer(backends));
        let began = Instant::now();
        cluster.lbs[1].run();
        println!("ready again after {how}: after {:?}", began.elapsed());
        let after = Load::start(cluster.address(1), CLIENTS);
        let caught_up = format!("it serves what was applied in its absence ({how})");
        cluster.until(&caught_up, |cluster| served(&cluster.lbs[1].status()) == revision);
        let verdicts = format!("it has heard of every backend ({how})");
        cluster.until(&verdicts, |cluster| up(&cluster.lbs[1].status()) == backends);
        let registered = format!("the others see it in its new life ({how})");
        cluster.until(&registered, |cluster| {
            let nodes = cluster.orchestrators[0].status()["nodes"].clone();
            let mut found = nodes.as_array().unwrap().iter();
            found.any(|node| node["name"] == "lb-2" && node["served"] == revision)
        });
        println!("recovered after {how}: after {:?}", began.elapsed());
        after.wait_for_more(50);
        after.stop().assert_nothing_failed();
    }
    other.wait_for_more(50);
    assert_nothing_failed(vec![other]);
}

/// Scenario: a change on trial breaks a route that has too few requests on each of two LB servers to say anything. What
/// they tell together is enough: an orchestrator takes the change back, and says how many nodes have seen it fail.
#[test]
fn what_fails_on_all_lb_servers_together_is_taken_back() {
    const REQUESTS: usize = 12;
    let cluster = Cluster::start();
    let loads = cluster.load();
    let bad = Backend::answering(|_| b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec());
    let text = |quiet: SocketAddr| {
        format!(
            "[load_balancers.shop]\nlisten = \"0.0.0.0:{}\"\n\
             [[load_balancers.shop.routes]]\nname = \"quiet\"\nmatch.path = \"/quiet\"\npool = \"quiet\"\n\
             [[load_balancers.shop.routes]]\nname = \"busy\"\npool = \"busy\"\n\
             [load_balancers.shop.pools.quiet]\nbackend_servers = [\"{quiet}\"]\nhealth = false\n\
             [load_balancers.shop.pools.busy]\nbackend_servers = [\"{}\"]\nhealth = false\n",
            cluster.port, cluster.backends[0].address
        )
    };
    let ask = |lb: usize, expected: u16| {
        let mut client = Client::connect(cluster.address(lb));
        (0..REQUESTS)
            .take_while(|_| client.get("/quiet").status() == expected)
            .count()
    };
    let revision = cluster.apply(0, &text(cluster.backends[1].address));
    cluster.until("both serve the routes", |cluster| {
        cluster.lbs.iter().all(|lb| served(&lb.status()) == revision)
    });
    assert_eq!([ask(0, 200), ask(1, 200)], [REQUESTS, REQUESTS]);
    let node = &cluster.orchestrators[0];
    let path = node.place.path().join("trial.toml");
    std::fs::write(&path, text(bad.address)).unwrap();
    node.evenkeel()
        .cli_ok(&["apply", "--confirm", "1h", &path.display().to_string()]);
    cluster.until("both serve what is on trial", |cluster| {
        cluster.lbs.iter().all(|lb| served(&lb.status()) > revision)
    });
    assert_eq!(ask(0, 500), REQUESTS, "one alone says nothing");
    // What both tell while this one is asked may be enough already: eight failures.
    assert!(ask(1, 500) > 0);
    let history = || node.evenkeel().cli_ok(&["history"]);
    cluster.until("it is taken back", |_| history().contains("revert of"));
    let told = history();
    let seen = (8..=2 * REQUESTS).any(|requests| {
        told.contains(&format!(
            "route quiet of shop failed more than before: 100.0 % of {requests} requests, before 0.0 % of 24, on 2 nodes"
        ))
    });
    assert!(seen && told.contains("evenkeel on orch-"), "{told}");
    cluster.until("both serve what was before", |cluster| {
        let good = |lb| Client::connect(cluster.address(lb)).get("/quiet").status() == 200;
        good(0) && good(1)
    });
    assert_nothing_failed(loads);
}

/// Scenario: Redis is killed, a change is applied and served all the same; it comes back, and the next change is hinted
/// at again.
#[test]
fn redis_dies_and_changes_still_arrive() {
    let mut cluster = Cluster::start();
    let loads = cluster.load();
    let heard = |node: &Node| {
        node.evenkeel()
            .metric("evenkeel_store_hints_total", &[("direction", "received")])
    };
    let before = heard(&cluster.lbs[0]);
    let served_everywhere = |cluster: &Cluster, revision| {
        cluster.until("a change is served", |cluster| {
            cluster.lbs.iter().all(|lb| served(&lb.status()) == revision)
        })
    };
    let revision = cluster.apply(0, &cluster.balancer(2));
    served_everywhere(&cluster, revision);
    cluster.until("the hint is heard", |cluster| heard(&cluster.lbs[0]) > before);
    cluster.redis.crash();
    let revision = cluster.apply(1, &cluster.balancer(3));
    served_everywhere(&cluster, revision);
    cluster.redis.start_again();
    let hinted = |node: &Node| node.evenkeel().metric("evenkeel_store_hints_connected", &[]) == 1.0;
    cluster.until("hints are heard again", |cluster| cluster.lbs.iter().all(hinted));
    let before = heard(&cluster.lbs[1]);
    let revision = cluster.apply(2, &cluster.balancer(2));
    served_everywhere(&cluster, revision);
    cluster.until("a hint comes again", |cluster| heard(&cluster.lbs[1]) > before);
    assert_nothing_failed(loads);
}

/// Scenario: the console that takes an `apply` dies in the middle of many: what was acknowledged is there, nothing is
/// half applied, and another console goes on.
#[test]
fn a_console_dies_in_the_middle_of_apply() {
    let mut cluster = Cluster::start();
    let loads = cluster.load();
    let mut last = 0;
    for round in 0..3_usize {
        let text = cluster.balancer(2 + round % 2);
        last = last.max(cluster.apply(0, &text));
        let path = cluster.orchestrators[0].place.path().join("shop.toml");
        std::fs::write(&path, cluster.balancer(3 - round % 2)).unwrap();
        let admin = cluster.orchestrators[0].evenkeel().admin;
        let applying = std::thread::spawn(move || {
            let path = path.display().to_string();
            let mut command = crate::support::program();
            command.args(["apply", "--json", "--admin", &admin.to_string(), &path]);
            command.output().unwrap()
        });
        cluster.orchestrators[0].crash();
        let output = applying.join().unwrap();
        if output.status.success() {
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            last = answer["revision"].as_u64().unwrap();
        }
        cluster.orchestrators[0].run();
    }
    let revision = cluster.apply(1, &cluster.balancer(1));
    assert!(revision > last, "{revision} after {last}");
    cluster.until("another console's change is served", |cluster| {
        cluster.lbs.iter().all(|lb| served(&lb.status()) == revision)
    });
    assert_nothing_failed(loads);
}

/// Scenario: the walk-through of `docs/cluster.md`, typed by somebody who has the program, etcd and Redis installed.
#[test]
fn the_walk_through_works_as_it_is_written() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/cluster.md")).unwrap();
    let blocks = page.split("<!-- walk-through -->\n```sh\n").skip(1);
    let typed: String = blocks.map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(
        typed.contains("cluster.sh up") && typed.contains("cluster.sh down"),
        "{typed}"
    );
    let folder = tempfile::tempdir().unwrap();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_evenkeel"));
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let shell = |script: &str| {
        let mut bash = std::process::Command::new("bash");
        bash.args(["-euc", script])
            .current_dir(&root)
            .env("PATH", &path)
            .env("EVENKEEL_CLUSTER", folder.path().join("cluster"))
            .env("EVENKEEL_CLUSTER_PORT", first_of_free_ports().to_string());
        bash.output().unwrap()
    };
    let began = Instant::now();
    let output = shell(&format!("trap 'examples/cluster/cluster.sh down' EXIT\n{typed}"));
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}",
        told(&output.stdout),
        told(&output.stderr)
    );
    let out = told(&output.stdout);
    assert!(
        out.contains("the cluster works") && out.contains("orch-2") && out.contains("lb-1"),
        "{out}"
    );
    println!("the walk-through took {:?}", began.elapsed());
}

/// The first of thirty ports of which none is taken now. They lie below the range from which the system gives out ports
/// (it begins at 32768): there, tests that run beside this one leave no thirty of them free in a row.
fn first_of_free_ports() -> u16 {
    let taken = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_err();
    let blocks: Vec<u16> = (18_000..32_000).step_by(30).collect();
    let begin = std::process::id() as usize % blocks.len();
    let mut candidates = blocks[begin..].iter().chain(&blocks[..begin]);
    *candidates
        .find(|first| !(**first..**first + 30).any(taken))
        .expect("thirty free ports")
}
