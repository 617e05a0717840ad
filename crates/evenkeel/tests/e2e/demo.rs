//! The demo: the first thing that a person sees.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Stdio};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::{Client, Load, free_ip, program, wait_for, wait_until};

/// A running demo, and where it keeps what it keeps; killed when dropped.
struct Demo(Child, TempDir);

impl Demo {
    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start() -> (Demo, BufReader<std::process::ChildStdout>) {
    let (ip, directory) = (free_ip(), TempDir::new().unwrap());
    let mut command = program();
    command.args([
        "demo",
        "--listen",
        &format!("{ip}:0"),
        "--admin",
        &format!("{ip}:0"),
    ]);
    let mut child = command
        .env("TMPDIR", directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (Demo(child, directory), output)
}

/// Reads lines until one has what is looked for; the word after `before` in it.
fn word_after(output: &mut impl BufRead, before: &str) -> String {
    wait_for(before, || {
        let mut line = String::new();
        assert!(
            output.read_line(&mut line).unwrap() > 0,
            "the demo ended before {before:?}"
        );
        let (_, after) = line.split_once(before)?;
        after.split_whitespace().next().map(str::to_owned)
    })
}

/// Processes whose parent is this one.
fn children(pid: Pid) -> Vec<Pid> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace()
        .map(|p| Pid::from_raw(p.parse().unwrap()))
        .collect()
}

/// Prints its address, serves from three backends, does not notice that one is killed as its own text proposes,
/// and ends on SIGTERM with all it started.
#[test]
fn the_demo_survives_what_it_proposes() {
    let (mut demo, mut output) = start();
    let address: SocketAddr = word_after(&mut output, "open http://")
        .trim_end_matches('/')
        .parse()
        .unwrap();
    let victim = Pid::from_raw(word_after(&mut output, "kill -9 ").parse().unwrap());
    let mut client = Client::connect(address);
    assert_eq!(client.get("/").status(), 200);
    let beta = "GET / HTTP/1.1\r\nHost: a\r\nX-Beta-User: 1\r\n\r\n";
    assert_eq!(client.ask(beta).status(), 200);
    let limited: Vec<u16> = (0..4).map(|_| client.get("/limited").status()).collect();
    assert_eq!(limited, [200, 200, 200, 429]);
    assert_eq!(client.get("/old").status(), 302);
    let backends = children(demo.pid());
    assert!(
        backends.len() == 3 && backends.contains(&victim),
        "{backends:?} {victim}"
    );
    let load = Load::start(address, 8);
    load.wait_for_more(60);
    signal::kill(victim, Signal::SIGKILL).unwrap();
    load.wait_for_more(300);
    let report = load.stop();
    report.assert_nothing_failed();
    assert_eq!(report.by_backend.len(), 3, "{:?}", report.by_backend);

    signal::kill(demo.pid(), Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
    assert!(rest.ends_with("demo ended\n"), "{rest}");
    assert_eq!(std::fs::read_dir(demo.1.path()).unwrap().count(), 0);
    for backend in backends {
        assert!(
            signal::kill(backend, None).is_err(),
            "backend {backend} was left behind"
        );
    }
}

/// Even `kill -9` of the demo leaves no backend behind.
#[test]
fn a_killed_demo_leaves_no_child() {
    let (mut demo, mut output) = start();
    word_after(&mut output, "open http://");
    let backends = children(demo.pid());
    assert_eq!(backends.len(), 3);
    demo.0.kill().unwrap();
    demo.0.wait().unwrap();
    // A child that has ended stays in the table until its new parent looks.
    let gone = |pid: &Pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |s| s.contains(") Z "))
    };
    wait_until("all have ended", || backends.iter().all(gone));
}
