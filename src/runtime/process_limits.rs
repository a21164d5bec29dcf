//! The limits that the system sets this process: open files, the size of a file, memory.

use std::io;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, Signal};

/// The number of open files that a node asks for, if that is allowed: for sockets, and for the
/// store's log and checkpoint.
const FILES_WANTED: u64 = 1_024;
/// What a node with a store needs at its peak, during a checkpoint.
pub const FILES_MIN: u64 = 256;

/// Turns a write beyond the allowed size of a file into an error like any other, which is logged
/// with a count and reported by the store, instead of a signal that ends the process. Threads that
/// start later inherit this.
pub fn block_file_size_signal() -> io::Result<()> {
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGXFSZ);
    blocked.thread_block()?;
    Ok(())
}

/// Raises the number of files that may be open, up to `FILES_WANTED` and the hard limit. Returns
/// the number then allowed.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = FILES_WANTED.min(hard);
    if soft >= wanted {
        return Ok(soft);
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    Ok(wanted)
}

/// How much more memory the process may map, in bytes, by its own limits. `None`: they set no
/// bound.
pub fn memory_left() -> Option<u64> {
    let limits = [
        (Resource::RLIMIT_AS, "VmSize:"),
        (Resource::RLIMIT_DATA, "VmData:"),
    ];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let left = |(resource, field)| {
        let (soft, _) = getrlimit(resource).ok()?;
        let is_bound = soft < rlim_t::MAX;
        is_bound.then(|| soft.saturating_sub(mapped(&status, field).unwrap_or(0)))
    };
    limits.into_iter().filter_map(left).min()
}

/// A field of `/proc/self/status`, in bytes.
fn mapped(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mapped_is_read() {
        let status = "Name:\thorseshoe\nVmPeak:\t  9 kB\nVmSize:\t  292864 kB\nVmData:\t 12 kB\n";
        assert_eq!(mapped(status, "VmSize:"), Some(292_864 * 1_024));
        assert_eq!(mapped(status, "VmLck:"), None);
    }
}
