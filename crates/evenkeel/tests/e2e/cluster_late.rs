//! What a leader among the orchestrators has written and the store has not got when the leader hangs.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use peers::{Etcd, Member};
use serde_json::Value;

use crate::support::{Backend, Evenkeel, Load, Place, free_ip, wait_until};

/// A line to a member of etcd that keeps back what is sent, from a word on, until it is let go.
struct Line {
    address: SocketAddr,
    trap: Arc<(Mutex<Trap>, Condvar)>,
}

#[derive(Default)]
struct Trap {
    /// Set: what holds this is kept back, and all after it.
    word: Option<&'static [u8]>,
    caught: bool,
}

impl Line {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let trap = Arc::<(Mutex<Trap>, Condvar)>::default();
        let shared = trap.clone();
        // Ends with the process of the test: nobody is told, and it holds nothing but a port.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, trap) = (client.unwrap(), shared.clone());
                let Ok(server) = TcpStream::connect(server) else {
                    continue;
                };
                let (back, there) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || pump(client, server, Some(&*trap)));
                std::thread::spawn(move || pump(back, there, None));
            }
        });
        Self { address, trap }
    }

    fn catch(&self, word: &'static [u8]) {
        self.trap.0.lock().unwrap().word = Some(word);
    }

    fn has_caught(&self) -> bool {
        self.trap.0.lock().unwrap().caught
    }

    fn let_go(&self) {
        *self.trap.0.lock().unwrap() = Trap::default();
        self.trap.1.notify_all();
    }
}

/// Passes on what comes until one of both ends.
fn pump(mut from: TcpStream, mut to: TcpStream, trap: Option<&(Mutex<Trap>, Condvar)>) {
    let mut some = vec![0; 64 * 1024];
    // A connection in which nothing was caught goes on.
    let mut held = false;
    loop {
        let read = from.read(&mut some).unwrap_or(0);
        if let Some((state, gone)) = trap {
            let mut state = state.lock().unwrap();
            let holds = |word: &[u8]| some[..read].windows(word.len()).any(|bytes| bytes == word);
            if state.word.is_some_and(holds) {
                (state.caught, held) = (true, true);
            }
            if held {
                drop(gone.wait_while(state, |state| state.word.is_some()).unwrap());
                held = false;
            }
        }
        if read == 0 || to.write_all(&some[..read]).is_err() {
            drop(to.shutdown(Shutdown::Write));
            return;
        }
    }
}

/// Transactions that a member of etcd has answered.
fn transactions(member: &Member) -> u64 {
    let place = member.url.trim_start_matches("http://");
    let mut client = TcpStream::connect(place).unwrap();
    write!(client, "GET /metrics HTTP/1.0\r\nHost: {place}\r\n\r\n").unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    let line = text.lines().find(|line| {
        line.starts_with("grpc_server_handled_total{") && line.contains("\"Txn\"") && line.contains("\"OK\"")
    });
    line.and_then(|line| line.split(' ').next_back()?.parse().ok())
        .expect("a count of transactions")
}

/// The last round of assignments, as it stands in etcd: its epoch.
fn epoch_of_assignments(etcd: &Etcd) -> u64 {
    let text = etcd.etcdctl(&["get", "/evenkeel/assign/head", "--print-value-only"]);
    let head: Value = serde_json::from_str(text.trim()).unwrap_or_default();
    head["epoch"].as_u64().unwrap_or(0)
}

/// Scenario: the leader makes a round of assignments, and hangs (SIGSTOP) while that is on its way. Its lease ends,
/// another leads and shares the checks out anew. Then the late round reaches the store: it is refused, the assignments
/// are of the new epoch all the while. The first leader goes on (SIGCONT), says that its lease was over, and follows. No
/// request fails through either LB server.
#[test]
fn what_a_leader_that_hung_writes_late_is_refused() {
    let etcd = Etcd::start(3);
    let urls = etcd.endpoints();
    // The leader alone has the third member, so that what that one answers is its.
    let line = Line::to(urls[2].trim_start_matches("http://").parse().unwrap());
    let node = |name: &str, roles: &str, endpoints: &[String]| {
        let place = Place::new(&format!(
            "[node]\nname = \"{name}\"\nroles = {roles}\nbind = \"{}\"\nthreads = 1\n\
             [store]\nkind = \"etcd\"\nendpoints = {endpoints:?}\n",
            free_ip()
        ));
        let process = place.start();
        (place, process)
    };
    let orchestrates = r#"["orchestrator", "console"]"#;
    let first = node("orch-1", orchestrates, &[format!("http://{}", line.address)]);
    let leads = |process: &Evenkeel| process.metric("evenkeel_orchestrator_leader", &[]) == 1.0;
    wait_until("the first leads", || leads(&first.1));
    let second = node("orch-2", orchestrates, &urls[..2]);
    let lbs = ["lb-1", "lb-2"].map(|name| node(name, r#"["lb"]"#, &urls[..2]));
    let [one, two] = ["one", "two"].map(Backend::named);
    let path = second.0.path().join("shop.toml");
    let text = format!(
        "[load_balancers.shop]\nlisten = \"0.0.0.0:0\"\nbackend_servers = [\"{}\", \"{}\"]\nslow_start = 0\n\
         poll_frequency = \"500ms\"\n",
        one.address, two.address
    );
    std::fs::write(&path, text).unwrap();
    second.1.cli_ok(&["apply", &path.display().to_string()]);
    let loads = lbs.each_ref().map(|(_, lb)| {
        wait_until("it is served", || {
            !lb.status()["load_balancers"].as_array().unwrap().is_empty()
        });
        Load::start(lb.address(), 2)
    });
    let settled = |process: &Evenkeel| {
        let seen = process.status()["orchestrators"].clone();
        seen["leader"].is_string() && seen["slots_unchecked"] == 0
    };
    wait_until("the checks are shared out", || settled(&second.1));
    let before = epoch_of_assignments(&etcd);
    let leases_lost = || first.1.metric("evenkeel_orchestrator_leases_lost_total", &[]);
    let lost = leases_lost();

    line.catch(b"assign/head");
    // Whoever comes has to be given a share: a round.
    let third = node("orch-3", orchestrates, &urls[..2]);
    wait_until("a round is on its way", || line.has_caught());
    let hung = Instant::now();
    first.1.signal(Signal::SIGSTOP);
    let after = peers::wait_until("another has shared out the checks", || {
        Some(epoch_of_assignments(&etcd)).filter(|epoch| *epoch > before)
    });
    wait_until("all are checked again", || settled(&second.1));
    println!(
        "another leads, and all is checked: {:?} after the leader hung",
        hung.elapsed()
    );
    let answered = transactions(&etcd.members[2]);
    line.let_go();
    wait_until("the late round is answered", || {
        transactions(&etcd.members[2]) > answered
    });
    // A later leader's may follow; the late one is of an earlier epoch.
    let stays = || assert!(epoch_of_assignments(&etcd) >= after, "the late round is refused");
    stays();
    first.1.signal(Signal::SIGCONT);
    wait_until("the first says that its lease was over", || {
        stays();
        leases_lost() > lost
    });
    wait_until("its log does", || first.1.log().contains("will be refused"));
    wait_until("the first follows", || {
        stays();
        let epoch = first.1.status()["orchestrators"]["epoch"].as_u64();
        !leads(&first.1) && epoch >= Some(after) && settled(&first.1)
    });
    wait_until("one of the others leads", || leads(&second.1) != leads(&third.1));
    for load in loads {
        load.wait_for_more(50);
        load.stop().assert_nothing_failed();
    }
    let least = Duration::from_secs(2);
    assert!(hung.elapsed() > least, "it hung for longer than its lease");
}
