//! The system's figures about this process, by the names that Prometheus's libraries use.

/// Times in `/proc/self/stat` are in hundredths of a second, on all Linux machines.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessFigures {
    pub resident_bytes: Option<f64>,
    pub cpu_seconds: Option<f64>,
    pub open_files: Option<f64>,
    /// In seconds since 1970.
    pub started_seconds: Option<f64>,
}

pub fn read() -> ProcessFigures {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let machine = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let files = std::fs::read_dir("/proc/self/fd");
    ProcessFigures {
        resident_bytes: resident_bytes(&status),
        cpu_seconds: cpu_seconds(&stat),
        started_seconds: started_seconds(&stat, &machine),
        open_files: files.ok().map(|files| files.count() as f64),
    }
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024.0)
}

/// A field of `/proc/self/stat`, numbered from 1, in seconds. The second one, the name, is in
/// parentheses and may contain anything.
fn ticks(stat: &str, number: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks: f64 = fields.split(' ').nth(number - 3)?.parse().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

/// User and system time.
fn cpu_seconds(stat: &str) -> Option<f64> {
    Some(ticks(stat, 14)? + ticks(stat, 15)?)
}

/// The start of the process, computed from the start of the machine. The difference of two clock
/// readings would change with each computation.
fn started_seconds(stat: &str, machine: &str) -> Option<f64> {
    let line = machine.lines().find_map(|l| l.strip_prefix("btime "))?;
    Some(line.trim().parse::<f64>().ok()? + ticks(stat, 22)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_after_the_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 17 18 500";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(started_seconds(stat, "cpu 1\nbtime 1000\n"), Some(1_005.0));
        assert_eq!(cpu_seconds("7 (a) S 1"), None);
        let status = "Name:\ta\nVmRSS:\t     12 kB\n";
        assert_eq!(resident_bytes(status), Some(12_288.0));
        assert_eq!(resident_bytes(""), None);
    }

    #[test]
    fn this_process_has_memory_time_and_files() {
        let read = read();
        assert!(read.resident_bytes.is_some_and(|bytes| bytes > 1e5));
        assert!(read.open_files.is_some_and(|files| files >= 3.0));
        assert!(read.cpu_seconds.is_some());
        assert!(read.started_seconds.is_some_and(|seconds| seconds > 1.6e9));
    }
}
