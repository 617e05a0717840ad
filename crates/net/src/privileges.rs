//! Giving up root after binding, and the limit of open files.
//!
//! A process started as root binds its low ports, opens its data directory and then becomes an ordinary user for
//! good: supplementary groups first, then the group, then the user, because each later step takes away the right
//! to do the earlier ones. The C library carries the change to every thread of the process; on Linux this module
//! then reads back what the kernel says about each of them, and it tries to become root again and insists that
//! this fails.
//!
//! Capabilities: changing from user 0 to another clears the permitted and effective sets, so afterwards a *new*
//! listener below port 1024 cannot be opened. Where that is wanted, do not start as root: let the service manager
//! start the process as its user with the ambient capability `CAP_NET_BIND_SERVICE`, which is kept because no
//! user changes.

use std::io;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgid, getuid, setgid, setgroups, setuid};

/// The user and group to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name or number as configured, for messages.
    pub name: String,
    uid: Uid,
    gid: Gid,
}

/// Why root was not given up. After any of these the process must end, not go on.
#[derive(Debug)]
pub enum PrivilegeError {
    /// No user of this name or number.
    UnknownUser(String),
    /// No group of this name or number.
    UnknownGroup(String),
    /// The user database could not be read.
    Lookup(String, io::Error),
    /// The user configured is root itself, or the group is root's.
    StillRoot(String),
    /// One of the system calls failed.
    Call(&'static str, io::Error),
    /// The calls succeeded, but a thread kept what it must not have.
    NotDropped(String),
}

impl std::fmt::Display for PrivilegeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownUser(name) => write!(f, "node.user: there is no user `{name}` on this system"),
            Self::UnknownGroup(name) => write!(f, "node.group: there is no group `{name}` on this system"),
            Self::Lookup(name, error) => write!(f, "cannot look up `{name}`: {error}"),
            Self::StillRoot(name) => {
                write!(
                    f,
                    "`{name}` is root: name another user and group in node.user and node.group"
                )
            }
            Self::Call(call, error) => write!(f, "cannot give up root: {call}: {error}"),
            Self::NotDropped(what) => write!(f, "root was not given up: {what}"),
        }
    }
}

impl std::error::Error for PrivilegeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Lookup(_, error) | Self::Call(_, error) => Some(error),
            _ => None,
        }
    }
}

/// Whether the process runs as root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// The user the process runs as: its name, or `uid 1000` when it has none.
pub fn current_user() -> String {
    let uid = geteuid();
    User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| format!("uid {uid}"), |user| user.name)
}

impl Identity {
    /// Looks up a user and a group, each by name or number; without a group it is the user's own.
    ///
    /// # Errors
    /// When there is none of that name, or the lookup itself fails.
    pub fn find(user: &str, group: Option<&str>) -> Result<Self, PrivilegeError> {
        let lookup = |error: nix::Error| PrivilegeError::Lookup(user.to_owned(), error.into());
        let found = match user.parse::<u32>() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(user),
        };
        let found = found
            .map_err(lookup)?
            .ok_or_else(|| PrivilegeError::UnknownUser(user.to_owned()))?;
        let gid = match group {
            Some(group) => find_group(group)?,
            None => found.gid,
        };
        Ok(Self {
            name: user.to_owned(),
            uid: found.uid,
            gid,
        })
    }

    /// Whether the process already runs as this user.
    pub fn is_current(&self) -> bool {
        geteuid() == self.uid
    }

    /// Gives a file or directory to this user and group. Only root may. A symbolic link is given itself, never
    /// what it points to: in a directory of another user it could point anywhere.
    ///
    /// # Errors
    /// Whatever `lchown` says.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))
    }

    /// Becomes this user for good, in every thread.
    ///
    /// # Errors
    /// [`PrivilegeError`]; the process is then in an unknown state between the two users and must end.
    pub fn assume(&self) -> Result<(), PrivilegeError> {
        if self.uid.is_root() || self.gid.as_raw() == 0 {
            return Err(PrivilegeError::StillRoot(self.name.clone()));
        }
        let call = |name| move |error: nix::Error| PrivilegeError::Call(name, error.into());
        setgroups(&[self.gid]).map_err(call("setgroups"))?;
        setgid(self.gid).map_err(call("setgid"))?;
        setuid(self.uid).map_err(call("setuid"))?;
        self.verify()
    }

    fn verify(&self) -> Result<(), PrivilegeError> {
        let ids = [getuid(), geteuid()];
        if ids != [self.uid; 2] || [getgid(), getegid()] != [self.gid; 2] {
            return Err(PrivilegeError::NotDropped("the process kept its old user".into()));
        }
        if setuid(Uid::from_raw(0)).is_ok() || setgid(Gid::from_raw(0)).is_ok() {
            return Err(PrivilegeError::NotDropped(
                "becoming root again was possible".into(),
            ));
        }
        #[cfg(target_os = "linux")]
        self.verify_threads()?;
        Ok(())
    }

    /// What the kernel says about each thread: real, effective, saved and file-system ids, and no capability.
    #[cfg(target_os = "linux")]
    fn verify_threads(&self) -> Result<(), PrivilegeError> {
        let read = |error| PrivilegeError::Call("reading /proc/self/task", error);
        for task in std::fs::read_dir("/proc/self/task").map_err(read)? {
            let path = task.map_err(read)?.path().join("status");
            match std::fs::read_to_string(&path) {
                Ok(status) => self
                    .verify_status(&status)
                    .map_err(|what| PrivilegeError::NotDropped(format!("{}: {what}", path.display())))?,
                // A thread that ended between the listing and now has no rights left.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(read(error)),
            }
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn verify_status(&self, status: &str) -> Result<(), String> {
        for (key, want) in [("Uid:", self.uid.as_raw()), ("Gid:", self.gid.as_raw())] {
            let line = field(status, key)?;
            let same = line.split_whitespace().all(|id| id.parse() == Ok(want));
            if !same {
                return Err(format!("{key} {}", line.trim()));
            }
        }
        for key in ["CapPrm:", "CapEff:"] {
            let line = field(status, key)?;
            if u64::from_str_radix(line.trim(), 16) != Ok(0) {
                return Err(format!("{key} {}", line.trim()));
            }
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn field<'a>(status: &'a str, key: &str) -> Result<&'a str, String> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .ok_or_else(|| format!("no {key} in it"))
}

fn find_group(group: &str) -> Result<Gid, PrivilegeError> {
    let found = match group.parse::<u32>() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(group),
    };
    found
        .map_err(|error| PrivilegeError::Lookup(group.to_owned(), error.into()))?
        .map(|found| found.gid)
        .ok_or_else(|| PrivilegeError::UnknownGroup(group.to_owned()))
}

/// Raises the soft limit of open files to the hard one; every connection needs one. Gives the limit in force.
///
/// # Errors
/// Whatever `getrlimit` or `setrlimit` says; the old limit is then still in force.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= hard {
        return Ok(soft);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let by_name = Identity::find("root", None).unwrap();
        let by_number = Identity::find("0", Some("0")).unwrap();
        assert_eq!((by_name.uid, by_name.gid), (by_number.uid, by_number.gid));
    }

    #[test]
    fn unknown_names_say_which_key_is_wrong() {
        let user = Identity::find("no-such-user-here", None).unwrap_err();
        assert_eq!(
            user.to_string(),
            "node.user: there is no user `no-such-user-here` on this system"
        );
        let group = Identity::find("root", Some("no-such-group")).unwrap_err();
        assert_eq!(
            group.to_string(),
            "node.group: there is no group `no-such-group` on this system"
        );
    }

    #[test]
    fn becoming_root_is_refused_before_anything_changes() {
        let root = Identity::find("root", None).unwrap();
        assert!(matches!(root.assume(), Err(PrivilegeError::StillRoot(_))));
    }

    /// The kernel's view of a thread: one id that stayed root, or one capability that stayed, is a failure.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_kept_anything_is_noticed() {
        let me = Identity {
            name: "www".into(),
            uid: Uid::from_raw(33),
            gid: Gid::from_raw(33),
        };
        let status = |uid: &str, cap: &str| {
            format!("Name:\tx\nUid:\t{uid}\nGid:\t33\t33\t33\t33\nCapPrm:\t{cap}\nCapEff:\t{cap}\n")
        };
        let none = "0000000000000000";
        assert_eq!(me.verify_status(&status("33\t33\t33\t33", none)), Ok(()));
        assert!(me.verify_status(&status("33\t33\t0\t33", none)).is_err());
        assert!(
            me.verify_status(&status("33\t33\t33\t33", "0000000000000400"))
                .is_err()
        );
        assert!(me.verify_status("Uid:\t33\n").is_err());
    }

    #[test]
    fn the_limit_of_open_files_reaches_the_hard_one() {
        let raised = raise_open_files().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((soft, hard), (raised, raised));
    }
}
