//! The programs that tests and benchmarks use: found, installed where that is possible, or named exactly.

use anyhow::{Context, Result, bail};

use crate::process::{command, find, succeeds};

/// A program and the Debian package that brings it.
pub(crate) struct Tool {
    /// Name of the program.
    pub(crate) program: &'static str,
    /// Debian package.
    pub(crate) package: &'static str,
    /// What it is for.
    pub(crate) purpose: &'static str,
}

/// What `cargo xtask test` needs.
pub(crate) const FOR_TESTS: &[Tool] = &[
    Tool {
        program: "nginx",
        package: "nginx",
        purpose: "backend servers of the end-to-end tests",
    },
    Tool {
        program: "python3",
        package: "python3",
        purpose: "backend servers of the end-to-end tests",
    },
    Tool {
        program: "curl",
        package: "curl",
        purpose: "a client that was not written here",
    },
    Tool {
        program: "h2load",
        package: "nghttp2-client",
        purpose: "many streams of HTTP/2 at once",
    },
    Tool {
        program: "openssl",
        package: "openssl",
        purpose: "a TLS client that was not written here, and OCSP responses",
    },
    Tool {
        program: "pebble",
        package: "pebble",
        purpose: "an ACME authority",
    },
    Tool {
        program: "etcd",
        package: "etcd-server",
        purpose: "the store of a cluster",
    },
    Tool {
        program: "etcdctl",
        package: "etcd-client",
        purpose: "users and another client of that store",
    },
    Tool {
        program: "prometheus-alertmanager",
        package: "prometheus-alertmanager",
        purpose: "a receiver of alerts",
    },
    Tool {
        program: "redis-server",
        package: "redis-server",
        purpose: "hints between the nodes of a cluster",
    },
    Tool {
        program: "redis-cli",
        package: "redis-tools",
        purpose: "another client of that server",
    },
    Tool {
        program: "knotd",
        package: "knot",
        purpose: "a name server",
    },
    Tool {
        program: "valgrind",
        package: "valgrind",
        purpose: "instruction counts",
    },
];

/// What `cargo xtask bench` needs; Envoy and Caddy come on top, from PyPI.
pub(crate) const FOR_BENCH: &[Tool] = &[
    Tool {
        program: "nginx",
        package: "nginx",
        purpose: "origin servers, and a peer",
    },
    Tool {
        program: "haproxy",
        package: "haproxy",
        purpose: "a peer",
    },
    Tool {
        program: "wrk",
        package: "wrk",
        purpose: "load",
    },
    Tool {
        program: "h2load",
        package: "nghttp2-client",
        purpose: "load at a fixed rate",
    },
    Tool {
        program: "openssl",
        package: "openssl",
        purpose: "certificates",
    },
    Tool {
        program: "curl",
        package: "curl",
        purpose: "a request over TLS",
    },
    Tool {
        program: "taskset",
        package: "util-linux",
        purpose: "pinning to cores",
    },
    Tool {
        program: "python3",
        package: "python3-venv",
        purpose: "installing Envoy and Caddy",
    },
    Tool {
        program: "etcd",
        package: "etcd-server",
        purpose: "the store of a cluster",
    },
    Tool {
        program: "knotd",
        package: "knot",
        purpose: "a name server",
    },
];

/// Finds `tools`; installs what is missing when `install` is set and we are root on Debian.
///
/// # Errors
/// Names every program that is still missing, with the command that brings it.
pub(crate) fn provide(tools: &[Tool], install: bool) -> Result<()> {
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|t| t.package).collect();
    if install && is_root()? && find("apt-get").is_some() {
        apt_install(&packages)?;
    }
    let still = self::missing(tools);
    if still.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = still
        .iter()
        .map(|t| format!("  {} ({}; Debian package {})", t.program, t.purpose, t.package))
        .collect();
    bail!(
        "missing programs:\n{}\nas root: apt-get install -y {}",
        list.join("\n"),
        packages.join(" ")
    );
}

/// Where the Python with the peers from PyPI stands, below the root of the project.
const PYTHON: &str = "target/test-venv";
/// What is installed there.
const PYTHON_PACKAGES: &str = include_str!("../python.txt");

/// Installs the peers from PyPI into an environment of their own, unless exactly they are there.
///
/// # Errors
/// When they cannot be installed, or are missing and `install` is not set.
pub(crate) fn provide_python(install: bool) -> Result<()> {
    let venv = crate::process::root().join(PYTHON);
    let stamp = venv.join("packages.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|there| there == PYTHON_PACKAGES) {
        return Ok(());
    }
    if !install {
        bail!("missing Python packages in {PYTHON}: run `cargo xtask tools`");
    }
    eprintln!("   installing peers from PyPI");
    let place = venv.to_string_lossy();
    if !succeeds(&mut command("python3", &["-m", "venv", "--clear", &place]))? {
        bail!("python3 -m venv failed; as root: apt-get install -y python3-venv");
    }
    let pip = venv.join("bin/pip").to_string_lossy().into_owned();
    let list = venv.join("wanted.txt");
    std::fs::write(&list, PYTHON_PACKAGES)?;
    let list = list.to_string_lossy();
    let arguments = ["install", "--quiet", "--disable-pip-version-check", "-r", &list];
    if !succeeds(&mut command(&pip, &arguments))? {
        bail!("pip could not install the packages of xtask/python.txt: is there a network?");
    }
    std::fs::write(&stamp, PYTHON_PACKAGES)?;
    Ok(())
}

/// Those of `tools` that are not there.
fn missing(tools: &[Tool]) -> Vec<&Tool> {
    tools.iter().filter(|tool| find(tool.program).is_none()).collect()
}

/// Whether we may install packages.
fn is_root() -> Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status").context("cannot tell the user: no /proc")?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    Ok(uid.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0"))
}

/// Installs Debian packages without a question, without starting a service, waiting for another installer's lock.
/// The package lists are fetched only when the ones at hand do not do.
fn apt_install(packages: &[&str]) -> Result<()> {
    eprintln!("   installing {}", packages.join(" "));
    let install = || -> Result<bool> {
        let mut apt = apt();
        apt.args(["install", "--yes", "--no-install-recommends"])
            .args(packages);
        succeeds(&mut apt)
    };
    if install()? {
        return Ok(());
    }
    eprintln!("   once more with fresh package lists");
    if !succeeds(apt().arg("update"))? {
        bail!("apt-get update failed: is there a network?");
    }
    if !install()? {
        bail!("apt-get could not install {}", packages.join(" "));
    }
    Ok(())
}

fn apt() -> std::process::Command {
    let mut apt = command(
        "apt-get",
        &["-qq", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"],
    );
    // A package's service must not start: RUNLEVEL is what invoke-rc.d goes by.
    apt.env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1")
        .stdin(std::process::Stdio::null());
    apt
}

/// Whether `cargo NAME` exists.
pub(crate) fn has_cargo_command(name: &str) -> bool {
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|h| std::path::Path::new(&h).join(".cargo")));
    let program = format!("cargo-{name}");
    find(&program).is_some() || home.is_some_and(|home| home.join("bin").join(program).is_file())
}
