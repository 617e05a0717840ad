//! The disk of the embedded store is full, with load running all the while.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Backend, Client, Evenkeel, Load, Place, QUIET, free_address, wait_until};

/// Bytes of the disk.
const DISK: usize = 8 * 1024 * 1024;

/// How the process comes to a small disk.
enum Small {
    /// As root: a file system in memory, which it sees alone.
    Mounted,
    /// A bound on the size of its files; the signal that would end it is ignored, so that the write fails instead.
    Bounded,
}

impl Small {
    fn available(folder: &Path) -> Self {
        let tried = Command::new("unshare")
            .args(["--mount", "sh", "-c", &mount(folder), "sh", "true"])
            .stderr(Stdio::null())
            .status();
        match tried.is_ok_and(|status| status.success()) {
            true => Self::Mounted,
            false => Self::Bounded,
        }
    }

    fn start(&self, place: &Place) -> Evenkeel {
        let run = place.command();
        let mut command = match self {
            Self::Mounted => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", &mount(&place.data()), "sh"]);
                command
            }
            Self::Bounded => {
                let mut command = Command::new("sh");
                // Blocks of 512 bytes.
                let bound = DISK / 512;
                command.args([
                    "-c",
                    &format!("trap '' XFSZ; ulimit -S -f {bound}; exec \"$@\""),
                    "sh",
                ]);
                command
            }
        };
        command.arg(run.get_program()).args(run.get_args());
        for (name, value) in run.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Evenkeel::spawn(&mut command)
    }

    /// Leaves no room on the disk, however little is left.
    fn fill(&self, evenkeel: &Evenkeel, place: &Place) {
        if let Self::Mounted = self {
            let mut file = std::fs::File::create(ballast(evenkeel, place)).unwrap();
            while file.write_all(&[1; 4096]).is_ok() {}
        }
    }

    fn free(&self, evenkeel: &Evenkeel, place: &Place) {
        match self {
            Self::Mounted => std::fs::remove_file(ballast(evenkeel, place)).unwrap(),
            Self::Bounded => {
                let pid = evenkeel.pid().to_string();
                let raised = Command::new("prlimit")
                    .args(["--pid", &pid, "--fsize=unlimited"])
                    .status();
                assert!(raised.unwrap().success());
            }
        }
    }
}

fn mount(folder: &Path) -> String {
    format!(
        "mount -t tmpfs -o size={DISK} none '{}' && exec \"$@\"",
        folder.display()
    )
}

/// A file on the disk that only the process sees.
fn ballast(evenkeel: &Evenkeel, place: &Place) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", evenkeel.pid()));
    let data = place.data();
    root.join(data.strip_prefix("/").unwrap()).join("ballast")
}

/// Scenario: changes are applied until the disk is full. The one that finds no room says which disk it is and what to
/// do, and nothing of it is there. Requests are answered all the while, none fails; once there is room
/// the next change is taken, by the same process, and served.
#[test]
fn a_full_disk_refuses_changes_and_nothing_else() {
    let (one, two) = (Backend::named("one"), Backend::named("two"));
    let place = Place::new("[store]\nkind = \"embedded\"\n");
    std::fs::create_dir_all(place.data()).unwrap();
    let small = Small::available(&place.data());
    let evenkeel = small.start(&place);
    let listen = free_address();
    // Of about so many thousand bytes.
    let text = |backend: &Backend, size: usize, mark: usize| {
        let pads = (0..size / 50).map(|n| {
            let body = format!("{mark:05}").repeat(10_000);
            format!(
                "[[load_balancers.shop.routes]]\nname = \"pad-{n}\"\nmatch.path = \"/pad/{n}\"\n\
                 respond = {{ body = \"{body}\" }}\n"
            )
        });
        format!(
            "[load_balancers.shop]\nlisten = \"{listen}\"\n{}\
             [[load_balancers.shop.routes]]\nname = \"all\"\npool = \"main\"\n\
             [load_balancers.shop.pools.main]\nbackend_servers = [\"{}\"]\n{QUIET}\n",
            pads.collect::<String>(),
            backend.address
        )
    };
    let apply = |text: String| {
        let path = place.path().join("shop.toml");
        std::fs::write(&path, text).unwrap();
        evenkeel.cli(&["apply", &path.display().to_string()])
    };
    assert!(apply(text(&one, 0, 0)).status.success());
    wait_until("it is served", || !Client::refused(listen));
    let loads = [Load::start(listen, 2), Load::start(listen, 2)];
    small.fill(&evenkeel, &place);
    let mut rounds = (0..100).map(|round| apply(text(&one, 200, round))).enumerate();
    let refused = rounds.find(|(_, output)| !output.status.success());
    let (taken, refused) = refused.expect("the disk gets full");
    let told = String::from_utf8(refused.stderr).unwrap();
    println!("{told}");
    let data = place.data().display().to_string();
    for words in ["no room left", data.as_str(), "free space on this disk"] {
        assert!(told.contains(words), "{words:?} is not in: {told}");
    }
    let served = || evenkeel.status()["store"]["served"].clone();
    wait_until("what was taken is served", || served() == taken + 1);
    let again = apply(text(&two, 200, 777));
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert_eq!(served(), taken + 1);
    for load in &loads {
        load.wait_for_more(50);
    }
    assert_eq!((two.count(), Client::connect(listen).get("/").text()), (0, "one"));

    small.free(&evenkeel, &place);
    let pid = evenkeel.pid();
    let output = apply(text(&two, 200, 778));
    assert!(output.status.success(), "{output:?}");
    wait_until("what is applied then is served", || {
        Client::connect(listen).get("/").text() == "two"
    });
    evenkeel.cli_ok(&["backend", "weight", "shop", &two.address.to_string(), "2"]);
    assert_eq!(evenkeel.pid(), pid);
    for load in loads {
        load.wait_for_more(50);
        load.stop().assert_nothing_failed();
    }
}
