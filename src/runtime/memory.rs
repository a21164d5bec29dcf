//! How much memory a node may use, and whether it exceeds that.
//!
//! The measure is what is allocated, in all threads. The bound is a part of what the machine, or
//! the control group of the process, allows: the rest is for memory that is allocated but not
//! reusable at once, for rounds and copies in progress, which are not refused, and for the system.

use std::path::{Path, PathBuf};

use super::process_limits;

/// The default bound, in per cent of what is available.
const SHARE_PERCENT: u64 = 60;
/// A full node stops being full once this fraction (1/32) of the bound is free.
const FREE_PART: u64 = 32;

/// Reading the memory in use takes some tens of microseconds. It is read at most this often, ...
const LOOK_INTERVAL_MIN_US: u64 = 25_000;
/// ... and at least this often. In between, it is read before the memory could be full, ...
const LOOK_INTERVAL_MAX_US: u64 = 250_000;
/// ... if the memory in use grows by no more bytes than this in a microsecond: 1 GB in a second.
const GROWTH_MAX: u64 = 1_000;

/// Whether a node is full, with hysteresis.
#[derive(Debug)]
pub struct Gauge {
    max: u64,
    is_full: bool,
    /// When the memory in use is read next.
    look_us: u64,
}

impl Gauge {
    pub fn new(max: u64) -> Self {
        Gauge {
            max,
            is_full: false,
            look_us: 0,
        }
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    pub fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether the node is full, if that changed.
    pub fn look(&mut self, now_us: u64, live: impl FnOnce() -> u64) -> Option<bool> {
        if now_us < self.look_us {
            return None;
        }
        let live = live();
        let left_us = self.max.saturating_sub(live) / GROWTH_MAX;
        self.look_us = now_us + left_us.clamp(LOOK_INTERVAL_MIN_US, LOOK_INTERVAL_MAX_US);
        self.judge(live)
    }

    fn judge(&mut self, live: u64) -> Option<bool> {
        let is_full = match self.is_full {
            true => live >= self.max - self.max / FREE_PART,
            false => live >= self.max,
        };
        (is_full != std::mem::replace(&mut self.is_full, is_full)).then_some(is_full)
    }
}

/// The default bound: a share of the machine's memory, of what its control group allows, or of what
/// the process's own limits (`ulimit -v`) leave, whichever is least. No bound if none can be read.
pub fn share() -> u64 {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total_of(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = limit_files(&groups).into_iter();
    let limits = limits.filter_map(|path| read(&path)?.trim().parse::<u64>().ok());
    let least = limits
        .chain(machine)
        .chain(process_limits::memory_left())
        .min();
    least.map_or(u64::MAX, |bytes| bytes / 100 * SHARE_PERCENT)
}

/// The total in `/proc/meminfo`, in bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// The files with the limits of the process's control groups, and of the groups around them,
/// according to `/proc/self/cgroup`: of version 2 and of version 1. In a container the path may be
/// one of the host, which does not exist there; then the outermost group is the container's own.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|c| c == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for around in Path::new(path).ancestors() {
            let inside = around.strip_prefix("/").unwrap_or(around);
            files.push(Path::new(root).join(inside).join(name));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    #[test]
    fn full_and_not_full_are_apart() {
        let mut gauge = Gauge::new(3_200);
        assert_eq!(gauge.judge(3_199), None);
        assert_eq!(gauge.judge(3_200), Some(true));
        assert_eq!(gauge.judge(3_100), None);
        assert_eq!(gauge.judge(3_099), Some(false));
        assert_eq!(gauge.judge(3_150), None);
        assert_eq!(Gauge::new(u64::MAX).judge(1 << 60), None);
    }

    /// Nothing that grows at the assumed rate is full before the next look.
    #[test]
    fn the_memory_in_use_is_read_the_more_often_the_less_is_left() {
        for (live, after_us) in [
            (0, LOOK_INTERVAL_MAX_US),
            (900 * MB, 100_000),
            (999 * MB, LOOK_INTERVAL_MIN_US),
            (1_000 * MB, LOOK_INTERVAL_MIN_US),
            (2_000 * MB, LOOK_INTERVAL_MIN_US),
        ] {
            let mut gauge = Gauge::new(1_000 * MB);
            let is_full = live >= 1_000 * MB;
            assert_eq!(gauge.look(7, || live), is_full.then_some(true));
            let soon_us = 7 + after_us - 1;
            assert_eq!(gauge.look(soon_us, || unreachable!("too soon")), None);
            assert_eq!(gauge.look(soon_us + 1, || 0), is_full.then_some(false));
        }
    }

    #[test]
    fn the_machine_and_control_groups_of_both_versions_are_asked() {
        let meminfo = "MemTotal:       24505528 kB\nMemFree:         1 kB\n";
        assert_eq!(total_of(meminfo), Some(24_505_528 * 1_024));
        assert_eq!(total_of("MemFree: 1 kB"), None);
        let files = |groups| {
            let files = limit_files(groups).into_iter();
            let files: Vec<String> = files.map(|p| p.display().to_string()).collect();
            files
        };
        assert_eq!(
            files("0::/a/b\n"),
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(
            files("12:cpu,cpuacct:/c\n7:memory:/c\n"),
            [
                "/sys/fs/cgroup/memory/c/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        assert_eq!(files("nonsense"), [""; 0]);
        assert!(share() > 1 << 20);
    }
}
