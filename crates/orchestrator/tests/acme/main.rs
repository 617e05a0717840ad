//! The keeper of certificates against Pebble, Let's Encrypt's own test authority: real accounts, orders, nonces and
//! challenges over the network (RFC 8555).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod pebble;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use evenkeel_orchestrator::acme::{self, AcmeEvent, Publish};
use model::acme::{Challenge, Challenges, Managed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use pebble::Pebble;

/// Longest an order may take here; it takes well below a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

type Answers = Arc<Mutex<Challenges>>;

/// What a user of the keeper has in hand.
struct Kept {
    wanted: watch::Sender<Vec<Managed>>,
    events: mpsc::Receiver<AcmeEvent>,
}

fn keep(directory: &Path, answers: &Answers, managed: Managed) -> Kept {
    let (wanted, wanted_in) = watch::channel(vec![managed]);
    let (events_out, events) = mpsc::channel(8);
    let answers = answers.clone();
    let publish: Publish = Arc::new(move |challenges| *answers.lock().unwrap() = challenges);
    tokio::spawn(acme::run(directory.to_owned(), wanted_in, publish, events_out));
    Kept { wanted, events }
}

async fn next(kept: &mut Kept) -> AcmeEvent {
    let event = tokio::time::timeout(PATIENCE, kept.events.recv()).await;
    event.expect("an order ends in time").expect("the keeper runs")
}

/// A web server that knows the answers in force and nothing else.
async fn web_server(answers: Answers) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut buffer = vec![0; 4096];
            let length = client.read(&mut buffer).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default();
            let token = path
                .strip_prefix("/.well-known/acme-challenge/")
                .unwrap_or_default();
            let answer = answers.lock().unwrap().http.get(token).cloned();
            let (status, body) = match answer {
                Some(body) => ("200 OK", body),
                None => ("404 Not Found", String::new()),
            };
            let response = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = client.write_all(response.as_bytes()).await;
        }
    });
    port
}

/// Whether openssl finds the way from the certificate in `path` to the root at this URL.
fn leads_to(path: &Path, root: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("root.pem");
    let curl = Command::new("curl")
        .args(["--silent", "--insecure", "--output"])
        .arg(&file)
        .arg(root)
        .status();
    assert!(curl.unwrap().success());
    let mut verify = Command::new("openssl");
    verify
        .args(["verify", "-CAfile"])
        .arg(&file)
        .arg("-untrusted")
        .args([path, path]);
    verify.output().unwrap().status.success()
}

fn managed(pebble: &Pebble, domains: &[&str]) -> Managed {
    Managed {
        name: "shop".to_owned(),
        domains: domains.iter().map(|d| (*d).to_owned()).collect(),
        email: Some("ops@example.com".to_owned()),
        directory: pebble.directory(),
        directory_ca: Some(pebble.ca()),
        challenge: Challenge::Http01,
    }
}

/// Scenario: two names are wanted. A certificate for both comes, its file holds key and chain and is readable by its
/// owner alone, the answers are withdrawn, and a second keeper (a restart) orders nothing and makes no new account.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_ordered_once_and_survives_a_restart() {
    let answers = Answers::default();
    let port = web_server(answers.clone()).await;
    let pebble = Pebble::start(Ipv4Addr::LOCALHOST.into(), port, port);
    let data = tempfile::tempdir().unwrap();
    let wanted = managed(&pebble, &["shop.example.com", "www.shop.example.com"]);
    let mut kept = keep(data.path(), &answers, wanted.clone());
    let AcmeEvent::Issued {
        name,
        domains,
        not_after_s,
    } = next(&mut kept).await
    else {
        panic!("no certificate");
    };
    assert_eq!((name.as_str(), &domains), ("shop", &wanted.domains));
    assert!(not_after_s > 0);
    assert!(
        answers.lock().unwrap().is_empty(),
        "answers stay in force after the order"
    );
    let path = wanted.path(data.path());
    let pem = std::fs::read_to_string(&path).unwrap();
    assert_eq!(pem.matches("BEGIN PRIVATE KEY").count(), 1);
    assert!(pem.matches("BEGIN CERTIFICATE").count() >= 2, "leaf and issuer");
    assert!(
        leads_to(&path, &pebble.root()),
        "the chain leads to the authority's root"
    );
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    drop(kept);

    let mut again = keep(data.path(), &answers, wanted.clone());
    let quiet = tokio::time::timeout(Duration::from_secs(1), again.events.recv()).await;
    assert!(
        quiet.is_err(),
        "nothing is ordered while the certificate is fresh: {quiet:?}"
    );
    // Other names: a new order, with the account of before.
    let accounts = || std::fs::read_dir(data.path().join("accounts")).unwrap().count();
    assert_eq!(accounts(), 1);
    let other = Managed {
        domains: vec!["other.example.com".to_owned()],
        ..wanted
    };
    again.wanted.send_replace(vec![other]);
    assert!(matches!(next(&mut again).await, AcmeEvent::Issued { .. }));
    assert_eq!(accounts(), 1);
}

/// Scenario: the authority finds no answer to its challenge. The failure says what the authority said, the next try
/// is in the future, and no file appears.
#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_that_fails_says_why_and_waits() {
    let nobody = Answers::default();
    let port = web_server(Answers::default()).await;
    let pebble = Pebble::start(Ipv4Addr::LOCALHOST.into(), port, port);
    let data = tempfile::tempdir().unwrap();
    let mut kept = keep(data.path(), &nobody, managed(&pebble, &["shop.example.com"]));
    let AcmeEvent::Failed { why, next_s, .. } = next(&mut kept).await else {
        panic!("a certificate without an answer");
    };
    assert!(why.contains("shop.example.com") && why.contains("404"), "{why}");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!(next_s > now.as_secs() && next_s < now.as_secs() + 120);
    assert!(!managed(&pebble, &[]).path(data.path()).exists());
}

/// Scenario: nobody listens where the directory should be. The failure names it.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_there_is_named() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let data = tempfile::tempdir().unwrap();
    let wanted = Managed {
        name: "shop".to_owned(),
        domains: vec!["shop.example.com".to_owned()],
        email: None,
        directory: format!("https://{closed}/dir"),
        directory_ca: None,
        challenge: Challenge::Http01,
    };
    let mut kept = keep(data.path(), &Answers::default(), wanted);
    let AcmeEvent::Failed { why, .. } = next(&mut kept).await else {
        panic!("a certificate from nobody");
    };
    assert!(why.contains(&closed.to_string()), "{why}");
}
