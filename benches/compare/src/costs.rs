//! What the nodes take while they serve: processor time, packets, memory, disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const INTERVAL: Duration = Duration::from_millis(50);
/// The unit of the processor times in /proc.
const TICKS_PER_SECOND: f64 = 100.0;
/// The end of a load is not known more exactly than this.
const END_UNKNOWN: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    cpu_ticks: u64,
    packets: u64,
}

/// Samples the nodes' processor time and the machine's packets until it is stopped.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

/// Per second of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub cpu_seconds: f64,
    /// Sent by all processes, clients among them.
    pub packets: f64,
}

impl Sampler {
    pub fn start(processes: Vec<u32>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                samples.push(Sample {
                    at: Instant::now(),
                    cpu_ticks: processes.iter().map(|pid| cpu_ticks(*pid)).sum(),
                    packets: packets(),
                });
                std::thread::sleep(INTERVAL);
            }
            samples
        });
        Sampler { stop, thread }
    }

    /// The rates over the last part of a load of that length, which has just ended.
    pub fn rates(self, duration: Duration) -> Result<Rates> {
        let end = Instant::now() - END_UNKNOWN;
        let begin = Instant::now() - duration;
        self.stop.store(true, Ordering::Relaxed);
        let samples = self.thread.join().expect("the sampler does not panic");
        let within = |sample: &&Sample| sample.at >= begin && sample.at <= end;
        let first = samples.iter().find(within);
        let last = samples.iter().rfind(within);
        let (first, last) = first.zip(last).context("the load was too short")?;
        let seconds = (last.at - first.at).as_secs_f64();
        Ok(Rates {
            cpu_seconds: (last.cpu_ticks - first.cpu_ticks) as f64 / TICKS_PER_SECOND / seconds,
            packets: (last.packets - first.packets) as f64 / seconds,
        })
    }
}

/// User and system time of a process, in ticks.
fn cpu_ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may contain spaces.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let fields = fields.split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// UDP datagrams and TCP segments that were sent in this network namespace.
fn packets() -> u64 {
    let text = fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let count = |protocol: &str, field: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(protocol));
        let (names, values) = lines.next().zip(lines.next())?;
        let at = names.split_whitespace().position(|name| name == field)?;
        values.split_whitespace().nth(at)?.parse::<u64>().ok()
    };
    count("Udp:", "OutDatagrams").unwrap_or(0) + count("Tcp:", "OutSegs").unwrap_or(0)
}

/// The system calls of the processes during one second; `None` where `perf` cannot count them.
pub fn system_calls(processes: &[u32]) -> Option<f64> {
    let pids: Vec<String> = processes.iter().map(u32::to_string).collect();
    let output = Command::new("perf")
        .args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p"])
        .args([&pids.join(","), "sleep", "1"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stderr).ok()?;
    let line = text.lines().find(|line| line.contains("sys_enter"))?;
    line.split(',').next()?.parse().ok()
}

/// The resident memory of a process, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: u64 = kilobytes.context("no VmRSS")?.parse()?;
    Ok(kilobytes * 1_024)
}

/// The space that a directory takes on its disk, in bytes.
pub fn disk_size(directory: &Path) -> Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // A file may be deleted meanwhile.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        size += match metadata.is_dir() {
            true => disk_size(&entry.path())?,
            false => metadata.blocks() * 512,
        };
    }
    Ok(size)
}
