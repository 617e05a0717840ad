//! Out of file descriptors: what runs goes on, no backend is blamed, the log stays short, and it passes by itself.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Backend, Client, Evenkeel, Metrics, Place, shop, wait_until};

/// Files that the process may have open.
const FILES: u32 = 96;

/// The same command with that limit.
fn limited(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("ulimit -n {FILES} && exec \"$0\" \"$@\"");
    shell.args(["-c", &script]).arg(command.get_program());
    shell.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// Scenario: a crowd that only connects. Clients that are in are served as long as it takes no new connection to a
/// backend, and told 503 `local_resources` else; checks give no verdict; when the crowd goes, all is as before.
#[test]
fn no_file_descriptor_is_left_and_it_passes() {
    let one = Backend::named("one");
    let checks = "health = { interval = \"100ms\", fast_interval = \"50ms\" }\npassive = { consecutive_failures = 1 }\nslow_start = 0\n";
    let place = Place::new(&format!("[node]\nthreads = 1\n{}", shop(&[&one], checks)));
    let evenkeel = Evenkeel::spawn(&mut limited(&place.command()));
    evenkeel.wait_for_state(one.address, "eligible");
    let at = evenkeel.address();
    // In before the crowd: the administrator, and some clients.
    let mut admin = Client::connect(evenkeel.admin);
    let scrape = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", evenkeel.admin);
    let mut failed = || {
        let metrics = Metrics::new(admin.ask(&scrape).text().to_owned());
        metrics.sum("evenkeel_accept_errors_total", &[])
    };
    let mut clients: Vec<Client> = (0..8).map(|_| evenkeel.client()).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").status(), 200);
    }
    let begin = Instant::now();
    let crowd: Vec<TcpStream> = (0..FILES).map(|_| TcpStream::connect(at).unwrap()).collect();
    wait_until("accepting fails again and again", || failed() >= 20.0);
    let mut refused = 0;
    for _ in 0..5 {
        clients.iter_mut().for_each(|client| {
            client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        });
        for client in &mut clients {
            let answer = client.response();
            match answer.status() {
                200 => {}
                _ => {
                    assert_eq!((answer.status(), answer.reason()), (503, "local_resources"));
                    refused += 1;
                }
            }
        }
    }
    wait_until("it still fails", || failed() >= 40.0);
    let told = evenkeel.log().matches("accept failed").count();
    let most = 1 + begin.elapsed().as_secs() / Duration::from_secs(10).as_secs();
    assert!(told >= 1 && told as u64 <= most, "{told}: {}", evenkeel.log());

    drop(crowd);
    wait_until("newcomers are served again", || {
        let answer = Client::connect(at).get("/");
        refused += u32::from(answer.reason() == "local_resources");
        answer.status() == 200
    });
    evenkeel.wait_for_failures("local_resources", refused);
    assert_eq!(evenkeel.backend(one.address)["eligibility"], "eligible");
    for kind in ["backend_ejected", "backend_down"] {
        assert_eq!(evenkeel.events(kind), Vec::<String>::new());
    }
    assert_eq!(evenkeel.metric("evenkeel_backend_failures_total", &[]), 0.0);
}
