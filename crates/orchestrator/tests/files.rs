//! Members that are looked up in a file, while somebody writes it. Time is the test's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use evenkeel_orchestrator::discovery::{self, Target, Wanted};
use model::config::{Discovery, Name};
use model::state::Report;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Whoever asks for the members of this file, and hears of them. The first look is at once, the next one after a second.
struct Looked {
    wanted: watch::Sender<Wanted>,
    told: mpsc::Receiver<Report>,
    task: JoinHandle<()>,
    began: Instant,
}

impl Looked {
    fn start(file: &Path) -> Self {
        let target = Target {
            load_balancer: Name::parse("shop").unwrap(),
            pool: Name::parse("default").unwrap(),
            discovery: Discovery::File(file.to_owned()),
        };
        let (wanted, targets) = watch::channel(Wanted::from([(target, 1)]));
        let (tell, told) = mpsc::channel(16);
        Self {
            wanted,
            told,
            task: tokio::spawn(discovery::run(targets, tell, Default::default())),
            began: Instant::now(),
        }
    }

    async fn until_ms(&self, ms: u64) {
        sleep_until(self.began + Duration::from_millis(ms)).await;
    }

    /// What is told next: the members, or why they cannot be told.
    async fn next(&mut self) -> Result<Vec<String>, String> {
        let report = self.told.recv().await.unwrap();
        match report.members {
            Some(members) => Ok(members.keys().map(ToString::to_string).collect()),
            None => Err(report.stale.unwrap()),
        }
    }

    async fn stop(self) {
        drop(self.wanted);
        self.task.await.unwrap();
    }
}

/// Scenario: the file is not there when the process starts. Then somebody writes it in place, and one look falls into the
/// middle: what that saw is not taken.
#[tokio::test(start_paused = true)]
async fn a_list_that_appears_is_taken_when_two_looks_agree() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("members");
    let mut looked = Looked::start(&file);
    let missing = looked.next().await.unwrap_err();
    assert!(missing.contains("cannot read"), "{missing}");
    std::fs::write(&file, "10.0.0.1:9001\n10.0.0.2:90").unwrap();
    looked.until_ms(1_500).await;
    std::fs::write(&file, "10.0.0.1:9001\n10.0.0.2:9001\n").unwrap();
    assert_eq!(looked.next().await.unwrap(), ["10.0.0.1:9001", "10.0.0.2:9001"]);
    looked.stop().await;
}

/// Scenario: the file is a pipe that nobody writes into. That is said, and the list that takes its place is taken.
#[tokio::test(start_paused = true)]
async fn a_pipe_is_no_list() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("members");
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let mut looked = Looked::start(&file);
    let refused = looked.next().await.unwrap_err();
    assert!(refused.contains("is not a regular file"), "{refused}");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "10.0.0.1:9001\n").unwrap();
    assert_eq!(looked.next().await.unwrap(), ["10.0.0.1:9001"]);
    looked.stop().await;
}
