//! What the operating system says about this process, for metrics. Each figure is `None` where the system does
//! not tell.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

/// CPU time used since start, user and system together.
pub(crate) fn cpu_time() -> Option<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = |t: nix::sys::time::TimeVal| {
        let whole = u64::try_from(t.tv_sec()).unwrap_or(0).saturating_mul(1_000_000);
        whole.saturating_add(u64::try_from(t.tv_usec()).unwrap_or(0))
    };
    Some(Duration::from_micros(
        micros(usage.user_time()).saturating_add(micros(usage.system_time())),
    ))
}

/// Resident memory in bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    resident_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Open file descriptors.
pub(crate) fn open_files() -> Option<u64> {
    // Kernels from 6.2 on give the count as the size of the directory; older ones give 0.
    let told = std::fs::metadata("/proc/self/fd").ok()?.len();
    if told > 0 {
        return Some(told);
    }
    let counted = std::fs::read_dir("/proc/self/fd").ok()?.count();
    // Less the one that reads the directory.
    u64::try_from(counted.saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            resident_of("Name:\tx\nVmRSS:\t    1234 kB\nVmData:\t 1 kB\n"),
            Some(1234 * 1024)
        );
        assert_eq!(resident_of("Name:\tx\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn every_figure_is_there_on_linux_and_open_files_follow_what_is_opened() {
        assert!(cpu_time().is_some());
        assert!(resident_bytes().unwrap() > 100 * 1024);
        let held: Vec<_> = (0..64)
            .map(|_| std::fs::File::open("/proc/self/status").unwrap())
            .collect();
        assert!(open_files().unwrap() >= held.len() as u64);
    }
}
