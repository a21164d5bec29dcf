//! The memory and disk space of the nodes, and how much of what was added for keys remains after
//! they are deleted.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::nodes::Cluster;

const POLL_INTERVAL: Duration = Duration::from_secs(1);
const STATUS_TRIES_MAX: usize = 20;

/// The footprint of one node, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    /// As counted by the allocator.
    live: u64,
    resident: u64,
    disk: u64,
}

/// The largest allowed remainder, in per cent of what was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    pub live: u64,
    pub resident: u64,
    pub disk: u64,
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let (live, resident, disk) = (mb(self.live), mb(self.resident), mb(self.disk));
        write!(f, "{live:.0}/{resident:.0}/{disk:.0}")
    }
}

/// Live memory, resident memory and disk space of each node, in MB.
pub fn show(all: &[Footprint]) -> String {
    let shown: Vec<String> = all.iter().map(Footprint::to_string).collect();
    format!("MB {}", shown.join(" "))
}

pub fn measure(cluster: &Cluster) -> Result<Vec<Footprint>> {
    (0..cluster.count()).map(|node| of(cluster, node)).collect()
}

fn of(cluster: &Cluster, node: usize) -> Result<Footprint> {
    // A busy node may answer late.
    let mut tries = (0..STATUS_TRIES_MAX).map(|_| cluster.status(node));
    let status = tries.find_map(|status| status);
    let status = status.with_context(|| format!("node {node} does not answer"))?;
    Ok(Footprint {
        live: status.memory_live_bytes,
        resident: resident_bytes(cluster.process_id(node))?,
        disk: disk_bytes(&cluster.data_directory(node))?,
    })
}

fn resident_bytes(process: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kb.context("no resident memory")?.parse::<u64>()? * 1_024)
}

/// The allocated blocks of the whole directory.
fn disk_bytes(directory: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // Files may be removed during the traversal.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        bytes += match metadata.is_dir() {
            true => disk_bytes(&entry.path())?,
            false => metadata.blocks() * 512,
        };
    }
    Ok(bytes)
}

/// Waits until no node has more than the allowed remainder of what was added between the two
/// measurements.
pub fn wait_until_left(
    cluster: &Cluster,
    [before, full]: [&[Footprint]; 2],
    left: Left,
    within: Duration,
) -> Result<(Duration, Vec<Footprint>)> {
    let began = Instant::now();
    loop {
        let now = measure(cluster)?;
        let is_gone = |of: fn(&Footprint) -> u64, percent: u64| {
            let nodes = before.iter().zip(full).zip(&now);
            nodes.into_iter().all(|((before, full), now)| {
                let added = of(full).saturating_sub(of(before));
                100 * of(now).saturating_sub(of(before)) <= percent * added
            })
        };
        let took = began.elapsed();
        if is_gone(|f| f.live, left.live)
            && is_gone(|f| f.resident, left.resident)
            && is_gone(|f| f.disk, left.disk)
        {
            return Ok((took, now));
        }
        let (before, full, now) = (show(before), show(full), show(&now));
        let told = format!("before {before}; with all keys {full}; now {now}");
        ensure!(took < within, "more than {left:?} % is left: {told}");
        std::thread::sleep(POLL_INTERVAL);
    }
}
