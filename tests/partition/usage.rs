//! The machine's resources that the nodes use.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::nodes::Cluster;
use crate::record::Usage;

/// The unit of times in /proc/PID/stat, fixed by the kernel's interface.
const TICKS_PER_S: f64 = 100.0;

/// Measures while no other program communicates in this network namespace.
pub fn measure(cluster: &Cluster, ms: u64) -> Result<Usage> {
    let ticks = || -> Result<Vec<u64>> {
        let nodes = 0..cluster.count();
        nodes
            .map(|node| cpu_ticks(cluster.process_id(node)))
            .collect()
    };
    let began = Instant::now();
    let (ticks_before, bytes_before) = (ticks()?, loopback_bytes()?);
    std::thread::sleep(Duration::from_millis(ms));
    let seconds = began.elapsed().as_secs_f64();
    let (ticks_after, bytes_after) = (ticks()?, loopback_bytes()?);
    let used = ticks_before.iter().zip(&ticks_after);
    Ok(Usage {
        cpu_percent: used
            .map(|(before, after)| (after - before) as f64 / TICKS_PER_S / seconds * 100.0)
            .collect(),
        kb_per_s: (bytes_after - bytes_before) as f64 / 1e3 / seconds / cluster.count() as f64,
    })
}

fn cpu_ticks(process: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in front may contain spaces.
    let (_, fields) = text.rsplit_once(") ").context("a process's figures")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

/// Bytes sent over the loopback interface so far.
fn loopback_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/net/dev")?;
    let mut lines = text.lines().map(str::trim_start);
    let line = lines.find_map(|line| line.strip_prefix("lo:"));
    let bytes = line
        .context("no loopback interface")?
        .split_whitespace()
        .nth(8);
    Ok(bytes.context("no figure of bytes")?.parse()?)
}
