//! Root is given up once everything is open.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};

use crate::support::{Backend, Client, Place, QUIET, free_ip, shop_on, wait_until};

/// Started as root with `node.user`: it has a port below 1024 and is somebody else, in every thread and for good;
/// it serves, keeps orders, reloads, and refuses a new port below 1024.
#[test]
fn root_is_given_up_after_binding() {
    if !Uid::effective().is_root() {
        eprintln!("skipped: only root can give up root");
        return;
    }
    let nobody = User::from_name("nobody").unwrap().expect("a user named nobody");
    let one = Backend::named("one");
    let low = format!("{}:81", free_ip());
    let node = "[node]\nuser = \"nobody\"\n";
    let place = Place::new(&format!("{node}{}", shop_on(&low, &[one.address], QUIET)));
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let evenkeel = place.start();
    let id = nobody.uid.to_string();
    // Real, effective, saved and file system.
    let all_four = [id.as_str(); 4].join("\t");
    assert_eq!(evenkeel.proc_status("Uid:"), all_four);
    assert_eq!(
        evenkeel.proc_status("Groups:"),
        nobody.gid.to_string(),
        "no other group is kept"
    );
    for set in ["CapEff:", "CapPrm:", "CapAmb:"] {
        assert_eq!(evenkeel.proc_status(set), "0000000000000000", "{set}");
    }
    for task in std::fs::read_dir(format!("/proc/{}/task", evenkeel.pid())).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap();
        assert_eq!(line.trim(), all_four, "a thread stayed behind");
    }
    let mut client = Client::connect(low.parse().unwrap());
    assert_eq!(client.get("/").text(), "one");
    evenkeel.cli_ok(&["backend", "weight", "shop", &one.address.to_string(), "5"]);
    assert!(
        place.data().join("store/store.redb").is_file(),
        "orders can be kept"
    );

    place.write(&format!(
        "{node}{}",
        shop_on(&format!("{}:82", free_ip()), &[one.address], QUIET)
    ));
    evenkeel.signal(Signal::SIGHUP);
    wait_until("it is refused", || !evenkeel.events("reload_refused").is_empty());
    let refused = evenkeel.events("reload_refused").join("\n");
    let detail = evenkeel.status()["config"]["last_reload"].to_string();
    assert!(
        format!("{refused}{detail}").contains("ermission denied"),
        "{refused} {detail}"
    );
    assert_eq!(client.get("/").text(), "one");
}

/// A user that does not exist ends the start before anything is open.
#[test]
fn an_unknown_user_is_refused() {
    let one = Backend::named("one");
    let address = crate::support::free_address();
    let config = shop_on(&address.to_string(), &[one.address], QUIET);
    let place = Place::new(&format!("[node]\nuser = \"nobody-of-this-name\"\n{config}"));
    let output = place.command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nobody-of-this-name"), "{said}");
    assert!(Client::refused(address));
}
