//! What a process and its children have used, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// Processor time of a family of processes, in clock ticks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ticks {
    /// In the program.
    pub(crate) user: u64,
    /// In the kernel.
    pub(crate) system: u64,
}

/// Ticks per second: Linux's `USER_HZ`, fixed on every architecture that matters here.
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

/// The process and all that it started, directly or not.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&member) = family.get(next) {
        family.extend(
            parents
                .iter()
                .filter(|(_, parent)| *parent == member)
                .map(|(child, _)| *child),
        );
        next += 1;
    }
    family
}

/// Processor time that `family` has used so far. (A member that ended takes its part along: measure living ones.)
pub(crate) fn ticks(family: &[u32]) -> Result<Ticks> {
    let mut sum = Ticks::default();
    for pid in family {
        let fields = stat(*pid).with_context(|| format!("process {pid} is gone"))?;
        let field = |index: usize| fields.get(index).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        sum.user += field(11);
        sum.system += field(12);
    }
    Ok(sum)
}

/// Resident memory of `family` in KiB; memory that its members share counts once for each.
pub(crate) fn resident_kib(family: &[u32]) -> u64 {
    let of = |pid: &u32| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    family.iter().filter_map(of).sum()
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// The fields of `/proc/PID/stat` after the name, which may hold anything: state is 0, parent 1, user time 11.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}
